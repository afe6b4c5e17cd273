//! How far a backend has been filled for which the log begins too late: it is given all rows, page by
//! page, and then the log from where that began. What has changed meanwhile comes again, and merges
//! to the same.
//!
//! The fill of an empty backend that broke off goes on from there, for as long as the gateway is open
//! and the log has what came since: a large one over a bad connection would never end otherwise. Of a
//! backend that held rows nobody can tell which of them a database that was put back has lost again.

use std::collections::BTreeMap;

use lakesync::adapter::Adapter;
use lakesync::name::{LogId, Position, RowId, TableName};

use super::Failure;
use crate::gateway::Gateway;

/// How far one fill has come.
#[derive(Debug)]
pub(super) struct Fill {
    log: LogId,
    /// Where the log was when it began.
    pub(super) start: Position,
    /// How many changes the log had been given by then.
    pub(super) changes: u64,
    /// Whether the backend held no row then. What it holds has come from here, and page by page: if
    /// it has the last row of a table, it has those before it.
    was_empty: bool,
    /// The last row of each table that was written.
    last: BTreeMap<TableName, RowId>,
}

impl Fill {
    /// One that begins now.
    pub(super) async fn new(gateway: &Gateway, adapter: &dyn Adapter) -> Result<Self, Failure> {
        let (changes, _) = gateway.growth().total();
        let (log, start) = (gateway.record().log_id, gateway.head()?);
        let mut was_empty = true;
        for table in gateway.schema().tables() {
            was_empty = was_empty && adapter.rows(&table.table, None, 1).await?.is_empty();
        }
        Ok(Self { log, start, changes, was_empty, last: BTreeMap::new() })
    }

    /// Whether the log still has all that came since, and the backend what it was given: somebody may
    /// have emptied it.
    pub(super) async fn goes_on(
        &self,
        gateway: &Gateway,
        adapter: &dyn Adapter,
    ) -> Result<bool, Failure> {
        if self.log != gateway.record().log_id || self.start < gateway.trimmed() {
            return Ok(false);
        }
        let mut has_all = self.was_empty;
        for (table, row_id) in &self.last {
            let row_id = std::slice::from_ref(row_id);
            has_all = has_all && !adapter.find(table, row_id).await?.is_empty();
        }
        Ok(has_all)
    }

    /// Where to go on in a table; nothing if all of it is there.
    pub(super) fn after(&self, table: &TableName) -> Option<Option<RowId>> {
        match self.last.last_key_value() {
            Some((last, _)) if table < last => None,
            _ => Some(self.last.get(table).cloned()),
        }
    }

    /// Remembers the last row that was written.
    pub(super) fn came_to(&mut self, table: &TableName, row_id: RowId) {
        self.last.insert(table.clone(), row_id);
    }
}

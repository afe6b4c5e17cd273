//! How far a backend has been filled for which the log begins too late: it is given all rows, page by
//! page, and then the log from where that began. What has changed meanwhile comes again, and merges
//! to the same.
//!
//! A fill that broke off goes on from there: a large one over a bad connection would never end
//! otherwise.

use lakesync::adapter::Adapter;
use lakesync::name::{LogId, Position, RowId, TableName};

use super::Failure;
use crate::gateway::Gateway;

#[derive(Debug)]
pub(super) struct Fill {
    log: LogId,
    /// Where the log was when it began.
    pub(super) start: Position,
    /// How many changes the log had been given by then.
    pub(super) changes: u64,
    /// The last row that was written.
    last: Option<(TableName, RowId)>,
}

impl Fill {
    /// One that begins now.
    pub(super) fn new(gateway: &Gateway) -> Result<Self, Failure> {
        let (changes, _) = gateway.growth().total();
        Ok(Self { log: gateway.record().log_id, start: gateway.head()?, changes, last: None })
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
        let Some((table, row_id)) = &self.last else { return Ok(true) };
        let found = adapter.find(table, std::slice::from_ref(row_id)).await?;
        Ok(!found.is_empty())
    }

    /// Where to go on in a table; nothing if all of it is there.
    pub(super) fn after(&self, table: &TableName) -> Option<Option<RowId>> {
        match &self.last {
            Some((last, _)) if table < last => None,
            Some((last, row_id)) if table == last => Some(Some(row_id.clone())),
            _ => Some(None),
        }
    }

    /// Remembers the last row that was written.
    pub(super) fn came_to(&mut self, table: &TableName, row_id: RowId) {
        self.last = Some((table.clone(), row_id));
    }
}

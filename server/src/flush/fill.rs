//! Filling a backend for which the log begins too late: its rows are made those of the gateway, page by
//! page, and then it is given the log from where that began.
//!
//! Each page compares the gateway's rows with the backend's, in the order of their ids. Only what
//! differs is written, and rows go that the gateway has deleted, even if it has forgotten the delete.
//!
//! Pushes go on meanwhile. The flusher fills a backend itself, so nothing of this gateway is flushed
//! there until it is done, and calls from before have ended: a fence sees to that. So what the
//! backend holds is older than the gateway's row, and a row that is pushed after its page was read is
//! brought by the log, whatever was done with it here.
//!
//! The fill of an empty backend that broke off goes on from there, for as long as the gateway is open
//! and the log has what came since: a large one over a bad connection would never end otherwise. A
//! backend that held rows is compared from the start, for it may have been put back meanwhile.

use std::collections::{BTreeMap, VecDeque};

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;
use lakesync_adapters::pace::Pace;

use super::Failure;
use super::reconcile::{Pair, Verdict, judge};
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
    /// What was done.
    pub(super) tally: Tally,
}

/// How many rows a fill has written, and how many it has taken out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) written: usize,
    pub(super) removed: usize,
}

impl Fill {
    /// One that begins now, of a backend that is prepared for the tables of `schema`.
    pub(super) async fn new(
        gateway: &Gateway,
        adapter: &dyn Adapter,
        schema: &Schema,
    ) -> Result<Self, Failure> {
        let (changes, _) = gateway.growth().total();
        let (log, start) = (gateway.record().log_id, gateway.head()?);
        let mut was_empty = true;
        for table in schema.tables() {
            was_empty = was_empty && adapter.rows(&table.table, None, 1).await?.is_empty();
        }
        let (last, tally) = Default::default();
        Ok(Self { log, start, changes, was_empty, last, tally })
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

/// A backend's rows of a table, in the order of their ids.
pub(super) struct Held<'a> {
    adapter: &'a dyn Adapter,
    table: &'a TableName,
    /// The last row that was read.
    after: Option<RowId>,
    /// Rows that were read and not handed out.
    page: VecDeque<(RowId, Row)>,
    pace: Pace,
    is_read: bool,
}

impl<'a> Held<'a> {
    /// The rows after `after`.
    pub(super) fn of(adapter: &'a dyn Adapter, table: &'a TableName, after: Option<RowId>) -> Self {
        let (page, pace, is_read) = Default::default();
        Self { adapter, table, after, page, pace, is_read }
    }

    /// The table.
    pub(super) fn table(&self) -> &'a TableName {
        self.table
    }

    /// Some more rows, none of them after `last` if that is given; and whether there are no more of
    /// those.
    pub(super) async fn next(
        &mut self,
        last: Option<&RowId>,
    ) -> Result<(Vec<(RowId, Row)>, bool), AdapterError> {
        if self.page.is_empty() && !self.is_read {
            let (after, count) = (self.after.as_ref(), self.pace.count());
            let page = self.adapter.rows(self.table, after, count).await?;
            let size = |(row_id, row): &(RowId, Row)| row_id.as_str().len() + row.size();
            self.pace.took(page.len(), page.iter().map(size).sum());
            match page.last() {
                Some((row_id, _)) => self.after = Some(row_id.clone()),
                None => self.is_read = true,
            }
            self.page = page.into();
        }
        let count = match last {
            Some(last) => self.page.partition_point(|(row_id, _)| row_id <= last),
            None => self.page.len(),
        };
        let rows = self.page.drain(..count).collect();
        Ok((rows, self.is_read || !self.page.is_empty()))
    }
}

/// Takes those of the gateway's rows that stand beside some rows of the backend's: up to the last of
/// these, or all if the backend has no more.
pub(super) fn beside<'r>(
    rest: &mut &'r [(RowId, Row)],
    theirs: &[(RowId, Row)],
    is_all: bool,
) -> &'r [(RowId, Row)] {
    let count = match theirs.last() {
        _ if is_all => rest.len(),
        Some((end, _)) => rest.partition_point(|(row_id, _)| row_id <= end),
        None => 0,
    };
    let (own, later) = rest.split_at(count);
    *rest = later;
    own
}

/// Makes the backend's rows those of the gateway.
pub(super) async fn level(
    adapter: &dyn Adapter,
    table: &TableName,
    pairs: &[Pair<'_>],
    gateway: &Gateway,
) -> Result<Tally, AdapterError> {
    // Read after the gateway's rows: what they lack was forgotten before they were read.
    let forgotten = gateway.forgotten();
    let (mut joined, mut replaced) = (Vec::new(), Vec::new());
    for (row_id, wanted, held) in pairs {
        match (judge(*wanted, *held, forgotten), wanted) {
            (Verdict::Same, _) | (Verdict::Beyond, None) => {}
            (Verdict::Behind | Verdict::Beyond, Some(row)) => {
                joined.push(((*row_id).clone(), (*row).clone()));
            }
            (Verdict::Behind | Verdict::Outdated, wanted) => {
                replaced.push(((*row_id).clone(), wanted.cloned()));
            }
        }
    }
    let removed = replaced.iter().filter(|(_, row)| row.is_none()).count();
    if !joined.is_empty() {
        adapter.join(table, &joined).await?;
    }
    if !replaced.is_empty() {
        adapter.overwrite(table, &replaced).await?;
    }
    Ok(Tally { written: joined.len() + replaced.len() - removed, removed })
}

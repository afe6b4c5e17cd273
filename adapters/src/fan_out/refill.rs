//! Giving a follower all that the primary has, page by page, while batches go on to come.
//!
//! The primary's watermarks are read first, and the follower's are moved there last. What comes
//! meanwhile is joined, for rows converge in any order: so one pass is enough, and until it is over
//! the follower's watermarks say that it is not. A restart begins again.

use std::collections::{BTreeMap, HashSet};

use lakesync::adapter::{Adapter, AdapterError, Batch, Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;

use super::moved::level;
use super::{MARKS, Patience};
use crate::pace::{self, Pace};

/// One pass.
pub(super) struct Refill {
    /// How far in each log the follower will have come.
    covered: BTreeMap<LogId, Position>,
    /// The tables still to be done; the last one is next.
    tables: Vec<TableName>,
    part: Part,
    pace: Pace,
}

/// What of a table is copied, then of the history.
enum Part {
    /// The primary's rows.
    Rows(Option<RowId>),
    /// The follower's, to let go of those that the primary has let go of.
    Others(Option<RowId>),
    History(Option<Place>),
    /// The watermarks, when all the rest is there.
    Watermarks,
}

/// How much of it the follower has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Some,
    All,
}

impl Refill {
    pub(super) async fn begin(
        primary: &dyn Adapter,
        patience: Patience,
    ) -> Result<Self, AdapterError> {
        let mut covered = BTreeMap::new();
        for log in patience.wait(primary.logs()).await?.into_iter().chain([MARKS]) {
            covered.insert(log, patience.wait(primary.watermark(log)).await?);
        }
        let schema = patience.wait(primary.schema()).await?;
        let tables = schema.tables().map(|table| table.table.clone()).collect();
        Ok(Self { covered, tables, part: Part::Rows(None), pace: Pace::default() })
    }

    /// Leaves the marks after `before` to what is on its way: the primary may not have done yet what
    /// they stand for, and this would not see it.
    pub(super) fn leave_out_after(&mut self, before: Position) {
        let marks = self.covered.entry(MARKS).or_default();
        *marks = before.min(*marks);
    }

    /// Takes the mark after `before`. False if it does not connect: then the pass is for nothing.
    pub(super) fn take_mark(&mut self, before: Position) -> bool {
        let marks = self.covered.entry(MARKS).or_default();
        let connects = before <= *marks;
        if connects {
            *marks = before.next().max(*marks);
        }
        connects
    }

    /// Takes what comes meanwhile. False if it does not connect: then the pass is for nothing.
    pub(super) async fn absorb(
        &mut self,
        batch: &Batch,
        follower: &dyn Adapter,
        patience: Patience,
    ) -> Result<bool, AdapterError> {
        let covered = self.covered.entry(batch.log()).or_default();
        if covered.next() < batch.first() {
            return Ok(false);
        }
        let mut tables: BTreeMap<&TableName, BTreeMap<&RowId, Row>> = BTreeMap::new();
        let mut changes = Vec::new();
        for (place, delta) in batch.changes_after(*covered) {
            tables.entry(&delta.table).or_default().entry(&delta.row_id).or_default().merge(delta);
            changes.push(Change { place, delta: delta.clone() });
        }
        for (table, rows) in tables {
            let rows: Vec<_> = rows.into_iter().map(|(id, row)| (id.clone(), row)).collect();
            patience.wait(follower.join(table, &rows)).await?;
        }
        if !changes.is_empty() {
            patience.wait(follower.record(&changes)).await?;
        }
        *covered = batch.last().max(*covered);
        Ok(true)
    }

    /// Copies the next page.
    pub(super) async fn step(
        &mut self,
        primary: &dyn Adapter,
        follower: &dyn Adapter,
        patience: Patience,
    ) -> Result<Filled, AdapterError> {
        let count = self.pace.count();
        match (&self.part, self.tables.last()) {
            (Part::Rows(after), Some(table)) => {
                if after.is_none() {
                    // Calls that were given up may still be at work in either backend.
                    patience.wait(primary.fence()).await?;
                    patience.wait(follower.fence()).await?;
                }
                let page = patience.wait(primary.rows(table, after.as_ref(), count)).await?;
                let Some((last, _)) = page.last().cloned() else {
                    // So it is with the calls of this pass, before all of the follower is looked at.
                    patience.wait(follower.fence()).await?;
                    self.part = Part::Others(None);
                    return Ok(Filled::Some);
                };
                self.pace.took(page.len(), size(&page));
                let row_ids: Vec<_> = page.iter().map(|(row_id, _)| row_id.clone()).collect();
                level(follower, table, &row_ids, page, patience).await?;
                self.part = Part::Rows(Some(last));
            }
            (Part::Others(after), Some(table)) => {
                let mut page = patience.wait(follower.rows(table, after.as_ref(), count)).await?;
                let Some((last, _)) = page.last().cloned() else {
                    self.tables.pop();
                    self.part = Part::Rows(None);
                    return Ok(Filled::Some);
                };
                self.pace.took(page.len(), size(&page));
                let row_ids: Vec<_> = page.iter().map(|(row_id, _)| row_id.clone()).collect();
                let known = patience.wait(primary.find(table, &row_ids)).await?;
                let known: HashSet<_> = known.into_iter().map(|(row_id, _)| row_id).collect();
                page.retain(|(row_id, _)| !known.contains(row_id));
                if !page.is_empty() {
                    patience.wait(follower.forget(table, &page)).await?;
                }
                self.part = Part::Others(Some(last));
            }
            (Part::Rows(_) | Part::Others(_), None) => self.part = Part::History(None),
            (Part::History(after), _) => {
                let page = patience.wait(primary.history(after.as_ref(), count)).await?;
                let Some(last) = page.last().map(|change| change.place) else {
                    self.part = Part::Watermarks;
                    return Ok(Filled::Some);
                };
                patience.wait(follower.record(&page)).await?;
                self.pace.took(page.len(), page.iter().map(|c| pace::size(&c.delta)).sum());
                self.part = Part::History(Some(last));
            }
            (Part::Watermarks, _) => {
                self.finish(follower, patience).await?;
                return Ok(Filled::All);
            }
        }
        Ok(Filled::Some)
    }

    /// From here on, batches connect again.
    async fn finish(&self, follower: &dyn Adapter, patience: Patience) -> Result<(), AdapterError> {
        for (log, position) in self.covered.iter().filter(|(_, at)| **at != Position::START) {
            let all = Batch::new(*log, Position::START.next(), *position, Vec::new());
            let all = all.expect("BUG: from the first position to a later one");
            patience.wait(follower.write(&all)).await?;
        }
        Ok(())
    }
}

fn size(rows: &[(RowId, Row)]) -> usize {
    rows.iter().map(|(row_id, row)| row_id.as_str().len() + row.size()).sum()
}

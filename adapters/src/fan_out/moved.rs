//! What the primary was given, or has let go of, without a batch: a follower looks at it there.

use std::collections::HashSet;

use lakesync::adapter::{Adapter, AdapterError, Change};
use lakesync::name::{RowId, TableName};
use lakesync::row::Row;

use super::Patience;

/// What came or went. For how many followers ever, it is there once.
#[derive(Debug)]
pub(super) enum Moved {
    /// Rows that the primary was given or has let go of.
    Rows(TableName, Vec<RowId>),
    /// Changes of its history.
    Changes(Vec<Change>),
}

impl Moved {
    pub(super) fn rows(table: &TableName, rows: &[(RowId, Row)]) -> Self {
        Self::Rows(table.clone(), rows.iter().map(|(row_id, _)| row_id.clone()).collect())
    }

    /// Has the follower hold of it what the primary holds by now.
    pub(super) async fn reach(
        &self,
        primary: &dyn Adapter,
        follower: &dyn Adapter,
        patience: Patience,
    ) -> Result<(), AdapterError> {
        let (table, row_ids) = match self {
            Self::Rows(table, row_ids) => (table, row_ids),
            Self::Changes(changes) => return patience.wait(follower.record(changes)).await,
        };
        let held = patience.wait(primary.find(table, row_ids)).await?;
        // Also if it is empty: what the follower was told before, and did not answer in time, has
        // then been done before it is asked what it holds.
        patience.wait(follower.join(table, &held)).await?;
        let known: HashSet<_> = held.iter().map(|(row_id, _)| row_id).collect();
        let gone: Vec<_> = row_ids.iter().filter(|id| !known.contains(id)).cloned().collect();
        if !gone.is_empty() {
            let gone = patience.wait(follower.find(table, &gone)).await?;
            patience.wait(follower.forget(table, &gone)).await?;
        }
        Ok(())
    }
}

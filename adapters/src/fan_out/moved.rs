//! What the primary was given, or has let go of, without a batch: a follower looks at it there.

use std::collections::HashMap;

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
    pub(super) fn rows<R>(table: &TableName, rows: &[(RowId, R)]) -> Self {
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
        // A call to the follower that was given up, for its answer took too long, may still be at
        // work there.
        patience.wait(follower.fence()).await?;
        let wanted = patience.wait(primary.find(table, row_ids)).await?;
        level(follower, table, row_ids, wanted, patience).await
    }
}

/// Has the follower hold of the rows `row_ids` exactly those that are `wanted`: where it is alone, or
/// was away while the primary let go of a row that was made anew since, it may hold more of a row
/// than the primary does.
pub(super) async fn level(
    follower: &dyn Adapter,
    table: &TableName,
    row_ids: &[RowId],
    wanted: Vec<(RowId, Row)>,
    patience: Patience,
) -> Result<(), AdapterError> {
    let held = patience.wait(follower.find(table, row_ids)).await?;
    let mut held: HashMap<RowId, Row> = held.into_iter().collect();
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for (row_id, row) in wanted {
        match held.remove(&row_id) {
            None => new.push((row_id, row)),
            Some(known) if known == row => {}
            Some(_) => changed.push((row_id, Some(row))),
        }
    }
    changed.extend(held.into_keys().map(|row_id| (row_id, None)));
    if !new.is_empty() {
        patience.wait(follower.join(table, &new)).await?;
    }
    if !changed.is_empty() {
        patience.wait(follower.overwrite(table, &changed)).await?;
    }
    Ok(())
}

//! What people see of a tier: what the hot backend shows, and of the cold one what the hot one knows
//! nothing of.

use std::collections::{BTreeSet, HashSet};

use lakesync::adapter::AdapterError;
use lakesync::name::{RowId, TableName};
use lakesync::row::Row;

use super::Tier;

impl Tier {
    /// Up to `limit` ids after `after`, in the order of bytes.
    pub(super) async fn seen(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError> {
        let mut after = after.cloned();
        loop {
            let hot = self.hot.shown(table, after.as_ref(), limit).await?;
            let cold = self.cold.shown(table, after.as_ref(), limit).await?;
            // Beyond the end of either page, that backend may show rows that were not asked for yet.
            let ends = [hot.last(), cold.last()].into_iter().flatten();
            let Some(end) = ends.min().cloned() else { return Ok(Vec::new()) };
            let known = self.hot.find(table, &cold).await?;
            let known: HashSet<_> = known.into_iter().map(|(row_id, _)| row_id).collect();
            let cold = cold.into_iter().filter(|row_id| !known.contains(row_id));
            let seen: BTreeSet<_> = hot.into_iter().chain(cold).collect();
            let seen: Vec<_> =
                seen.into_iter().take_while(|row_id| *row_id <= end).take(limit).collect();
            if !seen.is_empty() {
                return Ok(seen);
            }
            after = Some(end);
        }
    }

    /// Those of `rows` that are not seen as they are given.
    pub(super) async fn badly_seen(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError> {
        let row_ids: Vec<_> = rows.iter().map(|(row_id, _)| row_id.clone()).collect();
        let hot = self.hot.find(table, &row_ids).await?;
        let hot: HashSet<_> = hot.into_iter().map(|(row_id, _)| row_id).collect();
        let (of_hot, of_cold): (Vec<_>, Vec<_>) =
            rows.iter().cloned().partition(|(row_id, _)| hot.contains(row_id));
        let mut wrong = Vec::new();
        for (tier, rows) in [(&self.hot, of_hot), (&self.cold, of_cold)] {
            if !rows.is_empty() {
                wrong.extend(tier.misshown(table, &rows).await?);
            }
        }
        Ok(wrong)
    }
}

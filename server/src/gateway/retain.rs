//! What a gateway forgets: tombstones older than any replica may be away, and the oldest commits of
//! a log that has outgrown its limit. Rows are never forgotten. Each call does a bounded piece.

use lakesync::row::Row;

use super::keys;
use super::writer::{Writer, horizon};
use crate::store::{Group, StoreError};

/// How often tombstones are looked at.
const SWEEP_EVERY_MS: u64 = 60_000;
/// How many tombstones one sweep looks at.
const SWEEP_MAX: usize = 256;
/// How much of the log one trim reads to learn what it frees.
const TRIM_BYTES: usize = 8 << 20;

impl Writer {
    /// Does what is due.
    pub(super) async fn retain(&mut self) -> Result<(), StoreError> {
        let wall_ms = self.wall.now_ms();
        if SWEEP_EVERY_MS <= wall_ms.abs_diff(self.swept_ms) {
            // A full piece means that there may be more: go on at the next batch.
            if self.sweep(wall_ms).await? < SWEEP_MAX {
                self.swept_ms = wall_ms;
            }
        }
        if self.settings.log_bytes_max < self.counters.log_bytes() {
            self.trim().await?;
        }
        Ok(())
    }

    /// Removes tombstones from before the horizon, and says how many entries it looked at. A change
    /// that such a tombstone would have hidden is older than it, and so refused by admission.
    async fn sweep(&mut self, wall_ms: u64) -> Result<usize, StoreError> {
        let horizon = horizon(wall_ms, &self.settings);
        let oldest = self.store.meta_scan(self.id, keys::TOMBSTONES, SWEEP_MAX).await?;
        let mut group = Group::default();
        for (key, _) in oldest {
            let Some((deleted, row_key)) = keys::parse_tombstone(&key) else {
                return Err(StoreError::Corrupt(format!("tombstone {key:?}")));
            };
            if horizon <= deleted {
                break;
            }
            let row_key = key.slice_ref(row_key);
            let stored = self.store.rows(self.id, std::slice::from_ref(&row_key)).await?.pop();
            if let Some(bytes) = stored.flatten() {
                let row = Row::decode(&bytes)
                    .map_err(|error| StoreError::Corrupt(format!("row {row_key:?}: {error}")))?;
                // Written or deleted again since: then a later entry speaks for it, or none needs to.
                if !row.is_live() && row.deleted().is_some_and(|stamp| stamp.hlc == deleted) {
                    group.rows.push((row_key, None));
                }
            }
            group.meta.push((key, None));
        }
        let looked_at = group.meta.len();
        if 0 < looked_at {
            self.forget(group).await?;
        }
        Ok(looked_at)
    }

    async fn trim(&mut self) -> Result<(), StoreError> {
        let trimmed = self.store.trimmed(self.id).await?;
        let excess = self.counters.log_bytes() - self.settings.log_bytes_max;
        let mut freed = 0;
        let mut through = trimmed;
        for entry in self.store.log(self.id, trimmed, TRIM_BYTES).await? {
            // The newest commit stays, so that there is always a cursor to give out.
            if excess <= freed || self.head <= entry.position {
                break;
            }
            freed += entry.commit.len() as u64;
            through = entry.position;
        }
        if through == trimmed {
            return Ok(());
        }
        self.store.trim(self.id, through).await?;
        self.counters.trimmed_bytes += freed;
        let counters = (keys::COUNTERS.into(), Some(self.counters.encode()));
        self.forget(Group { meta: vec![counters], ..Group::default() }).await
    }

    /// Forgetting is no promise: nobody waits for the disk, and a full one only puts it off.
    async fn forget(&self, group: Group) -> Result<(), StoreError> {
        match self.store.commit(self.id, group).await {
            Ok(_) | Err(StoreError::Full(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

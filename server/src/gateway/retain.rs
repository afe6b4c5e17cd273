//! What a gateway forgets: tombstones older than any replica may be away, and the oldest commits of
//! a log that has outgrown its limit. Rows are never forgotten. Each call does a bounded piece.
//!
//! Neither is forgotten before every backend has it. A log that is too large and waits for a backend
//! is full: pushes are refused until the backend has come further.
//!
//! Trimming goes on, idle or not, until the log is within its limit. A writer that is faster waits for
//! it: the log never exceeds the limit by more than one part in [`SLACK`] and one group of pushes.

use std::sync::atomic::Ordering;

use lakesync::hlc::Hlc;
use lakesync::limits::ROW_BYTES_MAX;
use lakesync::name::Position;

use super::publisher::InFlight;
use super::recover::Counters;
use super::writer::Writer;
use super::{commit, keys, stored};
use crate::store::{GatewayId, Group, Store, StoreError};

/// How often tombstones are looked at.
const SWEEP_EVERY_MS: u64 = 60_000;
/// How many tombstones one sweep looks at.
const SWEEP_MAX: usize = 256;
/// How much of the log one trim reads to learn what it frees.
const TRIM_BYTES: usize = 8 << 20;
/// A log that exceeds its limit is trimmed to this part below it, so that it is not trimmed at every
/// push. One that exceeds it by as much and waits for a backend is full.
const TRIM_SLACK: u64 = 64;
/// By which part of its limit a log may exceed it, for the sake of readers under way and until the next
/// group of pushes.
const SLACK: u64 = 8;

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
        self.make_room().await?;
        self.look_whether_full()
    }

    /// Whether commits are to be forgotten, and can be as far as is known.
    pub(super) fn has_to_trim(&self) -> bool {
        !self.held_back && self.settings.log_bytes_max < self.counters.log_bytes()
    }

    /// Trims until the log is within its slack, as far as backends allow. Whoever adds to the log calls
    /// it before, and so waits while the log is too large.
    pub(super) async fn make_room(&mut self) -> Result<(), StoreError> {
        let mut durable = self.tail.listen();
        while self.exceeds(SLACK) {
            let head = durable.borrow_and_update().clone()?;
            if self.trim().await? {
                continue;
            }
            if head == self.head {
                break;
            }
            // What is on its way to the disk can be forgotten once it is there.
            durable.changed().await.map_err(|_| StoreError::Closed)?;
        }
        Ok(())
    }

    /// Says whether the log is as large as it may be and waits for backends. Only they make a log full:
    /// for readers it is kept up to its slack, and no longer.
    pub(super) fn look_whether_full(&self) -> Result<(), StoreError> {
        let (trimmed, head) = (self.gauges.trimmed(), self.tail.head()?);
        let is_held = self.flushed.floor().is_some_and(|floor| floor <= trimmed && floor < head);
        let is_full = is_held && self.exceeds(TRIM_SLACK);
        if self.gauges.is_full.swap(is_full, Ordering::AcqRel) != is_full {
            match is_full {
                true => tracing::error!(
                    gateway = self.id.0,
                    "the log is full: pushes are refused until its backends have caught up"
                ),
                false => tracing::info!(gateway = self.id.0, "the log has room again"),
            }
        }
        Ok(())
    }

    /// Whether the log exceeds its limit by one part in `slack`.
    fn exceeds(&self, slack: u64) -> bool {
        let limit = self.settings.log_bytes_max;
        limit.saturating_add(limit / slack) < self.counters.log_bytes()
    }

    /// Deletes before this may have been forgotten. It never goes back, whatever the wall clock and
    /// the settings do: what was forgotten once stays forgotten.
    pub(super) fn horizon(&self, wall_ms: u64) -> Hlc {
        let offline_ms = u64::try_from(self.settings.offline_max.as_millis()).unwrap_or(u64::MAX);
        Hlc::from_ms(wall_ms.saturating_sub(offline_ms)).max(Hlc(self.counters.swept))
    }

    /// Removes tombstones from before the horizon, and says how many entries it looked at. A change
    /// that such a tombstone would have hidden is older than it, and so refused by admission.
    async fn sweep(&mut self, wall_ms: u64) -> Result<usize, StoreError> {
        let horizon = self.horizon(wall_ms);
        let floor = self.flushed.floor();
        let mut swept = self.counters.swept;
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
            let keys = std::slice::from_ref(&row_key);
            let stored = self.store.rows(self.id, keys, ROW_BYTES_MAX).await?;
            if let Some(bytes) = stored.into_iter().next().flatten() {
                let (position, row) = stored::decode(&row_key, &bytes)?;
                if floor.is_some_and(|floor| floor < position) {
                    // A backend that comes late is filled from rows: it must hear of the delete.
                    break;
                }
                // Written or deleted again since: then a later entry speaks for it, or none needs to.
                if !row.is_live() && row.deleted().is_some_and(|stamp| stamp.hlc == deleted) {
                    group.rows.push((row_key, None));
                }
            }
            // What was forgotten, and not the horizon: a wall clock that was once far ahead must
            // not go on refusing what no forgotten delete can have hidden.
            swept = swept.max(deleted.0 + 1);
            group.meta.push((key, None));
        }
        let looked_at = group.meta.len();
        if 0 < looked_at {
            let swept = Counters { swept, ..self.counters };
            group.meta.push((keys::COUNTERS.into(), Some(swept.encode())));
            self.gauges.swept.fetch_max(swept.swept, Ordering::AcqRel);
            if self.forget(group).await? {
                self.counters = swept;
            }
        }
        Ok(looked_at)
    }

    /// Forgets some of the oldest commits. Says whether it could. The figures go first, with the
    /// position to trim through: readers are told from then on, and whoever opens the gateway after a
    /// crash trims to there.
    pub(super) async fn trim(&mut self) -> Result<bool, StoreError> {
        // What was counted already goes first: a store that still has it would have it counted again.
        let owed = Position(self.counters.trim_through);
        forget_commits(&*self.store, self.id, owed).await?;
        let trimmed = self.store.trimmed(self.id).await?;
        if trimmed < owed {
            self.held_back = true;
            return Ok(false);
        }
        // The newest durable commit stays, so that there is always a cursor to give out.
        let mut last = Position(self.tail.head()?.0.saturating_sub(1));
        if let Some(floor) = self.flushed.floor() {
            last = last.min(floor);
        }
        if let Some(held) = self.holds.least().filter(|_| !self.exceeds(SLACK)) {
            last = last.min(held);
        }
        let limit = self.settings.log_bytes_max;
        let excess = self.counters.log_bytes().saturating_sub(limit - limit / TRIM_SLACK);
        let piece = usize::try_from(excess).unwrap_or(TRIM_BYTES).min(TRIM_BYTES);
        let mut freed = 0;
        let mut through = trimmed;
        for entry in self.store.log(self.id, trimmed, piece).await? {
            if excess <= freed || last < entry.position {
                break;
            }
            freed += entry.commit.len() as u64;
            through = entry.position;
        }
        // Looked at again when something has changed, or after a while.
        self.held_back = through == trimmed;
        if self.held_back {
            return Ok(false);
        }
        let trimmed_bytes = self.counters.trimmed_bytes + freed;
        let counters = Counters { trimmed_bytes, trim_through: through.0, ..self.counters };
        let meta = vec![(keys::COUNTERS.into(), Some(counters.encode()))];
        let receipt = match self.store.commit(self.id, Group { meta, ..Group::default() }).await {
            Ok(receipt) => Some(receipt),
            Err(StoreError::Full(_)) => {
                self.held_back = true;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.counters = counters;
        self.gauges.trim(through);
        forget_commits(&*self.store, self.id, through).await?;
        // In its turn, so that no figures from before are shown after these.
        let counters = Some(counters);
        self.publish(InFlight { receipt, counters, ..InFlight::default() }).await?;
        Ok(true)
    }

    /// Hands over what is to be forgotten. Nobody waits for the disk, and a full one only puts it
    /// off: false.
    pub(super) async fn forget(&self, group: Group) -> Result<bool, StoreError> {
        match self.store.commit(self.id, group).await {
            Ok(_) => Ok(true),
            Err(StoreError::Full(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Forgets commits through `through`, which readers were told of, and before them their parts in the
/// index. A full disk only puts it off.
pub(super) async fn forget_commits(
    store: &dyn Store,
    id: GatewayId,
    through: Position,
) -> Result<(), StoreError> {
    loop {
        let trimmed = store.trimmed(id).await?;
        if through <= trimmed {
            return Ok(());
        }
        let (mut group, mut last) = (Group::default(), through);
        for entry in store.log(id, trimmed, TRIM_BYTES).await? {
            if through < entry.position {
                break;
            }
            last = entry.position;
            let (generation, instances) = commit::parts(&entry.commit)?;
            let key = |instance| keys::bucket_commit(generation, instance, last);
            group.rows.extend(instances.iter().map(|instance| (key(instance), None)));
        }
        if !group.rows.is_empty() {
            match store.commit(id, group).await {
                Ok(_) => {}
                Err(StoreError::Full(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        store.trim(id, last).await?;
    }
}

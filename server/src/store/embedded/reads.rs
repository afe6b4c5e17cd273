//! Reads: one moment of the store, looked at through its overlays and a snapshot of its tables.
//!
//! What the overlays alone can answer is answered at once. Everything else runs on a thread that may
//! block, since a table may have to come from the disk. Whatever goes wrong there stops the store.

use std::sync::Arc;

use bytes::Bytes;
use fjall::Snapshot;
use lakesync::name::Position;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::engine::Engine;
use super::gateways::Life;
use super::merge::Merged;
use super::overlay::{Overlay, SortedLater};
use super::record::{GATEWAY_BYTES, end_of_prefix, full_key};
use super::tables::{Ordered, Space, Tables};
use crate::store::{GatewayId, LogEntry, Receipt, StoreError};

/// Log entries taken from an overlay at a time.
const LOG_CHUNK: usize = 64;

/// A moment of one gateway. While it lives the store does not finish closing.
pub(super) struct View {
    pub(super) life: Life,
    overlays: Vec<Arc<Overlay>>,
    snapshot: Snapshot,
    tables: HeldTables,
}

/// The tables, which are not closed while somebody holds them.
type HeldTables = Arc<OwnedRwLockReadGuard<Option<Tables>, Tables>>;

impl View {
    pub(super) async fn of(engine: &Engine, gateway: GatewayId) -> Result<Self, StoreError> {
        let tables = tables(engine).await?;
        let state = engine.open_state()?;
        let life = state.gateways.get(gateway).ok_or(StoreError::NotFound)?.clone();
        // Under the lock: no overlay goes over to the tables between the two.
        let (overlays, snapshot) = (state.layers(), tables.snapshot());
        Ok(Self { life, overlays, snapshot, tables })
    }

    /// The same moment of every gateway, in the order of their numbers. The receipt is for all that
    /// the views see; the overlays among it take no more commits.
    pub(super) async fn freeze(engine: &Engine) -> Result<(Receipt, Vec<Self>), StoreError> {
        let guard = tables(engine).await?;
        let (receipt, (mut lives, overlays, snapshot)) = engine
            .freeze(|state| {
                let lives: Vec<Life> = state.gateways.lives().cloned().collect();
                (lives, state.layers(), guard.snapshot())
            })
            .await?;
        lives.sort_unstable_by_key(|life| life.id);
        let view = |life| {
            let (overlays, snapshot) = (overlays.clone(), snapshot.clone());
            Self { life, overlays, snapshot, tables: Arc::clone(&guard) }
        };
        Ok((receipt, lives.into_iter().map(view).collect()))
    }

    /// Every key of the gateway, in full, and its value.
    pub(super) fn everything(&self, space: Space) -> Merged<'_> {
        self.range(space, &full_key(self.life.id, &[]), &end_of_prefix(self.life.id, &[]))
    }

    /// What the overlays know of `keys`, and whether that is all there is to know.
    fn look_up(&self, space: Space, keys: &[Vec<u8>]) -> (Vec<Option<Option<Bytes>>>, bool) {
        let mut found = vec![None; keys.len()];
        for overlay in &self.overlays {
            entries(overlay, space).get_many(keys, &mut found);
        }
        let known = self.tables.is_empty() || found.iter().all(Option::is_some);
        (found, known)
    }

    /// Asks the tables, one key at a time, for what the overlays do not know.
    fn look_further<'a>(
        &'a self,
        space: Space,
        keys: &'a [Vec<u8>],
        found: Vec<Option<Option<Bytes>>>,
    ) -> impl Iterator<Item = Result<Option<Bytes>, StoreError>> + 'a {
        keys.iter().zip(found).map(move |(key, found)| match found {
            Some(found) => Ok(found),
            None => self.tables.get(&self.snapshot, space, key),
        })
    }

    fn range(&self, space: Space, from: &[u8], to: &[u8]) -> Merged<'_> {
        let mut layers: Vec<Ordered<'_>> = Vec::with_capacity(self.overlays.len() + 1);
        for overlay in &self.overlays {
            let changes = entries(overlay, space).range(from.to_vec(), to.to_vec());
            layers.push(Box::new(changes.map(Ok)));
        }
        let stored = self.tables.range(&self.snapshot, space, from, to);
        layers.push(Box::new(stored.map(|item| item.map(|(key, value)| (key, Some(value))))));
        Merged::new(layers)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        fits: impl FnMut(&(Bytes, Bytes)) -> bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut from = full_key(self.life.id, after.unwrap_or(prefix).max(prefix));
        if after.is_some_and(|after| prefix <= after) {
            from.push(0); // The key right after `after`.
        }
        let to = end_of_prefix(self.life.id, prefix);
        if to <= from {
            return Ok(Vec::new());
        }
        let items = self.range(space, &from, &to);
        let items = items.map(|item| item.map(|(key, value)| (key.slice(GATEWAY_BYTES..), value)));
        take_while_ok(items, fits)
    }

    /// Where the part of the log that the overlays hold begins.
    fn log_start(&self) -> Position {
        let starts = self.overlays.iter().filter_map(|overlay| overlay.log_start(self.life.id));
        starts.min().unwrap_or(self.life.head.next())
    }

    fn log_in_memory(&self, after: Position) -> impl Iterator<Item = LogEntry> + '_ {
        self.overlays.iter().rev().flat_map(move |overlay| {
            let mut after = after;
            let chunks = std::iter::from_fn(move || {
                let chunk = overlay.log(self.life.id, after, LOG_CHUNK);
                after = chunk.last()?.position;
                Some(chunk)
            });
            chunks.flatten()
        })
    }

    /// The log after `after`, through the head that this view saw. A hole in it is damage.
    pub(super) fn log(
        &self,
        after: Position,
    ) -> impl Iterator<Item = Result<LogEntry, StoreError>> + '_ {
        let start = self.log_start();
        let (from, to) = (after.0.saturating_add(1), start.0);
        let stored = (from < to).then(|| self.tables.log(&self.snapshot, self.life.id, from, to));
        let stored = stored.into_iter().flatten().map(|item| item.and_then(entry));
        let mut expected = after;
        stored.chain(self.log_in_memory(after).map(Ok)).map(move |item| {
            let item = item?;
            expected = expected.next();
            match item.position == expected {
                true => Ok(item),
                false => Err(hole(self.life.id, expected, Some(item.position))),
            }
        })
    }
}

async fn tables(engine: &Engine) -> Result<HeldTables, StoreError> {
    let guard = RwLock::read_owned(Arc::clone(&engine.tables)).await;
    let tables = OwnedRwLockReadGuard::try_map(guard, Option::as_ref);
    tables.map(Arc::new).map_err(|_| StoreError::Closed)
}

fn entries(overlay: &Overlay, space: Space) -> &SortedLater {
    match space {
        Space::Rows => &overlay.rows,
        Space::Meta => &overlay.meta,
    }
}

fn entry((key, commit): (Bytes, Bytes)) -> Result<LogEntry, StoreError> {
    let position = key.get(GATEWAY_BYTES..).and_then(|rest| <[u8; 8]>::try_from(rest).ok());
    let position = position.ok_or_else(|| StoreError::Corrupt("a log key of another form".into()));
    Ok(LogEntry { position: Position(u64::from_be_bytes(position?)), commit })
}

fn hole(gateway: GatewayId, expected: Position, found: Option<Position>) -> StoreError {
    let found = found.map_or("nothing".to_owned(), |found| found.to_string());
    let gateway = gateway.0;
    StoreError::Corrupt(format!("the log of gateway {gateway} has {found} in place of {expected}"))
}

fn take_while_ok<T>(
    items: impl Iterator<Item = Result<T, StoreError>>,
    mut fits: impl FnMut(&T) -> bool,
) -> Result<Vec<T>, StoreError> {
    let mut taken = Vec::new();
    for item in items {
        let item = item?;
        if !fits(&item) {
            break;
        }
        taken.push(item);
    }
    Ok(taken)
}

/// Accepts items while their sizes stay within `bytes_max`, and the first in any case.
fn within<T>(bytes_max: usize, size: impl Fn(&T) -> usize) -> impl FnMut(&T) -> bool {
    let mut total: Option<usize> = None;
    move |item| {
        let first = total.is_none();
        let sum = total.unwrap_or(0) + size(item);
        total = Some(sum);
        first || sum <= bytes_max
    }
}

impl Engine {
    /// The states of many keys at once, until `bytes_max` of values are exceeded. Only the tables are
    /// asked no further than that: what overlays answer is in memory already.
    pub(super) async fn look_up(
        &self,
        gateway: GatewayId,
        space: Space,
        keys: impl Iterator<Item = &[u8]> + Send,
        bytes_max: usize,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let keys: Vec<Vec<u8>> = keys.map(|key| full_key(gateway, key)).collect();
        let view = View::of(self, gateway).await?;
        let (found, known) = view.look_up(space, &keys);
        let fits = within(bytes_max, |state: &Option<Bytes>| state.as_ref().map_or(0, Bytes::len));
        if known {
            return Ok(found.into_iter().map(Option::flatten).take_while(fits).collect());
        }
        self.blocking(move || take_while_ok(view.look_further(space, &keys, found), fits)).await
    }

    pub(super) async fn scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let view = View::of(self, gateway).await?;
        let (prefix, after) = (prefix.to_vec(), after.map(<[u8]>::to_vec));
        self.blocking(move || {
            let fits = within(bytes_max, |(key, value): &(Bytes, Bytes)| key.len() + value.len());
            view.scan(Space::Rows, &prefix, after.as_deref(), fits)
        })
        .await
    }

    pub(super) async fn meta_scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let view = View::of(self, gateway).await?;
        let prefix = prefix.to_vec();
        self.blocking(move || {
            let mut left = limit;
            view.scan(Space::Meta, &prefix, None, |_| {
                let fits = 0 < left;
                left = left.saturating_sub(1);
                fits
            })
        })
        .await
    }

    pub(super) async fn log(
        &self,
        gateway: GatewayId,
        after: Position,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let view = View::of(self, gateway).await?;
        let after = after.max(view.life.trimmed);
        if view.life.head <= after {
            return Ok(Vec::new());
        }
        let mut fits = within(bytes_max, |entry: &LogEntry| entry.commit.len());
        if view.log_start() <= after.next() {
            return Ok(view.log_in_memory(after).take_while(fits).collect());
        }
        self.blocking(move || {
            let page = take_while_ok(view.log(after), &mut fits)?;
            match page.is_empty() {
                true => Err(hole(view.life.id, after.next(), None)),
                false => Ok(page),
            }
        })
        .await
    }

    /// Runs what may wait for the disk. Its failure is the store's.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let outcome = match tokio::task::spawn_blocking(look).await {
            Ok(outcome) => outcome,
            // fjall panics at some damage.
            Err(error) if error.is_panic() => {
                Err(StoreError::Corrupt("a table can't be read".to_owned()))
            }
            Err(_) => return Err(StoreError::Closed), // The runtime is shutting down.
        };
        match &outcome {
            // The same may be read again once there are descriptors.
            Ok(_) | Err(StoreError::Shortage(_)) => {}
            Err(error) => self.fail(error),
        }
        outcome
    }
}

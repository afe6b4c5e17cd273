//! An overlay: what was committed since the tables were last added to, in memory.
//!
//! Look-ups hash. Order costs nothing until somebody asks for it: keys that are new since the last
//! scan are then sorted into a run, and runs of similar length are merged, so that a key is moved a
//! logarithmic number of times however scans and commits alternate.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use hashbrown::HashMap;
use lakesync::name::Position;

use super::record::{Change, Changes, END, full_key};
use crate::store::{GatewayId, LogEntry};

/// What an entry of a map takes beside its bytes, roughly.
const ENTRY_BYTES: usize = 96;

/// Entries taken under a lock at a time.
const CHUNK: usize = 256;

/// Everything committed while one journal file was written.
#[derive(Debug)]
pub(super) struct Overlay {
    /// The journal file that holds the same.
    pub(super) number: u64,
    pub(super) rows: SortedLater,
    pub(super) meta: SortedLater,
    logs: RwLock<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    entries: HashMap<GatewayId, Vec<LogEntry>>,
    touched: HashSet<GatewayId>,
    bytes: usize,
}

impl Overlay {
    pub(super) fn new(number: u64) -> Self {
        let (rows, meta) = (SortedLater::default(), SortedLater::default());
        Self { number, rows, meta, logs: RwLock::default() }
    }

    /// The overlay after this one, with room for as many rows: growing would move them all, again
    /// and again, while commits wait.
    pub(super) fn next(&self) -> Self {
        let next = Self::new(self.number + 1);
        let room = read(&self.rows.map).values.len();
        write(&next.rows.map).values.reserve(room);
        next
    }

    /// Applies a commit. Readers see its rows at once, as they do its entries and its meta.
    pub(super) fn apply(&self, gateway: GatewayId, changes: Changes) {
        let changed = changes.rows.len() + changes.meta.len() + changes.log.len();
        let mut logs = write(&self.logs);
        logs.touched.insert(gateway);
        logs.bytes += changed * ENTRY_BYTES;
        if !changes.log.is_empty() {
            let mut position = changes.after;
            let entries = changes.log.into_iter().map(|commit| {
                position = position.next();
                LogEntry { position, commit }
            });
            logs.entries.entry(gateway).or_default().extend(entries);
        }
        self.rows.apply(changes.rows);
        self.meta.apply(changes.meta);
    }

    /// Notes that what is known of a gateway changed, and how many bytes say so in the journal.
    pub(super) fn touch(&self, gateway: GatewayId, bytes: usize) {
        let mut logs = write(&self.logs);
        logs.touched.insert(gateway);
        logs.bytes += bytes;
    }

    /// About how much memory this takes.
    pub(super) fn bytes(&self) -> usize {
        read(&self.logs).bytes
    }

    pub(super) fn touched(&self) -> Vec<GatewayId> {
        let mut touched: Vec<_> = read(&self.logs).touched.iter().copied().collect();
        touched.sort_unstable();
        touched
    }

    /// Everything of the log in order; keys end with the position.
    pub(super) fn whole_log(&self) -> impl Iterator<Item = Change> + '_ {
        self.logged().into_iter().flat_map(move |gateway| {
            let mut after = Position::START;
            let chunks = std::iter::from_fn(move || {
                let entries = self.log(gateway, after, CHUNK);
                after = entries.last()?.position;
                Some(entries)
            });
            chunks.flatten().map(move |entry| {
                let key = full_key(gateway, &entry.position.0.to_be_bytes());
                (key.into(), Some(entry.commit))
            })
        })
    }

    /// The gateways whose logs grew, in order.
    fn logged(&self) -> Vec<GatewayId> {
        let mut logged: Vec<_> = read(&self.logs).entries.keys().copied().collect();
        logged.sort_unstable();
        logged
    }

    /// The first position of a gateway's log that is here, if any is.
    pub(super) fn log_start(&self, gateway: GatewayId) -> Option<Position> {
        let logs = read(&self.logs);
        Some(logs.entries.get(&gateway)?.first()?.position)
    }

    /// Entries after `after`, up to `count` of them.
    pub(super) fn log(&self, gateway: GatewayId, after: Position, count: usize) -> Vec<LogEntry> {
        let logs = read(&self.logs);
        let entries = logs.entries.get(&gateway).map(Vec::as_slice).unwrap_or_default();
        let start = entries.partition_point(|entry| entry.position <= after);
        entries[start..].iter().take(count).cloned().collect()
    }
}

/// A map that is hashed now and sorted later. `None` says that a key was removed.
#[derive(Debug, Default)]
pub(super) struct SortedLater {
    map: RwLock<Hashed>,
    /// Sorted keys, longest run first. A key is in exactly one run or in `Hashed::fresh`.
    runs: Mutex<Vec<Vec<Bytes>>>,
}

#[derive(Debug, Default)]
struct Hashed {
    values: HashMap<Bytes, Option<Bytes>>,
    /// Keys that came since the last sorting.
    fresh: Vec<Bytes>,
}

impl SortedLater {
    fn apply(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut map = write(&self.map);
        for (key, value) in changes {
            if map.values.insert(key.clone(), value).is_none() {
                map.fresh.push(key);
            }
        }
    }

    /// Looks many keys up in one state of the map. `found` holds an answer where there is one
    /// already, and gets one where this map knows.
    pub(super) fn get_many(&self, keys: &[Vec<u8>], found: &mut [Option<Option<Bytes>>]) {
        let map = read(&self.map);
        for (key, found) in keys.iter().zip(found) {
            if found.is_none() {
                *found = map.values.get(&key[..]).cloned();
            }
        }
    }

    /// All entries in order from `from` on, before `to`. Later commits may or may not be seen.
    pub(super) fn range(&self, from: Vec<u8>, to: Vec<u8>) -> impl Iterator<Item = Change> + '_ {
        let mut last: Option<Bytes> = None;
        let chunks = std::iter::from_fn(move || {
            let chunk = self.chunk(last.as_deref().unwrap_or(&from), last.is_some(), CHUNK);
            last = Some(chunk.last()?.0.clone());
            Some(chunk)
        });
        chunks.flatten().take_while(move |(key, _)| key[..] < to[..])
    }

    /// All entries of all gateways in order.
    pub(super) fn whole(&self) -> impl Iterator<Item = Change> + '_ {
        self.range(Vec::new(), END.to_vec())
    }

    /// Up to `count` entries in order, from `from` or after it.
    fn chunk(&self, from: &[u8], exclusive: bool, count: usize) -> Vec<Change> {
        let runs = self.sorted();
        let outside = |key: &Bytes| if exclusive { key[..] <= *from } else { key[..] < *from };
        let mut rests: Vec<&[Bytes]> =
            runs.iter().map(|run| &run[run.partition_point(outside)..]).collect();
        let mut keys = Vec::new();
        while keys.len() < count {
            let least =
                rests.iter_mut().filter(|rest| !rest.is_empty()).min_by_key(|rest| &rest[0]);
            let Some(least) = least else { break };
            let rest: &[Bytes] = least;
            keys.push(&rest[0]);
            *least = &rest[1..];
        }
        let map = read(&self.map);
        keys.into_iter().map(|key| (key.clone(), map.values[key].clone())).collect()
    }

    /// Sorts what came since the last time, and keeps the runs few.
    fn sorted(&self) -> MutexGuard<'_, Vec<Vec<Bytes>>> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = std::mem::take(&mut write(&self.map).fresh);
        if !fresh.is_empty() {
            runs.push(sort(fresh));
        }
        while let [.., longer, last] = &runs[..]
            && longer.len() <= 2 * last.len()
        {
            let (last, longer) = (runs.pop(), runs.pop());
            runs.push(merge(longer.unwrap_or_default(), last.unwrap_or_default()));
        }
        runs
    }
}

/// Sorts keys by a few bytes kept beside each, which mostly decide: a look at two keys is a look at
/// two far places in memory.
fn sort(keys: Vec<Bytes>) -> Vec<Bytes> {
    let shared = keys.iter().fold(usize::MAX, |shared, key| shared_bytes(&keys[0], key, shared));
    let mut headed: Vec<(u128, Bytes)> =
        keys.into_iter().map(|key| (head(&key[shared..]), key)).collect();
    headed.sort_unstable();
    headed.into_iter().map(|(_, key)| key).collect()
}

/// How many bytes two keys have in common at their beginnings, `most` at most.
fn shared_bytes(one: &[u8], other: &[u8], most: usize) -> usize {
    one.iter().zip(other).take(most).take_while(|(a, b)| a == b).count()
}

/// The first bytes as a number that sorts as they do. Where it can't tell, the keys do.
fn head(bytes: &[u8]) -> u128 {
    let mut head = [0; size_of::<u128>()];
    let length = bytes.len().min(head.len());
    head[..length].copy_from_slice(&bytes[..length]);
    u128::from_be_bytes(head)
}

fn merge(left: Vec<Bytes>, right: Vec<Bytes>) -> Vec<Bytes> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if a < b { left.next() } else { right.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

// A panic of another thread leaves a lock poisoned; what it guards is changed by whole steps only.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: u32, value: Option<u32>) -> Change {
        let bytes = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
        (bytes(key), value.map(bytes))
    }

    #[test]
    fn keys_that_begin_alike_or_end_early_are_sorted() {
        let long = "shared and long enough to fill a head";
        let texts = ["", "a", "a\0", "a\0\0b", "b", long, &long[..20], &format!("{long}\0")];
        for first in 0..texts.len() {
            for prefix in ["", "table\0", "\0\0\0\x01t\0"] {
                let key = |text: &&str| Bytes::from(format!("{prefix}{text}"));
                let mut expected: Vec<Bytes> = texts[first..].iter().rev().map(key).collect();
                let sorted = sort(expected.clone());
                expected.sort();
                assert_eq!(sorted, expected, "{prefix:?}");
            }
        }
    }

    #[test]
    fn chunks_are_in_order_however_writes_and_scans_alternate() {
        let map = SortedLater::default();
        let mut expected = std::collections::BTreeMap::new();
        for step in 0..400_u32 {
            let (key, value) = change(step * 7_919 % 1_009, (step % 5 != 0).then_some(step));
            expected.insert(key.clone(), value.clone());
            map.apply(vec![(key.clone(), value)]);
            if step % 3 == 0 {
                let chunk = map.chunk(&key, step % 2 == 0, 7);
                let inside = |other: &Bytes| if step % 2 == 0 { key < other } else { key <= other };
                let wanted: Vec<Change> = expected
                    .iter()
                    .filter(|(other, _)| inside(other))
                    .take(7)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                assert_eq!(chunk, wanted, "step {step}");
            }
        }
        assert!(map.sorted().len() < 10, "too many runs");
        assert_eq!(map.chunk(&[], false, usize::MAX).len(), expected.len());
    }
}

//! What a store in memory holds, and how changes apply to it: plain maps, no faults, no waiting.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use lakesync::name::{Gateway, Position};

use crate::store::identity::{self, Incarnation};
use crate::store::{GatewayId, GatewayRecord, Group, LogEntry, StoreError};

/// One step from a state to the next.
#[derive(Debug)]
pub(super) enum Change {
    Create(GatewayRecord),
    Drop(GatewayRecord),
    Commit(GatewayId, Group),
    Trim(GatewayId, Position),
    Nothing,
}

impl Change {
    /// A full disk refuses what needs space, and lets go what frees it.
    pub(super) fn takes_space(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Commit(..))
    }

    /// Whether it is a group, and writes nothing.
    pub(super) fn only_removes(&self) -> bool {
        let Self::Commit(_, Group { log, rows, meta }) = self else { return false };
        log.is_empty() && rows.iter().chain(meta).all(|(_, value)| value.is_none())
    }
}

#[derive(Clone, Debug)]
pub(super) struct Contents {
    incarnation: Incarnation,
    next: u32,
    gateways: BTreeMap<Gateway, GatewayRecord>,
    spaces: BTreeMap<GatewayId, Space>,
}

/// What one gateway holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    pub(super) head: Position,
    pub(super) trimmed: Position,
    log: BTreeMap<Position, Bytes>,
    rows: BTreeMap<Bytes, Bytes>,
    pub(super) meta: BTreeMap<Bytes, Bytes>,
}

impl Contents {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, next: 1, gateways: BTreeMap::new(), spaces: BTreeMap::new() }
    }

    /// The same in another life: every log has another id.
    pub(super) fn restored(mut self, incarnation: Incarnation) -> Self {
        self.incarnation = incarnation;
        for record in self.gateways.values_mut() {
            let GatewayRecord { id, name, created_ms, .. } = record.clone();
            *record = identity::record(&incarnation, id, name, created_ms);
        }
        self
    }

    pub(super) fn plan_gateway(
        &self,
        name: &Gateway,
        created_ms: u64,
    ) -> Result<GatewayRecord, StoreError> {
        if self.gateways.contains_key(name) {
            return Err(StoreError::Exists(name.clone()));
        }
        let id = GatewayId(self.next);
        Ok(identity::record(&self.incarnation, id, name.clone(), created_ms))
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(record) => {
                self.next = self.next.max(record.id.0 + 1);
                self.gateways.insert(record.name.clone(), record.clone());
                self.spaces.insert(record.id, Space::default());
            }
            Change::Drop(record) => {
                self.gateways.remove(&record.name);
                self.spaces.remove(&record.id);
            }
            Change::Commit(gateway, group) => self.change(*gateway, |space| space.commit(group)),
            Change::Trim(gateway, through) => self.change(*gateway, |space| space.trim(*through)),
            Change::Nothing => {}
        }
    }

    fn change(&mut self, gateway: GatewayId, apply: impl FnOnce(&mut Space)) {
        apply(self.spaces.get_mut(&gateway).expect("BUG: a change of no gateway was queued"));
    }

    pub(super) fn gateway(&self, name: &Gateway) -> Option<GatewayRecord> {
        self.gateways.get(name).cloned()
    }

    pub(super) fn gateways(&self, after: Option<&Gateway>, limit: usize) -> Vec<GatewayRecord> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.gateways.range::<Gateway, _>((start, Bound::Unbounded));
        range.map(|(_, record)| record.clone()).take(limit).collect()
    }

    pub(super) fn space(&self, gateway: GatewayId) -> Result<&Space, StoreError> {
        self.spaces.get(&gateway).ok_or(StoreError::NotFound)
    }
}

impl Space {
    fn commit(&mut self, group: &Group) {
        for LogEntry { position, commit } in &group.log {
            self.log.insert(*position, commit.clone());
            self.head = *position;
        }
        put(&mut self.rows, &group.rows);
        put(&mut self.meta, &group.meta);
    }

    fn trim(&mut self, through: Position) {
        self.trimmed = self.trimmed.max(through);
        self.log = self.log.split_off(&self.trimmed.next());
    }

    pub(super) fn rows(&self, keys: &[Bytes], bytes_max: usize) -> Vec<Option<Bytes>> {
        let states = keys.iter().map(|key| self.rows.get(key));
        page(states, bytes_max, |state| state.map_or(0, Bytes::len))
            .map(Option::<&_>::cloned)
            .collect()
    }

    pub(super) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Vec<(Bytes, Bytes)> {
        let from = after.filter(|after| prefix < *after).unwrap_or(prefix);
        let items = self
            .rows
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|after| after < &key[..]));
        page(items, bytes_max, |(key, value)| key.len() + value.len())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(super) fn meta_scan(&self, prefix: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        self.meta
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .take(limit)
            .collect()
    }

    pub(super) fn log(&self, after: Position, bytes_max: usize) -> Vec<LogEntry> {
        let items = self.log.range((Bound::Excluded(after), Bound::Unbounded));
        page(items, bytes_max, |(_, commit)| commit.len())
            .map(|(position, commit)| LogEntry { position: *position, commit: commit.clone() })
            .collect()
    }
}

fn put(map: &mut BTreeMap<Bytes, Bytes>, changes: &[(Bytes, Option<Bytes>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

/// The items that fit, and the first in any case.
fn page<T>(
    items: impl Iterator<Item = T>,
    bytes_max: usize,
    size: impl Fn(&T) -> usize,
) -> impl Iterator<Item = T> {
    items.scan(None, move |sum: &mut Option<usize>, item| {
        let first = sum.is_none();
        let total = sum.unwrap_or(0) + size(&item);
        *sum = Some(total);
        (first || total <= bytes_max).then_some(item)
    })
}

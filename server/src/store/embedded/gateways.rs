//! The gateways of a store, in memory: their names, heads and marks. Some hundred bytes each.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use lakesync::name::{Gateway, Position};

use super::overlay::Overlay;
use super::record::{Changes, Operation};
use super::tables::Touched;
use crate::store::GatewayId;

/// A gateway and how far its log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) id: GatewayId,
    pub(super) name: Gateway,
    pub(super) created_ms: u64,
    pub(super) head: Position,
    pub(super) trimmed: Position,
}

#[derive(Debug)]
pub(super) struct Gateways {
    lives: HashMap<GatewayId, Life>,
    names: BTreeMap<Gateway, GatewayId>,
    next: u32,
}

/// An operation that can't follow what is here: the journal and the tables do not match.
#[derive(Debug, thiserror::Error)]
#[error("the journal does not continue the tables: {0}")]
pub(super) struct Mismatch(String);

impl Gateways {
    pub(super) fn new(next: u32) -> Self {
        Self { lives: HashMap::new(), names: BTreeMap::new(), next }
    }

    /// The number that the next gateway gets.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    pub(super) fn get(&self, id: GatewayId) -> Option<&Life> {
        self.lives.get(&id)
    }

    pub(super) fn named(&self, name: &Gateway) -> Option<&Life> {
        self.names.get(name).and_then(|id| self.lives.get(id))
    }

    /// Up to `limit` gateways by name, after `after`.
    pub(super) fn page(&self, after: Option<&Gateway>, limit: usize) -> Vec<Life> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.names.range::<Gateway, _>((start, Bound::Unbounded));
        names.filter_map(|(_, id)| self.lives.get(id).cloned()).take(limit).collect()
    }

    pub(super) fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.values()
    }

    pub(super) fn put(&mut self, life: Life) {
        self.next = self.next.max(life.id.0.saturating_add(1));
        self.names.insert(life.name.clone(), life.id);
        self.lives.insert(life.id, life);
    }

    /// The gateways that an overlay touched, as they are now.
    pub(super) fn touched(&self, overlay: &Overlay) -> Touched {
        let life = |id: GatewayId| (id, self.get(id).cloned());
        Touched { lives: overlay.touched().into_iter().map(life).collect(), next: self.next }
    }

    /// Follows an operation. An error means that it can't be one of this store's.
    pub(super) fn apply(&mut self, operation: &Operation) -> Result<(), Mismatch> {
        match operation {
            Operation::Create { id, name, created_ms } => self.create(*id, name, *created_ms),
            Operation::Drop(id) => {
                let life = self.lives.remove(id).ok_or_else(|| unknown(*id))?;
                self.names.remove(&life.name);
                Ok(())
            }
            Operation::Trim(id, through) => {
                let life = self.life(*id)?;
                life.trimmed = life.trimmed.max(*through);
                Ok(())
            }
            Operation::Commit(id, changes) => self.life(*id)?.extend(changes),
        }
    }

    fn create(&mut self, id: GatewayId, name: &Gateway, created_ms: u64) -> Result<(), Mismatch> {
        if id.0 < self.next || self.names.contains_key(name) {
            return Err(Mismatch(format!("gateway {} exists", id.0)));
        }
        let (head, trimmed) = (Position::START, Position::START);
        self.put(Life { id, name: name.clone(), created_ms, head, trimmed });
        Ok(())
    }

    fn life(&mut self, id: GatewayId) -> Result<&mut Life, Mismatch> {
        self.lives.get_mut(&id).ok_or_else(|| unknown(id))
    }
}

fn unknown(id: GatewayId) -> Mismatch {
    Mismatch(format!("there is no gateway {}", id.0))
}

impl Life {
    fn extend(&mut self, changes: &Changes) -> Result<(), Mismatch> {
        if changes.after != self.head {
            let (id, head, after) = (self.id.0, self.head, changes.after);
            return Err(Mismatch(format!("gateway {id} is at {head}, a commit follows {after}")));
        }
        self.head = Position(self.head.0 + changes.log.len() as u64);
        Ok(())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let fields = [self.created_ms, self.head.0, self.trimmed.0].map(u64::to_be_bytes);
        [fields.as_flattened(), self.name.as_str().as_bytes()].concat()
    }

    pub(super) fn decode(id: GatewayId, bytes: &[u8]) -> Option<Self> {
        let (fields, name) = bytes.split_at_checked(24)?;
        let field = |at: usize| Some(u64::from_be_bytes(*fields.get(at * 8..)?.first_chunk()?));
        let name = std::str::from_utf8(name).ok()?.parse().ok()?;
        let (created_ms, head, trimmed) = (field(0)?, Position(field(1)?), Position(field(2)?));
        Some(Self { id, name, created_ms, head, trimmed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_survives_its_bytes() {
        let life = Life {
            id: GatewayId(7),
            name: "main".parse().expect("a name"),
            created_ms: 1,
            head: Position(9),
            trimmed: Position(3),
        };
        assert_eq!(Life::decode(life.id, &life.encode()), Some(life.clone()));
        assert_eq!(Life::decode(life.id, &life.encode()[..23]), None);
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        let mut gateways = Gateways::new(1);
        let name: Gateway = "main".parse().expect("a name");
        let create =
            |id| Operation::Create { id: GatewayId(id), name: name.clone(), created_ms: 0 };
        let commit = |after| {
            let (log, rows, meta) = (vec!["c".into()], Vec::new(), Vec::new());
            Operation::Commit(GatewayId(1), Changes { after: Position(after), log, rows, meta })
        };
        assert!(gateways.apply(&commit(0)).is_err(), "before it was created");
        gateways.apply(&create(1)).expect("create");
        assert!(gateways.apply(&create(2)).is_err(), "a name used twice");
        gateways.apply(&commit(0)).expect("commit");
        assert!(gateways.apply(&commit(0)).is_err(), "a position used twice");
        assert!(gateways.apply(&commit(2)).is_err(), "a gap");
        gateways.apply(&Operation::Drop(GatewayId(1))).expect("drop");
        assert!(gateways.apply(&create(1)).is_err(), "a number used twice");
        gateways.apply(&create(2)).expect("create");
    }
}

//! What compaction may leave out: trimmed log entries, and everything of dropped gateways.
//!
//! Only what an applied overlay says counts, so that nothing is left out whose trimming a crash
//! could take back.

use std::collections::HashMap;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use lakesync::name::Position;

use super::Touched;
use crate::store::GatewayId;
use crate::store::embedded::gateways::Gateways;
use crate::store::embedded::record::{GATEWAY_BYTES, gateway_of};

/// The keyspace that is trimmed.
pub(super) const LOG: &str = "log";

#[derive(Debug, Default)]
pub(super) struct Reclaim {
    known: RwLock<Known>,
    /// Where tables were last dropped through, so that a trim is acted on once.
    done: Mutex<HashMap<GatewayId, Position>>,
}

#[derive(Debug, Default)]
struct Known {
    trimmed: HashMap<GatewayId, Position>,
    /// Numbers from here on are of gateways that no applied overlay knows yet.
    next: u32,
}

impl Reclaim {
    pub(super) fn load(&self, gateways: &Gateways) {
        let mut known = self.write();
        known.trimmed = gateways.lives().map(|life| (life.id, life.trimmed)).collect();
        known.next = gateways.next();
    }

    /// Takes note of what an overlay that was just applied says.
    pub(super) fn note(&self, touched: &Touched) {
        let mut known = self.write();
        for (id, life) in &touched.lives {
            match life {
                Some(life) => known.trimmed.insert(*id, life.trimmed),
                None => known.trimmed.remove(id),
            };
        }
        known.next = known.next.max(touched.next);
    }

    /// The gateways among `touched` whose tables should be looked at: trimmed further, or dropped.
    pub(super) fn due(&self, touched: &Touched) -> Vec<(GatewayId, Option<Position>)> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let due = touched.lives.iter().filter_map(|(id, life)| match life {
            None => {
                done.remove(id);
                Some((*id, None))
            }
            Some(life) => {
                let before = done.insert(*id, life.trimmed).unwrap_or_default();
                (before < life.trimmed).then_some((*id, Some(life.trimmed)))
            }
        });
        due.collect()
    }

    pub(super) fn factory(self: &Arc<Self>, keyspace: &str) -> Option<Arc<dyn Factory>> {
        Some(Arc::new(Filters { reclaim: Arc::clone(self), log: keyspace == LOG }))
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Positions of this gateway through which the log is gone; all of them if it was dropped.
    fn gone_through(&self, gateway: GatewayId) -> Position {
        let known = self.read();
        let dropped = || match gateway.0 != 0 && gateway.0 < known.next {
            true => Position(u64::MAX),
            false => Position::START,
        };
        known.trimmed.get(&gateway).copied().unwrap_or_else(dropped)
    }
}

#[derive(Debug)]
struct Filters {
    reclaim: Arc<Reclaim>,
    log: bool,
}

impl RefUnwindSafe for Filters {}

impl Factory for Filters {
    fn name(&self) -> &str {
        "reclaim"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let reclaim = Arc::clone(&self.reclaim);
        Box::new(Filter { reclaim, log: self.log, last: None })
    }
}

/// Judges the keys of one compaction, which come in order: a gateway is looked up once.
struct Filter {
    reclaim: Arc<Reclaim>,
    log: bool,
    last: Option<(GatewayId, Position)>,
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        // Nobody reads below a trim mark or of a dropped gateway, so older states may reappear.
        Ok(if self.is_gone(item.key()) { Verdict::Destroy } else { Verdict::Keep })
    }
}

impl Filter {
    fn is_gone(&mut self, key: &[u8]) -> bool {
        let Some(gateway) = gateway_of(key) else { return false };
        let through = match self.last {
            Some((last, through)) if last == gateway => through,
            _ => self.reclaim.gone_through(gateway),
        };
        self.last = Some((gateway, through));
        if through == Position(u64::MAX) {
            return true;
        }
        let position = key.get(GATEWAY_BYTES..).and_then(|rest| rest.first_chunk());
        self.log && position.is_some_and(|bytes| u64::from_be_bytes(*bytes) <= through.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::gateways::Life;
    use crate::store::embedded::record::full_key;

    #[test]
    fn only_the_trimmed_and_the_dropped_are_gone() {
        let life = |id, trimmed| Life {
            id: GatewayId(id),
            name: "main".parse().expect("a name"),
            created_ms: 0,
            head: Position(9),
            trimmed: Position(trimmed),
        };
        let reclaim = Arc::new(Reclaim::default());
        let lives = vec![
            (GatewayId(1), Some(life(1, 5))),
            (GatewayId(2), None),
            (GatewayId(3), Some(life(3, 0))),
        ];
        let touched = Touched { lives, next: 4 };
        reclaim.note(&touched);
        let gone = |log, gateway, position: u64| {
            let mut filter = Filter { reclaim: Arc::clone(&reclaim), log, last: None };
            filter.is_gone(&full_key(GatewayId(gateway), &position.to_be_bytes()))
        };
        for (log, gateway, position, expected) in [
            (true, 1, 5, true),
            (true, 1, 6, false),
            (false, 1, 5, false), // A row whose key looks like a position.
            (true, 2, 99, true),
            (false, 2, 99, true),
            (true, 3, 1, false),
            (true, 4, 1, false), // Created since.
            (false, 0, 1, false),
        ] {
            assert_eq!(gone(log, gateway, position), expected, "{log} {gateway} {position}");
        }
        let due: Vec<_> = reclaim.due(&touched).into_iter().map(|(id, _)| id.0).collect();
        assert_eq!(due, [1, 2]);
        let again: Vec<_> = reclaim.due(&touched).into_iter().map(|(id, _)| id.0).collect();
        assert_eq!(again, [2], "a trim is acted on once");
    }
}

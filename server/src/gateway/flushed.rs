//! How far the backends have come, as the gateway knows it: what trimming waits for, and what
//! operators are told.
//!
//! The backend's own watermark is the truth. What is kept here follows it, in memory at once and in
//! the store a little later; so after a crash it may be behind, and never ahead.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lakesync::name::{self, LogId, Position};
use lakesync::schema::Schema;
use tokio::sync::watch;

use super::{Gateway, Gateways, keys};
use crate::store::{GatewayId, GatewayRecord, Store, StoreError};

/// A watermark and what it stands for, as the store keeps it.
///
/// Stored form: the log id, then big-endian the position and the number of changes, then 1 if the
/// backend was ahead and else 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The log. A gateway restored from a copy finds the mark of the log that it continues.
    pub log: LogId,
    /// Through which position the backend has the log.
    pub position: Position,
    /// How many changes the log held through there since it was begun.
    pub changes: u64,
    /// Whether the backend's watermark was ahead of our log (the data directory was put back to an
    /// older state, or another server writes to the backend). The log has grown past that position
    /// since, with other commits than the backend has: it can't be continued.
    pub is_ahead: bool,
}

/// What a backend still needs of the log, and so what trimming must leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// The commits after this position.
    After(Position),
    /// No commit: the log begins too late for it. It is filled with rows instead, and needs the log
    /// from where that begins.
    Rows,
}

impl Default for Needs {
    fn default() -> Self {
        Self::After(Position::START)
    }
}

impl Needs {
    /// The position after which commits are needed, if any are.
    pub fn after(self) -> Option<Position> {
        match self {
            Self::After(position) => Some(position),
            Self::Rows => None,
        }
    }
}

/// How flushing to one backend goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last mark that is known; none before the backend was first reached.
    pub mark: Option<Mark>,
    /// The tables that the backend has made room for.
    pub prepared: Option<Arc<Schema>>,
    /// What trimming must leave for it.
    pub floor: Needs,
    /// Changes, and bytes of commits, flushed since the gateway was opened.
    pub flushed: (u64, u64),
    /// How often somebody asked for a flush.
    pub asked: u64,
    /// The newest of these requests after which the backend itself was asked how far it has come.
    pub looked: u64,
    /// Attempts that have ended, well or not.
    pub attempts: u64,
    /// When an attempt last ended well, in milliseconds since the Unix epoch.
    pub done_ms: Option<u64>,
    /// When the oldest commit was made that the backend does not have.
    pub oldest_ms: Option<u64>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// What was wrong with members of the backend when an attempt last ended well.
    pub troubles: Vec<String>,
}

/// The backends of a gateway, by name, in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Flushed(Vec<(Arc<str>, watch::Sender<Progress>)>);

impl Mark {
    pub(super) fn encode(&self) -> Bytes {
        let Self { log: LogId(log), position, changes, is_ahead } = self;
        let numbers = [position.0.to_be_bytes(), changes.to_be_bytes()].concat();
        [&log[..], &numbers, &[u8::from(*is_ahead)]].concat().into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (log, rest) = bytes.split_first_chunk()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (changes, rest) = rest.split_first_chunk()?;
        let is_ahead = match rest {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        Some(Self {
            log: LogId(*log),
            position: Position(u64::from_be_bytes(*position)),
            changes: u64::from_be_bytes(*changes),
            is_ahead,
        })
    }
}

impl Flushed {
    /// What the store knows of the backends `names`, where the log begins after `trimmed`.
    pub(super) async fn load(
        store: &dyn Store,
        id: GatewayId,
        trimmed: Position,
        names: &[Arc<str>],
    ) -> Result<Self, StoreError> {
        let mut backends = Vec::with_capacity(names.len());
        for name in names {
            let mut progress = Progress::default();
            if let Some(bytes) = store.meta(id, &keys::flushed(name)).await? {
                let corrupt = || StoreError::Corrupt(format!("the mark of backend {name}"));
                let mark = Mark::decode(&bytes).ok_or_else(corrupt)?;
                progress.mark = Some(mark);
            }
            // Of the log that this one continues, the positions are the same up to the mark.
            let position = progress.mark.map_or(Position::START, |mark| mark.position);
            progress.floor = if position < trimmed { Needs::Rows } else { Needs::After(position) };
            backends.push((Arc::clone(name), watch::Sender::new(progress)));
        }
        Ok(Self(backends))
    }

    /// The place of each backend's progress.
    pub(super) fn of(&self, name: &str) -> Option<&watch::Sender<Progress>> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, progress)| progress)
    }

    /// Each backend and the place of its progress.
    pub(super) fn senders(&self) -> impl Iterator<Item = (&Arc<str>, &watch::Sender<Progress>)> {
        self.0.iter().map(|(name, progress)| (name, progress))
    }

    /// The position after which commits are needed by some backend; none if no backend needs any.
    pub(super) fn floor(&self) -> Option<Position> {
        self.0.iter().filter_map(|(_, progress)| progress.borrow().floor.after()).min()
    }

    /// Whether a backend does not have all of `log` up to `head`.
    pub(super) fn is_behind(&self, log: LogId, head: Position) -> bool {
        let has = |progress: &Progress| {
            let mark = progress.mark.filter(|mark| mark.log == log);
            mark.map_or(Position::START, |mark| mark.position)
        };
        self.0.iter().any(|(_, progress)| has(&progress.borrow()) < head)
    }
}

/// How far a backend is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Its name.
    pub backend: Arc<str>,
    /// The newest commit that it has.
    pub position: Position,
    /// Commits that it does not have.
    pub commits: u64,
    /// Changes that it does not have. Of a backend that was reached for the first time, or whose mark
    /// was lost, it may be a little more or less.
    pub changes: u64,
    /// For how long it has been behind.
    pub age: Duration,
    /// When it last had everything, in milliseconds since the Unix epoch.
    pub done_ms: Option<u64>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// What is wrong with parts of it: followers that lag, rows that can't move.
    pub troubles: Vec<String>,
}

impl Gateway {
    /// Whether a backend does not have all that is durable.
    pub fn is_behind(&self) -> bool {
        // Of a log that failed, nothing more can be had.
        self.head().is_ok_and(|head| self.0.flushed.is_behind(self.record().log_id, head))
    }

    /// How far each backend is behind, at wall time `now_ms`.
    pub fn lags(&self, now_ms: u64) -> Vec<Lag> {
        let (log, (changes, _)) = (self.record().log_id, self.0.gauges.total());
        // A log that failed has no head, and what a backend lacks of it is not known.
        let head = self.head().unwrap_or_default();
        let lag = |(name, progress): (&Arc<str>, &watch::Sender<Progress>)| {
            let progress = progress.borrow();
            let mark = progress.mark.filter(|mark| mark.log == log);
            let (position, had) =
                mark.map(|mark| (mark.position, mark.changes)).unwrap_or_default();
            let commits = head.0.saturating_sub(position.0);
            let behind = 0 < commits;
            let oldest_ms = progress.oldest_ms.filter(|_| behind).unwrap_or(now_ms);
            Lag {
                backend: Arc::clone(name),
                position,
                commits,
                changes: if behind { changes.saturating_sub(had) } else { 0 },
                age: Duration::from_millis(now_ms.saturating_sub(oldest_ms)),
                done_ms: progress.done_ms,
                error: progress.error.clone(),
                troubles: progress.troubles.clone(),
            }
        };
        self.0.flushed.senders().map(lag).collect()
    }
}

impl Gateways {
    /// How far the backends of open gateways are behind. Those that are opening or closing are left
    /// out.
    pub fn lags(&self) -> Vec<(name::Gateway, Lag)> {
        let now_ms = self.now_ms();
        let of = |gateway: Gateway| {
            let name = gateway.record().name.clone();
            gateway.lags(now_ms).into_iter().map(move |lag| (name.clone(), lag))
        };
        self.opened().into_iter().flat_map(of).collect()
    }

    /// Whether one of the backends `names` does not have all of a gateway's log, as far as the store
    /// knows.
    pub async fn is_behind(
        &self,
        record: &GatewayRecord,
        names: &[Arc<str>],
    ) -> Result<bool, StoreError> {
        let store = self.store();
        let flushed = Flushed::load(store, record.id, Position::START, names).await?;
        Ok(flushed.is_behind(record.log_id, store.head(record.id).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_round_trip() {
        for is_ahead in [false, true] {
            let (log, position) = (LogId([7; 16]), Position(258));
            let mark = Mark { log, position, changes: u64::MAX, is_ahead };
            let bytes = mark.encode();
            assert_eq!(Mark::decode(&bytes), Some(mark));
            assert_eq!(Mark::decode(&bytes[1..]), None);
            assert_eq!(Mark::decode(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn trimming_waits_for_the_slowest() {
        let backend = |name: &str, floor| {
            let floor = Needs::After(Position(floor));
            let progress = Progress { floor, ..Progress::default() };
            (name.into(), watch::Sender::new(progress))
        };
        assert_eq!(Flushed::default().floor(), None);
        let flushed = Flushed(vec![backend("a", 9), backend("b", 5)]);
        assert_eq!(flushed.floor(), Some(Position(5)));
        let moved = flushed.of("b").expect("a backend");
        moved.send_modify(|progress| progress.floor = Needs::After(Position(12)));
        assert_eq!(flushed.floor(), Some(Position(9)));
        for name in ["a", "b"] {
            let filled = flushed.of(name).expect("a backend");
            filled.send_modify(|progress| progress.floor = Needs::Rows);
        }
        assert_eq!(flushed.floor(), None, "who is filled needs nothing of the log");
        assert!(flushed.of("c").is_none());
    }
}

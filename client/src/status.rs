//! How a replica is doing, as one small value that is always there to be read.

use std::time::Duration;

use lakesync::name::Position;
use tokio::sync::watch;

/// How a replica is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// Whether commits arrive as they happen.
    pub following: bool,
    /// The commit up to which it has seen everything; zero until it first hears from the gateway.
    pub position: Position,
    /// Local changes not yet durable at the gateway.
    pub pending: u64,
    /// Changes the gateway refused, kept in `_lakesync_rejected`.
    pub rejected: u64,
    /// Rows that a local constraint keeps out of their table, for now.
    pub parked: u64,
    /// Pushed and received since the replica was opened.
    pub traffic: Traffic,
    /// When it last knew that it had seen everything, in milliseconds since the Unix epoch.
    pub caught_up_ms: Option<u64>,
    /// What went wrong last, until something works again.
    pub last_error: Option<String>,
}

/// What a replica is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// Greeting the server.
    Connecting,
    /// Receiving every row.
    Checkpoint,
    /// Receiving what it missed.
    Pulling,
    /// Sending what was written here.
    Pushing,
    /// In step with the gateway, with nothing to do.
    Following,
    /// Waiting to try again.
    Waiting,
}

/// Counts of what went up and down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of pushes.
    pub up_bytes: u64,
    /// Changes pushed.
    pub up_rows: u64,
    /// Bytes of pages and chunks.
    pub down_bytes: u64,
    /// Changes and rows received.
    pub down_rows: u64,
}

impl Status {
    /// Whether a gateway answers.
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Checkpoint | Phase::Pulling | Phase::Pushing | Phase::Following)
    }

    /// How long ago, at `now_ms`, the replica last knew that it had seen everything: what it shows
    /// is at least that old. Nothing while it follows, since it would have been told.
    pub fn lag(&self, now_ms: u64) -> Option<Duration> {
        let at = self.caught_up_ms?;
        let age_ms = if self.following { 0 } else { now_ms.saturating_sub(at) };
        Some(Duration::from_millis(age_ms))
    }
}

/// Where a replica notes how it is doing.
#[derive(Debug)]
pub(crate) struct Board(watch::Sender<Status>);

impl Board {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Status::default()))
    }

    pub(crate) fn read(&self) -> Status {
        self.0.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    /// Notes a change; readers hear of it only if there is one.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            before != *status
        });
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.note(|status| status.phase = phase);
    }

    /// Positions never go back: a page may arrive twice.
    pub(crate) fn reach(&self, position: Position) {
        self.note(|status| status.position = status.position.max(position));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_what_is_shown() {
        let lag = |following, caught_up_ms| {
            let status = Status { following, caught_up_ms, ..Status::default() };
            status.lag(1_500).map(|lag| lag.as_millis())
        };
        assert_eq!(lag(false, None), None);
        assert_eq!(lag(false, Some(1_000)), Some(500));
        assert_eq!(lag(true, Some(1_000)), Some(0));
        assert_eq!(lag(false, Some(2_000)), Some(0), "a clock that went back");
    }

    #[test]
    fn readers_hear_of_changes_only() {
        let board = Board::new();
        let reader = board.subscribe();
        board.enter(Phase::Idle);
        assert!(!reader.has_changed().expect("the board is here"));
        board.reach(Position(3));
        board.reach(Position(2));
        assert!(reader.has_changed().expect("the board is here"));
        assert_eq!(board.read().position, Position(3));
    }
}

//! The durable end of a log, and the newest commits in memory for those who follow it.
//!
//! Invariant: nothing past the head was ever shown to anybody, and the head only grows. A follower
//! that falls behind what is kept here reads the store instead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use lakesync::name::Position;
use tokio::sync::watch;

use super::commit::Commit;
use crate::store::StoreError;

/// How many bytes of commits a gateway keeps in memory for its followers.
const TAIL_BYTES_MAX: usize = 4 << 20;

/// How far a log is durable, or why it no longer grows.
pub(super) type Head = Result<Position, StoreError>;

#[derive(Debug)]
pub(super) struct Tail {
    recent: Mutex<Recent>,
    head: watch::Sender<Head>,
}

/// The newest commits in order; those before `after` are in the store only.
#[derive(Debug)]
struct Recent {
    after: Position,
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
}

impl Tail {
    /// A tail that ends at `head` and holds nothing yet.
    pub(super) fn new(head: Position) -> Self {
        let recent = Recent { after: head, commits: VecDeque::new(), bytes: 0 };
        Self { recent: Mutex::new(recent), head: watch::Sender::new(Ok(head)) }
    }

    /// The newest durable position, or why there is none.
    pub(super) fn head(&self) -> Head {
        self.head.borrow().clone()
    }

    /// Tells of every move of the head.
    pub(super) fn subscribe(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// How many readers follow.
    pub(super) fn followers(&self) -> usize {
        self.head.receiver_count()
    }

    /// Shows durable commits, which follow the head in order, to everybody.
    pub(super) fn publish(&self, commits: Vec<Arc<Commit>>) {
        let Some(head) = commits.last().map(|commit| commit.position) else { return };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.bytes += commits.iter().map(|commit| commit.bytes.len()).sum::<usize>();
        recent.commits.extend(commits);
        // Nobody follows: the store serves whoever comes.
        let bytes_max = if self.head.receiver_count() == 0 { 0 } else { TAIL_BYTES_MAX };
        while bytes_max < recent.bytes {
            let Some(oldest) = recent.commits.pop_front() else { break };
            recent.bytes -= oldest.bytes.len();
            recent.after = oldest.position;
        }
        // Under the lock, so that nobody reads a commit that is ahead of the head.
        self.move_head(Ok(head));
    }

    /// Ends every reader with `error`: the store has failed.
    pub(super) fn fail(&self, error: StoreError) {
        self.move_head(Err(error));
    }

    fn move_head(&self, head: Head) {
        // A log that failed stays so, whatever was still on its way.
        self.head.send_if_modified(|current| {
            let moves = current.is_ok();
            if moves {
                *current = head;
            }
            moves
        });
    }

    /// Commits after `after` until `bytes_max` are exceeded, or `None` if some of them are in the
    /// store only.
    pub(super) fn after(&self, after: Position, bytes_max: usize) -> Option<Vec<Arc<Commit>>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if after < recent.after {
            return None;
        }
        let start = recent.commits.partition_point(|commit| commit.position <= after);
        let mut bytes = 0;
        let fits = |commit: &&Arc<Commit>| {
            let fits = bytes <= bytes_max;
            bytes += commit.bytes.len();
            fits
        };
        Some(recent.commits.range(start..).take_while(fits).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(position: u64, bytes: usize) -> Arc<Commit> {
        Arc::new(Commit { position: Position(position), bytes: vec![0; bytes].into() })
    }

    fn positions(commits: Option<Vec<Arc<Commit>>>) -> Option<Vec<u64>> {
        commits.map(|commits| commits.iter().map(|commit| commit.position.0).collect())
    }

    #[test]
    fn readers_get_what_follows_or_are_sent_to_the_store() {
        let tail = Tail::new(Position(5));
        let _follower = tail.subscribe();
        tail.publish((6..10).map(|at| commit(at, 10)).collect());
        for (after, bytes_max, expected) in [
            (4, 99, None),
            (5, 99, Some(vec![6, 7, 8, 9])),
            (7, 99, Some(vec![8, 9])),
            (9, 99, Some(vec![])),
            (5, 0, Some(vec![6])),
            (5, 10, Some(vec![6, 7])),
        ] {
            assert_eq!(
                positions(tail.after(Position(after), bytes_max)),
                expected,
                "after {after}"
            );
        }
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let tail = Tail::new(Position::START);
        tail.publish(vec![commit(1, 10)]);
        assert_eq!(positions(tail.after(Position::START, 99)), None);
        assert_eq!(positions(tail.after(Position(1), 99)), Some(vec![]));
    }

    #[test]
    fn a_failed_log_stays_failed() {
        let tail = Tail::new(Position::START);
        tail.fail(StoreError::NotFound);
        tail.publish(vec![commit(1, 10)]);
        assert!(tail.head().is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let tail = Tail::new(Position::START);
        let _follower = tail.subscribe();
        for at in 1..=9 {
            tail.publish(vec![commit(at, TAIL_BYTES_MAX / 4)]);
        }
        assert_eq!(positions(tail.after(Position(4), usize::MAX)), None);
        assert_eq!(positions(tail.after(Position(5), usize::MAX)), Some(vec![6, 7, 8, 9]));
        assert_eq!(tail.head().expect("healthy"), Position(9));
    }
}

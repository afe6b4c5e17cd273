//! The durable end of a log, and the newest commits in memory for those who follow it.
//!
//! Invariant: nothing past the head was ever shown to anybody, and the head only grows. A follower
//! that falls behind what is kept here reads the store instead. A follower within a scope is woken
//! only by commits that concern one of its bucket instances.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lakesync::name::Position;
use lakesync::rules::Instance;
use tokio::sync::{Notify, watch};

use super::commit::{Chain, Commit};
use crate::store::StoreError;

/// How many bytes of commits a gateway keeps in memory for its followers.
const TAIL_BYTES_MAX: usize = 4 << 20;
/// How many bytes all gateways of a process keep. Beyond, readers go to the store.
const TAILS_BYTES_MAX: usize = 256 << 20;

/// How far a log is durable, or why it no longer grows.
pub(super) type Head = Result<Position, StoreError>;

#[derive(Debug)]
pub(super) struct Tail {
    recent: Mutex<Recent>,
    head: watch::Sender<Head>,
    /// The same, for those who are no readers.
    within: watch::Sender<Head>,
    watchers: Mutex<Watchers>,
    /// How many bytes all tails of the process keep.
    kept: Arc<AtomicUsize>,
}

/// Followers within a scope, by what they wait for.
#[derive(Debug, Default)]
struct Watchers {
    by_instance: HashMap<Instance, Vec<Arc<Notify>>>,
    count: usize,
}

/// A follower's place among those to be woken; it is given up when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    tail: Arc<Tail>,
    instances: Vec<Instance>,
    bell: Arc<Notify>,
}

/// The newest commits in order; those up to `after`, where the chain is `chain`, are in the store only.
#[derive(Debug)]
struct Recent {
    after: Position,
    chain: Chain,
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
}

impl Tail {
    /// A tail that ends at `head` and holds nothing yet. `kept` counts what all of them hold.
    pub(super) fn new((head, chain): (Position, Chain), kept: Arc<AtomicUsize>) -> Self {
        let recent = Recent { after: head, chain, commits: VecDeque::new(), bytes: 0 };
        let (recent, within) = (Mutex::new(recent), watch::Sender::new(Ok(head)));
        let head = watch::Sender::new(Ok(head));
        Self { recent, head, within, watchers: Mutex::default(), kept }
    }

    /// The newest durable position, or why there is none.
    pub(super) fn head(&self) -> Head {
        self.head.borrow().clone()
    }

    /// The newest durable position and the chain at it, or why there is none.
    pub(super) fn newest(&self) -> Result<(Position, Chain), StoreError> {
        // The head moves under this lock, together with the commits.
        let recent = self.recent();
        self.head()?;
        let newest = recent.commits.back().map(|commit| (commit.position, commit.chain));
        Ok(newest.unwrap_or((recent.after, recent.chain)))
    }

    /// The chain at a position, if it is at hand.
    pub(super) fn chain(&self, at: Position) -> Option<Chain> {
        let recent = self.recent();
        if at == recent.after {
            return Some(recent.chain);
        }
        let found = recent.commits.binary_search_by_key(&at, |commit| commit.position);
        found.ok().map(|found| recent.commits[found].chain)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every move of the head.
    pub(super) fn subscribe(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Like [`subscribe`](Tail::subscribe), for who is no reader.
    pub(super) fn listen(&self) -> watch::Receiver<Head> {
        self.within.subscribe()
    }

    /// How many readers follow.
    pub(super) fn followers(&self) -> usize {
        self.head.receiver_count() + self.watchers().count
    }

    /// Wakes the holder whenever a commit concerns one of `instances`, and when the log fails.
    pub(super) fn watch(self: &Arc<Self>, instances: Vec<Instance>) -> Watch {
        let bell = Arc::new(Notify::new());
        let mut watchers = self.watchers();
        watchers.count += 1;
        for instance in &instances {
            watchers.by_instance.entry(*instance).or_default().push(Arc::clone(&bell));
        }
        drop(watchers);
        Watch { tail: Arc::clone(self), instances, bell }
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows durable commits, which follow the head in order, to everybody.
    pub(super) fn publish(&self, commits: Vec<Arc<Commit>>) {
        let Some(head) = commits.last().map(|commit| commit.position) else { return };
        let concerned: Vec<Instance> = commits
            .iter()
            .flat_map(|commit| commit.parts.iter().map(|part| part.instance))
            .collect();
        self.keep(commits, head);
        if !concerned.is_empty() {
            let watchers = self.watchers();
            let bells = concerned.iter().filter_map(|one| watchers.by_instance.get(one));
            bells.flatten().for_each(|bell| bell.notify_one());
        }
    }

    fn keep(&self, commits: Vec<Arc<Commit>>, head: Position) {
        let followed = self.followers() != 0;
        let mut recent = self.recent();
        let more = commits.iter().map(|commit| commit.size()).sum::<usize>();
        recent.bytes += more;
        let mut all = self.kept.fetch_add(more, Ordering::Relaxed) + more;
        recent.commits.extend(commits);
        // Nobody follows: the store serves whoever comes.
        let bytes_max = if followed { TAIL_BYTES_MAX } else { 0 };
        while bytes_max < recent.bytes || TAILS_BYTES_MAX < all {
            let Some(oldest) = recent.commits.pop_front() else { break };
            let size = oldest.size();
            recent.bytes -= size;
            all = self.kept.fetch_sub(size, Ordering::Relaxed) - size;
            (recent.after, recent.chain) = (oldest.position, oldest.chain);
        }
        // Under the lock, so that nobody reads a commit that is ahead of the head.
        self.move_head(Ok(head));
    }

    /// Ends every reader with `error`: the store has failed.
    pub(super) fn fail(&self, error: StoreError) {
        self.move_head(Err(error));
        let watchers = self.watchers();
        watchers.by_instance.values().flatten().for_each(|bell| bell.notify_one());
    }

    fn move_head(&self, head: Head) {
        // A log that failed stays so, whatever was still on its way.
        for sender in [&self.head, &self.within] {
            sender.send_if_modified(|current| {
                let moves = current.is_ok();
                if moves {
                    *current = head.clone();
                }
                moves
            });
        }
    }

    /// Commits after `after` until `bytes_max` are exceeded, or `None` if some of them are in the
    /// store only.
    pub(super) fn after(&self, after: Position, bytes_max: usize) -> Option<Vec<Arc<Commit>>> {
        let recent = self.recent();
        if after < recent.after {
            return None;
        }
        let start = recent.commits.partition_point(|commit| commit.position <= after);
        let mut bytes = 0;
        let fits = |commit: &&Arc<Commit>| {
            let fits = bytes <= bytes_max;
            bytes += commit.size();
            fits
        };
        Some(recent.commits.range(start..).take_while(fits).cloned().collect())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let recent = self.recent.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.kept.fetch_sub(recent.bytes, Ordering::Relaxed);
    }
}

impl Watch {
    /// Resolves once a commit since the last time concerns the holder, or the log has failed.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watchers = self.tail.watchers();
        watchers.count -= 1;
        for instance in &self.instances {
            let Some(bells) = watchers.by_instance.get_mut(instance) else { continue };
            bells.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
            if bells.is_empty() {
                watchers.by_instance.remove(instance);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::super::part::Part;
    use super::*;

    fn tail(head: Position) -> Arc<Tail> {
        Arc::new(Tail::new((head, Chain::default()), Arc::default()))
    }

    fn commit(position: u64, bytes: usize) -> Arc<Commit> {
        let (position, bytes) = (Position(position), vec![0; bytes].into());
        Arc::new(Commit::new(position, bytes, Vec::new()))
    }

    fn instance(byte: u8) -> Instance {
        Instance::from_bytes(&[byte; Instance::BYTES])
    }

    #[test]
    fn a_commit_wakes_those_it_concerns_and_nobody_else() {
        let tail = tail(Position::START);
        let (mine, both) =
            (tail.watch(vec![instance(1)]), tail.watch(vec![instance(1), instance(2)]));
        let other = tail.watch(vec![instance(3)]);
        assert_eq!(tail.followers(), 3);
        let parts = vec![Part { instance: instance(1), bytes: Bytes::new() }];
        let (position, bytes) = (Position(1), Bytes::new());
        tail.publish(vec![Arc::new(Commit::new(position, bytes, parts))]);
        let rung = |watch: &Watch| watch.rung().now_or_never().is_some();
        assert_eq!([rung(&mine), rung(&both), rung(&other)], [true, true, false]);
        assert_eq!([rung(&mine), rung(&both)], [false, false], "once a commit");
        tail.fail(StoreError::Closed);
        assert_eq!([rung(&mine), rung(&other)], [true, true], "a failure concerns everybody");
        drop((mine, both, other));
        assert_eq!(tail.followers(), 0);
        assert!(tail.watchers().by_instance.is_empty());
    }

    #[test]
    fn all_tails_together_are_bounded() {
        let kept: Arc<AtomicUsize> = Arc::default();
        let one = Tail::new((Position::START, Chain::default()), Arc::clone(&kept));
        let _follower = one.subscribe();
        one.publish(vec![commit(1, 100), commit(2, 100)]);
        assert_eq!(kept.load(Ordering::Relaxed), 200);
        kept.fetch_add(TAILS_BYTES_MAX, Ordering::Relaxed);
        one.publish(vec![commit(3, 100)]);
        assert_eq!(positions(one.after(Position(2), 99)), None, "others take all there is");
        assert_eq!(positions(one.after(Position(3), 99)), Some(vec![]));
        assert_eq!(kept.load(Ordering::Relaxed), TAILS_BYTES_MAX);
        drop(one);
        assert_eq!(kept.load(Ordering::Relaxed), TAILS_BYTES_MAX);
    }

    fn positions(commits: Option<Vec<Arc<Commit>>>) -> Option<Vec<u64>> {
        commits.map(|commits| commits.iter().map(|commit| commit.position.0).collect())
    }

    #[test]
    fn readers_get_what_follows_or_are_sent_to_the_store() {
        let tail = tail(Position(5));
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
        let tail = tail(Position::START);
        tail.publish(vec![commit(1, 10)]);
        assert_eq!(positions(tail.after(Position::START, 99)), None);
        assert_eq!(positions(tail.after(Position(1), 99)), Some(vec![]));
    }

    #[test]
    fn a_failed_log_stays_failed() {
        let tail = tail(Position::START);
        tail.fail(StoreError::NotFound);
        tail.publish(vec![commit(1, 10)]);
        assert!(tail.head().is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let tail = tail(Position::START);
        let _follower = tail.subscribe();
        for at in 1..=9 {
            tail.publish(vec![commit(at, TAIL_BYTES_MAX / 4)]);
        }
        assert_eq!(positions(tail.after(Position(4), usize::MAX)), None);
        assert_eq!(positions(tail.after(Position(5), usize::MAX)), Some(vec![6, 7, 8, 9]));
        assert_eq!(tail.head().expect("healthy"), Position(9));
    }
}

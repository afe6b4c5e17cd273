//! What is written at once: the commits of one stretch of one log.

use super::history::Place;
use crate::delta::Delta;
use crate::name::{LogId, Position};

/// One commit of a log: what one push changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its place in the log.
    pub position: Position,
    /// The changes, reduced to the cells that took effect.
    pub deltas: Vec<Delta>,
}

/// The commits of a log from one position through another.
///
/// Invariants: positions of commits ascend strictly, and lie between the first and the last.
/// Positions without a commit hold nothing for the backend, as where a wrapper took out the tables
/// of another. What is left keeps its [`Place`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    log: LogId,
    first: Position,
    last: Position,
    commits: Vec<Commit>,
    /// Per commit, which of its changes are left; empty as long as all of them are.
    left: Vec<Vec<u32>>,
}

/// Commits and positions that make no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("position {at} does not follow {previous} within a batch of {first} to {last}")]
pub struct BadBatch {
    first: Position,
    last: Position,
    previous: Position,
    at: Position,
}

impl Batch {
    /// The stretch of `log` from `first` through `last`, both included, which holds `commits`.
    pub fn new(
        log: LogId,
        first: Position,
        last: Position,
        commits: Vec<Commit>,
    ) -> Result<Self, BadBatch> {
        let bad = |previous, at| BadBatch { first, last, previous, at };
        if first == Position::START || last < first {
            return Err(bad(Position::START, first));
        }
        let mut previous = Position::START;
        for commit in &commits {
            let at = commit.position;
            if at <= previous || at < first || last < at {
                return Err(bad(previous, at));
            }
            previous = at;
        }
        Ok(Self { log, first, last, commits, left: Vec::new() })
    }

    /// The log that the positions are of.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// The first position.
    pub fn first(&self) -> Position {
        self.first
    }

    /// The last position: the watermark after this batch.
    pub fn last(&self) -> Position {
        self.last
    }

    /// The commits, in order.
    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    /// The commits after `watermark`: those that are new to a backend that has come so far.
    pub fn after(&self, watermark: Position) -> &[Commit] {
        let known = self.commits.partition_point(|commit| commit.position <= watermark);
        &self.commits[known..]
    }

    /// The changes after `watermark`, each with its place in the history.
    pub fn changes_after(&self, watermark: Position) -> impl Iterator<Item = (Place, &Delta)> {
        let known = self.commits.len() - self.after(watermark).len();
        (known..self.commits.len()).flat_map(move |at| {
            let commit = &self.commits[at];
            let place = move |index| Place { log: self.log, position: commit.position, index };
            self.indexes(at).map(place).zip(&commit.deltas)
        })
    }

    /// The same stretch of the log with those changes only that `keep` lets pass, each in its place.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&Delta) -> bool) -> Self {
        let mut part = Self { commits: Vec::new(), left: Vec::new(), ..*self };
        for (at, commit) in self.commits.iter().enumerate() {
            let kept = self.indexes(at).zip(&commit.deltas).filter(|(_, delta)| keep(delta));
            let (left, deltas): (Vec<_>, Vec<_>) = kept.map(|(at, d)| (at, d.clone())).unzip();
            if !deltas.is_empty() {
                part.commits.push(Commit { position: commit.position, deltas });
                part.left.push(left);
            }
        }
        part
    }

    /// The places of a commit's changes within it.
    fn indexes(&self, at: usize) -> impl Iterator<Item = u32> {
        let left = self.left.get(at);
        let nth = move |nth: u32| left.map_or(Some(nth), |left| left.get(nth as usize).copied());
        (0..).map_while(nth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn batch(first: u64, last: u64, positions: &[u64]) -> Result<Batch, BadBatch> {
        let commit = |at: &u64| Commit { position: Position(*at), deltas: Vec::new() };
        let commits = positions.iter().map(commit).collect();
        Batch::new(LogId([7; 16]), Position(first), Position(last), commits)
    }

    #[test]
    fn positions_ascend_within_the_batch() {
        for (first, last, positions, legal) in [
            (1, 1, &[1][..], true),
            (1, 9, &[], true),
            (3, 9, &[3, 5, 9], true),
            (0, 1, &[1], false),
            (4, 3, &[], false),
            (3, 9, &[2], false),
            (3, 9, &[10], false),
            (3, 9, &[5, 5], false),
            (3, 9, &[6, 5], false),
        ] {
            let made = batch(first, last, positions);
            assert_eq!(made.is_ok(), legal, "{first} to {last}: {positions:?}: {made:?}");
        }
        let error = batch(3, 9, &[6, 5]).expect_err("out of order").to_string();
        assert_eq!(error, "position 5 does not follow 6 within a batch of 3 to 9");
    }

    #[test]
    fn new_commits_are_those_after_the_watermark() {
        let batch = batch(3, 9, &[3, 5, 9]).expect("a batch");
        for (watermark, count) in [(0, 3), (3, 2), (4, 2), (5, 1), (9, 0), (12, 0)] {
            assert_eq!(batch.after(Position(watermark)).len(), count, "after {watermark}");
        }
    }

    #[test]
    fn a_part_of_a_part_keeps_its_places() {
        let deltas = ["ann@1 a=0", "ann@2 a=1", "ann@3 a=2", "ann@4 a=3"].map(testing::delta);
        let commit = |at| Commit { position: Position(at), deltas: deltas.to_vec() };
        let log = LogId([7; 16]);
        let whole = Batch::new(log, Position(3), Position(9), vec![commit(3), commit(5)]);
        let whole = whole.expect("a batch");
        let clocks = |batch: &Batch, after| -> Vec<(u64, u32, u64)> {
            let changes = batch.changes_after(Position(after));
            changes.map(|(at, delta)| (at.position.0, at.index, delta.stamp.hlc.0)).collect()
        };
        let part = whole.only(|delta| delta.stamp.hlc.0 != 2);
        assert_eq!(clocks(&part, 3), [(5, 0, 1), (5, 2, 3), (5, 3, 4)]);
        let part = part.only(|delta| 2 < delta.stamp.hlc.0);
        assert_eq!(clocks(&part, 0), [(3, 2, 3), (3, 3, 4), (5, 2, 3), (5, 3, 4)]);
        let none = part.only(|_| false);
        assert_eq!(
            (none.first(), none.last(), none.commits()),
            (Position(3), Position(9), &[][..])
        );
    }
}

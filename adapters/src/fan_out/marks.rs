//! A reserved log that orders changes made outside batches (fills, moves), so that a lagging follower
//! can be detected.
//!
//! The primary is given a mark, which is the next position of this log, before such a change is made
//! there. A follower is given the mark once it holds of the changed rows what the primary holds. So a
//! follower that missed a change is behind in this log, wherever the change was broken off.

use lakesync::adapter::Batch;
use lakesync::name::{LogId, Position};

/// The log's id in the primary and in each follower. It has no commits. A backend has a watermark of
/// it from the first change outside batches on.
///
/// A fan-out within another one counts for its own followers only: it gives the log of the outer
/// fan-out the next id.
pub const MARKS: LogId = LogId(*b"lakesync.fan_out");

/// The mark that follows `before`.
pub(super) fn after(before: Position) -> Batch {
    batch(MARKS, before.next(), before.next())
}

/// A mark of a fan-out around this one, as the primary and the followers are given it. Nothing if the
/// batch is none.
pub(super) fn inward(outer: &Batch) -> Option<Batch> {
    level(outer.log())?;
    Some(batch(inner_log(outer.log()), outer.first(), outer.last()))
}

/// What a log of the primary is called there that has this id here.
pub(super) fn inner_log(log: LogId) -> LogId {
    level(log).map_or(log, |level| at(level + 1))
}

/// What a log is called here that has this id in the primary; nothing if it is this fan-out's own
/// log of marks, which callers do not see.
pub(super) fn outer_log(log: LogId) -> Option<LogId> {
    match level(log) {
        Some(level) => level.checked_sub(1).map(at),
        None => Some(log),
    }
}

/// How many fan-outs are around the one that counts with this log, if any does.
fn level(log: LogId) -> Option<u8> {
    let ([id @ .., last], [own @ .., first]) = (log.0, MARKS.0);
    if id == own { last.checked_sub(first) } else { None }
}

fn at(level: u8) -> LogId {
    let [own @ .., first] = MARKS.0;
    let mut id = MARKS.0;
    id[own.len()] = first.wrapping_add(level);
    LogId(id)
}

fn batch(log: LogId, first: Position, last: Position) -> Batch {
    Batch::new(log, first, last, Vec::new()).expect("BUG: positions that do not ascend")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fan_out_has_a_log_of_its_own() {
        let (second, third) = (LogId(*b"lakesync.fan_ouu"), LogId(*b"lakesync.fan_ouv"));
        let others = LogId([7; 16]);
        for (outer, inner) in [(MARKS, second), (second, third), (others, others)] {
            assert_eq!(inner_log(outer), inner);
            assert_eq!(outer_log(inner), Some(outer));
        }
        assert_eq!(outer_log(MARKS), None);
    }
}

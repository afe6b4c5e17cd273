//! The log that is nobody's: it counts what the primary is given, and what it lets go of, without a
//! batch, which no other watermark tells.
//!
//! A mark is written to the primary before that is done there, and to a follower after it has come to
//! hold of it what the primary holds. So a follower that missed any of it is behind in this log, as
//! others are behind in theirs, whatever broke off.

use lakesync::adapter::Batch;
use lakesync::name::{LogId, Position};

/// Its id in the primary, and in each follower. It has no commits, and is there as soon as anything
/// came or went without a batch.
///
/// A fan-out within another counts for its own followers only: there, the other's log has the next id.
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

/// What a log is called here that has this id in the primary; nothing if it is nobody's.
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

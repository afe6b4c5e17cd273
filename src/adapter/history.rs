//! The history of changes: what took effect, in the order in which it did.

use crate::delta::Delta;
use crate::name::{LogId, Position};

/// A change's place in a history. Places sort by log, and within one log as the changes happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The log.
    pub log: LogId,
    /// The commit.
    pub position: Position,
    /// Which of the commit's changes; the first is 0.
    pub index: u32,
}

/// One change of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub place: Place,
    /// What took effect.
    pub delta: Delta,
}

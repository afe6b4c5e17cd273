//! Who wins: a reading of a clock and whose it was.

use crate::hlc::Hlc;
use crate::name::ClientId;

/// Orders writes totally: by clock, then by the client id's bytes. The greater wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// When.
    pub hlc: Hlc,
    /// Whose.
    pub client: ClientId,
}

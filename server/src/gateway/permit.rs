//! What a stream goes on by: a token that counts, the rules that it began under, and a gateway that is
//! open. It is asked whenever an answer is handed over, so nothing leaves after one of them changed.
//!
//! What was read is handed over only if the rules in force are still the same. So it does not matter
//! that the index of earlier rules is cleared away: that begins once others are in force.

use std::sync::Arc;

use tokio::sync::watch;

use super::cursor::CursorError;
use super::followers::Tail;
use super::lens::Caller;
use super::revoked::Revocations;
use super::ruling::InForce;
use super::{Gateway, ReadError, Revoked};
use crate::store::StoreError;

/// One reader's permission to be sent what it asked for.
#[derive(Clone, Debug)]
pub(super) struct Permit {
    caller: Caller,
    generation: u32,
    in_force: watch::Receiver<Arc<InForce>>,
    revoked: Arc<Revocations>,
    tail: Arc<Tail>,
    _unread: Arc<()>,
}

impl Permit {
    /// For whoever began under the rules of `generation`; zero if there were none.
    pub(super) fn new(gateway: &Gateway, caller: &Caller, generation: u32) -> Self {
        let (in_force, revoked) = (gateway.0.in_force.clone(), Arc::clone(&gateway.0.revoked));
        let (tail, unread) = (Arc::clone(&gateway.0.tail), Arc::clone(&gateway.0.unread));
        Self { caller: caller.clone(), generation, in_force, revoked, tail, _unread: unread }
    }

    /// Refuses once the token counts no longer, or the reader may see something else; and once the
    /// gateway is closed, since it may be open again under another handle and say so there only.
    pub(super) fn check(&self) -> Result<(), ReadError> {
        if self.in_force.has_changed().is_err() {
            return Err(self.tail.head().err().unwrap_or(StoreError::Closed).into());
        }
        if self.revoked.has(&self.caller) {
            return Err(Revoked.into());
        }
        if self.in_force.borrow().generation() != self.generation {
            return Err(CursorError::RULES_CHANGED.into());
        }
        Ok(())
    }

    /// Resolves once [`Self::check`] refuses, and says why.
    pub(super) async fn refused(&self) -> ReadError {
        let (mut in_force, mut revoked) = (self.in_force.clone(), self.revoked.subscribe());
        loop {
            // Seen before it is asked: what changes from here on wakes us.
            in_force.mark_unchanged();
            revoked.mark_unchanged();
            if let Err(error) = self.check() {
                return error;
            }
            // Whatever it is, and be it that the gateway closes, the check tells.
            tokio::select! {
                _ = in_force.changed() => {}
                _ = revoked.changed() => {}
            }
        }
    }
}

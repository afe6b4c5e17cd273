//! Classic bugs of sync rules, to be planted on purpose: a test that never failed proves nothing.
//! Without the feature `planted-bugs` none of them can be.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use lakesync::rules::{Claims, Instance};

use super::lens::Caller;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Filters look at a change's own cells instead of the whole merged row.
    FilterOnChange,
    /// Who loses a row is not told.
    ExitNotSent,
    /// Everybody is told of a row that left somebody's scope.
    ExitToStrangers,
    /// Who gains a row gets the change instead of the whole row.
    EntryInPart,
    /// Everybody is told of a delete.
    DeleteToStrangers,
    /// The claims of a subject's first token count for its later ones.
    ClaimsCached,
}

/// What a gateway that suffers from a bug remembers for it.
#[derive(Debug)]
pub struct Planted {
    bug: Bug,
    seen: Mutex<BTreeSet<Instance>>,
    claims: Mutex<HashMap<Arc<str>, Arc<Claims>>>,
}

impl Planted {
    /// Plants a bug.
    #[cfg(feature = "planted-bugs")]
    pub fn new(bug: Bug) -> Self {
        Self { bug, seen: Mutex::default(), claims: Mutex::default() }
    }

    pub(super) fn is(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    /// All instances that any row was ever in.
    pub(super) fn strangers(&self, known: &[Instance]) -> Vec<Instance> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(known);
        seen.iter().copied().collect()
    }

    /// The caller with the claims of its subject's first token.
    pub(super) fn with_first_claims(&self, caller: &Caller) -> Caller {
        let mut all = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let first = all.entry(Arc::clone(&caller.subject));
        let claims = Arc::clone(first.or_insert_with(|| Arc::clone(&caller.claims)));
        Caller { claims, ..caller.clone() }
    }
}

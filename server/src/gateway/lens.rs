//! What a caller may see and write of a gateway: rules in force, and what its claims open of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use lakesync::name::TableName;
use lakesync::rules::{Claims, Scope, TooManyInstances};

use super::access::Access;
use super::index::Index;

/// Who calls, as far as a gateway cares.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The subject of its token.
    pub subject: Arc<str>,
    /// What its token says.
    pub claims: Arc<Claims>,
    /// When its token was issued, in milliseconds since the Unix epoch, if the token says so.
    pub issued_ms: Option<u64>,
}

impl Caller {
    /// A caller whose token says nothing but its subject.
    pub fn of(subject: &str) -> Self {
        Self { subject: subject.into(), claims: Arc::default(), issued_ms: None }
    }
}

/// Rules in force, and what a caller's claims open of them.
#[derive(Clone, Debug)]
pub(super) struct Lens {
    pub(super) index: Arc<Index>,
    pub(super) scope: Arc<Scope>,
}

impl Lens {
    /// What `caller` may do; `None` where there are no rules.
    pub(super) fn of(
        index: Option<&Arc<Index>>,
        caller: &Caller,
    ) -> Result<Option<Self>, TooManyInstances> {
        let Some(index) = index else { return Ok(None) };
        let scope = Arc::new(Scope::of(&index.rules, &caller.claims)?);
        Ok(Some(Self { index: Arc::clone(index), scope }))
    }

    /// The same, taking over what was found out under the same rules.
    pub(super) fn renew(
        known: Option<Self>,
        index: Option<&Arc<Index>>,
        caller: &Caller,
    ) -> Result<Option<Self>, TooManyInstances> {
        match (known, index) {
            (Some(known), Some(index)) if Arc::ptr_eq(&known.index, index) => Ok(Some(known)),
            (_, index) => Self::of(index, caller),
        }
    }

    /// The tables of which every row may be seen.
    pub(super) fn whole_tables(&self) -> BTreeSet<&str> {
        let whole = self.scope.instances();
        let whole = whole.filter_map(|one| self.index.rules.whole_tables(&one));
        whole.flatten().map(TableName::as_str).collect()
    }

    /// What may be changed through it.
    pub(super) fn access(&self) -> Access<'_> {
        Access::Within(&self.scope)
    }
}

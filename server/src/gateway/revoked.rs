//! Subjects whose earlier tokens a gateway refuses: kept in memory, for every call asks, and in the
//! store, so that a restart forgets none.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::keys;
use super::lens::Caller;
use crate::store::{GatewayId, Store, StoreError};

/// How many entries are read at a time.
const LOAD_MAX: usize = 1_000;
/// How many subjects may be revoked at a gateway: beyond, change the signing key.
pub(super) const SUBJECTS_MAX: usize = 100_000;

/// The revocations of one gateway.
#[derive(Debug)]
pub(super) struct Revocations {
    /// Tokens of a subject count only if they were issued after this, in milliseconds.
    before_ms: RwLock<HashMap<Arc<str>, u64>>,
    changed: watch::Sender<()>,
}

impl Revocations {
    /// Reads what the store knows.
    pub(super) async fn load(store: &dyn Store, id: GatewayId) -> Result<Self, StoreError> {
        let mut before_ms = HashMap::new();
        let all = store.meta_scan(id, keys::REVOKED, SUBJECTS_MAX + LOAD_MAX).await?;
        for (key, value) in all {
            let subject = keys::parse_revoked(&key);
            let at = <[u8; 8]>::try_from(&value[..]).ok().map(u64::from_be_bytes);
            let (Some(subject), Some(at)) = (subject, at) else {
                return Err(StoreError::Corrupt(format!("revocation {key:?}")));
            };
            before_ms.insert(subject.into(), at);
        }
        Ok(Self { before_ms: RwLock::new(before_ms), changed: watch::Sender::new(()) })
    }

    /// Whether the caller's token is from before its subject was revoked. One that does not say when
    /// it was issued may be.
    pub(super) fn has(&self, caller: &Caller) -> bool {
        let all = self.before_ms.read().unwrap_or_else(PoisonError::into_inner);
        let before_ms = all.get(&caller.subject);
        before_ms.is_some_and(|before| caller.issued_ms.is_none_or(|issued| issued <= *before))
    }

    /// Whether `subject` may be revoked: one that was before adds nothing.
    pub(super) fn has_room(&self, subject: &str) -> bool {
        let all = self.before_ms.read().unwrap_or_else(PoisonError::into_inner);
        all.len() < SUBJECTS_MAX || all.contains_key(subject)
    }

    /// Refuses tokens of `subject` from up to `before_ms`, and tells readers to look again.
    pub(super) fn put(&self, subject: &str, before_ms: u64) {
        let mut all = self.before_ms.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(subject.into()).or_default();
        *known = before_ms.max(*known);
        drop(all);
        self.changed.send_replace(());
    }

    /// Tells of every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_issued_after_the_revocation_count() {
        let revocations =
            Revocations { before_ms: RwLock::default(), changed: watch::Sender::new(()) };
        let caller = |subject: &str, issued_ms| Caller {
            subject: subject.into(),
            claims: Arc::default(),
            issued_ms,
        };
        assert!(!revocations.has(&caller("ann", None)));
        revocations.put("ann", 1_000);
        revocations.put("ann", 500);
        for (subject, issued_ms, refused) in [
            ("ann", Some(1_000), true),
            ("ann", Some(1_001), false),
            ("ann", None, true),
            ("bob", None, false),
        ] {
            assert_eq!(
                revocations.has(&caller(subject, issued_ms)),
                refused,
                "{subject} {issued_ms:?}"
            );
        }
    }
}

//! What the writer does beside its messages, in small pieces: trim a log that is too large, build the
//! index of new sync rules, put them into force, and clear away the indexes of old ones.
//!
//! From the moment that rules are on their way, commits keep their index too; the pieces add the
//! rows from before. So the index is whole once the last piece is, whatever was pushed meanwhile,
//! and a piece that is done twice changes nothing. An old index is left alone until readers are shown
//! the rules after it: what they read before, they read whole.

use bytes::Bytes;
use lakesync::rules::Draft;
use tokio::sync::oneshot;

use super::publisher::{InFlight, RulesAnswer};
use super::ruling::Ruling;
use super::writer::Writer;
use super::{RulesChangeError, keys, stored};
use crate::store::{Group, StoreError};

/// How many bytes of rows one piece looks at.
const BUILD_BYTES: usize = 256 << 10;
/// How many bytes of index entries one piece clears away.
const CLEAR_BYTES: usize = 256 << 10;

impl Writer {
    /// Whether there is something to do.
    pub(super) fn has_chores(&self) -> bool {
        self.has_to_trim() || self.has_rules_to_build()
    }

    fn has_rules_to_build(&self) -> bool {
        let Ruling { building, outdated, in_force, .. } = &self.ruling;
        let shown = || self.shown.borrow().generation() == in_force.generation();
        !self.stalled && (building.is_some() || !outdated.is_empty() && shown())
    }

    /// Does one piece of what there is to do.
    pub(super) async fn do_chore(&mut self) -> Result<(), StoreError> {
        if self.has_to_trim() {
            self.trim().await?;
        }
        if !self.has_rules_to_build() {
            return Ok(());
        }
        match self.ruling.building {
            Some(_) => self.build().await,
            None => self.clear().await,
        }
    }

    /// Begins to put rules into force; `reply` hears when they are.
    pub(super) async fn put_rules(
        &mut self,
        draft: &Draft,
        reply: oneshot::Sender<RulesAnswer>,
    ) -> Result<(), StoreError> {
        match &self.ruling.building {
            Some(building) if building.index.rules.draft() == draft => {
                self.awaiting.push(reply);
                return Ok(());
            }
            Some(_) => {}
            None => {
                let in_force = self.ruling.in_force.index.as_ref();
                if in_force.is_some_and(|index| index.rules.draft() == draft) {
                    // In its turn: they may still be on their way to the disk.
                    let rules = vec![reply];
                    return self.publish(InFlight { rules, ..InFlight::default() }).await;
                }
            }
        }
        let next = match self.ruling.begin(draft, &self.schema) {
            Ok(next) => next,
            Err(error) => {
                // A caller that hung up learns nothing, and nothing happened.
                let _ = reply.send(Err(error.into()));
                return Ok(());
            }
        };
        match self.keep(next, Vec::new()).await {
            Ok(()) => {
                for reply in self.awaiting.drain(..) {
                    let _ = reply.send(Err(RulesChangeError::Replaced));
                }
                self.awaiting.push(reply);
                Ok(())
            }
            Err(error @ StoreError::Full(_)) => {
                let _ = reply.send(Err(error.into()));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the rules out of force. `reply` hears when that is durable and readers are shown it.
    pub(super) async fn delete_rules(
        &mut self,
        reply: oneshot::Sender<RulesAnswer>,
    ) -> Result<(), StoreError> {
        let next = self.ruling.lift();
        let meta = vec![(keys::RULES.into(), Some(next.encode()))];
        let receipt = match self.store.commit(self.id, Group { meta, ..Group::default() }).await {
            Ok(receipt) => Some(receipt),
            Err(error @ StoreError::Full(_)) => {
                // A caller that hung up learns nothing, and nothing happened.
                let _ = reply.send(Err(error.into()));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.ruling = next;
        for waiting in self.awaiting.drain(..) {
            let _ = waiting.send(Err(RulesChangeError::Replaced));
        }
        let (in_force, rules) = (Some(self.ruling.in_force.clone()), vec![reply]);
        self.publish(InFlight { receipt, in_force, rules, ..InFlight::default() }).await
    }

    /// Hands over a new state of the rules, with index entries.
    async fn keep(
        &mut self,
        next: Ruling,
        rows: Vec<(Bytes, Option<Bytes>)>,
    ) -> Result<(), StoreError> {
        let meta = vec![(keys::RULES.into(), Some(next.encode()))];
        let receipt = self.store.commit(self.id, Group { rows, meta, ..Group::default() }).await?;
        self.ruling = next;
        let receipt = Some(receipt);
        self.publish(InFlight { receipt, ..InFlight::default() }).await
    }

    /// Enters some more rows into the index of the rules on their way. Past the last row they come
    /// into force.
    async fn build(&mut self) -> Result<(), StoreError> {
        let mut next = self.ruling.clone();
        let building = next.building.as_mut().expect("BUG: no rules are on their way");
        let rows = self.store.scan(self.id, b"", Some(&building.after), BUILD_BYTES).await?;
        let Some((last, _)) = rows.last() else { return self.enforce().await };
        building.after = last.clone();
        let mut entries = Vec::new();
        for (key, bytes) in &rows {
            let (_, row) = stored::decode(key, bytes)?;
            let Some((table, row_id)) = keys::parse_row(key) else {
                return Err(StoreError::Corrupt(format!("row {key:?}")));
            };
            entries.extend(building.index.entries(key, &table, &row_id, &row));
        }
        let kept = self.keep(next, entries).await;
        self.put_off_while_full(kept)
    }

    async fn enforce(&mut self) -> Result<(), StoreError> {
        let next = self.ruling.enforce(&self.schema);
        let meta = vec![(keys::RULES.into(), Some(next.encode()))];
        let handed = self.store.commit(self.id, Group { meta, ..Group::default() }).await;
        let receipt = match handed {
            Ok(receipt) => Some(receipt),
            Err(error) => return self.put_off_while_full(Err(error)),
        };
        self.ruling = next;
        let in_force = Some(self.ruling.in_force.clone());
        let rules = std::mem::take(&mut self.awaiting);
        tracing::info!(
            gateway = self.id.0,
            generation = self.ruling.in_force.generation(),
            "sync rules in force"
        );
        self.publish(InFlight { receipt, in_force, rules, ..InFlight::default() }).await
    }

    /// Clears away some more entries of an index that nobody reads.
    async fn clear(&mut self) -> Result<(), StoreError> {
        let mut next = self.ruling.clone();
        let Some(generation) = next.outdated.last().copied() else { return Ok(()) };
        let prefix = keys::generation(generation);
        let entries = self.store.scan(self.id, &prefix, None, CLEAR_BYTES).await?;
        if entries.is_empty() {
            next.outdated.pop();
        }
        let removed = entries.into_iter().map(|(key, _)| (key, None)).collect();
        let kept = self.keep(next, removed).await;
        self.put_off_while_full(kept)
    }

    /// A full disk only puts chores off for a while.
    fn put_off_while_full(&mut self, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
        match outcome {
            Err(StoreError::Full(what)) => {
                tracing::warn!(gateway = self.id.0, what, "sync rules wait for room on the disk");
                self.stalled = true;
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Refuses tokens of `subject` that were issued up to `before_ms`.
    pub(super) async fn revoke(
        &mut self,
        subject: String,
        before_ms: u64,
        reply: oneshot::Sender<RulesAnswer>,
    ) -> Result<(), StoreError> {
        if !self.revoked.has_room(&subject) {
            let error = StoreError::Full("too many subjects were revoked".to_owned());
            let _ = reply.send(Err(error.into()));
            return Ok(());
        }
        let entry = (keys::revoked(&subject), Some(before_ms.to_be_bytes().to_vec().into()));
        match self.store.commit(self.id, Group { meta: vec![entry], ..Group::default() }).await {
            Ok(receipt) => {
                // At once: refusing too early loses nothing.
                self.revoked.put(&subject, before_ms);
                let (receipt, rules) = (Some(receipt), vec![reply]);
                self.publish(InFlight { receipt, rules, ..InFlight::default() }).await
            }
            Err(error @ StoreError::Full(_)) => {
                let _ = reply.send(Err(error.into()));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

//! The task behind a gateway: it alone assigns positions and writes to the gateway's store.
//!
//! It takes all that has queued, admits it, and hands the store one group. While the disk syncs, it
//! admits the next; a second task waits for each group in order, shows it, and answers. So what is
//! answered is durable, and so is everything before it: a push that changed nothing waits for the
//! earlier one that it repeats.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use lakesync::clock::WallClock;
use lakesync::error::Causes;
use lakesync::hlc::{Clock, Hlc};
use lakesync::name::{ClientId, Position};
use lakesync::schema::Schema;
use lakesync::wire::Offer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::access::Access;
use super::admit::{self, Rows, Rules};
use super::batch::Batch;
use super::commit::Commit;
use super::error::Revoked;
use super::flushed::Flushed;
use super::followers::Tail;
use super::holds::Holds;
use super::lens::Lens;
use super::message::{Message, Push};
use super::publisher::{Answer, FailOnPanic, InFlight, RulesAnswer};
use super::recover::Counters;
use super::revoked::Revocations;
use super::ruling::{InForce, Ruling};
use super::{Ack, Gauges, PushError, Settings, future, keys, stored};
use crate::store::{GatewayId, Group, LogEntry, Store, StoreError};

/// How many messages are taken from the queue at once.
const BATCH_MAX: usize = 64;
/// A group is handed over once it offers this many changes: while it is on its way to the disk and
/// back to its callers, the next is admitted.
const GROUP_CHANGES_TARGET: usize = 1_000;
/// After how many bytes of pushes a group ends.
const GROUP_BYTES_TARGET: usize = 8 << 20;
/// How much the stored rows that one group touches may hold, in bytes.
const GROUP_ROWS_BYTES_MAX: usize = 64 << 20;
/// How many rows are looked up at once.
const LOAD_ROWS_MAX: usize = 1_024;
/// How many groups may be on their way to the disk.
pub(super) const IN_FLIGHT_MAX: usize = 8;
/// How many clients' subjects are remembered before the store is asked again.
const SUBJECTS_MAX: usize = 10_000;
/// How long chores wait for what holds them up, unless a message comes before.
const STALLED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) id: GatewayId,
    pub(super) store: Arc<dyn Store>,
    pub(super) wall: Arc<dyn WallClock>,
    pub(super) settings: Arc<Settings>,
    pub(super) tail: Arc<Tail>,
    pub(super) schema: Arc<Schema>,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    pub(super) head: Position,
    pub(super) subjects: HashMap<ClientId, String>,
    pub(super) swept_ms: u64,
    pub(super) ruling: Ruling,
    /// The rules that readers go by: those in force, once they are durable.
    pub(super) shown: watch::Receiver<Arc<InForce>>,
    /// Who waits for the rules that are on their way.
    pub(super) awaiting: Vec<oneshot::Sender<RulesAnswer>>,
    /// Whether chores wait for room on the disk.
    pub(super) stalled: bool,
    /// Whether trimming waits for readers, for backends or for room on the disk.
    pub(super) held_back: bool,
    pub(super) revoked: Arc<Revocations>,
    pub(super) flushed: Arc<Flushed>,
    pub(super) holds: Arc<Holds>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) publisher: mpsc::Sender<InFlight>,
}

impl Writer {
    /// Serves messages until every handle is gone and the inbox is empty, or the store fails. After
    /// a failure memory and disk may disagree; answering from memory would lie.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let tail = Arc::clone(&self.tail);
        let guard = FailOnPanic(Arc::clone(&tail));
        if let Err(error) = self.run_until_closed(&mut inbox).await {
            tracing::error!(gateway = self.id.0, error = %Causes(&error), "the gateway stops: its store failed");
            tail.fail(error);
        }
        drop(guard);
    }

    /// Messages go first; what is to be done beside them goes on in small pieces, after each batch
    /// and whenever there is none.
    async fn run_until_closed(
        &mut self,
        inbox: &mut mpsc::Receiver<Message>,
    ) -> Result<(), StoreError> {
        let mut messages = Vec::with_capacity(BATCH_MAX);
        loop {
            let has_chores = self.has_chores();
            let received = tokio::select! {
                biased;
                count = inbox.recv_many(&mut messages, BATCH_MAX) => Some(count),
                () = std::future::ready(()), if has_chores => None,
                // The publisher stops only once the store has failed.
                shown = self.shown.changed() => shown.map(|()| None).map_err(|_| StoreError::Closed)?,
                () = sleep(STALLED), if self.stalled || self.held_back => None,
            };
            (self.stalled, self.held_back) = (false, false);
            match received {
                Some(0) => return Ok(()),
                Some(_) => self.serve(messages.drain(..)).await?,
                None => {}
            }
            self.do_chore().await?;
        }
    }

    async fn serve(&mut self, messages: impl Iterator<Item = Message>) -> Result<(), StoreError> {
        let (mut pushes, mut changes, mut bytes) = (Vec::new(), 0, 0);
        for message in messages {
            match message {
                Message::Push(push) => {
                    changes += push.offers.len();
                    bytes += push.bytes;
                    pushes.push(push);
                    if GROUP_CHANGES_TARGET <= changes || GROUP_BYTES_TARGET <= bytes {
                        self.commit(std::mem::take(&mut pushes)).await?;
                        (changes, bytes) = (0, 0);
                    }
                }
                Message::PutSchema { proposals, dry_run, reply } => {
                    // Pushes before a change of schema are judged by the old one.
                    self.commit(std::mem::take(&mut pushes)).await?;
                    self.put_schema(&proposals, dry_run, reply).await?;
                }
                Message::PutRules { draft, reply } => {
                    self.commit(std::mem::take(&mut pushes)).await?;
                    self.put_rules(&draft, reply).await?;
                }
                Message::DeleteRules { reply } => {
                    self.commit(std::mem::take(&mut pushes)).await?;
                    self.delete_rules(reply).await?;
                }
                Message::Revoke { subject, before_ms, reply } => {
                    self.commit(std::mem::take(&mut pushes)).await?;
                    self.revoke(subject, before_ms, reply).await?;
                }
                // It is done after every batch of messages.
                Message::Retain => {}
                Message::Flushed { name, mark } => {
                    let meta = vec![(keys::flushed(&name), Some(mark.encode()))];
                    // If the disk is full, the backend knows all the same.
                    self.forget(Group { meta, ..Group::default() }).await?;
                }
            }
        }
        self.commit(pushes).await?;
        self.retain().await
    }

    async fn commit(&mut self, pushes: Vec<Push>) -> Result<(), StoreError> {
        if pushes.is_empty() {
            return Ok(());
        }
        self.make_room().await?;
        self.look_whether_full()?;
        let Some(mut rows) = self.load_rows(&pushes).await? else {
            return self.commit_apart(pushes).await;
        };
        let mut batch = Batch::new(self);
        for push in pushes {
            let owner = self.owner(&batch, &push.client).await?;
            let answer = self.judge(&mut batch, &mut rows, owner, push);
            batch.in_flight.answers.push(answer);
        }
        let mut changed = rows.changed();
        changed.append(&mut batch.entries);
        self.hand_over(batch, changed).await
    }

    /// Commits one by one what is too much together, and refuses what is too much alone.
    async fn commit_apart(&mut self, mut pushes: Vec<Push>) -> Result<(), StoreError> {
        if pushes.len() == 1
            && let Some(Push { reply, .. }) = pushes.pop()
        {
            // A caller that hung up learns nothing, and nothing happened.
            let _ = reply.send(Err(PushError::RowsTooLarge { limit_bytes: GROUP_ROWS_BYTES_MAX }));
        }
        for push in pushes {
            Box::pin(self.commit(vec![push])).await?;
        }
        Ok(())
    }

    /// Reads all rows that the pushes touch; `None` if those are more than memory should hold.
    async fn load_rows(&self, pushes: &[Push]) -> Result<Option<Rows>, StoreError> {
        let (mut rows, wanted) = Rows::touched(pushes.iter().flat_map(|push| &push.offers));
        let (mut wanted, mut loaded_bytes) = (wanted.as_slice(), 0);
        while !wanted.is_empty() {
            let some = &wanted[..wanted.len().min(LOAD_ROWS_MAX)];
            let left_bytes = GROUP_ROWS_BYTES_MAX - loaded_bytes;
            let stored = self.store.rows(self.id, some, left_bytes).await?;
            let answered;
            (answered, wanted) = wanted.split_at(stored.len());
            for (key, bytes) in answered.iter().zip(stored) {
                let Some(bytes) = bytes else { continue };
                loaded_bytes += bytes.len();
                rows.load(key.clone(), stored::decode_whole(key, &bytes)?, bytes.len());
            }
            if GROUP_ROWS_BYTES_MAX < loaded_bytes {
                return Ok(None);
            }
        }
        Ok(Some(rows))
    }

    /// Whose client id this is, if it is anybody's yet.
    async fn owner(
        &mut self,
        batch: &Batch,
        client: &ClientId,
    ) -> Result<Option<String>, StoreError> {
        if let Some(subject) = batch.owners.get(client).or_else(|| self.subjects.get(client)) {
            return Ok(Some(subject.clone()));
        }
        let Some(stored) = self.store.meta(self.id, &keys::client(client)).await? else {
            return Ok(None);
        };
        let subject = String::from_utf8(stored.into())
            .map_err(|_| StoreError::Corrupt(format!("the subject of client {client}")))?;
        self.remember(client.clone(), subject.clone());
        Ok(Some(subject))
    }

    fn remember(&mut self, client: ClientId, subject: String) {
        if SUBJECTS_MAX <= self.subjects.len() {
            self.subjects.clear();
        }
        self.subjects.insert(client, subject);
    }

    /// Admits a push, or refuses it.
    fn judge(
        &mut self,
        batch: &mut Batch,
        rows: &mut Rows,
        owner: Option<String>,
        push: Push,
    ) -> Answer {
        let Push { caller, lens, client, offers, atomic, reply, room, .. } = push;
        let is_full = self.gauges.is_full.load(Ordering::Acquire);
        let what = match owner {
            _ if self.revoked.has(&caller) => Err(Revoked.into()),
            _ if is_full => Err(PushError::LogFull),
            Some(owner) if owner != *caller.subject => Err(PushError::ClientIdTaken(client)),
            _ => match Lens::renew(lens, self.ruling.in_force.index.as_ref(), &caller) {
                Ok(lens) => {
                    let who = Pusher { subject: caller.subject.to_string(), client, lens };
                    self.admit(batch, rows, &who, offers, atomic)
                }
                Err(error) => Err(error.into()),
            },
        };
        Answer { reply, what, _room: room }
    }

    fn admit(
        &mut self,
        batch: &mut Batch,
        rows: &mut Rows,
        who: &Pusher,
        offers: Vec<Offer>,
        atomic: bool,
    ) -> Result<Ack, PushError> {
        let wall_ms = self.wall.now_ms();
        future::settle(&mut self.clock, wall_ms, self.id);
        let position = batch.head.next();
        let rules = Rules {
            schema: &self.schema,
            capacity: self.settings.capacity,
            clock: &self.clock,
            wall_ms,
            horizon: self.horizon(wall_ms),
            access: who.lens.as_ref().map_or(Access::Everything, Lens::access),
            indexes: &batch.indexes,
            position,
        };
        let admitted = admit::admit(&rules, rows, offers, atomic).map_err(PushError::Refused)?;
        self.clock.observe(admitted.newest, wall_ms).expect("BUG: an admitted stamp drifts");
        let hlc = self.clock.now(wall_ms);
        // Whoever was admitted owns the id, even if all of it had lost to others.
        if Hlc::default() < admitted.furthest && !self.subjects.contains_key(&who.client) {
            batch.owners.insert(who.client.clone(), who.subject.clone());
        }
        batch.counters.note(hlc, admitted.furthest);
        let told = future::told(hlc, wall_ms, &self.settings);
        if admitted.effective.is_empty() {
            return Ok(Ack { position: Position::START, outcomes: admitted.outcomes, hlc: told });
        }
        let outcomes = batch.take(&self.schema, rows, &who.client, hlc, admitted);
        Ok(Ack { position, outcomes, hlc: told })
    }

    /// Gives the batch to the store, and to the publisher in any case: even what changed nothing is
    /// answered in its turn.
    async fn hand_over(
        &mut self,
        mut batch: Batch,
        rows: Vec<(Bytes, Option<Bytes>)>,
    ) -> Result<(), StoreError> {
        if !(batch.in_flight.commits.is_empty() && batch.owners.is_empty()) {
            let entry = |commit: &Arc<Commit>| LogEntry {
                position: commit.position,
                commit: commit.bytes.clone(),
            };
            let log = batch.in_flight.commits.iter().map(entry).collect();
            let mut meta = batch.meta;
            let owner = |(client, subject): (&ClientId, &String)| {
                (keys::client(client), Some(Bytes::copy_from_slice(subject.as_bytes())))
            };
            meta.extend(batch.owners.iter().map(owner));
            meta.push((keys::COUNTERS.into(), Some(batch.counters.encode())));
            match self.store.commit(self.id, Group { log, rows, meta }).await {
                Ok(receipt) => batch.in_flight.receipt = Some(receipt),
                Err(error @ StoreError::Full(_)) => {
                    batch.in_flight.refuse(&error);
                    return self.publish(batch.in_flight).await;
                }
                Err(error) => return Err(error),
            }
            self.head = batch.head;
            for (client, subject) in batch.owners {
                self.remember(client, subject);
            }
        }
        self.counters = batch.counters;
        batch.in_flight.counters = Some(self.counters);
        self.publish(batch.in_flight).await
    }

    pub(super) async fn publish(&self, in_flight: InFlight) -> Result<(), StoreError> {
        // The publisher stops only once the store has failed.
        self.publisher.send(in_flight).await.map_err(|_| StoreError::Closed)
    }
}

/// Who pushes, and what it may change where there are rules.
#[derive(Debug)]
struct Pusher {
    subject: String,
    client: ClientId,
    lens: Option<Lens>,
}

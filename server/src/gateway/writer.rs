//! The task behind a gateway: it alone assigns positions and writes to the gateway's store.
//!
//! It takes all that has queued, admits it, and hands the store one group. While the disk syncs, it
//! admits the next; a second task waits for each group in order, shows it, and answers. So what is
//! answered is durable, and so is everything before it: a push that changed nothing waits for the
//! earlier one that it repeats.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use lakesync::clock::WallClock;
use lakesync::hlc::{Clock, Hlc};
use lakesync::name::{ClientId, Position};
use lakesync::row::Row;
use lakesync::schema::{Proposal, Schema};
use lakesync::wire::Offer;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::admit::{self, Rows, Rules};
use super::commit::{self, Commit};
use super::followers::Tail;
use super::recover::{Counters, encode_schema};
use super::{Ack, Gauges, PushError, SchemaChangeError, Settings, keys};
use crate::store::{GatewayId, Group, LogEntry, Receipt, Store, StoreError};

/// How many messages are taken from the queue at once.
const BATCH_MAX: usize = 64;
/// A group is handed over once it offers this many changes: while it is on its way to the disk and
/// back to its callers, the next is admitted.
const GROUP_CHANGES_TARGET: usize = 1_000;
/// How many groups may be on their way to the disk.
pub(super) const IN_FLIGHT_MAX: usize = 8;
/// How many clients' subjects are remembered before the store is asked again.
const SUBJECTS_MAX: usize = 10_000;

/// What a gateway asks of its writer.
#[derive(Debug)]
pub(super) enum Message {
    Push(Push),
    PutSchema { proposals: Vec<Proposal>, dry_run: bool, reply: oneshot::Sender<SchemaAnswer> },
}

/// What a push is answered.
pub(super) type PushAnswer = Result<Ack, PushError>;
/// What a change of schema is answered.
pub(super) type SchemaAnswer = Result<Arc<Schema>, SchemaChangeError>;

/// One push in the queue.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) subject: String,
    pub(super) client: ClientId,
    pub(super) offers: Vec<Offer>,
    pub(super) atomic: bool,
    pub(super) reply: oneshot::Sender<PushAnswer>,
    /// Its share of the queue, given back when it has been admitted.
    pub(super) _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) id: GatewayId,
    pub(super) store: Arc<dyn Store>,
    pub(super) wall: Arc<dyn WallClock>,
    pub(super) settings: Arc<Settings>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) schema: Arc<Schema>,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    pub(super) head: Position,
    pub(super) subjects: HashMap<ClientId, String>,
    pub(super) swept_ms: u64,
    pub(super) publisher: mpsc::Sender<InFlight>,
}

/// A group on its way to the disk, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    receipt: Option<Receipt>,
    commits: Vec<Arc<Commit>>,
    answers: Vec<(oneshot::Sender<PushAnswer>, PushAnswer)>,
    schema: Option<(Arc<Schema>, oneshot::Sender<SchemaAnswer>)>,
}

impl Writer {
    /// Serves messages until every handle is gone and the inbox is empty, or the store fails. After
    /// a failure memory and disk may disagree; answering from memory would lie.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>, tail: Arc<Tail>) {
        let mut messages = Vec::with_capacity(BATCH_MAX);
        while 0 < inbox.recv_many(&mut messages, BATCH_MAX).await {
            if let Err(error) = self.serve(messages.drain(..)).await {
                tracing::error!(gateway = self.id.0, %error, "the gateway stops: its store failed");
                tail.fail(error);
                return;
            }
        }
    }

    async fn serve(&mut self, messages: impl Iterator<Item = Message>) -> Result<(), StoreError> {
        let (mut pushes, mut changes) = (Vec::new(), 0);
        for message in messages {
            match message {
                Message::Push(push) => {
                    changes += push.offers.len();
                    pushes.push(push);
                    if GROUP_CHANGES_TARGET <= changes {
                        self.commit(std::mem::take(&mut pushes)).await?;
                        changes = 0;
                    }
                }
                Message::PutSchema { proposals, dry_run, reply } => {
                    // Pushes before a change of schema are judged by the old one.
                    self.commit(std::mem::take(&mut pushes)).await?;
                    self.put_schema(&proposals, dry_run, reply).await?;
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
        let mut rows = self.load_rows(&pushes).await?;
        let mut batch = Batch::new(self);
        for push in pushes {
            let Push { subject, client, offers, atomic, reply, _room } = push;
            let answer = match self.owner(&batch, &client).await? {
                Some(owner) if owner != subject => Err(PushError::ClientIdTaken(client)),
                _ => self.admit(&mut batch, &mut rows, (subject, client), offers, atomic),
            };
            batch.in_flight.answers.push((reply, answer));
        }
        self.hand_over(batch, rows.changed()).await
    }

    /// Reads all rows that the pushes touch, in one call.
    async fn load_rows(&self, pushes: &[Push]) -> Result<Rows, StoreError> {
        let (mut rows, wanted) = Rows::touched(pushes.iter().flat_map(|push| &push.offers));
        let stored = self.store.rows(self.id, &wanted).await?;
        for (key, bytes) in wanted.into_iter().zip(stored) {
            let Some(bytes) = bytes else { continue };
            let row = Row::decode(&bytes)
                .map_err(|error| StoreError::Corrupt(format!("row {key:?}: {error}")))?;
            rows.load(key, row, bytes.len());
        }
        Ok(rows)
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

    fn admit(
        &mut self,
        batch: &mut Batch,
        rows: &mut Rows,
        (subject, client): (String, ClientId),
        offers: Vec<Offer>,
        atomic: bool,
    ) -> Result<Ack, PushError> {
        let wall_ms = self.wall.now_ms();
        let horizon = horizon(wall_ms, &self.settings);
        let rules = Rules { schema: &self.schema, clock: &self.clock, wall_ms, horizon };
        let admitted = admit::admit(&rules, rows, offers, atomic).map_err(PushError::Refused)?;
        // Every admitted stamp was checked against the same wall time.
        self.clock.observe(admitted.newest, wall_ms).expect("BUG: an admitted stamp drifts");
        let hlc = self.clock.now(wall_ms);
        let (outcomes, mut position) = (admitted.outcomes, Position::START);
        if !admitted.effective.is_empty() {
            position = batch.head.next();
            batch.head = position;
            let bytes = commit::encode(&client, hlc, &admitted.effective);
            batch.counters.appended_bytes += bytes.len() as u64;
            batch.counters.rows = batch.counters.rows.saturating_add_signed(admitted.rows_gained);
            let tombstones = admitted.deleted.iter();
            let tombstone =
                |(at, key): &(Hlc, Bytes)| (keys::tombstone(*at, key), Some(Bytes::new()));
            batch.meta.extend(tombstones.map(tombstone));
            batch.in_flight.commits.push(Arc::new(Commit { position, bytes }));
            if !self.subjects.contains_key(&client) {
                batch.owners.insert(client, subject);
            }
        }
        batch.counters.hlc = hlc.0;
        Ok(Ack { position, outcomes, hlc })
    }

    /// Gives the batch to the store, and to the publisher in any case: even what changed nothing is
    /// answered in its turn.
    async fn hand_over(
        &mut self,
        mut batch: Batch,
        rows: Vec<(Bytes, Option<Bytes>)>,
    ) -> Result<(), StoreError> {
        if !batch.in_flight.commits.is_empty() {
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
        self.show_gauges();
        self.publish(batch.in_flight).await
    }

    async fn put_schema(
        &mut self,
        proposals: &[Proposal],
        dry_run: bool,
        reply: oneshot::Sender<SchemaAnswer>,
    ) -> Result<(), StoreError> {
        let evolved = match self.schema.evolve(proposals) {
            Ok(evolved) => Arc::new(evolved),
            Err(error) => {
                // A caller that hung up learns nothing, and nothing happened.
                let _ = reply.send(Err(error.into()));
                return Ok(());
            }
        };
        if dry_run || evolved == self.schema {
            let _ = reply.send(Ok(evolved));
            return Ok(());
        }
        let meta = vec![(keys::SCHEMA.into(), Some(encode_schema(&evolved)))];
        match self.store.commit(self.id, Group { meta, ..Group::default() }).await {
            Ok(receipt) => {
                self.schema = Arc::clone(&evolved);
                let (receipt, schema) = (Some(receipt), Some((evolved, reply)));
                self.publish(InFlight { receipt, schema, ..InFlight::default() }).await
            }
            Err(error @ StoreError::Full(_)) => {
                let _ = reply.send(Err(error.into()));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn publish(&self, in_flight: InFlight) -> Result<(), StoreError> {
        // The publisher stops only once the store has failed.
        self.publisher.send(in_flight).await.map_err(|_| StoreError::Closed)
    }

    pub(super) fn show_gauges(&self) {
        self.gauges.committed.store(self.head.0, Ordering::Release);
        self.gauges.rows.store(self.counters.rows, Ordering::Release);
        self.gauges.log_bytes.store(self.counters.log_bytes(), Ordering::Release);
        self.gauges.hlc.store(self.counters.hlc, Ordering::Release);
    }
}

/// What a batch will have changed once the store has it.
#[derive(Debug)]
struct Batch {
    head: Position,
    counters: Counters,
    meta: Vec<(Bytes, Option<Bytes>)>,
    owners: HashMap<ClientId, String>,
    in_flight: InFlight,
}

impl Batch {
    fn new(writer: &Writer) -> Self {
        Self {
            head: writer.head,
            counters: writer.counters,
            meta: Vec::new(),
            owners: HashMap::new(),
            in_flight: InFlight::default(),
        }
    }
}

impl InFlight {
    /// Nothing of the batch was kept: whoever was told of an effect is told this instead.
    fn refuse(&mut self, error: &StoreError) {
        self.commits.clear();
        for (_, answer) in &mut self.answers {
            if answer.is_ok() {
                *answer = Err(error.clone().into());
            }
        }
    }
}

/// Deletes before this may have been forgotten.
pub(super) fn horizon(wall_ms: u64, settings: &Settings) -> Hlc {
    let offline_ms = u64::try_from(settings.offline_max.as_millis()).unwrap_or(u64::MAX);
    Hlc::from_ms(wall_ms.saturating_sub(offline_ms))
}

/// Waits for each group in turn, shows it, and answers. Ends when the writer does, or at the first
/// failure: then nobody is answered, because nobody knows what is on the disk.
pub(super) async fn publish_all(
    mut groups: mpsc::Receiver<InFlight>,
    tail: Arc<Tail>,
    schema: watch::Sender<Arc<Schema>>,
) {
    while let Some(group) = groups.recv().await {
        if let Some(receipt) = group.receipt
            && let Err(error) = receipt.durable().await
        {
            tail.fail(error);
            return;
        }
        tail.publish(group.commits);
        for (reply, answer) in group.answers {
            // A caller that hung up learns nothing; its changes are durable all the same.
            let _ = reply.send(answer);
        }
        if let Some((installed, reply)) = group.schema {
            schema.send_replace(Arc::clone(&installed));
            let _ = reply.send(Ok(installed));
        }
    }
}

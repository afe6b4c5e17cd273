//! The gateway: the single writer of one log, and its readers. It has never heard of gRPC.
//!
//! Pushes queue for one task, which admits them in batches, makes each batch durable with one sync,
//! shows it to readers, and only then answers. Readers never queue behind writers.
//!
//! Invariant: `trimmed <= durable`, and readers see nothing past `durable`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lakesync::clock::WallClock;
use lakesync::hlc::Hlc;
use lakesync::limits;
use lakesync::name::{ClientId, Position};
use lakesync::rules::Draft;
use lakesync::schema::{Proposal, Schema};
use lakesync::wire::Offer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

mod access;
mod admit;
mod allowance;
mod backlog;
mod batch;
mod checkpoint;
mod chores;
mod commit;
mod copies;
mod cursor;
mod draft;
mod error;
mod evolve;
mod flight;
mod flushed;
mod followers;
mod future;
mod gather;
mod gauges;
mod holds;
mod index;
mod judge;
mod keys;
mod lens;
mod message;
mod out;
mod part;
mod permit;
mod plain;
mod planted;
mod publisher;
mod reader;
mod recover;
mod registry;
mod rehearse;
mod restore;
mod retain;
mod revoked;
mod ruling;
mod scan;
mod scoped;
mod settings;
mod slot;
mod stand;
mod standing;
mod stored;
mod writer;

pub use admit::REPLAYED;
pub use allowance::{Allowance, Quota};
pub use backlog::{Backlog, Growth, Stretch, WeakGateway};
pub use checkpoint::CheckpointOptions;
pub use copies::CopyError;
pub use error::{PushError, ReadError, Revoked, RulesChangeError, SchemaChangeError};
pub use flushed::{Lag, Mark, Needs, Progress};
pub use lens::Caller;
pub use out::{Answers, Sending, Stopped};
pub use planted::{Bug, Planted};
pub use registry::{Gateways, Usage};
pub use rehearse::Effect;
pub use restore::{Restore, RestoreError, Restored};
pub use settings::Settings;
pub use stand::PullOptions;

use crate::store::{GatewayRecord, Store, StoreError};
use allowance::{Allowances, Take};
use flight::Flight;
use flushed::Flushed;
use followers::Tail;
use gauges::Gauges;
use holds::Holds;
use lens::Lens;
use message::{Message, Push};
use revoked::Revocations;
use ruling::InForce;

/// A handle to an open gateway. Clones share it.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    record: GatewayRecord,
    store: Arc<dyn Store>,
    clock: Arc<dyn WallClock>,
    settings: Arc<Settings>,
    mailbox: mpsc::Sender<Message>,
    queue: Arc<Semaphore>,
    /// This gateway's share of the queue: one that stalls must not stop the others.
    share: Arc<Semaphore>,
    allowances: Arc<Allowances>,
    /// What all readers of the process hold in memory.
    flight: Arc<Flight>,
    tail: Arc<Tail>,
    gauges: Arc<Gauges>,
    schema: watch::Receiver<Arc<Schema>>,
    in_force: watch::Receiver<Arc<InForce>>,
    revoked: Arc<Revocations>,
    flushed: Arc<Flushed>,
    holds: Arc<Holds>,
    /// Held by each stream that is not read to its end, though its reader may be done.
    unread: Arc<()>,
}

/// What a push came to. Everything it says is durable.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The position of the commit; zero if nothing changed.
    pub position: Position,
    /// What is said of changes that did not simply take effect.
    pub outcomes: Vec<lakesync::proto::v1::Outcome>,
    /// The gateway's clock.
    pub hlc: Hlc,
}

/// A gateway's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The newest durable commit.
    pub head: Position,
    /// The oldest commit a cursor may still name.
    pub tail: Position,
    /// Rows that exist.
    pub rows: u64,
    /// The size of the log in bytes.
    pub log_bytes: u64,
    /// Readers that follow.
    pub followers: usize,
}

/// How much of the queue a permit stands for.
const QUEUE_UNIT_BYTES: usize = 1024;
/// Which part of the queue one gateway may fill, and the least that it may.
const QUEUE_SHARE: usize = 4;
const QUEUE_SHARE_BYTES_MIN: usize = 8 << 20;
/// How long a writer that has dropped a message may take until it has ended.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// A push's room in the queue, given back when it has been answered.
#[derive(Debug)]
struct Room {
    _share: OwnedSemaphorePermit,
    _queue: OwnedSemaphorePermit,
}

impl Gateway {
    /// Offers `offers` as one commit and returns once they are durable. `bytes` is the size of the
    /// request. What both take in memory counts against the queue while the push waits.
    pub async fn push(
        &self,
        caller: &Caller,
        client: ClientId,
        offers: Vec<Offer>,
        atomic: bool,
        bytes: usize,
    ) -> Result<Ack, PushError> {
        if limits::PUSH_ROWS_MAX < offers.len() {
            return Err(PushError::TooManyChanges { count: offers.len() });
        }
        if self.0.gauges.is_full.load(Ordering::Acquire) {
            // The writer says so too; here it costs nothing.
            return Err(PushError::LogFull);
        }
        let take = Take { rows: offers.len() as u64, bytes: bytes as u64 };
        self.0.allowances.push(&caller.subject, take, self.0.clock.now_ms())?;
        let memory_bytes = offers.iter().map(Offer::memory_bytes).sum::<usize>();
        let room = self.room(bytes + memory_bytes)?;
        let lens = Lens::of(self.0.in_force.borrow().index.as_ref(), caller)?;
        let (reply, answer) = oneshot::channel();
        let caller = caller.clone();
        let push = Push { caller, lens, client, offers, atomic, bytes, reply, room };
        // A full mailbox means overload: refuse now, cheaply, rather than let callers pile up.
        self.0.mailbox.try_send(Message::Push(push)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PushError::Full,
            mpsc::error::TrySendError::Closed(_) => {
                self.ended().map_or(PushError::Stopped, PushError::Store)
            }
        })?;
        match self.answered(answer).await {
            Some(answer) => answer,
            None => Err(self.ended().map_or(PushError::Stopped, PushError::Store)),
        }
    }

    /// What the writer or its publisher answers; nothing if both have gone without an answer. A
    /// message that is sent just as the writer ends may stay in the mailbox, and nobody drops it.
    async fn answered<T>(&self, mut answer: oneshot::Receiver<T>) -> Option<T> {
        let mut schema = self.0.schema.clone();
        let gone = async {
            self.0.mailbox.closed().await;
            // Ends with an error, once the publisher is no more.
            let _ = schema.wait_for(|_| false).await;
        };
        tokio::pin!(gone);
        tokio::select! {
            biased;
            answered = &mut answer => match answered {
                Ok(answered) => Some(answered),
                Err(_) => {
                    // It is dropped before it is said why.
                    let _ = timeout(ENDING_MAX, gone).await;
                    None
                }
            },
            () = &mut gone => answer.try_recv().ok(),
        }
    }

    /// Room for a push in the queue, of the process and of this gateway. One that takes more than
    /// there ever is gets all of it, so that no legal push is refused for good.
    fn room(&self, bytes: usize) -> Result<Room, PushError> {
        let all = self.0.settings.share_bytes().min(self.0.settings.queue_bytes_max);
        let units = (1 + bytes / QUEUE_UNIT_BYTES).min(all / QUEUE_UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let take = |queue: &Arc<Semaphore>| {
            Arc::clone(queue).try_acquire_many_owned(units).map_err(|_| PushError::Full)
        };
        Ok(Room { _share: take(&self.0.share)?, _queue: take(&self.0.queue)? })
    }

    /// Installs or evolves tables; with `dry_run`, only says what would come of it.
    pub async fn put_schema(
        &self,
        proposals: Vec<Proposal>,
        dry_run: bool,
    ) -> Result<Arc<Schema>, SchemaChangeError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::PutSchema { proposals, dry_run, reply };
        let stopped = || self.ended().map_or(SchemaChangeError::Stopped, SchemaChangeError::Store);
        self.0.mailbox.send(message).await.map_err(|_| stopped())?;
        self.answered(answer).await.unwrap_or_else(|| Err(stopped()))
    }

    /// Puts sync rules into force, and returns once they are: every row must be in their index
    /// first. Whether or not the caller waits, it goes on.
    pub async fn put_rules(&self, draft: Draft) -> Result<(), RulesChangeError> {
        let (reply, answer) = oneshot::channel();
        self.change(Message::PutRules { draft, reply }, answer).await
    }

    /// Takes the sync rules out of force, and returns once that is durable: every caller may then see
    /// and write every row again. Rules that were on their way are given up.
    pub async fn delete_rules(&self) -> Result<(), RulesChangeError> {
        let (reply, answer) = oneshot::channel();
        self.change(Message::DeleteRules { reply }, answer).await
    }

    /// Ends the streams of `subject`, and refuses its tokens that were issued before now.
    pub async fn revoke(&self, subject: &str) -> Result<(), RulesChangeError> {
        let (subject, before_ms) = (subject.to_owned(), self.0.clock.now_ms());
        let (reply, answer) = oneshot::channel();
        self.change(Message::Revoke { subject, before_ms, reply }, answer).await
    }

    async fn change(
        &self,
        message: Message,
        answer: oneshot::Receiver<Result<(), RulesChangeError>>,
    ) -> Result<(), RulesChangeError> {
        let stopped = || self.ended().map_or(RulesChangeError::Stopped, RulesChangeError::Store);
        self.0.mailbox.send(message).await.map_err(|_| stopped())?;
        self.answered(answer).await.unwrap_or_else(|| Err(stopped()))
    }

    /// The sync rules in force, if there are any.
    pub fn rules(&self) -> Option<Draft> {
        let in_force = self.0.in_force.borrow();
        in_force.index.as_ref().map(|index| index.rules.draft().clone())
    }

    /// Why the writer no longer answers: a failure, or nothing if the gateway merely closed.
    fn ended(&self) -> Option<StoreError> {
        self.0.tail.head().err()
    }

    /// The tables.
    pub fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.0.schema.borrow())
    }

    /// The gateway's identity in its store.
    pub fn record(&self) -> &GatewayRecord {
        &self.0.record
    }

    /// The clock reading that clients are told: at least the newest admitted stamp that is within the
    /// drift limit, so that what they stamp by it is neither outdated nor refused. Stamps from before
    /// the wall clock was set back do not count.
    pub fn hlc(&self) -> Hlc {
        let last = Hlc(self.0.gauges.hlc.load(Ordering::Acquire));
        future::told(last, self.0.clock.now_ms(), &self.0.settings)
    }

    /// The gateway's figures.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let gauges = &self.0.gauges;
        Ok(Stats {
            head: self.0.tail.head()?,
            tail: gauges.trimmed(),
            rows: gauges.rows.load(Ordering::Acquire),
            log_bytes: gauges.log_bytes.load(Ordering::Acquire),
            followers: self.0.tail.followers(),
        })
    }
}

#[cfg(test)]
mod tests;

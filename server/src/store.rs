//! The durable state of gateways, behind one trait: where it lives is the engine's business.
//!
//! A store keeps bytes. What they mean (commits, rows, schemas, stamps) is decided above it. The
//! contract below is checked by the suite in `conformance`, which every engine passes.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lakesync::error::{Classify, Reason};
use lakesync::name::{Gateway, LogId, Position};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod embedded;
mod identity;
pub mod memory;

/// The number of a gateway in its store: given at creation, never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub u32);

/// A gateway that a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRecord {
    /// Its name.
    pub name: Gateway,
    /// Its number.
    pub id: GatewayId,
    /// The identity of this life of its log. It changes when the store was restored from a copy,
    /// and when a gateway is deleted and created anew.
    pub log_id: LogId,
    /// What only whoever serves this life of its log knows.
    pub secret: LogSecret,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// A key of one life of one log, for what is given out and must come back as it was.
#[derive(Clone, PartialEq, Eq)]
pub struct LogSecret(pub [u8; 32]);

impl fmt::Debug for LogSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogSecret(..)")
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub position: Position,
    /// The whole commit.
    pub commit: Bytes,
}

/// What becomes durable together: all of it, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// New entries, whose positions follow the head without a gap and in order.
    pub log: Vec<LogEntry>,
    /// New states of rows by key; `None` removes. Of two states of one key the later counts.
    pub rows: Vec<(Bytes, Option<Bytes>)>,
    /// New states of meta entries by key; `None` removes. Of two states of one key the later counts.
    pub meta: Vec<(Bytes, Option<Bytes>)>,
}

/// A commit on its way to the disk.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<(), StoreError>>);

impl Receipt {
    /// A receipt, and the end at which the engine says how it went.
    pub fn channel() -> (oneshot::Sender<Result<(), StoreError>>, Self) {
        let (done, receipt) = oneshot::channel();
        (done, Self(receipt))
    }

    /// Resolves once the group would survive a power cut. An error is final for the opened store:
    /// what happened to the group is known only after reopening.
    pub async fn durable(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// A copy on its way, piece by piece. The store waits for whoever takes them, for a while: a copy that
/// nobody takes is broken off. Dropping it lets go of what the copy is made from.
#[derive(Debug)]
pub struct Copying(pub(crate) mpsc::Receiver<Result<Bytes, StoreError>>);

impl Copying {
    /// The next piece; nothing after the last. Whether it was the last, only the pieces themselves say.
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        self.0.recv().await
    }
}

/// How long callers wait until connections have ended.
const SHORTAGE_RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long callers wait for somebody to make room on the disk.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Why a store could not do what it was asked. After any of these but `NotFound`, `Exists`,
/// `Unfinished`, `Full`, `Shortage` and `NoCopy` the opened store answers nothing more: reopen it, and
/// it recovers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No such gateway.
    #[error("there is no such gateway")]
    NotFound,
    /// A gateway of that name exists.
    #[error("a gateway named {0} exists")]
    Exists(Gateway),
    /// A gateway whose rows are not all there yet. The gateway is not opened; nothing else is said of
    /// the store.
    #[error(
        "the restore of gateway {0} was broken off: repeat the same `lakesync restore`, or delete the \
         gateway"
    )]
    Unfinished(Gateway),
    /// The disk is full, or nearly so; nothing of the refused write was kept.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Nothing could be read for want of file descriptors. The store itself goes on.
    #[error("too few file descriptors: {0}")]
    Shortage(String),
    /// A copy could not be made; nothing of it is left. The store itself goes on.
    #[error("no copy was made: {0}")]
    NoCopy(String),
    /// The disk said no. Never tried again: after a failed sync nobody knows what is on it.
    #[error("the store failed and must be reopened: {0}")]
    Failed(String),
    /// What was read does not match its checksum, or can't be understood.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Classify for StoreError {
    fn reason(&self) -> Reason {
        match self {
            Self::NotFound => Reason::GatewayNotFound,
            Self::Exists(_) => Reason::GatewayExists,
            Self::Full(_) => Reason::DiskFull,
            Self::Shortage(_) => Reason::Overloaded,
            Self::Unfinished(_) | Self::Failed(_) | Self::NoCopy(_) | Self::Closed => {
                Reason::StoreUnavailable
            }
            Self::Corrupt(_) => Reason::Corruption,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full(_) => Some(FULL_RETRY_AFTER),
            Self::Shortage(_) => Some(SHORTAGE_RETRY_AFTER),
            _ => None,
        }
    }

    fn public_message(&self) -> Option<&'static str> {
        match self {
            Self::NotFound | Self::Exists(_) | Self::Closed => None,
            Self::Unfinished(_) => Some("the gateway is being restored"),
            Self::Full(_) => Some("the server's disk is full, or nearly so"),
            Self::Shortage(_) => Some("the server has too many files and connections open"),
            Self::NoCopy(_) => Some("the server could not make a copy"),
            Self::Failed(_) => Some("the server's store failed and must be reopened"),
            Self::Corrupt(_) => Some("stored data failed verification; call an operator"),
        }
    }
}

/// The durable state of gateways.
///
/// # Contract
///
/// - **Exclusive.** While a store is open, nobody else opens the same state.
/// - **Atomic.** After a crash a [`Group`] is there whole or not at all, and never without those
///   committed before it to the same gateway.
/// - **Durable.** What [`Receipt::durable`] confirmed survives a power cut.
/// - **Ordered.** Receipts of one gateway resolve in the order of its commits. Reads see every
///   commit whose [`commit`](Store::commit) has returned, durable or not: it is the caller who shows
///   and answers nothing before it is durable.
/// - **Fail-stop.** After one failure every call fails, and every receipt not yet resolved does.
/// - **Flat.** No call costs more for what else is stored.
/// - **Bounded.** `commit` waits when the engine is behind; reads stop before the item that would
///   exceed the bytes they are given, but after one item at least.
/// - **Isolated.** No gateway sees what another holds. Whatever is asked of a gateway that is not
///   there answers [`NotFound`](StoreError::NotFound).
///
/// Keys are compared bytewise. One caller at a time commits to a gateway; any number reads.
///
/// # Wrappers
///
/// Every method is required: a default body would let a wrapper bypass the store it wraps.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Creates a gateway, durably.
    async fn create_gateway(
        &self,
        name: &Gateway,
        now_ms: u64,
    ) -> Result<GatewayRecord, StoreError>;

    /// The gateway of this name.
    async fn gateway(&self, name: &Gateway) -> Result<Option<GatewayRecord>, StoreError>;

    /// Up to `limit` gateways in the order of their names, after `after`.
    async fn gateways(
        &self,
        after: Option<&Gateway>,
        limit: usize,
    ) -> Result<Vec<GatewayRecord>, StoreError>;

    /// Forgets a gateway and all it held, durably; its space is freed in the background. Reads
    /// under way may end early. A gateway created later under the same name starts empty.
    async fn drop_gateway(&self, name: &Gateway) -> Result<(), StoreError>;

    /// The newest position of a log, trimmed or not; [`Position::START`] if it never had any.
    async fn head(&self, gateway: GatewayId) -> Result<Position, StoreError>;

    /// Through which position the log was trimmed; [`Position::START`] if it never was.
    async fn trimmed(&self, gateway: GatewayId) -> Result<Position, StoreError>;

    /// The states of many rows at once, in the order of `keys`: of all of them, or of the first, until
    /// `bytes_max` of values are exceeded. A row that is not there counts nothing. Whoever wants the
    /// others asks for those that were not answered.
    async fn rows(
        &self,
        gateway: GatewayId,
        keys: &[Bytes],
        bytes_max: usize,
    ) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// Rows in the order of their keys: those that begin with `prefix`, after `after`, until
    /// `bytes_max` of keys and values are exceeded. Empty means there are no more. A row changed
    /// between two calls is seen in one of its states; one that was there all along is never missed.
    async fn scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// One meta entry.
    async fn meta(&self, gateway: GatewayId, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Meta entries that begin with `prefix`, in the order of their keys, up to `limit` of them.
    async fn meta_scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Applies a group, so that reads see it, and sends it to the disk. Waits while the engine is
    /// behind. Groups that arrive while the disk syncs share the next sync.
    async fn commit(&self, gateway: GatewayId, group: Group) -> Result<Receipt, StoreError>;

    /// Log entries after `after` in order, until `bytes_max` of commits are exceeded. Empty means
    /// that the head was reached. Entries that were trimmed are left out: ask
    /// [`trimmed`](Store::trimmed) afterwards to know whether any were.
    async fn log(
        &self,
        gateway: GatewayId,
        after: Position,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, StoreError>;

    /// Forgets log entries through `through`, which is at most the head. The mark is durable when
    /// this returns; space is freed in the background.
    async fn trim(&self, gateway: GatewayId, through: Position) -> Result<(), StoreError>;

    /// Writes a consistent copy of everything durable into `to`, a directory that does not exist
    /// yet. A store opened on the copy gives every log a new id. Writes go on meanwhile. A copy that
    /// could not be made is [`NoCopy`](StoreError::NoCopy): nothing of it is left, and the store goes
    /// on.
    async fn backup(&self, to: &Path) -> Result<(), StoreError>;

    /// Hands out a consistent copy of everything durable, as of a moment after the call, in pieces of
    /// some hundred kilobytes. Writes go on meanwhile. `turn` is let go once nothing more is copied,
    /// even if pieces wait for whoever takes them.
    async fn copy(&self, turn: OwnedSemaphorePermit) -> Result<Copying, StoreError>;

    /// Resolves when the store has failed, with the failure; never, if it never does.
    async fn failed(&self) -> StoreError;

    /// Finishes what is under way, makes it durable and lets go of the state.
    async fn close(&self) -> Result<(), StoreError>;
}

//! The port through which a replica talks to a gateway.
//!
//! [`Remote`] speaks gRPC: over a socket with [`connect`], or in process with [`local()`], where
//! the same generated client calls the service directly. What a gateway says is checked here, once;
//! past this door there are domain types only.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use lakesync::delta::Delta;
use lakesync::hlc::Hlc;
use lakesync::name::{ClientId, ColumnName, Gateway, Position, TableName};
use lakesync::proto::v1::Outcome;
use lakesync::schema::{Proposal, TableSchema};
use lakesync::status::Problem;
use lakesync::wire::Arrival;

mod assembly;
mod bearer;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod decode;
mod grpc;
mod line;
mod local;
mod motion;
mod remote;
mod socket;

pub use bearer::{Token, TokenError};
pub use grpc::{EndpointError, Patience, connect, connect_with};
pub use local::local;
pub(crate) use motion::unless_silent;
pub use remote::Remote;

/// A way to reach gateways.
///
/// # Contract
///
/// - **Safe to repeat.** Every call may be made again after any error, whether or not it arrived.
/// - **Bounded by silence, never by time.** A unary call lasts for as long as bytes move. It ends
///   with an error once its server has been silent for too long, a stalled one included. Streams
///   end when the caller drops them; a silent stream is the caller's to give up, which
///   [`bytes_moved`](Self::bytes_moved) tells from a slow one.
/// - **Authentic.** A refused token is renewed once within a call; a token that runs out during a
///   stream is renewed by the call after it.
/// - **Understood or refused.** A message of a newer server that can't be understood is an error
///   of reason `PROTOCOL_UNSUPPORTED`; nothing of it is handed on.
/// - **Bounded by size.** A commit that is too large to be held is an error of the kind `Expired`
///   and of reason `TOO_LARGE`: a checkpoint brings what it holds.
/// - **In order.** A stream's events arrive in the order the gateway sent them, and nothing
///   follows an error.
///
/// `conformance` checks each point.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// What the server speaks and enforces, and what time it is.
    async fn server_info(&self) -> Result<ServerInfo, Problem>;

    /// The tables the caller may sync.
    async fn schema(&self, gateway: &Gateway) -> Result<Vec<TableSchema>, Problem>;

    /// Offers changes as one commit. Answered once durable.
    async fn push(&self, push: Push<'_>) -> Result<Pushed, Problem>;

    /// Reads the log after a cursor.
    async fn pull(&self, pull: Pull<'_>) -> Result<PullStream, Problem>;

    /// Reads the current rows, then the cursor to pull from.
    async fn checkpoint(&self, checkpoint: Checkpoint<'_>) -> Result<CheckpointStream, Problem>;

    /// How many bytes the transport has moved so far, both ways. It grows while a large message is
    /// under way. Zero for ever where there is no line that could be slow.
    fn bytes_moved(&self) -> u64 {
        0
    }

    /// Creates a gateway; one that exists already is kept. For tokens with the right `admin`.
    async fn create_gateway(&self, gateway: &Gateway) -> Result<(), Problem>;

    /// Declares tables or adds to them. For tokens with the right `admin`.
    async fn put_schema(
        &self,
        gateway: &Gateway,
        tables: &[Proposal],
    ) -> Result<Vec<TableSchema>, Problem>;
}

/// The events of a pull.
pub type PullStream = BoxStream<'static, Result<PullEvent, Problem>>;

/// The events of a checkpoint.
pub type CheckpointStream = BoxStream<'static, Result<CheckpointEvent, Problem>>;

/// What a server speaks and enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// The server's own version, for people.
    pub version: String,
    /// The oldest and the newest protocol it speaks.
    pub protocol: (u32, u32),
    /// Changes in one push.
    pub push_rows_max: usize,
    /// The largest message it accepts.
    pub message_bytes_max: usize,
    /// The longest silence on a followed pull.
    pub heartbeat: Duration,
    /// How long a replica may stay away and still push everything it wrote.
    pub offline_max: Duration,
    /// How far ahead of the server's wall clock a stamp may be.
    pub clock_drift_max: Duration,
    /// Its wall clock.
    pub server_hlc: Hlc,
}

/// Changes to push as one commit.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// Where to.
    pub gateway: &'a Gateway,
    /// Whose changes they are.
    pub client: &'a ClientId,
    /// The changes, in the order they were made.
    pub deltas: &'a [Delta],
}

/// The answer to a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The commit, unless nothing changed.
    pub position: Option<Position>,
    /// What became of the changes that did not simply take effect, indexed as `encode_push` groups
    /// them. All of them name a change of the push, and a kind that is known.
    pub outcomes: Vec<Outcome>,
    /// The server's clock.
    pub server_hlc: Hlc,
    /// What the request weighed.
    pub bytes: u64,
}

/// What to pull.
#[derive(Clone, Copy, Debug)]
pub struct Pull<'a> {
    /// Where from.
    pub gateway: &'a Gateway,
    /// Who pulls: its own pushes are left out while it follows.
    pub client: &'a ClientId,
    /// Where the last page ended; empty is the beginning.
    pub cursor: &'a str,
    /// Whether to stay for new commits.
    pub follow: bool,
    /// Commits this replica made itself and holds.
    pub skip: &'a [Position],
    /// Where pages are to be closed; a server may send larger ones.
    pub bytes_max: usize,
    /// Whether the answers are worth compressing.
    pub compress: bool,
}

/// What a pull sends.
#[derive(Clone, Debug, PartialEq)]
pub enum PullEvent {
    /// Whole commits, to be applied in one transaction together with the cursor. A commit that
    /// came in several pages is one event.
    Page(Page),
    /// Everything committed up to here has been sent.
    CaughtUp {
        /// Where to go on.
        cursor: String,
        /// The head of the log.
        position: Position,
        /// The server's clock.
        server_hlc: Hlc,
    },
    /// A sign of life.
    Heartbeat {
        /// Where to go on: past commits that hold nothing for this reader. Empty if unchanged.
        cursor: String,
        /// The server's clock.
        server_hlc: Hlc,
    },
}

/// Whole commits.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// What happened to rows, in order.
    pub arrivals: Vec<Arrival>,
    /// What the rows were written against.
    pub shapes: Vec<Shape>,
    /// Where to go on.
    pub cursor: String,
    /// The commit that this page reaches.
    pub position: Position,
    /// What its messages weighed.
    pub bytes: u64,
}

/// Which columns of a table some changes name, and which version of it the writer knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The table.
    pub table: TableName,
    /// The version of its schema; zero if the server does not say.
    pub version: u32,
    /// The columns.
    pub columns: Vec<ColumnName>,
}

/// What to take a checkpoint of.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint<'a> {
    /// Where from.
    pub gateway: &'a Gateway,
    /// The last `resume` received; empty is from the start.
    pub resume: &'a str,
    /// The cursor that expired, if any.
    pub since: &'a str,
    /// Where chunks are to be closed; a server may send larger ones.
    pub bytes_max: usize,
}

/// What a checkpoint sends.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckpointEvent {
    /// Whole rows.
    Chunk(Chunk),
    /// The last of it.
    End {
        /// Where to pull from.
        cursor: String,
        /// Rows in all.
        rows: u64,
        /// Whether rows that were not sent are out of scope, or gone.
        complete: bool,
    },
}

/// Some rows of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The rows.
    pub arrivals: Vec<Arrival>,
    /// What they are written against.
    pub shapes: Vec<Shape>,
    /// Where to resume if the stream breaks after this chunk.
    pub resume: String,
    /// Rows sent so far.
    pub done: u64,
    /// Rows expected in all.
    pub total: u64,
    /// What the message weighed.
    pub bytes: u64,
}

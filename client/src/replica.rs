//! The replica: an application's SQLite database that keeps in step with a gateway.
//!
//! Nothing of the protocol is remembered outside the file: a killed process, a lost reply or a
//! repeated call leaves a replica that the next round brings in step. One round runs at a time.

use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::stream::BoxStream;
use lakesync::name::{ClientId, Gateway, Position, TableName};
use tokio::sync::watch;

use crate::config::{Config, ConfigError};
use crate::db::{self, Candidate, Database, DbError, Parked, Rejected, Transaction, Waiting};
use crate::event::{Bell, Event};
use crate::pulse::Pulse;
use crate::query::{self, QueryError, Rows, SqlValue};
use crate::status::{Board, Status};
use crate::transport::Transport;

mod adopt;
mod desk;
mod error;
mod follow;
mod pull;
mod push;
mod round;
mod session;
mod sizing;

pub use adopt::AdoptError;
pub use error::SyncError;
pub use round::Round;

use desk::Desk;
use session::Session;
use sizing::Sizing;

/// A SQLite database that keeps in step with a gateway. Clones share it.
#[derive(Clone, Debug)]
pub struct Replica(Arc<Core>);

/// Why a replica can't be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file.
    #[error(transparent)]
    Database(#[from] db::OpenError),
    /// The file syncs with another gateway.
    #[error(transparent)]
    Binding(#[from] DbError),
}

/// What the rooms share.
#[derive(Debug)]
struct Core {
    db: Database,
    gateway: Gateway,
    transport: Arc<dyn Transport>,
    config: Config,
    pulse: Pulse,
    board: Board,
    bell: Bell,
    desk: Desk,
    session: Mutex<Session>,
    sizing: Sizing,
}

impl Replica {
    /// Opens the database at `path`, creating it if there is none. Nothing is sent yet: this works
    /// offline. Another process that syncs the same file, a file that is no database and the like
    /// are refused with nothing changed.
    pub async fn open(path: impl AsRef<Path>, config: Config) -> Result<Self, OpenError> {
        let (gateway, transport) = config.check()?;
        let db = Database::open(path.as_ref()).await?;
        db.is_bound(&gateway).await?;
        let core = Core {
            pulse: Pulse::new(db.path(), config.poll_every),
            db,
            gateway,
            transport,
            config,
            board: Board::new(),
            bell: Bell::new(),
            desk: Desk::default(),
            session: Mutex::default(),
            sizing: Sizing::default(),
        };
        core.count().await?;
        Ok(Self(Arc::new(core)))
    }

    /// Runs one round: takes what others wrote, sends what was written here, until both sides know
    /// all. The first one receives every row. Safe to call at any time and as often as you like;
    /// while the replica follows, the follower runs the round.
    pub async fn sync(&self) -> Result<Round, SyncError> {
        self.0.sync().await
    }

    /// Stays in step until `shutdown` is done: others' commits are applied as they happen, and
    /// local changes, whoever makes them, are sent as soon as they are noticed. Faults are waited
    /// out, with growing pauses; [`status`](Self::status) tells of them.
    pub async fn follow(&self, shutdown: impl Future<Output = ()>) {
        self.0.follow(shutdown).await;
    }

    /// Waits until the replica has seen every commit up to `position`. Something must sync it
    /// meanwhile.
    pub async fn wait_for(&self, position: Position) {
        let reached = |status: &Status| position <= status.position;
        let mut status = self.0.board.subscribe();
        status.wait_for(reached).await.expect("BUG: the board lives as long as the replica");
    }

    /// A transaction whose changes are pushed as one commit: others see all of it or none.
    pub async fn transaction(&self) -> Result<Transaction, DbError> {
        self.0.db.transaction().await
    }

    /// How the replica is doing, now and on every change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.board.subscribe()
    }

    /// What happens from now on. A listener that falls behind is told what it missed; nothing
    /// waits for it.
    pub fn events(&self) -> BoxStream<'static, Event> {
        self.0.bell.listen()
    }

    /// The rows that `sql` finds: at once, and again whenever they change, whoever changes them.
    pub fn watch(
        &self,
        sql: impl Into<String>,
        params: impl IntoIterator<Item = SqlValue>,
    ) -> BoxStream<'static, Result<Rows, QueryError>> {
        let params = params.into_iter().collect();
        query::watch(self.0.db.path(), &self.0.pulse, sql.into(), params)
    }

    /// Every table of the file, and whether it can be synced: what it would be, or why not.
    pub async fn inspect(&self) -> Result<Vec<Candidate>, DbError> {
        self.0.db.inspect().await
    }

    /// The synced tables that the gateway does not declare, as one that was made anew does not.
    /// Their rows stay, and their changes wait; adopting them again declares them.
    pub async fn undeclared(&self) -> Result<Vec<TableName>, DbError> {
        Ok(self.0.db.installed().await?.1)
    }

    /// Makes tables of the file synced ones, and queues the rows they hold. A gateway or tables
    /// that do not exist yet are created, which takes a token with the right `admin`. Tables that
    /// are synced already are told to the gateway with the columns they have gained.
    pub async fn adopt(&self, tables: &[TableName]) -> Result<(), AdoptError> {
        self.0.adopt(tables).await
    }

    /// Adopts every table of the file that can be, and says what became of each: what the gateway
    /// or the file has against one stops no other.
    pub async fn adopt_all(&self) -> Result<Vec<Candidate>, SyncError> {
        self.0.adopt_all().await
    }

    /// The tables at the gateway and in the file that are not synced here: nothing written to them
    /// is recorded until they are adopted.
    pub async fn waiting(&self) -> Result<Vec<Waiting>, DbError> {
        self.0.db.waiting().await
    }

    /// The changes that the gateway refused.
    pub async fn rejected(&self) -> Result<Vec<Rejected>, DbError> {
        self.0.db.rejected().await
    }

    /// Makes a refused change again, as of now. False if there is none of this number.
    pub async fn retry_rejected(&self, id: i64) -> Result<bool, DbError> {
        let found = self.0.db.retry_rejected(id).await?;
        self.0.count().await?;
        Ok(found)
    }

    /// Forgets a refused change. False if there is none of this number.
    pub async fn drop_rejected(&self, id: i64) -> Result<bool, DbError> {
        let found = self.0.db.drop_rejected(id).await?;
        self.0.count().await?;
        Ok(found)
    }

    /// The rows that local constraints keep out of their tables. They are tried again on every
    /// round.
    pub async fn parked(&self) -> Result<Vec<Parked>, DbError> {
        self.0.db.parked().await
    }

    /// This replica's stable id.
    pub fn client_id(&self) -> &ClientId {
        self.0.db.client_id()
    }

    /// The gateway it keeps in step with.
    pub fn gateway(&self) -> &Gateway {
        &self.0.gateway
    }
}

impl Core {
    /// Notes how much waits for what.
    async fn count(&self) -> Result<(), DbError> {
        let counts = self.db.counts().await?;
        self.board.note(|status| {
            status.pending = counts.pending;
            status.rejected = counts.rejected;
            status.parked = counts.parked;
        });
        Ok(())
    }
}

//! The replica's database: the application's own SQLite file, whose synced tables record their
//! changes by themselves.
//!
//! Everything LakeSync knows lives in the same file, in tables whose names begin with `_lakesync`,
//! so that an edit and its record commit together. What arrives is applied together with its
//! cursor, and whatever was not sent yet survives everything.
//!
//! Rooms, lowest first: `sql convert error` → `key shape layout` → `probe` → `table triggers foreign`
//! → `undeclared renumber session install` → `held known show` → `echo restore` → `apply` →
//! `outbox settle checkpoint` and the rest.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lakesync::name::{ClientId, Gateway, TableName};
use lakesync::proto::v1::Outcome;
use lakesync::schema::TableSchema;
use lakesync::wire::Arrival;
use tokio::sync::Mutex;

use self::apply::{Applying, Mode};
use self::error::{is_refusal, refusal_text};
use self::session::Session;
use self::sql::{Statement, integer};

mod report;

mod convert;
mod error;
mod sql;

mod key;
mod layout;
mod shape;

mod probe;

mod foreign;
mod table;
mod triggers;

mod identity;
mod install;
mod open;
mod renumber;
mod session;
mod undeclared;

mod echo;
mod held;
mod known;
mod show;

mod apply;
mod aside;
mod ranges;
mod requeue;
mod restore;

mod adopt;
mod checkpoint;
mod clock;
mod inspect;
mod outbox;
mod rejected;
mod settle;
mod transaction;

#[cfg(test)]
mod tests;

pub(crate) use self::clock::Reading;
pub use self::error::DbError;
pub use self::open::OpenError;
pub(crate) use self::outbox::{Batch, PUSH_BYTES_MAX, Share};
pub use self::report::{Adoptable, Candidate, Migration, Parked, Rejected, Superseded, Waiting};
pub(crate) use self::report::{Applied, ClockChange, Counts, Ended, Settled};
pub use self::transaction::Transaction;

/// One SQLite file under synchronisation. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    client_id: ClientId,
    session: Mutex<Session>,
    /// Held, not read: the system frees it with the file.
    _lock: File,
}

impl Database {
    /// Opens the file, creating it if there is none, and makes sure that no other process syncs it.
    pub(crate) async fn open(path: &Path) -> Result<Self, OpenError> {
        let open::Opened { connection, path, lock, client_id } = open::open(path).await?;
        let session = Mutex::new(Session::new(path.clone(), connection));
        Ok(Self(Arc::new(Inner { path, client_id, session, _lock: lock })))
    }

    /// This replica's stable id.
    pub(crate) fn client_id(&self) -> &ClientId {
        &self.0.client_id
    }

    /// The file, by its canonical path.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether the file syncs with this gateway. It can't be exchanged for another.
    pub(crate) async fn is_bound(&self, gateway: &Gateway) -> Result<bool, DbError> {
        let mut session = self.0.session.lock().await;
        match layout::get(session.connection(), "gateway").await? {
            Some(bound) if bound == gateway.as_str() => Ok(true),
            Some(bound) => {
                let bound = Gateway::parse(&bound).map_err(|error| DbError::Damaged {
                    table: "_lakesync_meta",
                    what: error.to_string(),
                })?;
                Err(DbError::OtherGateway { bound, asked: gateway.clone() })
            }
            None => Ok(false),
        }
    }

    /// Remembers the gateway this file syncs with.
    pub(crate) async fn bind(&self, gateway: &Gateway) -> Result<(), DbError> {
        if self.is_bound(gateway).await? {
            return Ok(());
        }
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        layout::put(work.connection(), "gateway", gateway.as_str()).await?;
        work.commit().await
    }

    /// Where to pull from; empty before the first checkpoint has ended.
    pub(crate) async fn cursor(&self) -> Result<String, DbError> {
        let mut session = self.0.session.lock().await;
        Ok(layout::get(session.connection(), "cursor").await?.unwrap_or_default())
    }

    /// Where pages ended before the cursor was forgotten; empty unless a checkpoint was asked for.
    pub(crate) async fn last_cursor(&self) -> Result<String, DbError> {
        let mut session = self.0.session.lock().await;
        Ok(layout::get(session.connection(), "last_cursor").await?.unwrap_or_default())
    }

    /// The tables as they are installed, and those of them that the gateway does not declare.
    pub(crate) async fn installed(&self) -> Result<(Vec<TableSchema>, Vec<TableName>), DbError> {
        let mut session = self.0.session.lock().await;
        let work = session.begin().await?;
        let installed = work.registry.captured().iter().map(|table| table.schema.clone()).collect();
        let undeclared = work.registry.undeclared();
        work.commit().await?;
        Ok((installed, undeclared))
    }

    /// Every table of the file, and whether it can be synced. Reads all of their rows.
    pub(crate) async fn inspect(&self) -> Result<Vec<Candidate>, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let registry = work.registry.clone();
        let candidates = inspect::inspect(work.connection(), &registry).await?;
        work.commit().await?;
        Ok(candidates)
    }

    /// The tables at the gateway and in the file that are not synced here.
    pub(crate) async fn waiting(&self) -> Result<Vec<Waiting>, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let registry = work.registry.clone();
        let waiting = inspect::waiting(work.connection(), &registry).await?;
        work.commit().await?;
        Ok(waiting)
    }

    /// Makes a table record its changes and queues every row it holds. Its schema must have been
    /// installed.
    pub(crate) async fn adopt(&self, table: &TableName) -> Result<(), DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        match adopt::adopt(&mut work, table).await {
            // Whatever SQLite has against its rows is this table's own affair.
            Err(DbError::Sqlite(error)) if is_refusal(&error) => {
                let (table, reason) = (table.clone(), refusal_text(&error));
                Err(DbError::Unadoptable { table, reason })
            }
            Err(error) => Err(error),
            Ok(()) => work.commit().await,
        }
    }

    /// Takes over the gateway's schema: creates tables, adds columns to those LakeSync created.
    pub(crate) async fn install_schema(
        &self,
        tables: &[TableSchema],
    ) -> Result<Migration, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let migration = install::install(&mut work, tables).await?;
        for table in work.registry.captured().to_vec() {
            ranges::keep(&mut work, &table).await?;
        }
        work.commit().await?;
        Ok(migration)
    }

    /// The next changes to push, if there are any. Those whose numbers are in `waiting`, which is sorted,
    /// are passed over.
    pub(crate) async fn pending(
        &self,
        share: Share,
        waiting: &[i64],
    ) -> Result<Option<Batch>, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let batch = outbox::take(&mut work, share, waiting).await?;
        work.commit().await?;
        Ok(batch)
    }

    /// Takes the answer to a push. `outcomes` are indexed as `encode_push` groups the deltas.
    pub(crate) async fn settle(
        &self,
        batch: Batch,
        outcomes: &[Outcome],
    ) -> Result<Settled, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let settled = settle::settle(&mut work, batch, outcomes).await?;
        work.commit().await?;
        Ok(settled)
    }

    /// Applies a page together with its cursor.
    pub(crate) async fn apply_page(
        &self,
        arrivals: Vec<Arrival>,
        cursor: &str,
    ) -> Result<Applied, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let under_way = checkpoint::under_way(&mut work).await?;
        let mut applied = Applied::default();
        // A page that only moves the cursor is common while following.
        if !arrivals.is_empty() {
            let mut applying = Applying::begin(&mut work).await?;
            applying.join(&mut work, arrivals, Mode::Changes(under_way)).await?;
            applying.check_references(&mut work).await?;
            applying.retry_parked(&mut work, false).await?;
            applied = applying.end(&mut work).await?;
        }
        layout::put(work.connection(), "cursor", cursor).await?;
        work.commit().await?;
        Ok(applied)
    }

    /// Whether chunks of a checkpoint have arrived, and not its end.
    pub(crate) async fn is_in_checkpoint(&self) -> Result<bool, DbError> {
        let mut session = self.0.session.lock().await;
        let resume = layout::get(session.connection(), "checkpoint").await?;
        Ok(resume.is_some_and(|resume| !resume.is_empty()))
    }

    /// Begins or resumes a checkpoint: the token to resume with, empty at the start.
    /// `replaced` if the log is another than before: how long a replica may stay away from it.
    pub(crate) async fn begin_checkpoint(
        &self,
        replaced: Option<Duration>,
    ) -> Result<String, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let resume = checkpoint::begin(&mut work, replaced).await?;
        work.commit().await?;
        Ok(resume)
    }

    /// Forgets a checkpoint under way, whose token the server no longer takes.
    pub(crate) async fn abandon_checkpoint(&self) -> Result<(), DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        checkpoint::abandon(&mut work).await?;
        work.commit().await
    }

    /// Applies a chunk of whole rows together with its resume token.
    pub(crate) async fn apply_chunk(
        &self,
        arrivals: Vec<Arrival>,
        resume: &str,
    ) -> Result<Applied, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let applied = checkpoint::chunk(&mut work, arrivals, resume).await?;
        work.commit().await?;
        Ok(applied)
    }

    /// Ends a checkpoint: rows it did not contain go if it was `complete`, or are queued again if
    /// the log was replaced.
    pub(crate) async fn end_checkpoint(
        &self,
        cursor: &str,
        complete: bool,
    ) -> Result<Ended, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let ended = checkpoint::end(&mut work, cursor, complete).await?;
        work.commit().await?;
        Ok(ended)
    }

    /// Corrects the clock by a server's. Unsent changes are stamped again if it was far off.
    pub(crate) async fn observe_clock(&self, server: Reading) -> Result<ClockChange, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let change = clock::observe(&mut work, server).await?;
        work.commit().await?;
        Ok(change)
    }

    /// Tries all parked rows again.
    pub(crate) async fn retry_parked(&self) -> Result<Applied, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let mut applying = Applying::begin(&mut work).await?;
        applying.retry_parked(&mut work, true).await?;
        let applied = applying.end(&mut work).await?;
        work.commit().await?;
        Ok(applied)
    }

    /// The rows that local constraints refuse.
    pub(crate) async fn parked(&self) -> Result<Vec<Parked>, DbError> {
        let mut session = self.0.session.lock().await;
        apply::parked(session.connection()).await
    }

    /// The changes that were refused.
    pub(crate) async fn rejected(&self) -> Result<Vec<Rejected>, DbError> {
        let mut session = self.0.session.lock().await;
        rejected::list(session.connection()).await
    }

    /// Queues a refused change again, with a new stamp. False if there is none of this number, or
    /// it can't be sent at all.
    pub(crate) async fn retry_rejected(&self, id: i64) -> Result<bool, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let queued = rejected::retry(&mut work, id).await?;
        work.commit().await?;
        Ok(queued)
    }

    /// Forgets a refused change. False if there is none of this number.
    pub(crate) async fn drop_rejected(&self, id: i64) -> Result<bool, DbError> {
        let mut session = self.0.session.lock().await;
        let mut work = session.begin().await?;
        let dropped = rejected::forget(&mut work, id).await?;
        work.commit().await?;
        Ok(dropped)
    }

    /// How much waits for what.
    pub(crate) async fn counts(&self) -> Result<Counts, DbError> {
        let mut session = self.0.session.lock().await;
        let sql = "SELECT (SELECT count(*) FROM _lakesync_outbox), \
                   (SELECT count(*) FROM _lakesync_rejected), \
                   (SELECT count(*) FROM _lakesync_parked)";
        let Some(row) = Statement::new(sql).row(session.connection()).await? else {
            return Ok(Counts::default());
        };
        let count = |at| Ok::<_, DbError>(u64::try_from(integer(&row, at)?).unwrap_or(0));
        Ok(Counts { pending: count(0)?, rejected: count(1)?, parked: count(2)? })
    }

    /// A transaction of the application, which will be pushed as one commit: run statements on
    /// the connection, then `commit`; dropping it undoes them.
    pub(crate) async fn transaction(&self) -> Result<Transaction, DbError> {
        Transaction::begin(&self.0.path).await
    }
}

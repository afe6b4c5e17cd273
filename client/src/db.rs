//! The replica's database: the application's own SQLite file, whose synced tables record their
//! changes by themselves.
//!
//! Everything LakeSync knows lives in the same file, in tables whose names begin with `_lakesync`,
//! so that an edit and its record commit together. What arrives is applied together with its
//! cursor, and whatever was not sent yet survives everything.

use std::path::Path;
use std::sync::Arc;

use lakesync::delta::Delta;
use lakesync::hlc::Hlc;
use lakesync::name::{ClientId, ColumnName, Gateway, RowId, TableName};
use lakesync::proto::v1::Outcome;
use lakesync::schema::{Proposal, TableSchema};
use lakesync::wire::Arrival;

/// One SQLite file under synchronisation. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    client_id: ClientId,
    session: Arc<()>,
}

/// Why a database can't be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// To be detailed.
    #[error("the database can't be opened: {0}")]
    Sqlite(#[from] sqlx::Error),
}

/// Why work on an open database failed. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite's own word: a locked file, a full disk, a damaged page.
    #[error("{0}")]
    Sqlite(#[from] sqlx::Error),
    /// The schema this replica has installed is older than what arrived: fetch it and install it.
    #[error("table {table} is not installed here as the gateway has it")]
    SchemaStale {
        /// The table that arrived.
        table: TableName,
    },
    /// The file is bound to another gateway.
    #[error("this database syncs with gateway {bound}, not {asked}")]
    OtherGateway {
        /// The gateway it is bound to.
        bound: Gateway,
        /// The gateway that was asked for.
        asked: Gateway,
    },
}

/// A table of the file, and whether it can be synced.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name as SQLite has it.
    pub table: String,
    /// What it would be, or why it can't be.
    pub verdict: Result<Adoptable, String>,
}

/// A table that can be synced.
#[derive(Clone, Debug)]
pub struct Adoptable {
    /// The table to declare to the gateway.
    pub proposal: Proposal,
    /// How many rows it holds.
    pub rows: u64,
    /// Whether it is synced already.
    pub adopted: bool,
    /// What the application should know, such as keys that two devices would both hand out.
    pub warnings: Vec<String>,
    /// Columns that stay behind, such as generated ones.
    pub left_out: Vec<String>,
}

/// What installing a schema did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// Tables that were created.
    pub created: Vec<TableName>,
    /// Columns that were added to tables LakeSync had created, or found added by the application.
    pub added: Vec<(TableName, ColumnName)>,
    /// Columns that the application's own tables lack: their cells are kept aside.
    pub aside: Vec<(TableName, ColumnName)>,
    /// Tables of the application that can't take part yet: adopt them, or say why not.
    pub waiting: Vec<TableName>,
}

/// Unsent changes, taken together: one push, one commit.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The changes in the order they were made. Empty if all were refused right here: settle the
    /// batch without sending it.
    pub(crate) deltas: Vec<Delta>,
    /// About how large the push will be.
    pub(crate) bytes: usize,
}

/// What became of a pushed batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// How many changes were accepted whole.
    pub accepted: usize,
    /// Changes that lost to newer ones, wholly or in some columns.
    pub superseded: Vec<Superseded>,
    /// Changes that were refused.
    pub rejected: Vec<Rejected>,
    /// Whether the server found the clock too far ahead: observe its clock, then push again.
    pub drift: bool,
}

/// A local change that lost to a newer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// The row's table.
    pub table: TableName,
    /// The row's id.
    pub row_id: RowId,
    /// The columns whose values lost; all of the change's where the server named none.
    pub columns: Vec<ColumnName>,
}

/// A local change that the gateway refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its number, to retry or drop it by.
    pub id: i64,
    /// The row's table.
    pub table: String,
    /// The row's id, which may be what was wrong.
    pub row_id: String,
    /// `upsert` or `delete`.
    pub kind: String,
    /// The cells as a JSON object, for people.
    pub cells: String,
    /// The reason, such as `SCHEMA_MISMATCH`.
    pub reason: String,
    /// For developers, in English.
    pub message: String,
    /// When it was refused, in milliseconds since the Unix epoch by the server's clock.
    pub at_ms: u64,
}

/// What applying changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Tables whose visible rows changed.
    pub tables: Vec<TableName>,
    /// How many rows arrived.
    pub rows: usize,
    /// Rows that a local constraint refused just now.
    pub parked: Vec<Parked>,
    /// Rows parked before that found their place.
    pub unparked: Vec<(TableName, RowId)>,
}

/// A row that a constraint of the local table refuses. Tried again on every round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The row's table.
    pub table: TableName,
    /// The row's id.
    pub row_id: RowId,
    /// SQLite's word.
    pub reason: String,
    /// Since when, in milliseconds since the Unix epoch by the server's clock.
    pub since_ms: u64,
}

/// What observing the server's clock did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockChange {
    /// How far the server's clock is ahead of the local one, in milliseconds.
    pub offset_ms: i64,
    /// How many unsent changes were stamped again.
    pub restamped: u64,
}

/// How much waits for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes that were not sent yet.
    pub pending: u64,
    /// Changes that were refused.
    pub rejected: u64,
    /// Rows that a local constraint refuses.
    pub parked: u64,
}

#[allow(clippy::unimplemented, unused_variables)]
impl Database {
    /// Opens the file, creating it if there is none, and makes sure that no other process syncs it.
    pub(crate) async fn open(path: &Path) -> Result<Self, OpenError> {
        unimplemented!()
    }

    /// This replica's stable id.
    pub(crate) fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Remembers the gateway this file syncs with.
    pub(crate) async fn bind(&self, gateway: &Gateway) -> Result<(), DbError> {
        unimplemented!()
    }

    /// Where to pull from; empty before the first checkpoint.
    pub(crate) async fn cursor(&self) -> Result<String, DbError> {
        unimplemented!()
    }

    /// Every table of the file, and whether it can be synced.
    pub(crate) async fn inspect(&self) -> Result<Vec<Candidate>, DbError> {
        unimplemented!()
    }

    /// Makes these tables record their changes and queues every row they hold. Their schema must
    /// have been installed.
    pub(crate) async fn adopt(&self, tables: &[TableName]) -> Result<(), DbError> {
        unimplemented!()
    }

    /// Takes over the gateway's schema: creates tables, adds columns to those LakeSync created.
    pub(crate) async fn install_schema(
        &self,
        tables: &[TableSchema],
    ) -> Result<Migration, DbError> {
        unimplemented!()
    }

    /// The next changes to push, if there are any.
    pub(crate) async fn pending(&self) -> Result<Option<Batch>, DbError> {
        unimplemented!()
    }

    /// Like `pending`, with at most `rows_max` changes: for a push that was too large.
    pub(crate) async fn pending_at_most(&self, rows_max: usize) -> Result<Option<Batch>, DbError> {
        unimplemented!()
    }

    /// Takes the answer to a push. `outcomes` are indexed as `encode_push` groups the deltas.
    pub(crate) async fn settle(
        &self,
        batch: Batch,
        outcomes: &[Outcome],
    ) -> Result<Settled, DbError> {
        unimplemented!()
    }

    /// Applies a page together with its cursor.
    pub(crate) async fn apply_page(
        &self,
        arrivals: Vec<Arrival>,
        cursor: &str,
    ) -> Result<Applied, DbError> {
        unimplemented!()
    }

    /// Begins or resumes a checkpoint: the token to resume with, empty at the start.
    pub(crate) async fn begin_checkpoint(&self) -> Result<String, DbError> {
        unimplemented!()
    }

    /// Forgets a checkpoint under way, whose token the server no longer takes.
    pub(crate) async fn abandon_checkpoint(&self) -> Result<(), DbError> {
        unimplemented!()
    }

    /// Applies a chunk of whole rows together with its resume token.
    pub(crate) async fn apply_chunk(
        &self,
        arrivals: Vec<Arrival>,
        resume: &str,
    ) -> Result<Applied, DbError> {
        unimplemented!()
    }

    /// Ends a checkpoint: rows it did not contain go if it was `complete`.
    pub(crate) async fn end_checkpoint(
        &self,
        cursor: &str,
        complete: bool,
    ) -> Result<Applied, DbError> {
        unimplemented!()
    }

    /// Corrects the clock by the server's, and stamps unsent changes again if it was far off.
    pub(crate) async fn observe_clock(&self, server_hlc: Hlc) -> Result<ClockChange, DbError> {
        unimplemented!()
    }

    /// Tries the parked rows again.
    pub(crate) async fn retry_parked(&self) -> Result<Applied, DbError> {
        unimplemented!()
    }

    /// The rows that local constraints refuse.
    pub(crate) async fn parked(&self) -> Result<Vec<Parked>, DbError> {
        unimplemented!()
    }

    /// The changes that were refused.
    pub(crate) async fn rejected(&self) -> Result<Vec<Rejected>, DbError> {
        unimplemented!()
    }

    /// Queues a refused change again, with a new stamp. False if there is none of this number.
    pub(crate) async fn retry_rejected(&self, id: i64) -> Result<bool, DbError> {
        unimplemented!()
    }

    /// Forgets a refused change. False if there is none of this number.
    pub(crate) async fn drop_rejected(&self, id: i64) -> Result<bool, DbError> {
        unimplemented!()
    }

    /// How much waits for what.
    pub(crate) async fn counts(&self) -> Result<Counts, DbError> {
        unimplemented!()
    }

    /// A transaction of the application, which will be pushed as one commit: run statements on
    /// the connection, then `commit`; dropping it undoes them.
    pub(crate) async fn transaction(&self) -> Result<Transaction, DbError> {
        unimplemented!()
    }
}

/// A transaction of the application, pushed as one commit.
#[derive(Debug)]
pub struct Transaction {
    connection: sqlx::SqliteConnection,
}

#[allow(clippy::unimplemented)]
impl Transaction {
    /// The connection to run statements on, by `sqlx::query(…).execute(…)`.
    pub fn connection(&mut self) -> &mut sqlx::SqliteConnection {
        &mut self.connection
    }

    /// Makes everything durable.
    pub async fn commit(self) -> Result<(), DbError> {
        unimplemented!()
    }
}

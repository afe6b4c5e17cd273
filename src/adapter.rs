//! The port through which commits leave LakeSync for a backend.
//!
//! A gateway hands its log over in batches. The backend keeps the rows that the log makes and,
//! with them, how far it has come: so each commit counts exactly once, whatever fails in between.

use std::fmt;

use async_trait::async_trait;

use crate::error::{Classify, Reason};
use crate::name::{ColumnName, LogId, Position, RowId, TableName};
use crate::row::Row;
use crate::schema::{ColumnType, Schema};

mod batch;
mod capacity;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod history;

pub use batch::{BadBatch, Batch, Commit};
pub use capacity::{Capacity, JsonCapacity, Reserved, Shortage, has_small_numbers};
pub use history::{Change, Place};

/// A backend that keeps the rows of one gateway.
///
/// # Contract
///
/// - **Atomic.** After [`write`](Adapter::write) returned `Ok`, readers see the whole batch and
///   the watermark at its end. After `Err`, they see all of that or none of it.
/// - **Exactly once.** Commits at or below the watermark of their log are passed over. A caller
///   that can't tell whether a write landed reads the watermark, or writes the batch again.
/// - **In order.** A batch that does not connect to the watermark is refused with
///   [`AdapterError::Gap`], and nothing of it is kept.
/// - **Convergent.** A row equals the [merge](Row::merge) of every delta written for it, stamps,
///   delete and all; so a gateway can be rebuilt from its backend.
/// - **Durable.** What `Ok` acknowledged survives a crash of this process, and of the backend as
///   far as the backend promises. The watermark is read from there, never from memory.
/// - **Bounded.** A call takes memory for what it was given or asked for, not for what is stored.
/// - **Unhurt.** A value that the backend's own type can't hold, which [`capacity`](Adapter::capacity)
///   tells and pushes are refused for, is NULL where people look and exact where
///   [`rows`](Adapter::rows) reads: one from before the backend was configured stops nothing.
///
/// [`conformance`] checks these. Every adapter passes it, and so does
/// every wrapper around one.
///
/// # Wrappers
///
/// Every method is required: a default body would let a wrapper bypass the adapter it wraps.
/// `Display` names the backend to operators, without its credentials.
#[async_trait]
pub trait Adapter: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// What the backend's own types can hold. Always the same, and asks nobody.
    fn capacity(&self) -> Capacity;

    /// Makes room for rows of these tables. New columns and widened types keep the rows there are.
    /// A table of a version that the backend has seen, and a table left out, stay as they are.
    ///
    /// What the backend holds in another shape is refused with [`AdapterError::Mismatch`]: nothing
    /// of anybody's is ever altered or dropped to fit.
    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError>;

    /// The tables that the backend was prepared for.
    async fn schema(&self) -> Result<Schema, AdapterError>;

    /// Writes the commits of `batch` that are new, and moves the watermark of its log to its end.
    async fn write(&self, batch: &Batch) -> Result<(), AdapterError>;

    /// How far the backend has come in a log: [`Position::START`] if it knows nothing of it.
    ///
    /// Positions of two logs can't be compared, so each has its own: a gateway restored from a
    /// copy starts a new log, and none of its commits is taken for one of the old.
    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError>;

    /// The logs that the backend has a watermark of, in no order: whose rows it holds.
    async fn logs(&self) -> Result<Vec<LogId>, AdapterError>;

    /// Joins whole rows into those there are; no watermark moves, and nothing is added to the
    /// history. So a backend is filled that comes late, when the log begins after its first commit.
    /// Cells that were not prepared for are refused as [`write`](Adapter::write) refuses them.
    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError>;

    /// Makes rows exactly what is given, whatever was there, and shows them so where people look.
    /// `None` takes a row out as if it had never been written. Each row id is given once. No
    /// watermark moves, and nothing is added to the history.
    ///
    /// The caller is the only one that writes: a newer write of such a row would be lost. After
    /// `Err` some of the rows may be as given: repeat the call.
    async fn overwrite(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), AdapterError>;

    /// Returns once every call ahead of this one that changes something has ended, also where its
    /// caller has given it up or was killed. Changes nothing.
    ///
    /// Example: a caller stops waiting for a [`forget`](Adapter::forget) which the backend is still
    /// working on. What the caller reads after a fence is not forgotten by that call any more.
    async fn fence(&self) -> Result<(), AdapterError>;

    /// Up to `limit` rows of a table after the row id `after`, ordered bytewise by row id. Deleted
    /// rows are among them, as long as their deletes are remembered. Empty means there are no more.
    ///
    /// A row written between two calls is seen in one of its states; one that was there all along
    /// is never missed.
    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError>;

    /// Those of the rows `row_ids` that the backend holds, deleted ones among them, in any order.
    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError>;

    /// Up to `limit` ids of rows that people see in a table, after the row id `after`, ordered bytewise.
    /// Rows that somebody put there are among them. A key that can't be a row id is left out.
    async fn shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError>;

    /// Those of `rows` that people don't see as they are given: they are missing where people look, or
    /// show other values. Deleted rows among `rows` are passed over.
    async fn misshown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError>;

    /// Lets go of those of `rows` that are still as given, as if they had never been written; so a
    /// row moves to another backend. It is no delete: watermarks and the history stay.
    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError>;

    /// Up to `limit` changes of the history after `after`, in the order of their places. Empty means
    /// that there are no more, or that the backend keeps no history.
    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError>;

    /// Adds changes to the history, where it is kept, and touches no row. Those that it holds
    /// already stay as they are.
    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError>;

    /// Whether the backend answers, now. Cheap, and changes nothing.
    async fn health(&self) -> Result<(), AdapterError>;
}

/// Why a backend could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    /// The backend is away or failed. Whether a write landed is unknown: back off, then repeat it.
    #[error("the backend is unavailable: {0}")]
    Unavailable(String),
    /// Somebody else holds what is to be written or altered, or the backend needs longer than it was
    /// given. Nothing was done, or it is undone: repeat it, and leave others room meanwhile.
    #[error("the backend is busy: {0}")]
    Busy(String),
    /// The batch begins beyond the watermark, as it does for a backend put back to an older state.
    /// Read the watermark and resume from there.
    #[error("the batch begins at {first}, but the backend's watermark is {watermark}")]
    Gap {
        /// How far the backend has come.
        watermark: Position,
        /// Where the batch begins.
        first: Position,
    },
    /// The table was never prepared.
    #[error("table {0} was not prepared")]
    UnknownTable(TableName),
    /// The column was never prepared.
    #[error("table {table}: column {column} was not prepared")]
    UnknownColumn {
        /// The table.
        table: TableName,
        /// The column.
        column: ColumnName,
    },
    /// A value of another kind than its column's. Which row it is, is not for a log.
    #[error("table {table}: column {column} is {wanted} and can't hold {found}")]
    Unfit {
        /// The table.
        table: TableName,
        /// The row.
        row_id: RowId,
        /// The column.
        column: ColumnName,
        /// The column's type.
        wanted: ColumnType,
        /// The value's kind.
        found: &'static str,
    },
    /// The backend holds something of that name in another shape.
    #[error("the backend does not fit the schema: {0}")]
    Mismatch(String),
    /// What the backend holds can't be understood.
    #[error("the backend is corrupt: {0}")]
    Corrupt(String),
}

impl Classify for AdapterError {
    fn reason(&self) -> Reason {
        match self {
            Self::Unavailable(_) | Self::Busy(_) | Self::Gap { .. } => Reason::StoreUnavailable,
            Self::UnknownTable(_)
            | Self::UnknownColumn { .. }
            | Self::Unfit { .. }
            | Self::Mismatch(_) => Reason::SchemaMismatch,
            Self::Corrupt(_) => Reason::Corruption,
        }
    }
}

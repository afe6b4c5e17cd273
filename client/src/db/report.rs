//! What the database reports to its callers.

use lakesync::name::{ColumnName, RowId, TableName};
use lakesync::schema::Proposal;

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
    /// How SQL computes the id of the row `_t` of a synced table, as `_lakesync_rejected` and
    /// `_lakesync_parked` name rows.
    pub row_id: Option<String>,
    /// What the application should know, such as keys that two devices would both hand out.
    pub warnings: Vec<String>,
    /// Columns that stay behind, such as generated ones.
    pub left_out: Vec<String>,
}

/// A table that is at the gateway and in the file, but is not synced here: what is written to it is
/// not recorded, and what arrives for it is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub table: TableName,
    /// Why it can't be adopted; `None` if it only has to be.
    pub why: Option<String>,
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
    /// Synced tables that the gateway does not declare, such as one that was made anew: their rows
    /// stay and their changes wait until it does.
    pub undeclared: Vec<TableName>,
}

/// What became of a pushed batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// How many changes were accepted whole.
    pub(crate) accepted: usize,
    /// Changes that lost to newer ones, wholly or in some columns.
    pub(crate) superseded: Vec<Superseded>,
    /// Changes that were refused.
    pub(crate) rejected: Vec<Rejected>,
    /// Whether something that was given back had been given back before, by another replica.
    pub(crate) outrun: bool,
    /// The numbers of the changes that the server found too far ahead of its clock: observe its
    /// clock, then push them again.
    pub(crate) drifted: Vec<i64>,
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
pub(crate) struct Applied {
    /// Tables whose visible rows changed.
    pub(crate) tables: Vec<TableName>,
    /// How many rows arrived.
    pub(crate) rows: usize,
    /// Rows that a local constraint refused just now.
    pub(crate) parked: Vec<Parked>,
    /// Rows parked before that found their place.
    pub(crate) unparked: Vec<(TableName, RowId)>,
}

/// What the end of a checkpoint did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// What it changed.
    pub(crate) applied: Applied,
    /// Rows that left their tables because the gateway has them no longer.
    pub(crate) removed: usize,
    /// Rows that were queued again because a gateway whose log was replaced had lost them.
    pub(crate) restored: usize,
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
pub(crate) struct ClockChange {
    /// How far the server's clock is ahead of the local one, in milliseconds.
    pub(crate) offset_ms: i64,
    /// How many unsent changes were stamped again.
    pub(crate) restamped: u64,
}

/// How much waits for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Changes that were not sent yet.
    pub(crate) pending: u64,
    /// Changes that were refused.
    pub(crate) rejected: u64,
    /// Rows that a local constraint refuses.
    pub(crate) parked: u64,
}

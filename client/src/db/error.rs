//! Why work on an open database failed, and what SQLite's result codes mean for the caller.

use lakesync::error::{Classify, Reason};
use lakesync::name::{Gateway, RowId, TableName};

/// Why work on an open database failed. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite's own word: a locked file, a full disk, a damaged page.
    #[error("{0}")]
    Sqlite(#[from] sqlx::Error),
    /// The schema installed here is older than what arrived: fetch it and install it.
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
    /// A table can't be synced.
    #[error("table {table} can't be synced: {reason}")]
    Unadoptable {
        /// The table.
        table: TableName,
        /// Why not.
        reason: String,
    },
    /// LakeSync's own tables hold what they never should.
    #[error("table {table} of this file is damaged: {what}")]
    Damaged {
        /// LakeSync's table.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The gateway takes a row to be here that is not: a whole checkpoint is needed.
    #[error("the gateway takes row \"{row_id}\" of table {table} to be here, and it is not")]
    NotHeld {
        /// The table.
        table: TableName,
        /// The row.
        row_id: RowId,
    },
    /// The gateway's answer can't be understood.
    #[error("the gateway's answer names change {index} of {count}")]
    BadAnswer {
        /// The change it names.
        index: usize,
        /// How many were sent.
        count: usize,
    },
}

impl Classify for DbError {
    fn reason(&self) -> Reason {
        match self {
            Self::Sqlite(error) => match primary_code(error) {
                Some(BUSY | LOCKED) => Reason::Overloaded,
                Some(FULL) => Reason::DiskFull,
                Some(CORRUPT | NOT_A_DATABASE) => Reason::Corruption,
                _ => Reason::StoreUnavailable,
            },
            Self::SchemaStale { .. } => Reason::SchemaMismatch,
            Self::OtherGateway { .. } | Self::Unadoptable { .. } => Reason::InvalidRequest,
            Self::Damaged { .. } => Reason::Corruption,
            Self::NotHeld { .. } => Reason::CursorExpired,
            Self::BadAnswer { .. } => Reason::Bug,
        }
    }
}

const ERROR: i32 = 1;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const TOO_BIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const NOT_A_DATABASE: i32 = 26;

/// SQLite's primary result code, if the error is SQLite's.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Whether a statement was refused for the sake of the row it wrote: by a constraint, a datatype, a
/// trigger of the application, or an expression of the table that can't be computed here, such as a
/// function that only the application has. Such a row is parked; any other error stops the work.
pub(super) fn is_refusal(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(ERROR | CONSTRAINT | MISMATCH | TOO_BIG))
}

/// SQLite's word for a refusal, without its number.
pub(super) fn refusal_text(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    }
}

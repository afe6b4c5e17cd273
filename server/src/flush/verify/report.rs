//! What is ordered of a verification, and what it finds.

use std::sync::Arc;

use lakesync::adapter::AdapterError;
use lakesync::error::{Classify, Reason};
use lakesync::name::RowId;
use lakesync::row::Row;
use sha2::{Digest, Sha256};

use crate::flush::FlushError;
use crate::store::StoreError;

/// How many rows that differ are named, of each table.
const EXAMPLES_MAX: usize = 5;

/// What is to be verified, and what is to be done about it.
#[derive(Clone, Debug)]
pub struct Order {
    /// The backend; none if the gateway has one only.
    pub backend: Option<String>,
    /// Whether rows that differ are written anew.
    pub repair: bool,
    /// Whether rows are removed that the gateway does not have: somebody put them there, or the gateway
    /// was restored from an older copy. Rows that the gateway has are never put back to an older state.
    pub remove_extra: bool,
    /// When the caller's token runs out, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The backend lacks it.
    Missing,
    /// The backend holds another state of it.
    Outdated,
    /// It shows other values than it should, or is not shown at all.
    Changed,
    /// The gateway has no such row.
    Extra,
    /// The gateway has the row, and the backend has something of it that the gateway does not have.
    Newer,
}

/// How far the comparison of a table has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How many tables come after it.
    pub left: usize,
    /// Rows of the gateway that exist and were compared.
    pub rows: u64,
    /// How many rows differed, by how they did.
    pub missing: u64,
    /// As above.
    pub outdated: u64,
    /// As above.
    pub changed: u64,
    /// As above.
    pub extra: u64,
    /// As above.
    pub newer: u64,
    /// Rows that changed all the time, so that nothing is known of them.
    pub unsettled: u64,
    /// How many of those that differed are as they should be by now.
    pub repaired: u64,
    /// How many were written anew or removed, and still are not shown as they should be.
    pub refused: u64,
    /// Some of those that differed.
    pub examples: Vec<(RowId, Difference)>,
    /// SHA-256 over the rows that exist, of the gateway and of the backend, as they were found. They are
    /// there once all rows were compared.
    pub digests: Option<([u8; 32], [u8; 32])>,
}

/// Why a verification broke off.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VerifyError {
    /// There are several, and none was named.
    #[error("the gateway has several backends; name one of {0}")]
    WhichBackend(String),
    /// There is none of that name.
    #[error("the gateway has no backend {name}; it has {known}")]
    UnknownBackend {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// What is durable could not be flushed first.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// The backend failed.
    #[error("backend {name}: {error}")]
    Backend {
        /// Its name.
        name: Arc<str>,
        /// What it said.
        error: AdapterError,
    },
    /// The caller's token ran out.
    #[error("the token has expired; what was repaired stays so")]
    TokenExpired,
    /// The gateway has ended.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for VerifyError {
    fn reason(&self) -> Reason {
        match self {
            Self::WhichBackend(_) | Self::UnknownBackend { .. } => Reason::InvalidRequest,
            Self::Flush(error) => error.reason(),
            Self::Backend { .. } => Reason::BackendUnavailable,
            Self::TokenExpired => Reason::TokenExpired,
            Self::Store(error) => error.reason(),
        }
    }

    fn public_message(&self) -> Option<&'static str> {
        match self {
            Self::Flush(error) => error.public_message(),
            Self::Store(error) => error.public_message(),
            _ => None,
        }
    }
}

impl Table {
    pub(super) fn count(&mut self, row_id: &RowId, difference: Difference) {
        *match difference {
            Difference::Missing => &mut self.missing,
            Difference::Outdated => &mut self.outdated,
            Difference::Changed => &mut self.changed,
            Difference::Extra => &mut self.extra,
            Difference::Newer => &mut self.newer,
        } += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push((row_id.clone(), difference));
        }
    }

    /// Notes that rows were written anew or removed, of which the database refused some.
    pub(super) fn wrote(&mut self, rows: usize, refused: usize) {
        self.repaired += rows.saturating_sub(refused) as u64;
        self.refused += refused as u64;
    }
}

/// Whether both sides hold the same row, or both none that exists. How a row was deleted, one of them
/// may have forgotten.
pub(super) fn is_same(own: Option<&Row>, theirs: Option<&Row>) -> bool {
    let is_live = |row: &&Row| row.is_live();
    match (own.filter(is_live), theirs.filter(is_live)) {
        (None, None) => true,
        (Some(own), Some(theirs)) => {
            own.cells() == theirs.cells() && own.written() == theirs.written()
        }
        _ => false,
    }
}

/// Adds a row that exists: its id, and of each cell its column, its stamp and its value.
pub(super) fn digest(digest: &mut Sha256, row_id: &RowId, row: Option<&Row>) {
    let Some(row) = row.filter(|row| row.is_live()) else { return };
    // With its length, so that no two lists of parts make the same bytes.
    let mut put = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    put(row_id.as_str().as_bytes());
    for cell in row.cells() {
        put(cell.column.as_str().as_bytes());
        put(&cell.stamp.hlc.0.to_be_bytes());
        put(cell.stamp.client.as_str().as_bytes());
        let mut value = Vec::with_capacity(cell.value.size());
        cell.value.encode(&mut value);
        put(&value);
    }
}

//! Why a round failed. Whatever it had done stays done, and the next round goes on from there.

use std::collections::BTreeMap;

use lakesync::error::{ErrorKind, Reason};
use lakesync::limits::{PROTOCOL_MAX, PROTOCOL_MIN};
use lakesync::status::Problem;

use crate::backoff::Failure;
use crate::db::DbError;

/// Why a round failed. Nothing is lost: another round goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The gateway's word, or the network's.
    #[error(transparent)]
    Gateway(#[from] Problem),
    /// The local database's.
    #[error("the local database: {0}")]
    Database(#[from] DbError),
    /// There is no protocol that both sides speak.
    #[error(
        "the server speaks protocols {server_min} to {server_max}, this replica {PROTOCOL_MIN} to \
         {PROTOCOL_MAX}"
    )]
    Protocol {
        /// The oldest protocol of the server.
        server_min: u32,
        /// Its newest.
        server_max: u32,
    },
    /// Stamps stayed ahead of the server's clock although they were corrected by it.
    #[error(
        "{changes} changes wait: the server finds their stamps ahead of its clock, although this \
         device's clock was corrected by it"
    )]
    Drift {
        /// How many changes.
        changes: usize,
    },
}

impl SyncError {
    /// What the gateway said, if it was the gateway.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Gateway(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the log can't be read on from the cursor: it has expired, or the next commit is too
    /// large to be held.
    pub(super) fn is_expired(&self) -> bool {
        self.problem().is_some_and(|problem| problem.kind == ErrorKind::Expired)
    }

    /// Whether the cursor belongs to a log that was replaced: by an older copy, or by a new one.
    pub(super) fn is_replaced(&self) -> bool {
        let fact = self.problem().and_then(|problem| problem.facts.get("log"));
        self.is_expired() && fact.is_some_and(|fact| fact == "replaced")
    }

    /// Whether the line is at fault, or what is behind it.
    pub(super) fn is_of_the_line(&self) -> bool {
        self.problem().is_some_and(is_of_the_line)
    }

    /// Whether the schema must be fetched before what arrived can be applied.
    pub(super) fn is_stale_schema(&self) -> bool {
        matches!(self, Self::Database(DbError::SchemaStale { .. }))
    }

    /// Whether a checkpoint spared a row that is not here.
    pub(super) fn is_not_held(&self) -> bool {
        matches!(self, Self::Database(DbError::NotHeld { .. }))
    }

    /// What it means for the next attempt.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Gateway(problem) => Failure::of(problem),
            // Stamps that stay ahead are right once their time has come.
            Self::Protocol { .. } | Self::Drift { .. } => Failure::NeedsPerson,
            Self::Database(_) => Failure::Passing,
        }
    }
}

/// See [`SyncError::is_of_the_line`]. No gateway gave a reason, or its reason is that what was sent to
/// it did not arrive.
pub(super) fn is_of_the_line(problem: &Problem) -> bool {
    let is_line = problem.reason.is_none_or(|reason| reason == Reason::RequestStalled);
    problem.kind == ErrorKind::Unavailable && is_line
}

/// A stream that fell silent, or ended before it was done: the network's fault.
pub(super) fn broken(message: impl ToString) -> SyncError {
    let (kind, message) = (ErrorKind::Unavailable, message.to_string());
    SyncError::Gateway(Problem {
        kind,
        reason: None,
        message,
        retry_after: None,
        facts: BTreeMap::new(),
    })
}

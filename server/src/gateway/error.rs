//! Why a gateway refuses a call, and what the caller should do about it.

use std::time::Duration;

use lakesync::adapter::Shortage;
use lakesync::error::{Classify, FieldViolation, Reason};
use lakesync::limits::PUSH_ROWS_MAX;
use lakesync::name::{ClientId, ColumnName, TableName};
use lakesync::rules::{RulesError, TooManyInstances};
use lakesync::schema::EvolveError;
use lakesync::wire::Refusal;

use super::allowance::Quota;
use super::cursor::CursorError;
use crate::store::StoreError;

/// How long a caller waits before it offers a refused push again.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// How long a caller waits for backends to catch up.
const LOG_FULL_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a whole push was refused. A refused push leaves no trace.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PushError {
    /// More than one commit may hold.
    #[error("the push holds {count} changes; the limit is {PUSH_ROWS_MAX}: split it")]
    TooManyChanges {
        /// How many it held.
        count: usize,
    },
    /// The rows that it touches are more than one commit may load.
    #[error("the push touches rows of more than {limit_bytes} bytes together: split it")]
    RowsTooLarge {
        /// How much is allowed.
        limit_bytes: usize,
    },
    /// Another subject pushed under this client id first.
    #[error("the client id {0} belongs to another subject")]
    ClientIdTaken(ClientId),
    /// The token opens more than can be served.
    #[error(transparent)]
    Scope(#[from] TooManyInstances),
    /// The caller's tokens were revoked.
    #[error(transparent)]
    Revoked(#[from] Revoked),
    /// The caller, or the gateway, has taken more than it may.
    #[error(transparent)]
    Quota(#[from] Quota),
    /// A change of an atomic push was refused.
    #[error("nothing was committed: {}", .0.message)]
    Refused(Refusal),
    /// Queues are full.
    #[error("the gateway is at capacity")]
    Full,
    /// The log is as large as it may be, and a backend does not have all of it.
    #[error("the log is full until the backends have caught up")]
    LogFull,
    /// The gateway is closing.
    #[error("the gateway has stopped")]
    Stopped,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for PushError {
    fn reason(&self) -> Reason {
        match self {
            Self::TooManyChanges { .. } | Self::RowsTooLarge { .. } => Reason::TooLarge,
            Self::ClientIdTaken(_) => Reason::ClientIdTaken,
            Self::Scope(error) => error.reason(),
            Self::Revoked(error) => error.reason(),
            Self::Quota(error) => error.reason(),
            Self::Refused(refusal) => refusal.reason,
            Self::Full | Self::LogFull => Reason::Overloaded,
            Self::Stopped => Reason::ShuttingDown,
            Self::Store(error) => error.reason(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full => Some(RETRY_AFTER),
            Self::LogFull => Some(LOG_FULL_RETRY_AFTER),
            Self::Quota(error) => error.retry_after(),
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }

    fn public_message(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.public_message(),
            _ => None,
        }
    }
}

/// A token from before its subject's tokens were revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token was revoked; obtain a fresh one")]
pub struct Revoked;

impl Classify for Revoked {
    fn reason(&self) -> Reason {
        Reason::TokenInvalid
    }
}

/// Why sync rules did not come into force.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RulesChangeError {
    /// They are wrong.
    #[error(transparent)]
    Refused(#[from] RulesError),
    /// Others were put before their index was built.
    #[error("other rules were put before these came into force")]
    Replaced,
    /// The gateway is closing.
    #[error("the gateway has stopped")]
    Stopped,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for RulesChangeError {
    fn reason(&self) -> Reason {
        match self {
            Self::Refused(error) => error.reason(),
            Self::Replaced => Reason::RulesReplaced,
            Self::Stopped => Reason::ShuttingDown,
            Self::Store(error) => error.reason(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }

    fn public_message(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.public_message(),
            _ => None,
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Refused(error) => error.violations(),
            _ => Vec::new(),
        }
    }
}

/// Why a schema was not installed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SchemaChangeError {
    /// It can't be evolved to.
    #[error(transparent)]
    Refused(#[from] EvolveError),
    /// A type would change under the sync rules, which compare by type.
    #[error(
        "the type of {table}.{column} can't change while sync rules look at it, in {buckets}; put \
         rules without it first"
    )]
    LookedAt {
        /// The table.
        table: TableName,
        /// The column.
        column: ColumnName,
        /// The buckets that look at it.
        buckets: String,
    },
    /// A backend can't hold it.
    #[error("table {table}: a backend that is configured can't hold {shortage}")]
    Backend {
        /// The table.
        table: TableName,
        /// What it can't hold.
        shortage: Shortage,
    },
    /// The sync rules mean nothing under it.
    #[error("the sync rules in force do not fit: {0}; put others first")]
    Rules(#[from] RulesError),
    /// The gateway is closing.
    #[error("the gateway has stopped")]
    Stopped,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for SchemaChangeError {
    fn reason(&self) -> Reason {
        match self {
            Self::Refused(error) => error.reason(),
            Self::LookedAt { .. } | Self::Backend { .. } | Self::Rules(_) => Reason::InvalidRequest,
            Self::Stopped => Reason::ShuttingDown,
            Self::Store(error) => error.reason(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }

    fn public_message(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.public_message(),
            _ => None,
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Refused(error) => error.violations(),
            Self::LookedAt { .. } | Self::Backend { .. } | Self::Rules(_) => {
                let (field, description) = ("tables".to_owned(), self.to_string());
                vec![FieldViolation { field, description }]
            }
            _ => Vec::new(),
        }
    }
}

/// Why a pull or a checkpoint ended before its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The cursor or resume token can't be continued.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The token opens more than can be served.
    #[error(transparent)]
    Scope(#[from] TooManyInstances),
    /// The caller's tokens were revoked.
    #[error(transparent)]
    Revoked(#[from] Revoked),
    /// The caller, or the gateway, has taken more than it may.
    #[error(transparent)]
    Quota(#[from] Quota),
    /// The reader took nothing for too long.
    #[error("the reader took nothing for {} s; resume from the last cursor", .0.as_secs())]
    SlowConsumer(Duration),
    /// The caller's token ran out.
    #[error("the token has expired; resume from the last cursor with a fresh one")]
    TokenExpired,
    /// The server is stopping.
    #[error("the server is stopping; resume from the last cursor")]
    ShuttingDown,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for ReadError {
    fn reason(&self) -> Reason {
        match self {
            Self::Cursor(error) => error.reason(),
            Self::Scope(error) => error.reason(),
            Self::Revoked(error) => error.reason(),
            Self::Quota(error) => error.reason(),
            Self::SlowConsumer(_) => Reason::SlowConsumer,
            Self::TokenExpired => Reason::TokenExpired,
            Self::ShuttingDown => Reason::ShuttingDown,
            Self::Store(error) => error.reason(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Quota(error) => error.retry_after(),
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }

    fn public_message(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.public_message(),
            _ => None,
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Cursor(error) => error.facts(),
            _ => Vec::new(),
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Cursor(error) => error.violations(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use lakesync::status::to_status;
    use tonic_types::StatusExt;

    use super::*;

    /// What a caller is told: the message, how long to wait, and the fields at fault.
    fn told(error: &impl Classify) -> (String, Option<Duration>, Vec<String>) {
        let status = to_status(error);
        let details = status.get_error_details();
        let wait = details.retry_info().and_then(|info| info.retry_delay);
        let fields = details.bad_request().map(|bad| bad.field_violations.clone());
        let fields = fields.unwrap_or_default().into_iter().map(|violation| violation.field);
        (status.message().to_owned(), wait, fields.collect())
    }

    #[test]
    fn the_stores_errors_say_the_same_whatever_the_call() {
        let secret = || "row todos/secret in /var/lib/x".to_owned();
        for (error, wait) in [
            (StoreError::Full(secret()), Some(Duration::from_secs(30))),
            (StoreError::Failed(secret()), None),
            (StoreError::Corrupt(secret()), None),
            (StoreError::Closed, None),
        ] {
            let bare = told(&error);
            assert_eq!((bare.1, bare.0.contains("secret")), (wait, false), "{bare:?}");
            assert!(error.reason() == Reason::StoreUnavailable || error.to_string() != bare.0);
            assert_eq!(told(&PushError::from(error.clone())), bare);
            assert_eq!(told(&SchemaChangeError::from(error.clone())), bare);
            assert_eq!(told(&ReadError::from(error)), bare);
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        let cursor = ReadError::from(CursorError::Malformed("resume"));
        assert_eq!(told(&cursor).2, ["resume"]);
        let schema = EvolveError::TooMany { what: "tables", count: 2, limit: 1 };
        assert_eq!(told(&SchemaChangeError::from(schema)).2, ["tables"]);
    }
}

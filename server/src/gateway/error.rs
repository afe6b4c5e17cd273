//! Why a gateway refuses a call, and what the caller should do about it.

use std::time::Duration;

use lakesync::error::{Classify, Reason};
use lakesync::limits::PUSH_ROWS_MAX;
use lakesync::name::ClientId;
use lakesync::schema::EvolveError;
use lakesync::wire::Refusal;

use super::cursor::CursorError;
use crate::store::StoreError;

/// How long a caller waits before it offers a refused push again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

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
    /// A change of an atomic push was refused.
    #[error("nothing was committed: {}", .0.message)]
    Refused(Refusal),
    /// Queues are full.
    #[error("the gateway is at capacity")]
    Full,
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
            Self::Refused(refusal) => refusal.reason,
            Self::Full => Reason::Overloaded,
            Self::Stopped => Reason::ShuttingDown,
            Self::Store(error) => error.reason(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full => Some(RETRY_AFTER),
            Self::Store(StoreError::Full(_)) => Some(Duration::from_secs(30)),
            _ => None,
        }
    }
}

/// Why a schema was not installed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SchemaChangeError {
    /// It can't be evolved to.
    #[error(transparent)]
    Refused(#[from] EvolveError),
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
            Self::Stopped => Reason::ShuttingDown,
            Self::Store(error) => error.reason(),
        }
    }
}

/// Why a pull or a checkpoint ended before its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The cursor or resume token can't be continued.
    #[error(transparent)]
    Cursor(#[from] CursorError),
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
            Self::SlowConsumer(_) => Reason::SlowConsumer,
            Self::TokenExpired => Reason::TokenExpired,
            Self::ShuttingDown => Reason::ShuttingDown,
            Self::Store(error) => error.reason(),
        }
    }
}

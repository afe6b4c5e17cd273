//! Why a flush, or an attempt at one, did not come to its end.

use std::sync::Arc;
use std::time::Duration;

use lakesync::adapter::AdapterError;
use lakesync::error::{Classify, Reason};
use lakesync::name::{self, Position};

use crate::store::StoreError;

/// Why a flush did not come to its end. It goes on all the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlushError {
    /// There is nothing to flush to.
    #[error(
        "no backend is configured; set backend_url, or [backends.NAME] and flush_to in the file \
         of settings"
    )]
    NoBackend,
    /// A backend does not take it.
    #[error("backend {name}: {error}; flushing goes on, and is tried again")]
    Backend {
        /// Its name.
        name: Arc<str>,
        /// What it said.
        error: String,
    },
    /// The server is stopping.
    #[error("the server is stopping; what is not flushed is flushed when it starts again")]
    ShuttingDown,
    /// The gateway has ended.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for FlushError {
    fn reason(&self) -> Reason {
        match self {
            Self::NoBackend => Reason::NoBackend,
            Self::Backend { .. } => Reason::BackendUnavailable,
            Self::ShuttingDown => Reason::ShuttingDown,
            Self::Store(error) => error.reason(),
        }
    }

    fn public_message(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.public_message(),
            _ => None,
        }
    }
}

/// A backend in which a gateway of this name can have no place.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a gateway of the name {gateway} could never be flushed to backend {name}: {what}")]
pub struct NoPlace {
    pub(super) gateway: name::Gateway,
    pub(super) name: Arc<str>,
    pub(super) what: String,
}

impl Classify for NoPlace {
    fn reason(&self) -> Reason {
        Reason::InvalidRequest
    }
}

/// Why an attempt failed, as operators are told.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The backend does not take it.
    #[error(transparent)]
    Backend(#[from] AdapterError),
    /// The gateway can't have a place there.
    #[error("{0}")]
    Unusable(String),
    /// It holds the rows of somebody else.
    #[error(
        "it holds rows of another gateway, or of one that was deleted since: empty it, or choose \
         another place for this gateway"
    )]
    Foreign,
    /// It is, or was once, further than the log.
    #[error(
        "it was at {0} before the log was: another server writes to it, or the data directory was put \
         back unnoticed to an older state. Stop all servers but one, make the file RESTORED in its \
         data directory, and start it"
    )]
    Ahead(Position),
    /// The log no longer holds what comes next.
    #[error("the log was trimmed beneath it; all rows are written instead")]
    Trimmed,
    /// Our own code panicked.
    #[error("a bug stopped it; the server's log tells more")]
    Panicked,
    /// The gateway can't be read any more.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How long to leave alone what somebody else holds: whoever waits behind us passes meanwhile.
const REST: Duration = Duration::from_secs(3);

impl Failure {
    /// How long to pause at least before it is tried again.
    pub(super) fn rest(&self) -> Duration {
        match self {
            Self::Backend(AdapterError::Busy(_)) => REST,
            _ => Duration::ZERO,
        }
    }

    /// Whether what the backend holds may be somebody else's: then nothing is to be changed there.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign | Self::Ahead(_) | Self::Unusable(_))
    }
}

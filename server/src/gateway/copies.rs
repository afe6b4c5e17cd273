//! Copies of all gateways, made while they are written to. One at a time: each keeps the store from
//! forgetting anything while it lasts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use lakesync::error::{Classify, Reason};
use tokio::sync::watch;

use super::Gateways;
use crate::store::StoreError;

/// When to ask again while another copy is made.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Why there is no copy, or no more of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CopyError {
    /// Another is being made.
    #[error("another copy is being made; one is made at a time")]
    Busy,
    /// The server is stopping.
    #[error("the server is stopping; begin the copy again")]
    ShuttingDown,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for CopyError {
    fn reason(&self) -> Reason {
        match self {
            Self::Busy => Reason::Overloaded,
            Self::ShuttingDown => Reason::ShuttingDown,
            Self::Store(error) => error.reason(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy => Some(RETRY_AFTER),
            Self::ShuttingDown => None,
            Self::Store(error) => error.retry_after(),
        }
    }

    fn public_message(&self) -> Option<&'static str> {
        match self {
            Self::Busy | Self::ShuttingDown => None,
            Self::Store(error) => error.public_message(),
        }
    }
}

impl Gateways {
    /// A copy of everything durable, as of a moment after the call, in pieces. It ends early, with an
    /// error, when `shutdown` turns true.
    pub async fn copy(
        &self,
        shutdown: watch::Receiver<bool>,
    ) -> Result<impl Stream<Item = Result<Bytes, CopyError>> + Send + use<>, CopyError> {
        let turn = Arc::clone(&self.copying).try_acquire_owned().map_err(|_| CopyError::Busy)?;
        let copying = self.store().copy().await?;
        let state = Some((copying, shutdown, turn));
        Ok(futures_util::stream::unfold(state, async |state| {
            let (mut copying, mut shutdown, turn) = state?;
            let next = tokio::select! {
                biased;
                // A server that is gone has stopped.
                _ = shutdown.wait_for(|stopping| *stopping) => Some(Err(CopyError::ShuttingDown)),
                next = copying.next() => next.map(|piece| piece.map_err(CopyError::Store)),
            };
            match next? {
                Ok(piece) => Some((Ok(piece), Some((copying, shutdown, turn)))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

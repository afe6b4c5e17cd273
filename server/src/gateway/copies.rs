//! Copies of all gateways, made while they are written to. One at a time: each keeps the store from
//! forgetting anything while it lasts. The store ends its turn, not whoever takes the copy.

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
        let copying = self.store().copy(turn).await?;
        let state = Some((copying, shutdown));
        Ok(futures_util::stream::unfold(state, async |state| {
            let (mut copying, mut shutdown) = state?;
            let next = tokio::select! {
                biased;
                // A server that is gone has stopped.
                _ = shutdown.wait_for(|stopping| *stopping) => Some(Err(CopyError::ShuttingDown)),
                next = copying.next() => next.map(|piece| piece.map_err(CopyError::Store)),
            };
            match next? {
                Ok(piece) => Some((Ok(piece), Some((copying, shutdown)))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use lakesync::clock::ManualClock;

    use super::super::Settings;
    use super::*;
    use crate::store::embedded::{EmbeddedStore, Options};
    use crate::store::{Group, Store};

    /// As a client does that keeps its connection, and takes nothing.
    #[tokio::test]
    async fn a_copy_that_nobody_takes_does_not_forbid_others() {
        let root = tempfile::tempdir().expect("a directory");
        let options = Options { disk_reserve_bytes: 0, ..Options::default() };
        let store =
            Arc::new(EmbeddedStore::open(&root.path().join("data"), options).expect("open"));
        let id = store.create_gateway(&"main".parse().expect("legal"), 1).await.expect("made").id;
        // More than waits on its way.
        let row = |nth: u8| (Bytes::from(vec![nth]), Some(Bytes::from(vec![7; 1 << 20])));
        let group = Group { rows: (0..12).map(row).collect(), ..Group::default() };
        store.commit(id, group).await.expect("healthy").durable().await.expect("durable");
        let store: Arc<dyn Store> = store;
        let gateways = Gateways::new(store, Arc::new(ManualClock::at(1)), Settings::default());
        let (_stop, shutdown) = watch::channel(false);
        let untaken = gateways.copy(shutdown.clone()).await.expect("the first");
        assert!(matches!(gateways.copy(shutdown.clone()).await, Err(CopyError::Busy)));
        tokio::time::pause();
        let mut tries = 0;
        while gateways.copy(shutdown.clone()).await.is_err() {
            tries += 1;
            assert!(tries < 100_000, "its turn does not end");
            tokio::time::advance(Duration::from_secs(61)).await;
            // The copy is made by a thread, which the clock of the test does not move.
            tokio::task::spawn_blocking(std::thread::yield_now).await.expect("no panic");
        }
        drop(untaken);
    }
}

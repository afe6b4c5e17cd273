//! One gateway's rows in an SQL database, and how long work on them may take.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakesync::adapter::AdapterError;
use sqlx::Connection;

use super::catalogue::Catalogue;
use super::engine::Engine;
use super::error::{Failure, timed_out};
use super::pool::Session;

/// Rows in a database, which `E` speaks to.
pub(crate) struct Backend<E> {
    pub(crate) engine: E,
    pub(super) keeps_history: bool,
    /// Whether our own tables were seen.
    pub(super) installed: AtomicBool,
    /// Whether the batch before held new rows only.
    pub(super) is_filling: AtomicBool,
    /// Whether the last batch that was tried met rows in its way, and is not written yet.
    pub(super) is_hindered: AtomicBool,
    /// What was prepared, and the generation of it that our own tables name.
    pub(super) prepared: Mutex<Option<(i64, Arc<Catalogue>)>>,
}

impl<E> Backend<E> {
    pub(super) fn new(engine: E, keeps_history: bool) -> Self {
        let [installed, is_filling, is_hindered] = [false; 3].map(AtomicBool::new);
        let prepared = Mutex::default();
        Self { engine, keeps_history, installed, is_filling, is_hindered, prepared }
    }
}

impl<E: Engine> Backend<E> {
    /// A transaction that lasts no longer than a call.
    pub(super) async fn begin(&self) -> Result<Session<E::Connection>, Failure> {
        self.engine.begin(self.engine.server().options.call_timeout).await
    }

    pub(super) async fn call<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, AdapterError> {
        self.within(self.engine.server().options.call_timeout, work).await
    }

    /// What `work` yields, within `limit`. Half-open connections answer nothing, not even an error.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, AdapterError> {
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done.map_err(|failure| failure.adapter_error(E::told)),
            Err(_) => Err(timed_out("the call", limit)),
        }
    }

    pub(super) async fn check_health(&self) -> Result<(), Failure> {
        let mut session = self.engine.session().await?;
        session.ping().await?;
        session.end();
        Ok(())
    }
}

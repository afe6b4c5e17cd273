//! One gateway's rows in an SQL database, and how long work on them may take.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lakesync::adapter::AdapterError;
use sqlx::Connection;

use super::busy::ASK_WAIT;
use super::catalogue::Catalogue;
use super::engine::Engine;
use super::error::{Failure, timed_out};
use super::hidden::Hidden;
use super::patience::Patience;
use super::pool::Session;
use super::write::Way;

/// Rows in a database, which `E` speaks to.
pub(crate) struct Backend<E> {
    pub(crate) engine: E,
    pub(super) keeps_history: bool,
    /// Whether our own tables were seen.
    pub(super) installed: AtomicBool,
    /// How the next batch is written first.
    pub(super) next_way: Mutex<Way>,
    /// Counts the cells that the database refused, and that are NULL in the tables people see.
    pub(super) hidden: Mutex<Hidden>,
    patience: Patience,
    /// What was prepared, and the generation of it that our own tables name.
    pub(super) prepared: Mutex<Option<(i64, Arc<Catalogue>)>>,
}

impl<E> Backend<E> {
    pub(super) fn new(engine: E, keeps_history: bool) -> Self {
        Self {
            engine,
            keeps_history,
            installed: AtomicBool::new(false),
            next_way: Mutex::new(Way::New),
            hidden: Mutex::default(),
            patience: Patience::default(),
            prepared: Mutex::default(),
        }
    }
}

impl<E: Engine> Backend<E> {
    /// A transaction that lasts no longer than a call.
    pub(super) async fn begin(&self) -> Result<Session<E::Connection>, Failure> {
        self.engine.begin(self.patience.limit(self.engine.server().options.call_timeout)).await
    }

    /// What `work` yields, within the time of a call. A call that takes longer has twice the time when
    /// it is made again.
    pub(super) async fn call<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, AdapterError> {
        let set = self.engine.server().options.call_timeout;
        let (limit, start) = (self.patience.limit(set), Instant::now());
        let failure = match tokio::time::timeout(limit, work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(failure)) => failure,
            Err(_) => timed_out("the call", limit).into(),
        };
        let is_slow = failure.database().is_some_and(E::is_too_slow)
            // A host that died, or a network that swallows all, is no reason to wait for longer.
            || limit <= start.elapsed() && self.answers().await;
        let error = self.explained(failure).await;
        if !is_slow {
            return Err(error);
        }
        self.patience.was_short(set);
        let next = self.patience.limit(set);
        Err(AdapterError::Unavailable(format!(
            "{}; it may take {next:?} when it is tried again (call_timeout says how long at first)",
            match error {
                AdapterError::Unavailable(text) => text,
                other => other.to_string(),
            }
        )))
    }

    /// The same for work that writes rows, which tells whether less time would do.
    pub(super) async fn call_of_rows<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, AdapterError> {
        let start = Instant::now();
        let done = self.call(work).await?;
        self.patience.was_enough(self.engine.server().options.call_timeout, start.elapsed());
        Ok(done)
    }

    /// What `work` yields, within `limit`. Half-open connections answer nothing, not even an error.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, AdapterError> {
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(failure)) => Err(self.explained(failure).await),
            Err(_) => Err(timed_out("the call", limit)),
        }
    }

    /// Whether the database answers somebody who connects now.
    async fn answers(&self) -> bool {
        let asked = tokio::time::timeout(ASK_WAIT, async {
            let mut connection = self.engine.server().pool.connect().await?;
            connection.ping().await?;
            connection.close().await
        });
        matches!(asked.await, Ok(Ok(())))
    }

    pub(super) async fn check_health(&self) -> Result<(), Failure> {
        let mut session = self.engine.session().await?;
        session.ping().await?;
        self.engine.check(&mut session).await?;
        session.end();
        Ok(())
    }
}

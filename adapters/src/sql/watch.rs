//! Whether the database is still at work for us. A statement that alters a large table may take hours,
//! in which its connection is silent; and a host that dies, or a firewall that forgets the
//! connection, is silent too. So another connection asks.

use std::sync::OnceLock;
use std::time::Duration;

use lakesync::adapter::AdapterError;
use sqlx::Connection;
use tokio::time::{sleep, timeout};

use super::backend::Backend;
use super::error::Failure;
use super::prepare::Prepares;

/// How often in a row there may be no answer before the work is given up, and how often one that does
/// not tell: the server may be full, or another one behind a balancer.
const SILENT_MAX: u32 = 5;
const UNKNOWN_MAX: u32 = 60;

/// What names a connection at work to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerName {
    /// The server, and its life, as it names itself.
    pub(crate) server: String,
    /// The connection's number there.
    pub(crate) number: i64,
}

/// The connection at work, once there is one.
pub(crate) type Worker = OnceLock<WorkerName>;

impl<E: Prepares> Backend<E> {
    /// What `work` yields, unless the database has lost the connection of `worker`, or can't be asked
    /// any more.
    pub(super) async fn watched<T>(
        &self,
        worker: &Worker,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            done = work => done,
            loss = self.loss(worker, self.engine.server().options.call_timeout) => Err(loss.into()),
        }
    }

    /// Resolves once the work can't come to an end.
    async fn loss(&self, worker: &Worker, every: Duration) -> AdapterError {
        let (mut silent, mut unknown) = (0, 0);
        while silent < SILENT_MAX && unknown < UNKNOWN_MAX {
            sleep(every).await;
            match timeout(every, self.ask(worker)).await {
                Ok(Ok(Some(true))) => (silent, unknown) = (0, 0),
                Ok(Ok(Some(false))) => {
                    let gone = "the connection that altered tables is gone";
                    return AdapterError::Unavailable(gone.to_owned());
                }
                Ok(Ok(None)) if worker.get().is_some() => (silent, unknown) = (0, unknown + 1),
                Ok(Err(failure)) if failure.database().is_some() => {
                    (silent, unknown) = (0, unknown + 1);
                }
                // It may restart.
                _ => silent += 1,
            }
        }
        let what = "nobody could tell for long if tables are being altered";
        AdapterError::Unavailable(what.to_owned())
    }

    /// Whether the database is at work for `worker`, if that can be told.
    async fn ask(&self, worker: &Worker) -> Result<Option<bool>, Failure> {
        let Some(worker) = worker.get() else { return Ok(None) };
        // All others may be busy with such work.
        let mut connection = self.engine.server().pool.connect().await?;
        let is_working = self.engine.is_working(&mut connection, worker).await?;
        // What is asked was answered: the server notices the end by itself.
        let _ = connection.close().await;
        Ok(is_working)
    }
}

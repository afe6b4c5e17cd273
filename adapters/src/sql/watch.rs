//! Whether the database is still at work for us. A statement that alters a large table may take hours,
//! in which its connection is silent; and a host that dies, or a firewall that forgets the
//! connection, is silent too. So another connection asks.

use std::sync::OnceLock;
use std::time::Duration;

use lakesync::adapter::AdapterError;
use tokio::time::{sleep, timeout};

use super::backend::Backend;
use super::error::Failure;
use super::prepare::Prepares;

/// How often in a row nobody may know before the work is given up.
const UNKNOWN_MAX: u32 = 5;

/// What names a connection, and its work, to others of the same server. Not known before there is
/// such a connection.
pub(crate) type Worker = OnceLock<String>;

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
        let mut unknown = 0;
        while unknown < UNKNOWN_MAX {
            sleep(every).await;
            let asked = async {
                let Some(worker) = worker.get() else { return Ok(None) };
                let mut session = self.engine.session().await?;
                let is_working = self.engine.is_working(&mut session, worker).await?;
                session.end();
                Ok::<_, Failure>(Some(is_working))
            };
            match timeout(every, asked).await {
                Ok(Ok(Some(true))) => unknown = 0,
                Ok(Ok(Some(false))) => {
                    return AdapterError::Unavailable(
                        "the connection that altered tables is gone".to_owned(),
                    );
                }
                // It may be busy, or restart.
                Ok(Ok(None) | Err(_)) | Err(_) => unknown += 1,
            }
        }
        let silent = every * 2 * UNKNOWN_MAX;
        AdapterError::Unavailable(format!(
            "nobody could tell for up to {silent:?} if tables are altered"
        ))
    }
}

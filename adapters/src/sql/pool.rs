//! Connections to one database, few and used again.
//!
//! A connection comes back only from work that ended well. Whatever else happens, an error, a
//! timeout or a caller that gave up, drops it and with it the transaction: so nobody is ever handed
//! a connection in the middle of something. A refused connection is told at once and by its cause.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::Failure;
use super::script::Script;

/// A connection that was not used for so long may be gone, and is asked first.
const FRESH: Duration = Duration::from_millis(500);
/// A connection is not used for longer, so that one day all go to where the name now points.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// Connections of one kind. Clones share them.
pub(crate) struct Pool<C: Connection> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Connection> {
    options: C::Options,
    connect_timeout: Duration,
    // Held for a push or a pop, never across an await.
    idle: Mutex<Vec<Idle<C>>>,
    permits: Arc<Semaphore>,
}

struct Idle<C> {
    connection: C,
    opened: Instant,
    used: Instant,
}

/// A connection that one caller uses. Unless it [ends](Session::end) or [commits](Session::commit),
/// it is closed and what it did is undone.
pub(crate) struct Session<C: Connection> {
    connection: C,
    opened: Instant,
    shared: Arc<Shared<C>>,
    _permit: OwnedSemaphorePermit,
}

impl<C: Connection> Pool<C> {
    /// Up to `connections_max` connections. None is opened before it is asked for.
    pub(crate) fn new(
        options: C::Options,
        connections_max: usize,
        connect_timeout: Duration,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(connections_max.max(1)));
        let idle = Mutex::default();
        Self { shared: Arc::new(Shared { options, connect_timeout, idle, permits }) }
    }

    /// A connection that answers. The caller bounds how long it waits for its turn.
    pub(crate) async fn session(&self) -> Result<Session<C>, sqlx::Error> {
        let permits = Arc::clone(&self.shared.permits);
        let permit = permits.acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        while let Some(idle) = self.shared.pop() {
            let Idle { mut connection, opened, used } = idle;
            if AGE_MAX < opened.elapsed() {
                continue;
            }
            if used.elapsed() < FRESH || self.answers(&mut connection).await {
                return Ok(self.taken(connection, opened, permit));
            }
        }
        Ok(self.taken(self.connect().await?, Instant::now(), permit))
    }

    /// A connection beside all others, for whoever can't wait for those that work.
    pub(crate) async fn connect(&self) -> Result<C, sqlx::Error> {
        let limit = self.shared.connect_timeout;
        let connected = timeout(limit, self.shared.options.connect()).await;
        connected.map_err(|_| {
            let text = format!("no connection within {limit:?}");
            std::io::Error::new(std::io::ErrorKind::TimedOut, text)
        })?
    }

    async fn answers(&self, connection: &mut C) -> bool {
        let answer = timeout(self.shared.connect_timeout, connection.ping()).await;
        matches!(answer, Ok(Ok(())))
    }

    fn taken(&self, connection: C, opened: Instant, permit: OwnedSemaphorePermit) -> Session<C> {
        Session { connection, opened, shared: Arc::clone(&self.shared), _permit: permit }
    }
}

impl<C: Connection> Shared<C> {
    fn pop(&self) -> Option<Idle<C>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl<C: Connection> Session<C> {
    /// Ends a use that left nothing open.
    pub(crate) fn end(self) {
        let Self { connection, opened, shared, _permit } = self;
        let idle = Idle { connection, opened, used: Instant::now() };
        shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
    }
}

impl<C: Script> Session<C> {
    /// Makes what was done durable and visible.
    pub(crate) async fn commit(mut self) -> Result<(), Failure> {
        self.script("COMMIT").await?;
        self.end();
        Ok(())
    }

    /// Ends a transaction that did nothing.
    pub(crate) async fn roll_back(mut self) -> Result<(), Failure> {
        self.script("ROLLBACK").await?;
        self.end();
        Ok(())
    }
}

impl<C: Connection> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Says nothing of the options, which hold credentials.
impl<C: Connection> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl<C: Connection> Deref for Session<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.connection
    }
}

impl<C: Connection> DerefMut for Session<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.connection
    }
}

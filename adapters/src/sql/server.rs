//! Which server, and how patiently.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use tokio::sync::Semaphore;

use super::pool::Pool;

/// Which server, and the bounds of what is done there.
#[derive(Clone)]
pub struct Options {
    /// `postgres://user:password@host:port/database?sslmode=…`, or
    /// `mysql://user:password@host:port?ssl-mode=…`. A database in the latter is not looked at: each
    /// gateway has its own.
    pub url: String,
    /// How many connections all adapters of the server share.
    pub connections_max: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a call may take, its turn for a connection included.
    pub call_timeout: Duration,
    /// How long preparing may take: widening a type writes a whole table anew, however large. For
    /// locks, and for us to go on, nobody waits longer than for a call.
    pub prepare_timeout: Duration,
}

/// One server, whose connections the adapters of its schemas or databases share.
pub struct Server<C: Connection> {
    pub(crate) pool: Pool<C>,
    pub(crate) options: Arc<Options>,
    /// Turns to alter tables, of few: that may take hours, and others have rows to write meanwhile.
    pub(crate) preparers: Arc<Semaphore>,
    name: Arc<str>,
}

impl Options {
    /// The server at `url`, with bounds that fit most.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections_max: 8,
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(60),
            prepare_timeout: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl<C: Connection> Server<C> {
    /// The server that is reached by `parsed`, which `options` name. Nothing connects before there
    /// is something to ask.
    pub(crate) fn reached(parsed: C::Options, options: Options, name: String) -> Self {
        let pool = Pool::new(parsed, options.connections_max, options.connect_timeout);
        let preparers = Arc::new(Semaphore::new((options.connections_max / 2).max(1)));
        Self { pool, options: Arc::new(options), preparers, name: name.into() }
    }
}

impl<C: Connection> Clone for Server<C> {
    fn clone(&self) -> Self {
        let (options, preparers) = (Arc::clone(&self.options), Arc::clone(&self.preparers));
        Self { pool: self.pool.clone(), options, preparers, name: Arc::clone(&self.name) }
    }
}

/// Says nothing of the URL, which may hold a password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("connections_max", &self.connections_max)
            .field("connect_timeout", &self.connect_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("prepare_timeout", &self.prepare_timeout)
            .finish_non_exhaustive()
    }
}

impl<C: Connection> fmt::Display for Server<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl<C: Connection> fmt::Debug for Server<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

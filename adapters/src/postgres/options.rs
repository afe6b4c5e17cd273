//! Which server, and how patiently.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lakesync::adapter::AdapterError;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::Postgres;
use super::names::Names;
use super::session::Failure;
use crate::sql::error::timed_out;
use crate::sql::pool::Pool;

/// Which database, and the bounds of what is done there.
#[derive(Clone)]
pub struct Options {
    /// `postgres://user:password@host:port/database?sslmode=…`.
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

/// What makes no adapter. Says nothing of the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOptions {
    /// A URL that can't be read.
    #[error("the url is none of Postgres: postgres://user:password@host:port/database")]
    Url,
    /// A name that Postgres would cut short or refuse.
    #[error("{0:?} is no name for a Postgres schema: 1 to 63 bytes, not beginning with pg_")]
    Schema(String),
}

/// One Postgres database, whose connections the adapters of its schemas share.
#[derive(Clone)]
pub struct Server {
    pub(super) pool: Pool<PgConnection>,
    pub(super) options: Arc<Options>,
    name: Arc<str>,
}

impl Options {
    /// The database at `url`, with bounds that fit most.
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

impl Server {
    /// The database that `options` name. Nothing connects before there is something to ask.
    pub fn new(options: Options) -> Result<Self, BadOptions> {
        let parsed: PgConnectOptions = options.url.parse().map_err(|_| BadOptions::Url)?;
        // Poolers in between know few settings; statements are ours to log, not the driver's.
        let parsed = parsed.extra_float_digits(None).disable_statement_logging();
        let parsed = match parsed.get_application_name() {
            Some(_) => parsed,
            None => parsed.application_name("lakesync"),
        };
        let database = parsed.get_database().unwrap_or(parsed.get_username());
        let name = match parsed.get_socket() {
            Some(socket) => format!("postgres at {}/{database}", socket.display()),
            None => format!("postgres at {}:{}/{database}", parsed.get_host(), parsed.get_port()),
        };
        let pool = Pool::new(parsed, options.connections_max, options.connect_timeout);
        Ok(Self { pool, options: Arc::new(options), name: name.into() })
    }

    /// The adapter of one gateway, whose tables are in `schema`, which is made if it is missing.
    pub fn adapter(&self, schema: &str, keeps_history: bool) -> Result<Postgres, BadOptions> {
        let names = Names::new(schema).ok_or_else(|| BadOptions::Schema(schema.to_owned()))?;
        Ok(Postgres::new(self.clone(), names, keeps_history))
    }

    /// What `work` yields, within `limit`. Half-open connections answer nothing, not even an error.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, AdapterError> {
        match tokio::time::timeout(limit, work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(timed_out("the call", limit)),
        }
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

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_tells_a_credential() {
        let options = Options::new("postgres://ann:s3cret@db.example:5433/site");
        assert!(!format!("{options:?}").contains("s3cret"));
        let server = Server::new(options).expect("a url");
        let adapter = server.adapter("main", true).expect("a schema");
        assert_eq!(adapter.to_string(), "postgres at db.example:5433/site, schema main");
        for shown in [format!("{server:?}"), format!("{adapter:?}"), format!("{:?}", server.pool)] {
            assert!(!shown.contains("s3cret") && !shown.contains("ann"), "{shown}");
        }
        let error = Server::new(Options::new("postgres://ann:s3cret@:bad/")).expect_err("no url");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn schemas_have_names_that_postgres_keeps_whole() {
        let server = Server::new(Options::new("postgres://localhost/site")).expect("a url");
        let long = "s".repeat(64);
        for (name, legal) in [
            ("main", true),
            ("a \"b\"", true),
            (&long[1..], true),
            (&long, false),
            ("", false),
            ("pg_x", false),
            ("a\0", false),
        ] {
            assert_eq!(server.adapter(name, true).is_ok(), legal, "{name:?}");
        }
    }
}

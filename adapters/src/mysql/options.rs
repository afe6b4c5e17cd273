//! Which server, and how patiently.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lakesync::adapter::AdapterError;
use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};

use super::MySql;
use super::names::Names;
use super::session::Failure;
use crate::sql::error::timed_out;
use crate::sql::pool::Pool;

/// Which server, and the bounds of what is done there.
#[derive(Clone)]
pub struct Options {
    /// `mysql://user:password@host:port?ssl-mode=…`. A database in it is not looked at: each gateway
    /// has its own.
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
    #[error("the url is none of MySQL: mysql://user:password@host:port")]
    Url,
    /// A name that MySQL would refuse, or has for itself.
    #[error("{0:?} is no name for a database of ours: 1 to 64 characters, none of MySQL's own")]
    Database(String),
}

/// One MySQL or MariaDB server, whose connections the adapters of its databases share.
#[derive(Clone)]
pub struct Server {
    pub(super) pool: Pool<MySqlConnection>,
    pub(super) options: Arc<Options>,
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

impl Server {
    /// The server that `options` name. Nothing connects before there is something to ask.
    pub fn new(options: Options) -> Result<Self, BadOptions> {
        let is_ours =
            ["mysql://", "mariadb://"].iter().any(|scheme| options.url.starts_with(scheme));
        let parsed = options.url.parse::<MySqlConnectOptions>().ok().filter(|_| is_ours);
        // Modes are set where they matter; statements are ours to log, not the driver's.
        let parsed = parsed.ok_or(BadOptions::Url)?;
        let parsed = parsed.pipes_as_concat(false).no_engine_substitution(false).timezone(None);
        let parsed = parsed.disable_statement_logging();
        let name = match parsed.get_socket() {
            Some(socket) => format!("mysql at {}", socket.display()),
            None => format!("mysql at {}:{}", parsed.get_host(), parsed.get_port()),
        };
        let pool = Pool::new(parsed, options.connections_max, options.connect_timeout);
        Ok(Self { pool, options: Arc::new(options), name: name.into() })
    }

    /// The adapter of one gateway, whose tables are in `database`, which is made if it is missing.
    pub fn adapter(&self, database: &str, keeps_history: bool) -> Result<MySql, BadOptions> {
        let names = Names::new(database);
        let names = names.ok_or_else(|| BadOptions::Database(database.to_owned()))?;
        Ok(MySql::new(self.clone(), names, keeps_history))
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
        let options = Options::new("mysql://ann:s3cret@db.example:3307");
        assert!(!format!("{options:?}").contains("s3cret"));
        let server = Server::new(options).expect("a url");
        let adapter = server.adapter("main", true).expect("a database");
        assert_eq!(adapter.to_string(), "mysql at db.example:3307/main");
        for shown in [format!("{server:?}"), format!("{adapter:?}"), format!("{:?}", server.pool)] {
            assert!(!shown.contains("s3cret") && !shown.contains("ann"), "{shown}");
        }
        for url in ["mysql://ann:s3cret@:bad/", "postgres://ann:s3cret@db.example"] {
            let error = Server::new(Options::new(url)).expect_err("no url");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn databases_have_names_that_mysql_takes() {
        let server = Server::new(Options::new("mysql://localhost")).expect("a url");
        let long = "s".repeat(65);
        for (name, legal) in [
            ("main", true),
            ("a `b`", true),
            (&long[1..], true),
            (&long, false),
            ("", false),
            ("MySQL", false),
            ("a\0", false),
            ("a ", false),
            ("🦀", false),
        ] {
            assert_eq!(server.adapter(name, true).is_ok(), legal, "{name:?}");
        }
    }
}

//! Which server, and which database of it.

use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;

use super::engine::MySqlEngine;
use super::names::names;
use super::{MySql, Options, Server};
use crate::sql::url;

/// What makes no adapter. Says nothing of the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOptions {
    /// A URL that can't be read.
    #[error("the url is none of MySQL: mysql://user:password@host:port")]
    Url,
    /// A way to encrypt that the driver does not know.
    #[error("ssl-mode in the url must be one of: {}", SSL_MODES.join(", "))]
    SslMode,
    /// A name that MySQL would refuse, or has for itself.
    #[error(
        "\"{}\" is no name for a database of ours: 1 to 64 characters, none of MySQL's own",
        .0.escape_debug()
    )]
    Database(String),
}

const SCHEMES: [&str; 2] = ["mysql://", "mariadb://"];
/// How a connection may be encrypted.
const SSL_MODES: [&str; 5] = ["disabled", "preferred", "required", "verify_ca", "verify_identity"];

/// Whether a URL can be read, and else what is wrong with it.
pub fn check_url(url: &str) -> Result<(), BadOptions> {
    parsed(url).map(drop)
}

fn parsed(url: &str) -> Result<MySqlConnectOptions, BadOptions> {
    let is_ours = SCHEMES.iter().any(|scheme| url.starts_with(scheme));
    if !is_ours {
        return Err(BadOptions::Url);
    }
    url.parse().map_err(|_| match url::has_legal(url, &["sslmode", "ssl-mode"], &SSL_MODES) {
        true => BadOptions::Url,
        false => BadOptions::SslMode,
    })
}

impl Server {
    /// The server that `options` name. Nothing connects before there is something to ask.
    pub fn new(options: Options) -> Result<Self, BadOptions> {
        let parsed = parsed(&options.url)?;
        // Modes are set where they matter; statements are ours to log, not the driver's.
        let parsed = parsed.pipes_as_concat(false).no_engine_substitution(false).timezone(None);
        let parsed = parsed.disable_statement_logging();
        let name = match parsed.get_socket() {
            Some(socket) => format!("mysql at {}", socket.display()),
            None => format!("mysql at {}:{}", parsed.get_host(), parsed.get_port()),
        };
        Ok(Self::reached(parsed, options, name))
    }

    /// The adapter of one gateway, whose tables are in `database`, which is made if it is missing.
    pub fn adapter(&self, database: &str, keeps_history: bool) -> Result<MySql, BadOptions> {
        let names = names(database);
        let names = names.ok_or_else(|| BadOptions::Database(database.to_owned()))?;
        Ok(MySql::new(MySqlEngine { server: self.clone(), names }, keeps_history))
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
        let url = "mysql://ann:s3cret@db.example/site?ssl-mode=on";
        let error = Server::new(Options::new(url)).expect_err("no mode").to_string();
        assert!(error.contains("disabled, preferred, required"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
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

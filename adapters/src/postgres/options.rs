//! Which database, and which schema of it.

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::engine::PostgresEngine;
use super::names::names;
use super::{Options, Postgres, Server};
use crate::sql::url;

/// What makes no adapter. Says nothing of the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOptions {
    /// A URL that can't be read.
    #[error("the url is none of Postgres: postgres://user:password@host:port/database")]
    Url,
    /// A way to encrypt that the driver does not know.
    #[error("sslmode in the url must be one of: {}", SSL_MODES.join(", "))]
    SslMode,
    /// A name that Postgres would cut short or refuse.
    #[error(
        "\"{}\" is no name for a Postgres schema: 1 to 63 bytes, not beginning with pg_",
        .0.escape_debug()
    )]
    Schema(String),
}

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
/// How a connection may be encrypted.
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Whether a URL can be read, and else what is wrong with it.
pub fn check_url(url: &str) -> Result<(), BadOptions> {
    parsed(url).map(drop)
}

fn parsed(url: &str) -> Result<PgConnectOptions, BadOptions> {
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
    /// The database that `options` name. Nothing connects before there is something to ask.
    pub fn new(options: Options) -> Result<Self, BadOptions> {
        let parsed = parsed(&options.url)?;
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
        Ok(Self::reached(parsed, options, name))
    }

    /// The adapter of one gateway, whose tables are in `schema`, which is made if it is missing.
    pub fn adapter(&self, schema: &str, keeps_history: bool) -> Result<Postgres, BadOptions> {
        let names = names(schema).ok_or_else(|| BadOptions::Schema(schema.to_owned()))?;
        Ok(Postgres::new(PostgresEngine { server: self.clone(), names }, keeps_history))
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
        for url in ["postgres://ann:s3cret@:bad/", "mysql://ann:s3cret@db.example/site"] {
            let error = Server::new(Options::new(url)).expect_err("no url");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        let url = "postgres://ann:s3cret@db.example/site?sslmode=on";
        let error = Server::new(Options::new(url)).expect_err("no mode").to_string();
        assert!(error.contains("disable, allow, prefer, require"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
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

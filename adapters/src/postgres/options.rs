//! Which database, and which schema of it.

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::engine::PostgresEngine;
use super::names::names;
use super::{Options, Postgres, Server};

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

impl Server {
    /// The database that `options` name. Nothing connects before there is something to ask.
    pub fn new(options: Options) -> Result<Self, BadOptions> {
        let is_ours =
            ["postgres://", "postgresql://"].iter().any(|scheme| options.url.starts_with(scheme));
        let parsed = options.url.parse::<PgConnectOptions>().ok().filter(|_| is_ours);
        let parsed = parsed.ok_or(BadOptions::Url)?;
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

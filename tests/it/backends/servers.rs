//! The databases that tests run against, and what is asked of them.

use lakesync_adapters::testing::{MariaDb, PASSWORD, Postgres, USER};

/// A database server of either kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Database {
    Postgres(&'static Postgres),
    MariaDb(&'static MariaDb),
}

impl Database {
    /// All that this machine has.
    pub(super) async fn all() -> Vec<Self> {
        let postgres = Postgres::shared().await.map(Self::Postgres);
        let mariadb = MariaDb::shared().await.map(Self::MariaDb);
        postgres.into_iter().chain(mariadb).collect()
    }

    /// The port it listens on.
    pub(super) fn address(self) -> std::net::SocketAddr {
        match self {
            Self::Postgres(server) => server.address(),
            Self::MariaDb(server) => server.address(),
        }
    }

    /// Its URL for a setting, by way of `address`.
    pub(super) fn url(self, address: std::net::SocketAddr) -> String {
        match self {
            Self::Postgres(_) => format!("postgres://{USER}:{PASSWORD}@{address}/postgres"),
            Self::MariaDb(_) => format!("mysql://{USER}:{PASSWORD}@{address}"),
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::MariaDb(_) => "mysql",
        }
    }

    /// A schema that no test has had.
    pub(super) fn fresh(self) -> String {
        match self {
            Self::Postgres(server) => server.fresh(),
            Self::MariaDb(server) => server.fresh(),
        }
    }

    /// What its own client prints for a query, a line a row.
    pub(super) async fn ask(self, sql: &str) -> Vec<String> {
        let printed = match self {
            Self::Postgres(server) => server.psql(sql).await,
            Self::MariaDb(server) => server.mariadb(sql).await,
        };
        printed.lines().map(str::to_owned).collect()
    }

    /// A name in a statement.
    pub(super) fn quoted(self, name: &str) -> String {
        match self {
            Self::Postgres(_) => format!("\"{name}\""),
            Self::MariaDb(_) => format!("`{name}`"),
        }
    }

    /// A `[backends.NAME]` table that flushes at once.
    pub(super) fn settings(
        self,
        name: &str,
        schema: &str,
        address: std::net::SocketAddr,
    ) -> String {
        let (kind, url) = (self.kind(), self.url(address));
        format!(
            "[backends.{name}]\nkind = '{kind}'\nurl = '{url}'\nschema = '{schema}'\n\
             flush_age = '0s'\n"
        )
    }
}

//! One piece of work on the database: a write transaction, the tables as they are in it, and the
//! clients it names. Dropped without `commit`, it leaves no trace.

use std::collections::HashMap;
use std::path::PathBuf;

use lakesync::hlc::Hlc;
use lakesync::name::ClientId;
use lakesync::stamp::Stamp;
use sqlx::{Connection, Sqlite, SqliteConnection, Transaction};

use super::error::DbError;
use super::layout::OWN_CLIENT;
use super::sql::{Statement, integer, text};
use super::table::Registry;
use super::{install, open};

/// The connection, and what is known about the file between two pieces of work.
#[derive(Debug)]
pub(super) struct Session {
    path: PathBuf,
    connection: SqliteConnection,
    /// Empty after a failure, so that nothing is remembered that was not committed.
    cache: Option<Cache>,
}

#[derive(Clone, Debug)]
struct Cache {
    /// SQLite's count of schema changes, by whomever.
    cookie: i64,
    registry: Registry,
    clients: Clients,
}

impl Session {
    pub(super) fn new(path: PathBuf, connection: SqliteConnection) -> Self {
        Self { path, connection, cache: None }
    }

    /// Begins a piece of work. Tables that the application altered since are looked at again.
    pub(super) async fn begin(&mut self) -> Result<Work<'_>, DbError> {
        // Work that was dropped is undone in the background: wait for that. A failure that made
        // SQLite end the transaction by itself leaves the driver's count wrong for good.
        self.connection.ping().await?;
        if self.connection.is_in_transaction() {
            self.cache = None;
            self.connection = open::connect(&self.path).await?;
        }
        let taken = self.cache.take();
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let cookie = cookie(&mut transaction).await?;
        let cache = taken.filter(|cache| cache.cookie == cookie);
        let stale = cache.is_none();
        let (registry, clients) = match cache {
            Some(cache) => (cache.registry, cache.clients),
            None => (Registry::default(), Clients::load(&mut transaction).await?),
        };
        let mut work = Work { transaction, registry, clients, cache: &mut self.cache };
        if stale {
            install::reconcile(&mut work).await?;
        }
        Ok(work)
    }

    /// The connection, for reading single answers.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

async fn cookie(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let row = Statement::new("PRAGMA schema_version").row(connection).await?;
    row.map_or(Ok(0), |row| integer(&row, 0))
}

/// A write transaction under way.
#[derive(Debug)]
pub(super) struct Work<'a> {
    transaction: Transaction<'a, Sqlite>,
    /// The tables as they are in this transaction.
    pub(super) registry: Registry,
    /// The clients that stamps name.
    pub(super) clients: Clients,
    cache: &'a mut Option<Cache>,
}

impl Work<'_> {
    /// The connection, inside the transaction.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// Makes everything durable, then remembers what is now known.
    pub(super) async fn commit(mut self) -> Result<(), DbError> {
        let cookie = cookie(&mut self.transaction).await?;
        self.transaction.commit().await?;
        let Self { registry, clients, cache, .. } = self;
        *cache = Some(Cache { cookie, registry, clients });
        Ok(())
    }

    /// The number of a client, which is given to it at the first sight.
    pub(super) async fn number_of(&mut self, client: &ClientId) -> Result<i64, DbError> {
        if let Some(number) = self.clients.numbers.get(client) {
            return Ok(*number);
        }
        let sql = "INSERT INTO _lakesync_clients (client) VALUES (?) RETURNING id";
        let row = Statement::new(sql).bind(client.as_str()).row(&mut self.transaction).await?;
        let number = row.map_or(Ok(0), |row| integer(&row, 0))?;
        self.clients.insert(number, client.clone());
        Ok(number)
    }
}

/// Clients and their numbers in this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    names: HashMap<i64, ClientId>,
    numbers: HashMap<ClientId, i64>,
}

impl Clients {
    async fn load(connection: &mut SqliteConnection) -> Result<Self, DbError> {
        let mut clients = Self::default();
        let sql = "SELECT id, client FROM _lakesync_clients";
        for row in Statement::new(sql).rows(connection).await? {
            let client = ClientId::parse(&text(&row, 1)?).map_err(|error| DbError::Damaged {
                table: "_lakesync_clients",
                what: error.to_string(),
            })?;
            clients.insert(integer(&row, 0)?, client);
        }
        Ok(clients)
    }

    fn insert(&mut self, number: i64, client: ClientId) {
        self.names.insert(number, client.clone());
        self.numbers.insert(client, number);
    }

    /// The stamp that two columns hold, if they hold one.
    pub(super) fn stamp(&self, hlc: Option<i64>, number: i64) -> Result<Option<Stamp>, DbError> {
        let Some(hlc) = hlc else { return Ok(None) };
        let client = self.names.get(&number).cloned().ok_or_else(|| DbError::Damaged {
            table: "_lakesync_clients",
            what: format!("client {number} is missing"),
        })?;
        Ok(Some(Stamp { hlc: from_sql(hlc), client }))
    }

    /// This replica's stamp of a reading.
    pub(super) fn own(&self, hlc: Hlc) -> Result<Stamp, DbError> {
        let stamp = self.stamp(Some(to_sql(hlc)), OWN_CLIENT)?;
        Ok(stamp.expect("BUG: a reading makes a stamp"))
    }
}

/// A clock reading as SQLite's signed integer. Readings beyond the year 6429 are cut there.
pub(super) fn to_sql(hlc: Hlc) -> i64 {
    i64::try_from(hlc.0).unwrap_or(i64::MAX)
}

/// A clock reading from SQLite's signed integer.
pub(super) fn from_sql(hlc: i64) -> Hlc {
    Hlc(u64::try_from(hlc).unwrap_or(0))
}

//! The database that is read: its tables, as of one moment.
//!
//! Everything is read in one transaction, whose snapshot stands from its first query on. Rows arrive
//! one after the other, as fast as they are taken: the database waits, and memory stays small.

use std::time::Duration;

use futures_util::stream::BoxStream;
use lakesync::name::{ColumnName, TableName};
use lakesync::schema::ColumnType;
use sqlx::{MySqlConnection, PgConnection};
use tokio::time::timeout;

use super::column::{Form, Raw, SourceColumn, Typed};
use super::{mysql, near, postgres};
use crate::exit::Exit;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A database, and a transaction that reads it.
pub(super) enum Source {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

/// A table to be imported.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// What it is called in the gateway.
    pub(super) target: TableName,
    /// Its quoted name, with its schema.
    pub(super) sql: String,
    /// The columns that take part.
    pub(super) columns: Vec<SourceColumn>,
    /// Which of them are the primary key, in its order.
    pub(super) key: Vec<usize>,
    /// Columns whose names the gateway can't have.
    pub(super) left_out: Vec<String>,
    /// About how many rows there are.
    pub(super) rows: u64,
}

/// What the catalogue says of a column, before it is judged.
pub(super) struct Described {
    pub(super) name: String,
    pub(super) typed: Typed,
}

/// A table's name as it was given: perhaps with a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) schema: Option<String>,
    pub(super) table: String,
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema.to_owned()), table),
            None => (None, text),
        };
        if table.is_empty() || schema.as_ref().is_some_and(String::is_empty) {
            return Err("a table is named as TABLE or SCHEMA.TABLE".to_owned());
        }
        Ok(Self { schema, table: table.to_owned() })
    }
}

impl Source {
    /// Connects and begins to read.
    pub(super) async fn open(url: &str) -> Result<Self, Exit> {
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        let opened = async {
            Ok(match scheme {
                Some("postgres" | "postgresql") => postgres::open(url).await.map(Self::Postgres),
                Some("mysql" | "mariadb") => mysql::open(url).await.map(Self::MySql),
                // The rest of it may hold a password.
                _ => return Err(Exit::usage("--from is a postgres:// or mysql:// URL")),
            })
        };
        let Ok(opened) = timeout(CONNECT_TIMEOUT, opened).await else {
            let text = format!("the database that is imported: no answer in {CONNECT_TIMEOUT:?}");
            return Err(Exit::unavailable(text));
        };
        opened?.map_err(|error| match error {
            sqlx::Error::Configuration(_) => Exit::usage(unreadable(url)),
            error => failed(&error),
        })
    }

    /// The table that is wanted, or why it can't be imported.
    pub(super) async fn table(&mut self, wanted: &Wanted) -> Result<Table, Exit> {
        let schema = match &wanted.schema {
            Some(schema) => schema.clone(),
            None => self.default_schema().await?.ok_or_else(|| {
                Exit::usage(format!(
                    "--from names no database: say which one {} is in, as --table DATABASE.{}",
                    wanted.table, wanted.table
                ))
            })?,
        };
        let names = match self {
            Self::Postgres(connection) => postgres::tables(connection, &schema).await,
            Self::MySql(connection) => mysql::tables(connection, &schema).await,
        };
        let names = names.map_err(|error| failed(&error))?;
        if !names.contains(&wanted.table) {
            let hint = near::hint(&wanted.table, &names);
            return Err(Exit::usage(format!("{schema} has no table {}; {hint}", wanted.table)));
        }
        let described = match self {
            Self::Postgres(connection) => {
                postgres::describe(connection, &schema, &wanted.table).await
            }
            Self::MySql(connection) => mysql::describe(connection, &schema, &wanted.table).await,
        };
        let mut found = described.map_err(|error| failed(&error))?;
        self.make_integers(&mut found).await.map_err(|error| failed(&error))?;
        found.judged(&wanted.table).map_err(|why| {
            Exit::usage(format!("{schema}.{} can't be imported: {why}", wanted.table))
        })
    }

    /// Makes 64-bit integers of decimals without a scale that rows are named by, in the key and in
    /// columns that refer to one, where all of their values are such integers: replicas keep those
    /// as INTEGER, and a decimal as text.
    async fn make_integers(&mut self, found: &mut Found) -> Result<(), sqlx::Error> {
        let Found { sql: table, columns, key, references, .. } = found;
        for Described { name, typed } in columns {
            let names_rows = key.contains(name) || references.contains(name);
            if !names_rows || !matches!(typed.kind, ColumnType::Decimal { scale: 0, .. }) {
                continue;
            }
            let (fit, sql) = match self {
                Self::Postgres(connection) => postgres::integers(connection, table, name).await?,
                Self::MySql(connection) => mysql::integers(connection, table, name).await?,
            };
            if fit {
                (typed.kind, typed.form, typed.sql) = (ColumnType::Int64, Form::Integer, sql);
            }
        }
        Ok(())
    }

    async fn default_schema(&mut self) -> Result<Option<String>, Exit> {
        let name = match self {
            Self::Postgres(connection) => postgres::default_schema(connection).await,
            Self::MySql(connection) => mysql::default_schema(connection).await,
        };
        name.map_err(|error| failed(&error))
    }

    /// The rows of a table, in no order.
    pub(super) fn rows<'s>(
        &'s mut self,
        table: &'s Table,
    ) -> BoxStream<'s, Result<Vec<Raw>, sqlx::Error>> {
        match self {
            Self::Postgres(connection) => postgres::rows(connection, table),
            Self::MySql(connection) => mysql::rows(connection, table),
        }
    }
}

/// What is wrong with a URL, which may hold a password.
fn unreadable(url: &str) -> String {
    let is_postgres = url.starts_with("postgres");
    let why = match is_postgres {
        true => lakesync_adapters::postgres::check_url(url).err().map(|error| error.to_string()),
        false => lakesync_adapters::mysql::check_url(url).err().map(|error| error.to_string()),
    };
    format!("--from: {}", why.unwrap_or_else(|| "the url can't be read".to_owned()))
}

/// What the catalogue says of a table.
pub(super) struct Found {
    pub(super) sql: String,
    pub(super) columns: Vec<Described>,
    /// The names of the primary key's columns, in order.
    pub(super) key: Vec<String>,
    /// The names of columns that refer to another table's rows.
    pub(super) references: Vec<String>,
    /// Whether it is a view, which has no key of its own.
    pub(super) is_view: bool,
    pub(super) rows: u64,
}

impl Found {
    fn judged(self, name: &str) -> Result<Table, String> {
        let target = name.parse::<TableName>().map_err(|error| format!("{error}; rename it"))?;
        if self.is_view {
            return Err(
                "it is a view, and has no primary key that tells which of its rows is which; \
                 import the tables that it shows, or a copy of it, such as CREATE TABLE … AS SELECT \
                 … with a primary key"
                    .to_owned(),
            );
        }
        if self.key.is_empty() {
            return Err(
                "it has no primary key, so nothing tells which row is which; add one, such \
                        as ALTER TABLE … ADD PRIMARY KEY (…)"
                    .to_owned(),
            );
        }
        let (mut columns, mut left_out) = (Vec::new(), Vec::new());
        let mut positions = Vec::new();
        for Described { name, typed } in self.columns {
            let Ok(legal) = name.parse::<ColumnName>() else {
                left_out.push(name);
                continue;
            };
            let Typed { kind, form, sql, as_text } = typed;
            positions.push(name);
            columns.push(SourceColumn { name: legal, kind, form, sql, as_text });
        }
        let place = |key: &String| {
            let at = positions.iter().position(|name| name == key);
            at.ok_or_else(|| format!("its key column {key:?} has no legal name; rename it"))
        };
        let key = self.key.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Table { target, sql: self.sql, columns, key, left_out, rows: self.rows })
    }
}

/// What went wrong while the database was asked: whether it may be well another time, or somebody
/// must change something. The driver's errors tell no password.
pub(super) fn failed(error: &sqlx::Error) -> Exit {
    let state = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
    let said = match error.as_database_error() {
        // Its own sentence may hold a value of a row.
        Some(error) => lakesync_adapters::told(error),
        None => error.to_string(),
    };
    let mut text = format!("the database that is imported: {said}");
    // A standby ends what reads for longer than it may hold its own log back.
    if text.contains("conflict with recovery") {
        text += "; it is a standby, and ends long reads: import from the primary, or set \
                 max_standby_streaming_delay = -1 on the standby meanwhile";
    }
    // By their classes, which both databases take from the standard: who may connect, which database
    // and schema there is, and what may be read.
    if state.starts_with("28") {
        text += "; put the user and the password of --from right";
    }
    match state.get(..2) {
        Some("28" | "3D" | "3F" | "42") => Exit::config(text),
        _ => Exit::unavailable(text),
    }
}

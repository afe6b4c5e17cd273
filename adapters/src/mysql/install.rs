//! Our own tables, made once.

use async_trait::async_trait;
use lakesync::adapter::AdapterError;
use lakesync::limits::ROW_ID_BYTES_MAX;
use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::engine::MySqlEngine;
use super::statement::Statement;
use super::types::Flavour;
use super::version::flavour;
use crate::sql::busy::LOCK_WAIT;
use crate::sql::error::Failure;
use crate::sql::install::Installs;
use crate::sql::names::{COLUMNS, HISTORY, META, ROWS, TABLES, WATERMARKS};
use crate::sql::pool::Session;
use crate::sql::read::FORMAT;
use crate::sql::script::Script;

/// The name of the lock of whoever prepares a database, which is a parameter. Locks are the whole
/// server's, and their names are short.
pub(super) const ALONE: &str = "CONCAT('lakesync ', LEFT(SHA2(?, 256), 40))";

#[async_trait]
impl Installs for MySqlEngine {
    const NOW_MICROS: &'static str = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";

    async fn install(&self) -> Result<(), Failure> {
        let mut session = self.alone().await?;
        let flavour = flavour(&mut session).await?;
        let sql = "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?";
        let known = Statement::new(sql).bind(self.names.space()).row(&mut session).await?;
        if known.is_none() {
            let (database, collation) = (self.names.quoted_space(), flavour.collation());
            let sql = format!(
                "CREATE DATABASE IF NOT EXISTS {database} CHARACTER SET utf8mb4 COLLATE {collation}"
            );
            session.script(&sql).await?;
        }
        session.script(&self.own_tables(flavour)).await?;
        self.let_others(session).await
    }

    async fn lock(&self, connection: &mut MySqlConnection) -> Result<Option<(i32, i64)>, Failure> {
        let meta = self.names.own(META);
        let sql = format!("SELECT format, generation FROM {meta} WHERE one = 1 FOR UPDATE");
        let Some(row) = Statement::kept(sql).row(connection).await? else { return Ok(None) };
        // Whoever else wrote here was one of us. From now on it may be anybody.
        self.wait_for_rows(connection, LOCK_WAIT).await?;
        Ok(Some((row.try_get(0)?, row.try_get(1)?)))
    }
}

impl MySqlEngine {
    /// A connection that nobody prepares this database beside. Statements that change tables commit,
    /// and with that let go of every other lock.
    pub(super) async fn alone(&self) -> Result<Session<MySqlConnection>, Failure> {
        // For locks, and for us to go on, nobody waits longer than for a call.
        let limit = self.server.options.call_timeout;
        let mut session = self.ready(limit).await?;
        let sql = format!("SELECT GET_LOCK({ALONE}, ?)");
        let statement = Statement::new(sql).bind(self.names.space()).bind(limit.as_secs());
        let row = statement.row(&mut session).await?.ok_or(sqlx::Error::RowNotFound)?;
        match row.try_get_unchecked::<Option<i64>, _>(0)? {
            Some(1) => Ok(session),
            _ => Err(AdapterError::Unavailable("somebody else prepares it".to_owned()).into()),
        }
    }

    /// Ends the use of a connection that was [`alone`](Self::alone).
    pub(super) async fn let_others(
        &self,
        mut session: Session<MySqlConnection>,
    ) -> Result<(), Failure> {
        let sql = format!("SELECT RELEASE_LOCK({ALONE})");
        Statement::new(sql).bind(self.names.space()).rows(&mut session).await?;
        session.end();
        Ok(())
    }

    fn own_tables(&self, flavour: Flavour) -> String {
        let [meta, tables, columns, rows, watermarks, history] =
            [META, TABLES, COLUMNS, ROWS, WATERMARKS, HISTORY].map(|table| self.names.own(table));
        let form = format!("ENGINE = InnoDB ROW_FORMAT = DYNAMIC COLLATE {}", flavour.collation());
        let now = Self::NOW_MICROS;
        // InnoDB keeps a table in the order of its primary key. States are long and row ids often
        // random: stored by row id they would land all over a table that no longer fits the server's
        // memory. So they stand in the order in which they came, and only the index is scattered.
        //
        // The table that is looked for comes last: if it is there, all are.
        format!(
            r#"
CREATE TABLE IF NOT EXISTS {tables} (
    id int PRIMARY KEY,
    name varchar(64) NOT NULL UNIQUE,
    version bigint NOT NULL,
    `key` varchar(64) NOT NULL,
    primary_key longtext NOT NULL
) {form};
CREATE TABLE IF NOT EXISTS {columns} (
    table_id int NOT NULL,
    ordinal int NOT NULL,
    name varchar(64) NOT NULL,
    type varchar(64) NOT NULL,
    field_id bigint NOT NULL,
    PRIMARY KEY (table_id, ordinal)
) {form};
CREATE TABLE IF NOT EXISTS {rows} (
    `number` bigint unsigned AUTO_INCREMENT PRIMARY KEY,
    table_id int NOT NULL,
    row_id varbinary({ROW_ID_BYTES_MAX}) NOT NULL,
    state longblob NOT NULL,
    UNIQUE KEY by_row (table_id, row_id)
) {form};
CREATE TABLE IF NOT EXISTS {watermarks} (
    log binary(16) PRIMARY KEY,
    position bigint unsigned NOT NULL
) {form};
CREATE TABLE IF NOT EXISTS {history} (
    log_id binary(16) NOT NULL,
    position bigint unsigned NOT NULL,
    `index` bigint unsigned NOT NULL,
    table_name varchar(64) NOT NULL,
    row_id varchar(256) NOT NULL,
    delta_id binary(32) NOT NULL,
    hlc bigint unsigned NOT NULL,
    happened_at datetime(6),
    client varchar(128) NOT NULL,
    op varchar(16) NOT NULL,
    cells longtext,
    exact longblob NOT NULL,
    PRIMARY KEY (log_id, position, `index`)
) {form};
CREATE TABLE IF NOT EXISTS {meta} (
    one tinyint PRIMARY KEY,
    format int NOT NULL,
    generation bigint NOT NULL
) {form};
INSERT INTO {meta} (one, format, generation) VALUES (1, {FORMAT}, {now})
    ON DUPLICATE KEY UPDATE one = one;"#
        )
    }
}

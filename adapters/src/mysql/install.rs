//! Our own tables, made once.

use async_trait::async_trait;
use lakesync::adapter::AdapterError;
use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::engine::MySqlEngine;
use super::read::text;
use super::statement::Statement;
use super::types::Flavour;
use crate::sql::error::Failure;
use crate::sql::install::{FORMAT, Installs};
use crate::sql::names::{COLUMNS, HISTORY, META, ROWS, TABLES, WATERMARKS};
use crate::sql::pool::Session;
use crate::sql::script::Script;

/// What a statement must be able to carry: a row of the largest size, and what it looks like.
const PACKET_BYTES_MIN: u64 = 8 << 20;

#[async_trait]
impl Installs for MySqlEngine {
    const NOW_MICROS: &'static str = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";

    async fn format(&self, connection: &mut MySqlConnection) -> Result<Option<i32>, Failure> {
        flavour(connection).await?;
        let sql = format!("SELECT format FROM {}", self.names.own(META));
        let row = Statement::new(sql).row(connection).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

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
        let sql = "SELECT GET_LOCK(CONCAT('lakesync ', LEFT(SHA2(?, 256), 40)), ?)";
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
        let sql = "SELECT RELEASE_LOCK(CONCAT('lakesync ', LEFT(SHA2(?, 256), 40)))";
        Statement::new(sql).bind(self.names.space()).rows(&mut session).await?;
        session.end();
        Ok(())
    }

    fn own_tables(&self, flavour: Flavour) -> String {
        let [meta, tables, columns, rows, watermarks, history] =
            [META, TABLES, COLUMNS, ROWS, WATERMARKS, HISTORY].map(|table| self.names.own(table));
        let form = format!("ENGINE = InnoDB ROW_FORMAT = DYNAMIC COLLATE {}", flavour.collation());
        let now = Self::NOW_MICROS;
        // The first one that is looked for comes last: if it is there, all are.
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
    table_id int NOT NULL,
    row_id varchar(256) NOT NULL,
    state longblob NOT NULL,
    PRIMARY KEY (table_id, row_id)
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

/// Which server it is, if it is one that we know.
pub(super) async fn flavour(connection: &mut MySqlConnection) -> Result<Flavour, Failure> {
    let sql = "SELECT VERSION(), CAST(@@max_allowed_packet AS UNSIGNED)";
    let row = Statement::new(sql).row(connection).await?.ok_or(sqlx::Error::RowNotFound)?;
    let bytes: u64 = row.try_get(1)?;
    if bytes < PACKET_BYTES_MIN {
        return Err(AdapterError::Mismatch(format!(
            "max_allowed_packet is {bytes} bytes, and {PACKET_BYTES_MIN} are needed"
        ))
        .into());
    }
    Ok(flavour_of(text(&row, 0)?)?)
}

fn flavour_of(version: &str) -> Result<Flavour, AdapterError> {
    let (flavour, name, oldest) = match version.to_ascii_lowercase().contains("mariadb") {
        true => (Flavour::MariaDb, "MariaDB", [10, 6, 0]),
        false => (Flavour::MySql, "MySQL", [8, 0, 17]),
    };
    // Old drivers were told that MariaDB was MySQL 5.5.5.
    let plain = version.strip_prefix("5.5.5-").unwrap_or(version);
    let plain = plain.split(['-', '+', ' ']).next().unwrap_or_default();
    let numbers: Vec<u32> = plain.split('.').map_while(|part| part.parse().ok()).collect();
    match oldest.as_slice() <= numbers.as_slice() {
        true => Ok(flavour),
        false => {
            let [major, minor, patch] = oldest;
            let least = format!("{name} {major}.{minor}.{patch} or newer");
            Err(AdapterError::Mismatch(format!("the server is {version}, and {least} is needed")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart_and_old_ones_refused() {
        for (version, flavour) in [
            ("10.11.19-MariaDB-0+deb12u1", Some(Flavour::MariaDb)),
            ("5.5.5-10.6.4-MariaDB", Some(Flavour::MariaDb)),
            ("11.4.2-MariaDB-log", Some(Flavour::MariaDb)),
            ("10.5.20-MariaDB", None),
            ("8.0.17", Some(Flavour::MySql)),
            ("8.4.0-azure", Some(Flavour::MySql)),
            ("8.0.16", None),
            ("5.7.44-log", None),
            ("", None),
        ] {
            assert_eq!(flavour_of(version).ok(), flavour, "{version:?}");
        }
    }
}

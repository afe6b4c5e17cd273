//! One database of a MySQL or MariaDB server: transactions in it, and what its errors mean.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::Capacity;
use lakesync::name::TableName;
use sqlx::Row;
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};

use super::errors;
use super::read::text;
use super::statement::Statement;
use super::types::CAPACITY;
use super::version::flavour;
use crate::sql::busy::{LOCK_WAIT, session_text};
use crate::sql::engine::Engine;
use crate::sql::error::{Failure, Said};
use crate::sql::names::Names;
use crate::sql::pool::Session;
use crate::sql::script::Script;
use crate::sql::server::Server;

/// One gateway's database.
pub struct MySqlEngine {
    pub(super) server: Server<MySqlConnection>,
    pub(super) names: Names,
}

#[async_trait]
impl Engine for MySqlEngine {
    type Connection = MySqlConnection;

    const CAPACITY: Capacity = CAPACITY;

    fn server(&self) -> &Server<MySqlConnection> {
        &self.server
    }

    fn names(&self) -> &Names {
        &self.names
    }

    async fn begin(&self, limit: Duration) -> Result<Session<MySqlConnection>, Failure> {
        let mut session = self.ready(limit).await?;
        session.script("START TRANSACTION").await?;
        Ok(session)
    }

    async fn check(&self, connection: &mut MySqlConnection) -> Result<(), Failure> {
        flavour(connection).await.map(drop)
    }

    fn is_absence(error: &dyn DatabaseError) -> bool {
        // No such database, or table.
        matches!(number(error), 1049 | 1146)
    }

    fn said(error: &dyn DatabaseError) -> Said {
        errors::said(number(error), &error.code().unwrap_or_default(), error.message())
    }

    fn is_misfit(error: &dyn DatabaseError) -> bool {
        errors::is_misfit(number(error))
    }

    fn is_locked_out(error: &dyn DatabaseError) -> bool {
        number(error) == 1205
    }

    fn is_too_slow(error: &dyn DatabaseError) -> bool {
        // MariaDB's limit, and MySQL's.
        matches!(number(error), 1969 | 3024)
    }

    /// Open transactions of the whole server, the oldest first: which tables each of them holds, no
    /// server tells by default.
    async fn holders(
        &self,
        connection: &mut MySqlConnection,
        _: &TableName,
    ) -> Result<Vec<String>, Failure> {
        const SQL: &str = "
SELECT CAST(t.trx_mysql_thread_id AS SIGNED), CAST(p.USER AS CHAR), CAST(p.HOST AS CHAR),
    CAST(TIMESTAMPDIFF(SECOND, t.trx_started, NOW()) AS SIGNED)
FROM information_schema.INNODB_TRX t
JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id
WHERE p.ID <> CONNECTION_ID() ORDER BY t.trx_started LIMIT 3";
        let holders = Statement::new(SQL).rows(connection).await?;
        let holders = holders.iter().map(|row| {
            let (user, host) = (text(row, 1)?.to_owned(), text(row, 2)?.to_owned());
            let (number, age) = (row.try_get_unchecked(0)?, row.try_get_unchecked(3)?);
            Ok(session_text(number, Some(user), Some(host), Some(age)))
        });
        holders.collect()
    }
}

impl MySqlEngine {
    /// A connection on which is set what servers may have otherwise: how strict they are, how long we
    /// may be silent, and how long we wait for a lock. Rows are written as they are, whatever a
    /// server thinks of updates without a key.
    pub(super) async fn ready(
        &self,
        silent: Duration,
    ) -> Result<Session<MySqlConnection>, Failure> {
        let mut session = self.session().await?;
        let wait = self.server.options.call_timeout;
        let seconds = |limit: Duration| limit.as_secs().clamp(1, 31_536_000);
        let tables = seconds(LOCK_WAIT.min(wait));
        let (wait, silent) = (seconds(wait.min(silent)), seconds(silent));
        let sql = format!(
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,\
             ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
             autocommit = 1, innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {tables}, \
             sql_safe_updates = 0, wait_timeout = {silent}; \
             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"
        );
        session.script(&sql).await?;
        Ok(session)
    }
}

impl MySqlEngine {
    /// From here on, waits no longer than that for rows.
    pub(super) async fn wait_for_rows(
        &self,
        connection: &mut MySqlConnection,
        limit: Duration,
    ) -> Result<(), Failure> {
        let seconds = limit.min(self.server.options.call_timeout).as_secs().max(1);
        let sql = format!("SET SESSION innodb_lock_wait_timeout = {seconds}");
        Ok(connection.script(&sql).await?)
    }

    /// From here on, waits no longer than that for tables.
    pub(super) async fn wait_for_tables(
        &self,
        connection: &mut MySqlConnection,
        limit: Duration,
    ) -> Result<(), Failure> {
        let seconds = limit.min(self.server.options.call_timeout).as_secs().max(1);
        Ok(connection.script(&format!("SET SESSION lock_wait_timeout = {seconds}")).await?)
    }
}

impl fmt::Display for MySqlEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.names.space())
    }
}

/// Says what `Display` says: never a credential.
impl fmt::Debug for MySqlEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MySql({self})")
    }
}

fn number(error: &dyn DatabaseError) -> u16 {
    error.try_downcast_ref().map_or(0, MySqlDatabaseError::number)
}

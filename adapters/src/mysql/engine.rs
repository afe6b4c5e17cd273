//! One database of a MySQL or MariaDB server: transactions in it, and what its errors mean.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::{AdapterError, Capacity};
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};

use super::types::CAPACITY;
use crate::sql::engine::Engine;
use crate::sql::error::{Failure, by_state};
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

    fn is_absence(error: &dyn DatabaseError) -> bool {
        // No such database, or table.
        matches!(number(error), 1049 | 1146)
    }

    fn told(error: &dyn DatabaseError) -> AdapterError {
        by_number(number(error), &error.code().unwrap_or_default(), error.message())
    }
}

impl MySqlEngine {
    /// A connection on which is set what servers may have otherwise: how strict they are, how long we
    /// may be silent, and how long we wait for a lock. Who waits for a table to alter it keeps all
    /// others waiting behind.
    pub(super) async fn ready(
        &self,
        silent: Duration,
    ) -> Result<Session<MySqlConnection>, Failure> {
        let mut session = self.session().await?;
        let wait = self.server.options.call_timeout;
        let seconds = |limit: Duration| limit.as_secs().clamp(1, 31_536_000);
        let (wait, silent) = (seconds(wait.min(silent)), seconds(silent));
        let sql = format!(
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,\
             ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
             autocommit = 1, innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {wait}, \
             wait_timeout = {silent}; \
             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"
        );
        session.script(&sql).await?;
        Ok(session)
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

/// The servers' states say less than their numbers.
fn by_number(number: u16, state: &str, message: &str) -> AdapterError {
    match number {
        // May not use the database, the table, the column, or some right of the whole server.
        1044 | 1142 | 1143 | 1227 | 1370 => by_state("42501", message),
        1153 => AdapterError::Mismatch(format!("{message}; set max_allowed_packet to 8 MiB")),
        // Too many connections, or statements an hour, of this user.
        1203 | 1226 => AdapterError::Unavailable(format!("{message} ({state})")),
        // A CHECK, and what a trigger raises.
        3819 | 1644 => by_state("44000", message),
        // A column without a default, which somebody made after preparing.
        1364 => by_state("23000", message),
        // A row too long for its page, by columns that somebody added.
        1118 => by_state("54000", message),
        // An index over what became text, which needs a length there.
        1071 | 1170 => AdapterError::Mismatch(format!(
            "{message}; drop the index, prepare again, and create it anew"
        )),
        // A character set or collation that the server has not.
        1115 | 1273 => by_state("0A000", message),
        // The value before it is nobody's business but the rows'.
        1062 => {
            let index = message.rsplit_once(" for key ").map_or("of its table", |(_, index)| index);
            by_state(
                "23000",
                &format!("another row has the same value in the unique index {index}"),
            )
        }
        // So ends a row that a unique index finds under another key.
        1048 => by_state(
            "23000",
            &format!("{message}, or another row has the same value in a unique index"),
        ),
        _ => by_state(state, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_somebody_must_change() {
        for (number, state, passes) in [
            (1205, "HY000", true), // lock wait timeout
            (1213, "40001", true), // deadlock
            (1040, "08004", true), // too many connections
            (1290, "HY000", true), // read only
            (1114, "HY000", true), // full
            (1045, "28000", true), // a password that is being changed
            (1226, "42000", true), // too many connections of this user
            (1044, "42000", false),
            (1062, "23000", false),
            (1118, "42000", false),
            (1146, "42S02", false),
            (1170, "42000", false),
            (1153, "08S01", false),
            (1364, "HY000", false),
            (1644, "45000", false),
        ] {
            let error = by_number(number, state, "the server's words");
            assert_eq!(matches!(error, AdapterError::Unavailable(_)), passes, "{number}: {error}");
        }
    }

    #[test]
    fn an_index_in_the_way_is_named_and_no_value_is() {
        let message = "Duplicate entry 'canary for key ' for key 'by_name'";
        let told = by_number(1062, "23000", message).to_string();
        assert!(told.contains("the unique index 'by_name'"), "{told}");
        assert!(!told.contains("canary"), "{told}");
    }
}

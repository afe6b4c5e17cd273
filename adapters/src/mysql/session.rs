//! One use of a connection, which ends well or closes it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lakesync::adapter::AdapterError;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};
use sqlx::{Connection, Row};

use super::names::{COLUMNS, META, TABLES};
use super::read::text;
use super::statement::{Statement, script};
use super::{MySql, install};
use crate::sql::catalogue::{Catalogue, ColumnRecord, TableRecord};
use crate::sql::error::{adapter_error, by_state, corrupt};
use crate::sql::pool::Lease;

/// Why work was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// What the driver says.
    Driver(sqlx::Error),
    /// What we say.
    Told(AdapterError),
}

/// A connection in use. Unless it [ends](Session::end) or [commits](Session::commit), it is closed
/// and what it did is undone.
pub(super) struct Session {
    lease: Lease<MySqlConnection>,
}

impl MySql {
    /// A connection, outside of any transaction.
    pub(super) async fn session(&self) -> Result<Session, Failure> {
        Ok(Session { lease: self.server.pool.lease().await? })
    }

    /// A connection in a transaction. The server ends it by itself if we are silent for `limit`: a
    /// gateway that hangs must not keep its successor from writing.
    pub(super) async fn begin(&self, limit: Duration) -> Result<Session, Failure> {
        let mut session = self.session().await?;
        session.set_up(limit, self.server.options.call_timeout).await?;
        script(&mut session, "START TRANSACTION").await?;
        Ok(session)
    }

    /// Waits until no other writer is at work, and tells what was prepared.
    pub(super) async fn lock(&self, session: &mut Session) -> Result<Arc<Catalogue>, Failure> {
        let meta = self.names.own(META);
        let sql = format!("SELECT format, generation FROM {meta} WHERE one = 1 FOR UPDATE");
        let row = Statement::kept(sql).row(session).await.map_err(Failure::from);
        if row.as_ref().is_err_and(Failure::is_absence) {
            // Somebody dropped our tables. The next call begins anew.
            self.installed.store(false, Ordering::Relaxed);
        }
        let row = row?.ok_or_else(|| corrupt(format!("{META} is empty")))?;
        install::check_format(row.try_get(0)?)?;
        let generation: i64 = row.try_get(1)?;
        if let Some(catalogue) = self.cached(generation) {
            return Ok(catalogue);
        }
        let catalogue = Arc::new(self.read_catalogue(session).await?);
        let mut prepared = self.prepared.lock().expect("BUG: nothing panics under this lock");
        *prepared = Some((generation, Arc::clone(&catalogue)));
        Ok(catalogue)
    }

    fn cached(&self, generation: i64) -> Option<Arc<Catalogue>> {
        let prepared = self.prepared.lock().expect("BUG: nothing panics under this lock");
        let (known, catalogue) = prepared.as_ref()?;
        (*known == generation).then(|| Arc::clone(catalogue))
    }

    /// What our own tables say was prepared.
    pub(super) async fn read_catalogue(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<Catalogue, Failure> {
        let tables = self.names.own(TABLES);
        let sql = format!("SELECT id, name, version, `key`, primary_key FROM {tables}");
        let rows = Statement::new(sql).rows(connection).await?;
        let tables = rows.iter().map(|row| {
            Ok(TableRecord {
                id: row.try_get(0)?,
                name: text(row, 1)?.to_owned(),
                version: row.try_get(2)?,
                key: text(row, 3)?.to_owned(),
                primary_key: text(row, 4)?.to_owned(),
            })
        });
        let tables: Vec<_> = tables.collect::<Result<_, sqlx::Error>>()?;
        let columns = self.names.own(COLUMNS);
        let sql = format!("SELECT table_id, ordinal, name, type, field_id FROM {columns}");
        let rows = Statement::new(sql).rows(connection).await?;
        let columns = rows.iter().map(|row| {
            Ok(ColumnRecord {
                table_id: row.try_get(0)?,
                ordinal: row.try_get(1)?,
                name: text(row, 2)?.to_owned(),
                kind: text(row, 3)?.to_owned(),
                field_id: row.try_get(4)?,
            })
        });
        let columns: Vec<_> = columns.collect::<Result<_, sqlx::Error>>()?;
        Ok(Catalogue::read(&tables, &columns)?)
    }
}

impl Session {
    /// Sets what servers may have otherwise: how strict they are, how long we may be silent, and how
    /// long we wait for a lock. Who waits for a table to alter it keeps all others waiting behind.
    pub(super) async fn set_up(&mut self, silent: Duration, wait: Duration) -> Result<(), Failure> {
        let seconds = |limit: Duration| limit.as_secs().clamp(1, 31_536_000);
        let (wait, silent) = (seconds(wait.min(silent)), seconds(silent));
        let sql = format!(
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,\
             ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
             autocommit = 1, innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {wait}, \
             wait_timeout = {silent}; \
             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"
        );
        Ok(script(self, sql).await?)
    }

    /// Whether the connection answers.
    pub(super) async fn ping(&mut self) -> Result<(), Failure> {
        Ok(self.lease.ping().await?)
    }

    /// Ends a use that left nothing open.
    pub(super) fn end(self) {
        self.lease.give_back();
    }

    /// Makes what was done durable and visible.
    pub(super) async fn commit(mut self) -> Result<(), Failure> {
        script(&mut self, "COMMIT").await?;
        self.end();
        Ok(())
    }

    /// Ends a transaction that did nothing.
    pub(super) async fn roll_back(mut self) -> Result<(), Failure> {
        script(&mut self, "ROLLBACK").await?;
        self.end();
        Ok(())
    }
}

impl Deref for Session {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        &self.lease
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        &mut self.lease
    }
}

impl Failure {
    /// Whether what was asked for is not there: as for a backend that holds nothing yet.
    pub(super) fn is_absence(&self) -> bool {
        // No such database, or table.
        let Self::Driver(sqlx::Error::Database(error)) = self else { return false };
        let error = error.try_downcast_ref::<MySqlDatabaseError>();
        error.is_some_and(|error| matches!(error.number(), 1049 | 1146))
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<AdapterError> for Failure {
    fn from(error: AdapterError) -> Self {
        Self::Told(error)
    }
}

impl From<Failure> for AdapterError {
    fn from(failure: Failure) -> Self {
        let error = match failure {
            Failure::Told(error) => return error,
            Failure::Driver(error) => error,
        };
        adapter_error(error, |error| {
            let state = error.code().unwrap_or_default();
            let number = error.try_downcast_ref::<MySqlDatabaseError>().map(|error| error.number());
            by_number(number.unwrap_or_default(), &state, error.message())
        })
    }
}

/// The servers' states say less than their numbers.
fn by_number(number: u16, state: &str, message: &str) -> AdapterError {
    match number {
        // May not use the database, the table, the column, or some right of the whole server.
        1044 | 1142 | 1143 | 1227 | 1370 => by_state("42501", message),
        1153 => AdapterError::Mismatch(format!("{message}; set max_allowed_packet to 8 MiB")),
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
        // Values may be in it, which are nobody's business but the rows'.
        1062 => by_state("23000", "another row has the same value in a unique index"),
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
}

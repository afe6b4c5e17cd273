//! One use of a connection, which ends well or closes it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lakesync::adapter::AdapterError;
use sqlx::postgres::{PgConnection, PgDatabaseError};
use sqlx::{Connection, Row};

use super::names::{COLUMNS, META, TABLES};
use super::statement::{Statement, script};
use super::{Postgres, install};
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
    lease: Lease<PgConnection>,
}

impl Postgres {
    /// A connection, outside of any transaction.
    pub(super) async fn session(&self) -> Result<Session, Failure> {
        Ok(Session { lease: self.server.pool.lease().await? })
    }

    /// A connection in a transaction. The database ends a statement by itself if it takes longer than
    /// `limit`, and the transaction if we are silent for as long as a call may take: a server that
    /// hangs must not keep its successor from writing. Rows are looked up by index,
    /// however small their table is thought to be: a planner knows of the rows there were.
    pub(super) async fn begin(&self, limit: Duration) -> Result<Session, Failure> {
        let mut session = self.session().await?;
        let ms = |limit: Duration| limit.as_millis().clamp(1, i32::MAX as u128);
        // Who waits for a table to alter it keeps all others waiting behind.
        let (wait, ms) = (ms(limit.min(self.server.options.call_timeout)), ms(limit));
        let sql = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
             SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {wait}; \
             SET LOCAL idle_in_transaction_session_timeout = {wait}; SET LOCAL datestyle = 'ISO'; \
             SET LOCAL timezone = 'UTC'; SET LOCAL extra_float_digits = 1; \
             SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
             SET LOCAL jit = off"
        );
        script(&mut session, sql).await?;
        Ok(session)
    }

    /// Waits until no other writer is at work, and tells what was prepared.
    pub(super) async fn lock(&self, session: &mut Session) -> Result<Arc<Catalogue>, Failure> {
        let meta = self.names.own(META);
        let sql = format!("SELECT format, generation FROM {meta} FOR UPDATE");
        let row = Statement::new(sql).row(session).await.map_err(Failure::from);
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
        connection: &mut PgConnection,
    ) -> Result<Catalogue, Failure> {
        let sql =
            format!("SELECT id, name, version, key, primary_key FROM {}", self.names.own(TABLES));
        let rows = Statement::new(sql).rows(connection).await?;
        let tables = rows.iter().map(|row| {
            Ok(TableRecord {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                version: row.try_get(2)?,
                key: row.try_get(3)?,
                primary_key: row.try_get(4)?,
            })
        });
        let tables: Vec<_> = tables.collect::<Result<_, sqlx::Error>>()?;
        let sql = format!(
            "SELECT table_id, ordinal, name, type, field_id FROM {}",
            self.names.own(COLUMNS)
        );
        let rows = Statement::new(sql).rows(connection).await?;
        let columns = rows.iter().map(|row| {
            Ok(ColumnRecord {
                table_id: row.try_get(0)?,
                ordinal: row.try_get(1)?,
                name: row.try_get(2)?,
                kind: row.try_get(3)?,
                field_id: row.try_get(4)?,
            })
        });
        let columns: Vec<_> = columns.collect::<Result<_, sqlx::Error>>()?;
        Ok(Catalogue::read(&tables, &columns)?)
    }
}

impl Session {
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
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.lease
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.lease
    }
}

impl Failure {
    /// Whether what was asked for is not there: as for a backend that holds nothing yet.
    pub(super) fn is_absence(&self) -> bool {
        self.has_state(&["42P01", "3F000"])
    }

    /// Whether something stood in the way of a new row.
    pub(super) fn is_duplicate(&self) -> bool {
        self.has_state(&["23505"])
    }

    fn has_state(&self, states: &[&str]) -> bool {
        let Self::Driver(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| states.contains(&code.as_ref()))
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
            let (state, message) = (error.code().unwrap_or_default(), error.message());
            let detail =
                error.try_downcast_ref::<PgDatabaseError>().and_then(|error| error.detail());
            match (state.as_ref(), detail) {
                // Other details may repeat values, which are nobody's business but the rows'.
                ("0A000" | "2BP01", Some(detail)) => AdapterError::Mismatch(format!(
                    "{message}: {detail}; drop it, prepare again, and create it anew"
                )),
                (state, _) => by_state(state, message),
            }
        })
    }
}

//! One schema of a Postgres database: transactions in it, and what its errors mean.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::Capacity;
use lakesync::name::TableName;
use sqlx::Row;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnection, PgDatabaseError};

use super::check;
use super::statement::Statement;
use super::types::CAPACITY;
use crate::sql::busy::session_text;
use crate::sql::engine::Engine;
use crate::sql::error::{Failure, Said, class};
use crate::sql::names::Names;
use crate::sql::pool::Session;
use crate::sql::script::Script;
use crate::sql::server::Server;

/// The SQLSTATE of a server that only reads. A standby has another, which says less.
const READ_ONLY: &str = "25006";

/// One gateway's schema.
pub struct PostgresEngine {
    pub(super) server: Server<PgConnection>,
    pub(super) names: Names,
}

#[async_trait]
impl Engine for PostgresEngine {
    type Connection = PgConnection;

    const CAPACITY: Capacity = CAPACITY;

    fn server(&self) -> &Server<PgConnection> {
        &self.server
    }

    fn names(&self) -> &Names {
        &self.names
    }

    /// A statement that takes longer than `limit` ends by itself. Rows are looked up by index,
    /// however small their table is thought to be: a planner knows of the rows there were.
    async fn begin(&self, limit: Duration) -> Result<Session<PgConnection>, Failure> {
        let mut session = self.session().await?;
        let ms = |limit: Duration| limit.as_millis().clamp(1, i32::MAX as u128);
        let (wait, ms) = (ms(limit.min(self.server.options.call_timeout)), ms(limit));
        // What triggers tell by the way may hold values, and the driver logs it.
        let sql = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
             SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {wait}; \
             SET LOCAL client_min_messages = 'error'; \
             SET LOCAL idle_in_transaction_session_timeout = {wait}; SET LOCAL datestyle = 'ISO'; \
             SET LOCAL timezone = 'UTC'; SET LOCAL extra_float_digits = 1; \
             SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
             SET LOCAL jit = off"
        );
        session.script(&sql).await?;
        Ok(session)
    }

    async fn check(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        check::encoding(connection).await
    }

    fn is_absence(error: &dyn DatabaseError) -> bool {
        // No such table, or schema.
        error.code().is_some_and(|code| matches!(code.as_ref(), "42P01" | "3F000"))
    }

    fn said(error: &dyn DatabaseError) -> Said {
        let Some(error) = error.try_downcast_ref::<PgDatabaseError>() else {
            return Said::default();
        };
        let (state, owned) =
            (error.code().to_owned(), |text: Option<&str>| text.map(str::to_owned));
        let mut said = Said {
            code: state.clone(),
            table: owned(error.table()),
            column: owned(error.column()),
            constraint: owned(error.constraint()),
            ..Said::default()
        };
        if has_names_only(error) {
            said.words = Some(error.message().to_owned());
            // Other details may repeat values, which are nobody's business but the rows'.
            if let ("0A000" | "2BP01", Some(detail)) = (state.as_str(), error.detail()) {
                said.words = Some(format!("{}: {detail}", error.message()));
                said.advice = Some("drop it, prepare again, and create it anew");
            }
        }
        said.state = match &said.words {
            Some(words) if words.ends_with("during recovery") => READ_ONLY.to_owned(),
            _ => state,
        };
        said
    }

    fn is_misfit(error: &dyn DatabaseError) -> bool {
        error.code().is_some_and(|code| matches!(class(&code), "22" | "54"))
    }

    fn is_locked_out(error: &dyn DatabaseError) -> bool {
        error.code().is_some_and(|code| code == "55P03")
    }

    fn is_too_slow(error: &dyn DatabaseError) -> bool {
        error.code().is_some_and(|code| code == "57014")
    }

    async fn holders(
        &self,
        connection: &mut PgConnection,
        table: &TableName,
    ) -> Result<Vec<String>, Failure> {
        const SQL: &str = "
SELECT DISTINCT l.pid::bigint, a.usename::text, a.application_name,
    extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.relation = pg_catalog.to_regclass($1) AND l.granted AND l.pid <> pg_backend_pid()
ORDER BY 4 DESC NULLS LAST LIMIT 3";
        let statement = Statement::new(SQL).bind(self.names.synced(table));
        let holders = statement.rows(connection).await?;
        let holders = holders.iter().map(|row| {
            let user: Option<String> = row.try_get(1)?;
            let program: Option<String> = row.try_get(2)?;
            Ok(session_text(row.try_get(0)?, user, program, row.try_get(3)?))
        });
        holders.collect()
    }
}

/// Whether the error's sentence can hold nothing but names: not that of a value that does not fit,
/// and none that a trigger or function says.
fn has_names_only(error: &PgDatabaseError) -> bool {
    let is_of_function = error.routine() == Some("exec_stmt_raise")
        || error.r#where().is_some_and(|place| place.contains("function"));
    let classes =
        ["08", "0A", "23", "25", "28", "2B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58"];
    !is_of_function && classes.contains(&class(error.code()))
}

impl PostgresEngine {
    /// From here to the end of the transaction, waits no longer than that for locks.
    pub(super) async fn wait_for_locks(
        &self,
        connection: &mut PgConnection,
        limit: Duration,
    ) -> Result<(), Failure> {
        let ms = limit.min(self.server.options.call_timeout).as_millis().max(1);
        Ok(connection.script(&format!("SET LOCAL lock_timeout = {ms}")).await?)
    }
}

impl fmt::Display for PostgresEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, schema {}", self.server, self.names.space())
    }
}

/// Says what `Display` says: never a credential.
impl fmt::Debug for PostgresEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({self})")
    }
}

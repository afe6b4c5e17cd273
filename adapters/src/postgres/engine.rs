//! One schema of a Postgres database: transactions in it, and what its errors mean.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::{AdapterError, Capacity};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnection, PgDatabaseError};

use super::types::CAPACITY;
use crate::sql::engine::Engine;
use crate::sql::error::{Failure, by_state};
use crate::sql::names::Names;
use crate::sql::pool::Session;
use crate::sql::script::Script;
use crate::sql::server::Server;

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
        session.script(&sql).await?;
        Ok(session)
    }

    fn is_absence(error: &dyn DatabaseError) -> bool {
        // No such table, or schema.
        error.code().is_some_and(|code| matches!(code.as_ref(), "42P01" | "3F000"))
    }

    fn told(error: &dyn DatabaseError) -> AdapterError {
        let (state, message) = (error.code().unwrap_or_default(), error.message());
        let detail = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::detail);
        match (state.as_ref(), detail) {
            // Other details may repeat values, which are nobody's business but the rows'.
            ("0A000" | "2BP01", Some(detail)) => AdapterError::Mismatch(format!(
                "{message}: {detail}; drop it, prepare again, and create it anew"
            )),
            (state, _) => by_state(state, message),
        }
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

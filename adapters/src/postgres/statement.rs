//! Statements and their parameters. The one place that hands generated SQL to the driver: names in
//! it are quoted, and values are bound.

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments, AssertSqlSafe, Encode, Postgres, Type};

/// A statement and its parameters. It is prepared anew each time: poolers in between keep no
/// prepared statements, and tables change their shape under them.
pub(super) struct Statement {
    sql: String,
    arguments: PgArguments,
}

impl Statement {
    /// A statement without parameters yet.
    pub(super) fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), arguments: PgArguments::default() }
    }

    /// Binds the next parameter.
    pub(super) fn bind<'t>(mut self, value: impl Encode<'t, Postgres> + Type<Postgres>) -> Self {
        self.arguments.add(value).expect("BUG: an array of more than 2^31 items passed the limits");
        self
    }

    /// Runs it, and says how many rows it changed.
    pub(super) async fn run(self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        Ok(query.persistent(false).execute(connection).await?.rows_affected())
    }

    /// Runs it, and collects its rows.
    pub(super) async fn rows(
        self,
        connection: &mut PgConnection,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        query.persistent(false).fetch_all(connection).await
    }

    /// Runs it, and takes its first row if there is one.
    pub(super) async fn row(
        self,
        connection: &mut PgConnection,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        Ok(self.rows(connection).await?.into_iter().next())
    }
}

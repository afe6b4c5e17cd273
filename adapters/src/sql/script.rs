//! SQL without parameters, on a connection of any kind. Names in it are quoted.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, Executor};

/// A connection that runs SQL as it is.
#[async_trait]
pub(crate) trait Script: Connection + 'static {
    /// Runs `sql`, which may be several statements.
    async fn script(&mut self, sql: &str) -> Result<(), sqlx::Error>;

    /// Whether `sql` yields a row.
    async fn has_row(&mut self, sql: &str) -> Result<bool, sqlx::Error>;
}

#[async_trait]
impl<C> Script for C
where
    C: Connection + 'static,
    for<'c> &'c mut C: Executor<'c>,
{
    async fn script(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(self).await?;
        Ok(())
    }

    async fn has_row(&mut self, sql: &str) -> Result<bool, sqlx::Error> {
        Ok(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(self).await?.is_some())
    }
}

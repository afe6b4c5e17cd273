//! Our own tables, made once.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::engine::PostgresEngine;
use super::statement::Statement;
use crate::sql::busy::LOCK_WAIT;
use crate::sql::engine::Engine;
use crate::sql::error::Failure;
use crate::sql::install::Installs;
use crate::sql::names::{COLUMNS, HISTORY, META, ROWS, TABLES, WATERMARKS};
use crate::sql::read::FORMAT;
use crate::sql::script::Script;

#[async_trait]
impl Installs for PostgresEngine {
    const NOW_MICROS: &'static str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

    async fn install(&self) -> Result<(), Failure> {
        let mut session = self.begin(self.server.options.call_timeout).await?;
        // Two that create the same at once fail on each other's names otherwise.
        let lock = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))";
        let name = format!("lakesync {}", self.names.space());
        Statement::new(lock).bind(name).rows(&mut session).await?;
        let known = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1";
        let known = Statement::new(known).bind(self.names.space()).row(&mut session).await?;
        if known.is_none() {
            session.script(&format!("CREATE SCHEMA {}", self.names.quoted_space())).await?;
        }
        session.script(&self.own_tables()).await?;
        session.commit().await
    }

    async fn lock(&self, connection: &mut PgConnection) -> Result<Option<(i32, i64)>, Failure> {
        let sql = format!("SELECT format, generation FROM {} FOR UPDATE", self.names.own(META));
        let Some(row) = Statement::new(sql).row(connection).await? else { return Ok(None) };
        // Whoever else wrote here was one of us. From now on it may be anybody.
        self.wait_for_locks(connection, LOCK_WAIT).await?;
        Ok(Some((row.try_get(0)?, row.try_get(1)?)))
    }
}

impl PostgresEngine {
    fn own_tables(&self) -> String {
        let [meta, tables, columns, rows, watermarks, history] =
            [META, TABLES, COLUMNS, ROWS, WATERMARKS, HISTORY].map(|table| self.names.own(table));
        let now = Self::NOW_MICROS;
        format!(
            r#"
CREATE TABLE IF NOT EXISTS {meta} (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    format integer NOT NULL,
    generation bigint NOT NULL
);
INSERT INTO {meta} (format, generation) VALUES ({FORMAT}, {now}) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS {tables} (
    id integer PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    version bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    primary_key text COLLATE "C" NOT NULL
);
CREATE TABLE IF NOT EXISTS {columns} (
    table_id integer NOT NULL,
    ordinal integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    field_id bigint NOT NULL,
    PRIMARY KEY (table_id, ordinal)
);
CREATE TABLE IF NOT EXISTS {rows} (
    table_id integer NOT NULL,
    row_id text COLLATE "C" NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (table_id, row_id)
);
CREATE TABLE IF NOT EXISTS {watermarks} (
    log bytea PRIMARY KEY,
    position bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS {history} (
    log_id bytea NOT NULL,
    position bigint NOT NULL,
    index bigint NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    row_id text COLLATE "C" NOT NULL,
    delta_id bytea NOT NULL,
    hlc bigint NOT NULL,
    happened_at timestamptz NOT NULL,
    client text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL,
    cells json,
    exact bytea NOT NULL,
    PRIMARY KEY (log_id, position, index)
);"#
        )
    }
}

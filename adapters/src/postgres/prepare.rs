//! Preparing: all of a schema or none of it, in one transaction.

use std::sync::Arc;

use async_trait::async_trait;
use lakesync::schema::{Schema, TableSchema};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::alter::PostgresTables;
use super::engine::PostgresEngine;
use super::statement::Statement;
use super::types::CAPACITY;
use crate::fit;
use crate::sql::alter::{Alteration, alteration};
use crate::sql::backend::Backend;
use crate::sql::busy::{ALTER_WAIT, LOCK_WAIT};
use crate::sql::catalogue::{ColumnRecord, TableRecord};
use crate::sql::engine::Engine;
use crate::sql::error::Failure;
use crate::sql::names::{COLUMNS, META, TABLES};
use crate::sql::prepare::Prepares;
use crate::sql::shown::Shown;
use crate::sql::watch::{Worker, WorkerName};

/// The server that is connected to, and its life.
const SERVER: &str =
    "(extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint::text";

#[async_trait]
impl Prepares for PostgresEngine {
    async fn grow(
        backend: &Backend<Self>,
        schema: &Schema,
        worker: &Worker,
    ) -> Result<(), Failure> {
        let engine = &backend.engine;
        let mut session = engine.begin(engine.server.options.prepare_timeout).await?;
        let catalogue = backend.lock(&mut session).await?;
        let sql = format!("SELECT {SERVER}, pg_catalog.pg_backend_pid()::bigint");
        let row = Statement::new(sql).row(&mut session).await?.ok_or(sqlx::Error::RowNotFound)?;
        let name = WorkerName { server: row.try_get(0)?, number: row.try_get(1)? };
        worker.get_or_init(|| name);
        let newer = fit::newer(&catalogue.schema, schema)?;
        if newer.is_empty() {
            return session.roll_back().await;
        }
        let alterations = backend.plan(&mut session, &catalogue, &newer).await?;
        engine.wait_for_locks(&mut session, ALTER_WAIT).await?;
        backend.alter(&mut session, &newer, &alterations).await?;
        engine.wait_for_locks(&mut session, LOCK_WAIT).await?;
        backend.conclude(&mut session, &catalogue, &newer, &alterations).await?;
        session.commit().await
    }

    /// It holds a lock of the table that writers lock. Everybody may see locks.
    async fn is_working(
        &self,
        connection: &mut PgConnection,
        worker: &WorkerName,
    ) -> Result<Option<bool>, Failure> {
        let sql = format!(
            "SELECT {SERVER}, EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE pid = $1 \
             AND granted AND relation = pg_catalog.to_regclass($2))"
        );
        let statement = Statement::new(sql).bind(worker.number).bind(self.names.own(META));
        let row = statement.row(connection).await?.ok_or(sqlx::Error::RowNotFound)?;
        let is_there = row.try_get(1)?;
        Ok((row.try_get::<String, _>(0)? == worker.server).then_some(is_there))
    }

    async fn alterations(
        &self,
        connection: &mut PgConnection,
        held: &Schema,
        newer: &[&TableSchema],
    ) -> Result<Vec<Alteration>, Failure> {
        let wanted: Vec<_> = newer.iter().map(|table| table.table.as_str()).collect();
        let found = self.inspect(connection, &wanted).await?;
        let tables = PostgresTables { names: &self.names };
        let plan = |wanted: &&TableSchema| {
            let held = held.table(&wanted.table).map(Arc::as_ref);
            let shown = Shown::of(wanted, &CAPACITY);
            Ok(alteration(&tables, &shown, held, found.get(wanted.table.as_str()))?)
        };
        newer.iter().map(plan).collect()
    }

    async fn keep(
        &self,
        connection: &mut PgConnection,
        tables: Vec<TableRecord>,
        columns: Vec<ColumnRecord>,
    ) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO {} (id, name, version, key, primary_key) \
             SELECT * FROM unnest($1::integer[], $2::text[], $3::bigint[], $4::text[], $5::text[]) \
             ON CONFLICT (id) DO UPDATE SET version = EXCLUDED.version",
            self.names.own(TABLES)
        );
        let text = |of: fn(&TableRecord) -> &str| tables.iter().map(of).collect::<Vec<_>>();
        Statement::new(sql)
            .bind(tables.iter().map(|table| table.id).collect::<Vec<_>>())
            .bind(text(|table| &table.name))
            .bind(tables.iter().map(|table| table.version).collect::<Vec<_>>())
            .bind(text(|table| &table.key))
            .bind(text(|table| &table.primary_key))
            .run(connection)
            .await?;
        let sql = format!(
            "INSERT INTO {} (table_id, ordinal, name, type, field_id) \
             SELECT * FROM unnest($1::integer[], $2::integer[], $3::text[], $4::text[], $5::bigint[]) \
             ON CONFLICT (table_id, ordinal) DO UPDATE \
             SET name = EXCLUDED.name, type = EXCLUDED.type, field_id = EXCLUDED.field_id",
            self.names.own(COLUMNS)
        );
        let text = |of: fn(&ColumnRecord) -> &str| columns.iter().map(of).collect::<Vec<_>>();
        Statement::new(sql)
            .bind(columns.iter().map(|column| column.table_id).collect::<Vec<_>>())
            .bind(columns.iter().map(|column| column.ordinal).collect::<Vec<_>>())
            .bind(text(|column| &column.name))
            .bind(text(|column| &column.kind))
            .bind(columns.iter().map(|column| column.field_id).collect::<Vec<_>>())
            .run(connection)
            .await?;
        Ok(())
    }
}

//! Preparing: all is checked before anything is changed, and written down when all of it is done.

use std::sync::Arc;

use async_trait::async_trait;
use lakesync::schema::{Schema, TableSchema};
use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::alter::MySqlTables;
use super::engine::MySqlEngine;
use super::install::ALONE;
use super::read::text;
use super::statement::{Insert, Parameter, Statement};
use super::types::CAPACITY;
use super::version::flavour;
use crate::fit;
use crate::sql::alter::{Alteration, alteration};
use crate::sql::backend::Backend;
use crate::sql::busy::{ALTER_WAIT, LOCK_WAIT};
use crate::sql::catalogue::{ColumnRecord, TableRecord};
use crate::sql::error::Failure;
use crate::sql::names::{COLUMNS, TABLES};
use crate::sql::prepare::Prepares;
use crate::sql::script::Script;
use crate::sql::shown::Shown;
use crate::sql::watch::{Worker, WorkerName};

/// The server that is connected to.
const SERVER: &str = "CONCAT_WS(' ', @@hostname, @@port, @@server_id)";

#[async_trait]
impl Prepares for MySqlEngine {
    async fn grow(
        backend: &Backend<Self>,
        schema: &Schema,
        worker: &Worker,
    ) -> Result<(), Failure> {
        let mut session = backend.engine.alone().await?;
        let sql = format!("SELECT {SERVER}, CAST(CONNECTION_ID() AS SIGNED)");
        let row = Statement::new(sql).row(&mut session).await?.ok_or(sqlx::Error::RowNotFound)?;
        let name = WorkerName { server: text(&row, 0)?.to_owned(), number: row.try_get(1)? };
        worker.get_or_init(|| name);
        session.script("START TRANSACTION").await?;
        let catalogue = backend.lock(&mut session).await?;
        session.script("COMMIT").await?;
        let newer = fit::newer(&catalogue.schema, schema)?;
        let alterations = backend.plan(&mut session, &catalogue, &newer).await?;
        // Each of these commits. Whoever writes meanwhile writes what was prepared before, which
        // the tables keep.
        backend.engine.wait_for_tables(&mut session, ALTER_WAIT).await?;
        backend.alter(&mut session, &newer, &alterations).await?;
        backend.engine.wait_for_tables(&mut session, LOCK_WAIT).await?;
        session.script("START TRANSACTION").await?;
        backend.lock(&mut session).await?;
        backend.conclude(&mut session, &catalogue, &newer, &alterations).await?;
        session.script("COMMIT").await?;
        backend.engine.let_others(session).await
    }

    /// It holds the lock of whoever is [`alone`](Self::alone). Connections' numbers come again after
    /// a restart, and its locks do not.
    async fn is_working(
        &self,
        connection: &mut MySqlConnection,
        worker: &WorkerName,
    ) -> Result<Option<bool>, Failure> {
        let sql = format!("SELECT {SERVER}, CAST(COALESCE(IS_USED_LOCK({ALONE}), -1) AS SIGNED)");
        let statement = Statement::new(sql).bind(self.names.space());
        let row = statement.row(connection).await?.ok_or(sqlx::Error::RowNotFound)?;
        let holder: i64 = row.try_get_unchecked(1)?;
        Ok((text(&row, 0)? == worker.server).then_some(holder == worker.number))
    }

    async fn alterations(
        &self,
        connection: &mut MySqlConnection,
        held: &Schema,
        newer: &[&TableSchema],
    ) -> Result<Vec<Alteration>, Failure> {
        let tables = MySqlTables { names: &self.names, flavour: flavour(connection).await? };
        let found = self.inspect(connection).await?;
        let plan = |wanted: &&TableSchema| {
            let held = held.table(&wanted.table).map(Arc::as_ref);
            let shown = Shown::of(wanted, &CAPACITY);
            Ok(alteration(&tables, &shown, held, found.of(&wanted.table))?)
        };
        newer.iter().map(plan).collect()
    }

    async fn keep(
        &self,
        connection: &mut MySqlConnection,
        tables: Vec<TableRecord>,
        columns: Vec<ColumnRecord>,
    ) -> Result<(), Failure> {
        let number = |number: i64| Parameter::Number(number.cast_unsigned());
        let text = |text: String| Parameter::Text(text.into());
        let insert = Insert {
            head: format!(
                "INSERT INTO {} (id, name, version, `key`, primary_key)",
                self.names.own(TABLES)
            ),
            tail: "ON DUPLICATE KEY UPDATE version = VALUES(version)".to_owned(),
            width: 5,
        };
        let rows = tables.into_iter().map(|table| {
            let (id, version) = (number(table.id.into()), number(table.version));
            vec![id, text(table.name), version, text(table.key), text(table.primary_key)]
        });
        insert.run(connection, rows).await?;
        let insert = Insert {
            head: format!(
                "INSERT INTO {} (table_id, ordinal, name, type, field_id)",
                self.names.own(COLUMNS)
            ),
            tail: "ON DUPLICATE KEY UPDATE name = VALUES(name), type = VALUES(type), \
                   field_id = VALUES(field_id)"
                .to_owned(),
            width: 5,
        };
        let rows = columns.into_iter().map(|column| {
            let (table_id, ordinal) = (column.table_id.into(), column.ordinal.into());
            let (name, kind) = (text(column.name), text(column.kind));
            vec![number(table_id), number(ordinal), name, kind, number(column.field_id)]
        });
        Ok(insert.run(connection, rows).await?)
    }
}

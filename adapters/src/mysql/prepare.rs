//! Preparing: all is checked before anything is changed, and written down when all of it is done.

use std::sync::Arc;

use lakesync::adapter::AdapterError;
use lakesync::schema::{Schema, TableSchema};
use sqlx::mysql::MySqlConnection;

use super::alter::{Alteration, alteration};
use super::install::{NOW_MICROS, flavour};
use super::names::{COLUMNS, META, TABLES, quoted};
use super::session::Failure;
use super::statement::{Insert, Parameter, Statement, script};
use super::types::CAPACITY;
use super::{MySql, put};
use crate::fit;
use crate::pace::Pace;
use crate::sql::catalogue::Catalogue;

impl MySql {
    /// Makes room for what is new in `schema`.
    pub(super) async fn grow(&self, schema: &Schema) -> Result<(), Failure> {
        self.ensure_installed().await?;
        if fit::newer(&self.read_schema().await?, schema)?.is_empty() {
            return Ok(());
        }
        let mut session = self.alone().await?;
        script(&mut session, "START TRANSACTION").await?;
        let catalogue = self.lock(&mut session).await?;
        script(&mut session, "COMMIT").await?;
        let newer = fit::newer(&catalogue.schema, schema)?;
        let alterations = self.plan(&mut session, &catalogue, &newer).await?;
        // Each of these commits. Whoever writes meanwhile writes what was prepared before, which
        // the tables keep.
        for statement in alterations.iter().flat_map(|alteration| &alteration.statements) {
            script(&mut session, statement).await?;
        }
        script(&mut session, "START TRANSACTION").await?;
        self.lock(&mut session).await?;
        self.keep(&mut session, &catalogue, &newer).await?;
        for (table, alteration) in newer.iter().zip(&alterations) {
            if alteration.reshapes {
                self.show_anew(&mut session, &catalogue, table).await?;
            }
        }
        script(&mut session, "COMMIT").await?;
        self.let_others(session).await
    }

    /// What has to be altered, or why it can't be.
    async fn plan(
        &self,
        connection: &mut MySqlConnection,
        catalogue: &Catalogue,
        newer: &[&TableSchema],
    ) -> Result<Vec<Alteration>, Failure> {
        let flavour = flavour(connection).await?;
        let found = self.inspect(connection).await?;
        let plan = |wanted: &&TableSchema| {
            CAPACITY.check_table(wanted).map_err(|shortage| {
                AdapterError::Mismatch(format!("table {}: {shortage}", wanted.table))
            })?;
            let held = catalogue.schema.table(&wanted.table).map(Arc::as_ref);
            alteration(&self.names, flavour, wanted, held, found.of(&wanted.table))
        };
        let alterations: Vec<_> = newer.iter().map(plan).collect::<Result<_, _>>()?;
        for (table, alteration) in newer.iter().zip(&alterations) {
            for column in &alteration.adopted {
                let (name, from) = (quoted(column.as_str()), self.names.synced(&table.table));
                let sql = format!("SELECT 1 FROM {from} WHERE {name} IS NOT NULL LIMIT 1");
                if Statement::new(sql).row(connection).await?.is_some() {
                    return Err(fit::taken(table, column).into());
                }
            }
        }
        Ok(alterations)
    }

    /// Writes down what was prepared.
    async fn keep(
        &self,
        connection: &mut MySqlConnection,
        catalogue: &Catalogue,
        newer: &[&TableSchema],
    ) -> Result<(), Failure> {
        let number = |number: i64| Parameter::Number(number.cast_unsigned());
        let text = |text: String| Parameter::Text(text.into());
        let mut next = catalogue.next_id();
        let (mut tables, mut columns) = (Vec::new(), Vec::new());
        for table in newer {
            let (record, of_table) = catalogue.records(table, next);
            next = next.max(record.id + 1);
            tables.push(vec![
                number(record.id.into()),
                text(record.name),
                number(record.version),
                text(record.key),
                text(record.primary_key),
            ]);
            columns.extend(of_table.into_iter().map(|column| {
                let (table_id, ordinal) = (column.table_id.into(), column.ordinal.into());
                let (name, kind) = (text(column.name), text(column.kind));
                vec![number(table_id), number(ordinal), name, kind, number(column.field_id)]
            }));
        }
        let insert = Insert {
            head: format!(
                "INSERT INTO {} (id, name, version, `key`, primary_key)",
                self.names.own(TABLES)
            ),
            tail: "ON DUPLICATE KEY UPDATE version = VALUES(version)".to_owned(),
            width: 5,
        };
        insert.run(connection, tables.into_iter()).await?;
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
        insert.run(connection, columns.into_iter()).await?;
        let sql = format!(
            "UPDATE {} SET generation = GREATEST(generation + 1, {NOW_MICROS})",
            self.names.own(META)
        );
        Ok(Statement::new(sql).run(connection).await?)
    }

    /// Shows all rows of a table as their exact states have them.
    async fn show_anew(
        &self,
        connection: &mut MySqlConnection,
        catalogue: &Catalogue,
        table: &TableSchema,
    ) -> Result<(), Failure> {
        let id = catalogue.id(&table.table)?;
        let (mut after, mut pace) = (None, Pace::default());
        loop {
            let page = self.page(connection, id, after.as_ref(), pace.count()).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            pace.took(page.len(), page.iter().map(|(_, row)| row.size()).sum());
            after = Some(last.clone());
            let live: Vec<_> = page.iter().filter(|(_, row)| row.is_live()).collect();
            let live: Vec<_> = live.iter().map(|(row_id, row)| (row_id, row)).collect();
            put::rows(connection, &self.names, table, &live, false).await?;
        }
    }
}

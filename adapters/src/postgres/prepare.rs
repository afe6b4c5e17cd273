//! Preparing: all of a schema or none of it, in one transaction.

use std::sync::Arc;

use lakesync::adapter::AdapterError;
use lakesync::schema::{Schema, TableSchema};
use sqlx::postgres::PgConnection;

use super::alter::{Alteration, alteration};
use super::install::NOW_MICROS;
use super::names::{COLUMNS, META, TABLES, quoted};
use super::session::Failure;
use super::statement::{Statement, script};
use super::types::CAPACITY;
use super::{Postgres, upsert};
use crate::fit;
use crate::pace::Pace;
use crate::sql::catalogue::{Catalogue, ColumnRecord, TableRecord};

impl Postgres {
    /// Makes room for what is new in `schema`.
    pub(super) async fn grow(&self, schema: &Schema) -> Result<(), Failure> {
        self.ensure_installed().await?;
        let mut session = self.begin(self.server.options.prepare_timeout).await?;
        let catalogue = self.lock(&mut session).await?;
        let newer = fit::newer(&catalogue.schema, schema)?;
        if newer.is_empty() {
            return session.roll_back().await;
        }
        let alterations = self.plan(&mut session, &catalogue, &newer).await?;
        for statement in alterations.iter().flat_map(|alteration| &alteration.statements) {
            script(&mut session, statement).await?;
        }
        self.keep(&mut session, &catalogue, &newer).await?;
        for (table, alteration) in newer.iter().zip(&alterations) {
            if alteration.reshapes {
                self.show_anew(&mut session, &catalogue, table).await?;
            }
        }
        session.commit().await
    }

    /// What has to be altered, or why it can't be.
    async fn plan(
        &self,
        connection: &mut PgConnection,
        catalogue: &Catalogue,
        newer: &[&TableSchema],
    ) -> Result<Vec<Alteration>, Failure> {
        let names: Vec<_> = newer.iter().map(|table| table.table.as_str()).collect();
        let found = self.inspect(connection, &names).await?;
        let plan = |wanted: &&TableSchema| {
            CAPACITY.check_table(wanted).map_err(|shortage| {
                AdapterError::Mismatch(format!("table {}: {shortage}", wanted.table))
            })?;
            let held = catalogue.schema.table(&wanted.table).map(Arc::as_ref);
            alteration(&self.names, wanted, held, found.get(wanted.table.as_str()))
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
        connection: &mut PgConnection,
        catalogue: &Catalogue,
        newer: &[&TableSchema],
    ) -> Result<(), Failure> {
        let mut next = catalogue.next_id();
        let mut tables: Vec<TableRecord> = Vec::new();
        let mut columns: Vec<ColumnRecord> = Vec::new();
        for table in newer {
            let (record, of_table) = catalogue.records(table, next);
            next = next.max(record.id + 1);
            tables.push(record);
            columns.extend(of_table);
        }
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
        let sql = format!(
            "UPDATE {} SET generation = greatest(generation + 1, {NOW_MICROS})",
            self.names.own(META)
        );
        Statement::new(sql).run(connection).await?;
        Ok(())
    }

    /// Shows all rows of a table as their exact states have them.
    async fn show_anew(
        &self,
        connection: &mut PgConnection,
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
            upsert::rows(connection, &self.names, table, &live).await?;
        }
    }
}

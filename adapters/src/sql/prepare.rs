//! Preparing: what has to be altered, or why it can't be; then what was altered is written down.

use async_trait::async_trait;
use lakesync::schema::{Schema, TableSchema};

use super::alter::Alteration;
use super::backend::Backend;
use super::catalogue::{Catalogue, ColumnRecord, TableRecord};
use super::error::Failure;
use super::names::META;
use super::script::Script;
use super::shown::Shown;
use super::watch::{Worker, WorkerName};
use super::write::Writes;
use crate::fit;
use crate::pace::Pace;

/// How a database prepares: in one transaction where tables can be altered in one.
#[async_trait]
pub(crate) trait Prepares: Writes {
    /// Makes room for what is new in `schema`, in the order that [`Backend`]'s steps have:
    /// [plan](Backend::plan), [alter](Backend::alter), [conclude](Backend::conclude).
    /// The connection that does so is named to `worker`, before what may take long.
    async fn grow(backend: &Backend<Self>, schema: &Schema, worker: &Worker)
    -> Result<(), Failure>;

    /// Whether the database still has the connection that goes by this name. Nothing if this is
    /// another server than that one's, as behind a balancer.
    async fn is_working(
        &self,
        connection: &mut Self::Connection,
        worker: &WorkerName,
    ) -> Result<Option<bool>, Failure>;

    /// What makes each of `newer` fit, beside what was prepared before and what there is.
    async fn alterations(
        &self,
        connection: &mut Self::Connection,
        held: &Schema,
        newer: &[&TableSchema],
    ) -> Result<Vec<Alteration>, Failure>;

    /// Writes down what was prepared, in the place of what was before.
    async fn keep(
        &self,
        connection: &mut Self::Connection,
        tables: Vec<TableRecord>,
        columns: Vec<ColumnRecord>,
    ) -> Result<(), Failure>;
}

impl<E: Prepares> Backend<E> {
    /// Makes room for what is new in `schema`.
    pub(super) async fn grow(&self, schema: &Schema) -> Result<(), Failure> {
        // Mostly there is nothing to do, and nobody waits for those who have.
        let prepared = self.call(self.read_schema()).await?;
        if self.is_installed().await? && fit::newer(&prepared, schema)?.is_empty() {
            return Ok(());
        }
        let preparers = &self.engine.server().preparers;
        let _turn = preparers.acquire().await.expect("BUG: nobody closes it");
        let worker = Worker::new();
        self.watched(&worker, async {
            self.ensure_installed().await?;
            E::grow(self, schema, &worker).await
        })
        .await
    }

    /// What has to be altered, or why it can't be.
    pub(crate) async fn plan(
        &self,
        connection: &mut E::Connection,
        catalogue: &Catalogue,
        newer: &[&TableSchema],
    ) -> Result<Vec<Alteration>, Failure> {
        let alterations = self.engine.alterations(connection, &catalogue.schema, newer).await?;
        let names = self.engine.names();
        for (table, alteration) in newer.iter().zip(&alterations) {
            let shown = Shown::of(table, &E::CAPACITY);
            for column in alteration.adopted.iter().filter_map(|column| shown.column(column)) {
                let (name, from) = (names.quoted(&column.name), names.synced(&table.table));
                let sql = format!("SELECT 1 FROM {from} WHERE {name} IS NOT NULL LIMIT 1");
                if connection.has_row(&sql).await? {
                    return Err(fit::taken(table, &column.name).into());
                }
            }
        }
        Ok(alterations)
    }

    /// Alters the tables.
    pub(crate) async fn alter(
        &self,
        connection: &mut E::Connection,
        newer: &[&TableSchema],
        alterations: &[Alteration],
    ) -> Result<(), Failure> {
        for (table, alteration) in newer.iter().zip(alterations) {
            for statement in &alteration.statements {
                let altered = connection.script(statement).await;
                altered.map_err(|error| Failure::from(error).of(&table.table))?;
            }
        }
        Ok(())
    }

    /// Writes down what was prepared, and shows anew what looks otherwise now.
    pub(crate) async fn conclude(
        &self,
        connection: &mut E::Connection,
        catalogue: &Catalogue,
        newer: &[&TableSchema],
        alterations: &[Alteration],
    ) -> Result<(), Failure> {
        let (tables, columns) = catalogue.records(newer);
        self.engine.keep(connection, tables, columns).await?;
        let (meta, now) = (self.engine.names().own(META), E::NOW_MICROS);
        let sql = format!("UPDATE {meta} SET generation = GREATEST(generation + 1, {now})");
        connection.script(&sql).await?;
        for (table, alteration) in newer.iter().zip(alterations) {
            if alteration.reshapes {
                self.show_anew(connection, catalogue, table).await?;
            }
        }
        Ok(())
    }

    /// Shows all rows of a table as their exact states have them.
    async fn show_anew(
        &self,
        connection: &mut E::Connection,
        catalogue: &Catalogue,
        table: &TableSchema,
    ) -> Result<(), Failure> {
        let id = catalogue.id(&table.table)?;
        let (mut after, mut pace, mut hidden) = (None, Pace::default(), Vec::new());
        let shown = Shown::of(table, &E::CAPACITY);
        loop {
            let page = self.engine.page(connection, id, after.as_ref(), pace.count()).await?;
            let Some((last, _)) = page.last() else {
                self.hide(hidden);
                return Ok(());
            };
            pace.took(page.len(), page.iter().map(|(_, row)| row.size()).sum());
            after = Some(last.clone());
            let live = page.iter().filter(|(_, row)| row.is_live());
            let live: Vec<_> = live.map(|(row_id, row)| (row_id, row)).collect();
            let put = self.put_carefully(connection, &shown, &live, &mut hidden).await;
            put.map_err(|failure| failure.of(&table.table))?;
        }
    }
}

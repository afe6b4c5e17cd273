//! A tier whose rows move with every write, as if nobody ever waited.

use std::fmt;

use async_trait::async_trait;
use lakesync::adapter::{Adapter, AdapterError, Batch, Capacity, Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;
use lakesync_adapters::tier::Tier;

/// Steps that are taken after each write: enough to come around some tables.
const STEPS: usize = 3;

#[derive(Debug)]
pub(crate) struct Moving(pub(crate) Tier);

impl Moving {
    async fn advance(&self) -> Result<(), AdapterError> {
        for _ in 0..STEPS {
            self.0.advance().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Adapter for Moving {
    fn capacity(&self) -> Capacity {
        self.0.capacity()
    }

    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError> {
        self.0.prepare(schema).await
    }

    async fn schema(&self) -> Result<Schema, AdapterError> {
        self.0.schema().await
    }

    async fn write(&self, batch: &Batch) -> Result<(), AdapterError> {
        self.0.write(batch).await?;
        self.advance().await
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        self.0.watermark(log).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        self.0.logs().await
    }

    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.0.join(table, rows).await?;
        self.advance().await
    }

    async fn overwrite(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), AdapterError> {
        self.0.overwrite(table, rows).await?;
        self.advance().await
    }

    async fn fence(&self) -> Result<(), AdapterError> {
        self.0.fence().await
    }

    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.0.rows(table, after, limit).await
    }

    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.0.find(table, row_ids).await
    }

    async fn shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError> {
        self.0.shown(table, after, limit).await
    }

    async fn misshown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError> {
        self.0.misshown(table, rows).await
    }

    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.0.forget(table, rows).await
    }

    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        self.0.history(after, limit).await
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        self.0.record(changes).await
    }

    async fn health(&self) -> Result<(), AdapterError> {
        self.0.health().await
    }
}

impl fmt::Display for Moving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! The adapter of every SQL database: what is asked of it, within its time.

use std::fmt;

use async_trait::async_trait;
use lakesync::adapter::{Adapter, AdapterError, Batch, Capacity, Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;

use super::backend::Backend;
use super::prepare::Prepares;

/// One gateway's rows in an SQL database, which `E` speaks to.
pub struct SqlAdapter<E>(Backend<E>);

impl<E> SqlAdapter<E> {
    pub(crate) fn new(engine: E, keeps_history: bool) -> Self {
        Self(Backend::new(engine, keeps_history))
    }

    pub(crate) fn backend(&self) -> &Backend<E> {
        &self.0
    }
}

#[async_trait]
impl<E: Prepares> Adapter for SqlAdapter<E> {
    fn capacity(&self) -> Capacity {
        E::CAPACITY
    }

    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError> {
        let limit = self.0.engine.server().options.prepare_timeout;
        self.0.within(limit, self.0.grow(schema)).await
    }

    async fn schema(&self) -> Result<Schema, AdapterError> {
        self.0.call(self.0.read_schema()).await
    }

    async fn write(&self, batch: &Batch) -> Result<(), AdapterError> {
        self.0.call_of_rows(self.0.write_batch(batch)).await
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        self.0.call(self.0.read_watermark(log)).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        self.0.call(self.0.read_logs()).await
    }

    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.0.call_of_rows(self.0.join_rows(table, rows)).await
    }

    async fn overwrite(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), AdapterError> {
        self.0.call_of_rows(self.0.overwrite_rows(table, rows)).await
    }

    async fn fence(&self) -> Result<(), AdapterError> {
        self.0.call(self.0.await_writers()).await
    }

    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.0.call(self.0.read_rows(table, after, limit)).await
    }

    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.0.call(self.0.find_rows(table, row_ids)).await
    }

    async fn shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError> {
        self.0.call(self.0.read_shown(table, after, limit)).await
    }

    async fn misshown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError> {
        self.0.call(self.0.check_shown(table, rows)).await
    }

    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.0.call_of_rows(self.0.forget_rows(table, rows)).await
    }

    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        self.0.call(self.0.read_history(after, limit)).await
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        self.0.call_of_rows(self.0.record_changes(changes)).await
    }

    async fn health(&self) -> Result<(), AdapterError> {
        self.0.call(self.0.check_health()).await
    }
}

impl<E: fmt::Display> fmt::Display for SqlAdapter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.engine.fmt(f)
    }
}

/// Says what `Display` says: never a credential.
impl<E: fmt::Debug> fmt::Debug for SqlAdapter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.engine.fmt(f)
    }
}

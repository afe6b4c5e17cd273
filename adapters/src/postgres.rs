//! Rows in Postgres: tables that people query, and beside them the exact state that they show.
//!
//! A Postgres schema holds one gateway. In it stand the synced tables, with columns of natural types
//! and the live rows only, and our own, whose names begin with `_lakesync`: the rows' exact states,
//! which are merged into and never read back from what people see, the watermarks, the history, and
//! what was prepared. One transaction writes a batch to all of them. It locks one row first, so that
//! of two writers, such as a server that hangs and its successor, each sees what the other did.
//!
//! What people add stays: rows, columns, indexes, views and grants. What would stop the flush, such
//! as a column of another type, is refused when the tables are prepared.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use lakesync::adapter::{Adapter, AdapterError, Batch, Capacity, Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;

mod alter;
mod copy;
mod history;
mod inspect;
mod install;
mod names;
mod options;
mod prepare;
mod read;
mod session;
mod statement;
mod types;
mod upsert;
mod write;

pub use options::{BadOptions, Options, Server};

use crate::sql::catalogue::Catalogue;
use names::Names;
use session::Failure;

/// One gateway's rows in one schema of a Postgres database.
pub struct Postgres {
    server: Server,
    names: Names,
    keeps_history: bool,
    /// Whether our own tables were seen.
    installed: AtomicBool,
    /// Whether the batch before held new rows only.
    is_filling: AtomicBool,
    /// What was prepared, and the generation of it that our own tables name.
    prepared: Mutex<Option<(i64, Arc<Catalogue>)>>,
}

#[async_trait]
impl Adapter for Postgres {
    fn capacity(&self) -> Capacity {
        types::CAPACITY
    }

    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError> {
        self.server.within(self.server.options.prepare_timeout, self.grow(schema)).await
    }

    async fn schema(&self) -> Result<Schema, AdapterError> {
        self.call(self.read_schema()).await
    }

    async fn write(&self, batch: &Batch) -> Result<(), AdapterError> {
        self.call(self.write_batch(batch)).await
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        self.call(self.read_watermark(log)).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        self.call(self.read_logs()).await
    }

    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.call(self.join_rows(table, rows)).await
    }

    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.call(self.read_rows(table, after, limit)).await
    }

    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.call(self.find_rows(table, row_ids)).await
    }

    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.call(self.forget_rows(table, rows)).await
    }

    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        self.call(self.read_history(after, limit)).await
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        self.call(self.record_changes(changes)).await
    }

    async fn health(&self) -> Result<(), AdapterError> {
        self.call(async {
            let mut session = self.session().await?;
            session.ping().await?;
            session.end();
            Ok(())
        })
        .await
    }
}

impl Postgres {
    fn new(server: Server, names: Names, keeps_history: bool) -> Self {
        let [installed, is_filling] = [false; 2].map(AtomicBool::new);
        Self { server, names, keeps_history, installed, is_filling, prepared: Mutex::default() }
    }

    async fn call<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, AdapterError> {
        self.server.within(self.server.options.call_timeout, work).await
    }

    /// Makes our own tables, unless they were seen before.
    async fn ensure_installed(&self) -> Result<(), Failure> {
        if !self.installed.load(Ordering::Relaxed) {
            self.install().await?;
            self.installed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, schema {}", self.server, self.names.schema())
    }
}

/// Says what `Display` says: never a credential.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({self})")
    }
}

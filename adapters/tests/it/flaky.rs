//! An adapter that fails when it is told to: at its n-th call, before the work or after it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::{Adapter, AdapterError, Batch, Capacity, Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;

/// When calls fail. Clones share it, so that the calls of several adapters are counted together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    calls: Vec<&'static str>,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mode {
    #[default]
    Working,
    /// From the n-th call on, as if the process had died there; that call has done its work or not.
    DiesAt(usize, When),
    /// The n-th call only.
    FailsAt(usize, When),
    /// Every call.
    Away,
    /// No call ever answers.
    Hangs,
    /// What is forgotten is forgotten when somebody writes next, and never answered: the caller gave
    /// up while the backend was at it.
    ForgetsLate,
    /// Calls of this name answer after so long.
    SlowAt(&'static str, Duration),
    /// Calls of this name fail.
    Refuses(&'static str, When),
    /// Calls of this name are done after so long, and say that they have failed.
    LostAfter(&'static str, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    Before,
    After,
}

impl Faults {
    /// Counts from here.
    pub(crate) fn set(&self, mode: Mode) {
        *self.0.lock().expect("a plan") = State { calls: Vec::new(), mode };
    }

    fn mode(&self) -> Mode {
        self.0.lock().expect("a plan").mode
    }

    /// The calls since then.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.0.lock().expect("a plan").calls.clone()
    }

    /// Whether a call has failed that was to fail.
    pub(crate) fn fired(&self) -> bool {
        let state = self.0.lock().expect("a plan");
        match state.mode {
            Mode::Working | Mode::SlowAt(..) => false,
            Mode::Refuses(name, _) | Mode::LostAfter(name, _) => state.calls.contains(&name),
            Mode::DiesAt(at, _) | Mode::FailsAt(at, _) => at <= state.calls.len(),
            Mode::Away | Mode::Hangs | Mode::ForgetsLate => !state.calls.is_empty(),
        }
    }

    async fn around<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, AdapterError>>,
    ) -> Result<T, AdapterError> {
        let (nth, mode) = {
            let mut state = self.0.lock().expect("a plan");
            state.calls.push(name);
            (state.calls.len(), state.mode)
        };
        // As a backend out there would: others get a turn meanwhile.
        tokio::task::yield_now().await;
        let failed = || Err(AdapterError::Unavailable(format!("{name} was to fail")));
        match mode {
            Mode::Away => failed(),
            Mode::Hangs => std::future::pending().await,
            Mode::ForgetsLate if name == "forget" => std::future::pending().await,
            Mode::SlowAt(slow, pause) if slow == name => {
                tokio::time::sleep(pause).await;
                call.await
            }
            Mode::LostAfter(lost, pause) if lost == name => {
                tokio::time::sleep(pause).await;
                call.await?;
                failed()
            }
            Mode::DiesAt(at, _) if at < nth => failed(),
            Mode::Refuses(refused, when) if refused == name => {
                if when == When::After {
                    call.await?;
                }
                failed()
            }
            Mode::DiesAt(at, when) | Mode::FailsAt(at, when) if at == nth => {
                if when == When::After {
                    call.await?;
                }
                failed()
            }
            Mode::Working
            | Mode::ForgetsLate
            | Mode::SlowAt(..)
            | Mode::Refuses(..)
            | Mode::LostAfter(..)
            | Mode::DiesAt(..)
            | Mode::FailsAt(..) => call.await,
        }
    }
}

/// Rows of a table that are to be let go of.
type Forgotten = (TableName, Vec<(RowId, Row)>);

/// An adapter with faults.
#[derive(Debug)]
pub(crate) struct Flaky {
    inner: Arc<dyn Adapter>,
    faults: Faults,
    late: Mutex<Option<Forgotten>>,
}

impl Flaky {
    pub(crate) fn around(inner: impl Adapter, faults: &Faults) -> Arc<dyn Adapter> {
        Arc::new(Self { inner: Arc::new(inner), faults: faults.clone(), late: Mutex::default() })
    }

    /// As one writer waits for another.
    async fn end_what_is_late(&self) -> Result<(), AdapterError> {
        let late = self.late.lock().expect("no panic").take();
        match late {
            Some((table, rows)) => self.inner.forget(&table, &rows).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Adapter for Flaky {
    fn capacity(&self) -> Capacity {
        self.inner.capacity()
    }

    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError> {
        self.faults.around("prepare", self.inner.prepare(schema)).await
    }

    async fn schema(&self) -> Result<Schema, AdapterError> {
        self.faults.around("schema", self.inner.schema()).await
    }

    async fn write(&self, batch: &Batch) -> Result<(), AdapterError> {
        self.end_what_is_late().await?;
        self.faults.around("write", self.inner.write(batch)).await
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        self.faults.around("watermark", self.inner.watermark(log)).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        self.faults.around("logs", self.inner.logs()).await
    }

    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.end_what_is_late().await?;
        self.faults.around("join", self.inner.join(table, rows)).await
    }

    async fn overwrite(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), AdapterError> {
        self.end_what_is_late().await?;
        self.faults.around("overwrite", self.inner.overwrite(table, rows)).await
    }

    async fn fence(&self) -> Result<(), AdapterError> {
        self.end_what_is_late().await?;
        self.faults.around("fence", self.inner.fence()).await
    }

    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.faults.around("rows", self.inner.rows(table, after, limit)).await
    }

    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.faults.around("find", self.inner.find(table, row_ids)).await
    }

    async fn shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError> {
        self.faults.around("shown", self.inner.shown(table, after, limit)).await
    }

    async fn misshown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError> {
        self.faults.around("misshown", self.inner.misshown(table, rows)).await
    }

    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        if self.faults.mode() == Mode::ForgetsLate {
            *self.late.lock().expect("no panic") = Some((table.clone(), rows.to_vec()));
        }
        self.faults.around("forget", self.inner.forget(table, rows)).await
    }

    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        self.faults.around("history", self.inner.history(after, limit)).await
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        self.faults.around("record", self.inner.record(changes)).await
    }

    async fn health(&self) -> Result<(), AdapterError> {
        self.faults.around("health", self.inner.health()).await
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

//! A wrapper that keeps the same rows in several backends: a primary that counts, and followers.
//!
//! Guarantees: what is asked of the whole is what the primary answers, and a write has succeeded as
//! soon as the primary has it. Followers get everything after the primary, in order, each at its own
//! pace, and catch up by themselves however long they were away: one that missed something is refilled
//! from the primary, and only that one. So nothing is kept of the log for them.
//!
//! All that a restart must know is in the backends: a follower that missed something is behind in a
//! watermark. Changes that come without a batch are counted for that in a log of their own, [`MARKS`].

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use lakesync::adapter::{Adapter, AdapterError, Batch, Capacity, Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;
use tokio::task::JoinSet;
use tokio::time::timeout;

mod follower;
mod marks;
mod moved;
mod refill;
mod task;

use follower::{Follower, Work};
pub use marks::MARKS;
use moved::Moved;

/// How long followers are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a call to a follower may take, and the longest that a write waits for one which is
    /// slow. For one that fails, nobody waits.
    pub answer: Duration,
    /// The pause after a first failure. It doubles with each one in a row.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// How often a follower for which nothing comes is compared with the primary: somebody may have
    /// emptied it, or put it back to an older state.
    pub check_every: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            pause_min: Duration::from_millis(500),
            pause_max: Duration::from_secs(60),
            check_every: Duration::from_secs(60),
        }
    }
}

impl Patience {
    async fn wait<T>(
        self,
        call: impl Future<Output = Result<T, AdapterError>>,
    ) -> Result<T, AdapterError> {
        timeout(self.answer, call).await.unwrap_or_else(|_| Err(self.lost()))
    }

    fn lost(self) -> AdapterError {
        AdapterError::Unavailable(format!("no answer within {:?}", self.answer))
    }
}

/// How far a follower is, as of its last call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The follower's name.
    pub name: String,
    /// Its watermarks; none are known before it has answered once.
    pub watermarks: BTreeMap<LogId, Position>,
    /// Whether it is being refilled from the primary.
    pub refilling: bool,
    /// Why it failed, if it did the last time.
    pub error: Option<AdapterError>,
}

/// A primary and its followers.
#[derive(Debug)]
pub struct FanOut {
    primary: Arc<dyn Adapter>,
    followers: Vec<Follower>,
    // The turn to do what moves no watermark, held until it is queued for the followers, across
    // awaits: so that marks come to them in order, and one at most is of what is not done yet.
    turn: tokio::sync::Mutex<()>,
    /// One per follower; they end with this.
    _tasks: JoinSet<()>,
}

impl FanOut {
    /// Writes to `primary`, and after it to `followers`, each under the name that an operator knows
    /// it by. Starts a task for each follower, within the Tokio runtime that this is called in.
    pub fn new(
        primary: Arc<dyn Adapter>,
        followers: Vec<(String, Arc<dyn Adapter>)>,
        patience: Patience,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let start = |(name, adapter)| {
            let (follower, task) = Follower::new(name, adapter, Arc::clone(&primary), patience);
            tasks.spawn(task.run());
            follower
        };
        let followers = followers.into_iter().map(start).collect();
        Self { primary, followers, turn: Default::default(), _tasks: tasks }
    }

    /// How far each follower is.
    pub fn lags(&self) -> Vec<Lag> {
        self.followers.iter().map(Follower::lag).collect()
    }

    /// Waits until every follower has what the primary has by now. It may wait for ever.
    pub async fn in_step(&self) -> Result<(), AdapterError> {
        let mut logs = self.primary.logs().await?;
        logs.push(MARKS);
        let mut wanted = BTreeMap::new();
        for log in logs {
            wanted.insert(log, self.primary.watermark(log).await?);
        }
        join_all(self.followers.iter().map(|follower| follower.reached(&wanted))).await;
        Ok(())
    }

    /// Has the primary do what moves no watermark, and each follower look at what came of it. If that
    /// can't be told, they are all refilled; if the primary refuses it, that is what they will see.
    async fn marked(
        &self,
        call: impl Future<Output = Result<(), AdapterError>>,
        moved: impl FnOnce() -> Moved,
    ) -> Result<(), AdapterError> {
        if self.followers.is_empty() {
            return call.await;
        }
        let _turn = self.turn.lock().await;
        let before = self.primary.watermark(MARKS).await?;
        let promises: Vec<_> = self.followers.iter().map(|f| f.promise(before)).collect();
        self.primary.write(&marks::after(before)).await?;
        let (called, moved) = (call.await, moved());
        let is_refused =
            matches!(called, Err(AdapterError::Mismatch(_) | AdapterError::Unfit { .. }));
        if called.is_err() && !(is_refused && matches!(moved, Moved::Rows(..))) {
            return called;
        }
        let moved = Arc::new(moved);
        let works = promises.into_iter().map(|promise| Work::Moved(Arc::clone(&moved), promise));
        join_all(self.followers.iter().zip(works).map(|(f, work)| f.offer(work))).await;
        called
    }
}

#[async_trait]
impl Adapter for FanOut {
    fn capacity(&self) -> Capacity {
        let all = self.followers.iter().map(|follower| follower.adapter.capacity());
        all.fold(self.primary.capacity(), Capacity::meet)
    }

    /// Followers are prepared on their own. One that refuses lags, and says why.
    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError> {
        self.primary.prepare(schema).await?;
        self.followers.iter().for_each(Follower::doubt);
        Ok(())
    }

    async fn schema(&self) -> Result<Schema, AdapterError> {
        self.primary.schema().await
    }

    async fn write(&self, batch: &Batch) -> Result<(), AdapterError> {
        // The marks of a fan-out around this one are not its own.
        let outer = marks::inward(batch);
        let batch = outer.as_ref().unwrap_or(batch);
        self.primary.write(batch).await?;
        if !self.followers.is_empty() {
            let batch = Arc::new(batch.clone());
            let offers = self.followers.iter().map(|f| f.offer(Work::Batch(Arc::clone(&batch))));
            join_all(offers).await;
        }
        Ok(())
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        self.primary.watermark(marks::inner_log(log)).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        Ok(self.primary.logs().await?.into_iter().filter_map(marks::outer_log).collect())
    }

    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        if rows.is_empty() {
            return self.primary.join(table, rows).await;
        }
        self.marked(self.primary.join(table, rows), || Moved::rows(table, rows)).await
    }

    async fn overwrite(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), AdapterError> {
        if rows.is_empty() {
            return self.primary.overwrite(table, rows).await;
        }
        self.marked(self.primary.overwrite(table, rows), || Moved::rows(table, rows)).await
    }

    /// Of the primary: followers come after it by themselves.
    async fn fence(&self) -> Result<(), AdapterError> {
        let _turn = self.turn.lock().await;
        self.primary.fence().await
    }

    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.primary.rows(table, after, limit).await
    }

    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.primary.find(table, row_ids).await
    }

    async fn shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError> {
        self.primary.shown(table, after, limit).await
    }

    async fn misshown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError> {
        self.primary.misshown(table, rows).await
    }

    /// A follower that is away keeps the rows until it is back.
    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        if rows.is_empty() {
            return self.primary.forget(table, rows).await;
        }
        self.marked(self.primary.forget(table, rows), || Moved::rows(table, rows)).await
    }

    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        self.primary.history(after, limit).await
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        if changes.is_empty() {
            return self.primary.record(changes).await;
        }
        self.marked(self.primary.record(changes), || Moved::Changes(changes.to_vec())).await
    }

    /// The primary's: followers that fail are in [`lags`](FanOut::lags).
    async fn health(&self) -> Result<(), AdapterError> {
        self.primary.health().await
    }
}

impl fmt::Display for FanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.primary)?;
        self.followers.iter().try_for_each(|follower| write!(f, ", then {}", follower.adapter))
    }
}

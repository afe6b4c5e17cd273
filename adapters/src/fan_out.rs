//! A wrapper that keeps the same rows in several backends: a primary that counts, and followers.
//!
//! Guarantees: what is asked of the whole is what the primary answers, and a write has succeeded as
//! soon as the primary has it. Followers get every batch after the primary, in order, each at its own
//! pace, and catch up by themselves however long they were away: one that the log has left behind is
//! refilled from the primary. So nothing is kept of the log for them.
//!
//! All that a restart must know is in the backends. A follower that its watermark shows to be behind
//! is refilled. One that missed rows joined without a watermark is shown by the watermark of a log
//! that is nobody's: see [`MARKS`].

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
mod refill;
mod task;

use follower::{Follower, Handing};

/// The log whose watermark tells how often a follower missed what was joined or recorded without a
/// batch: the primary's is raised each time, the follower's when it is refilled. It has no commits,
/// and is there only if a follower ever missed something.
pub const MARKS: LogId = LogId(*b"lakesync.fan_out");

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
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            pause_min: Duration::from_millis(500),
            pause_max: Duration::from_secs(60),
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
    // The turn to join or record, held until it is done, across awaits: each that is missed raises
    // the mark beyond what a refill that began before it has seen.
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

    /// Lets the followers do what moves no watermark, then the primary. In this order: what the
    /// primary has, each follower has, or there is a mark that it has not.
    async fn unmarked<'a, F>(
        &'a self,
        call: impl Fn(&'a dyn Adapter) -> F,
    ) -> Result<(), AdapterError>
    where
        F: Future<Output = Result<(), AdapterError>>,
    {
        let _turn = self.turn.lock().await;
        self.unmarked_in(self.followers.iter().collect(), call).await
    }

    async fn unmarked_in<'a, F>(
        &'a self,
        followers: Vec<&'a Follower>,
        call: impl Fn(&'a dyn Adapter) -> F,
    ) -> Result<(), AdapterError>
    where
        F: Future<Output = Result<(), AdapterError>>,
    {
        let refills: Vec<_> = followers.iter().map(|follower| follower.refills()).collect();
        let calls = followers.iter().map(|follower| follower.call(&call));
        if join_all(calls).await.contains(&false) {
            self.mark().await?;
        }
        call(&*self.primary).await?;
        // A refill that began meanwhile has read the primary too early, and the mark too late.
        if refills.iter().zip(&followers).any(|(before, now)| *before != now.refills()) {
            self.mark().await?;
        }
        Ok(())
    }

    /// Those that are being refilled, with the promise to hand them what the primary is given, and
    /// the others.
    async fn by_phase(&self) -> (Vec<(&Follower, Handing<'_>)>, Vec<&Follower>) {
        let (mut refilling, mut others) = (Vec::new(), Vec::new());
        for follower in &self.followers {
            match follower.handing().await {
                Some(handing) => refilling.push((follower, handing)),
                None => others.push(follower),
            }
        }
        (refilling, others)
    }

    async fn mark(&self) -> Result<(), AdapterError> {
        let next = self.primary.watermark(MARKS).await?.next();
        let mark = Batch::new(MARKS, next, next, Vec::new());
        self.primary.write(&mark.expect("BUG: a position after the first")).await?;
        self.followers.iter().for_each(Follower::doubt);
        Ok(())
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
        self.primary.write(batch).await?;
        if !self.followers.is_empty() {
            let batch = Arc::new(batch.clone());
            let offers = self.followers.iter().map(|f| f.offer(Arc::clone(&batch)));
            join_all(offers).await;
        }
        Ok(())
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        self.primary.watermark(log).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        let mut logs = self.primary.logs().await?;
        logs.retain(|log| *log != MARKS);
        Ok(logs)
    }

    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        if rows.is_empty() {
            return self.primary.join(table, rows).await;
        }
        let _turn = self.turn.lock().await;
        // A mark for each would keep a refill from ever being enough. And it would let go again of
        // what it is given before the primary has it.
        let (refilling, others) = self.by_phase().await;
        self.unmarked_in(others, |adapter| adapter.join(table, rows)).await?;
        join_all(
            refilling
                .into_iter()
                .map(|(follower, handing)| follower.hand(handing, table, ids(rows))),
        )
        .await;
        Ok(())
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

    /// A follower that is away keeps the rows until it is refilled.
    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        if rows.is_empty() {
            return self.primary.forget(table, rows).await;
        }
        let _turn = self.turn.lock().await;
        let (refilling, others) = self.by_phase().await;
        self.primary.forget(table, rows).await?;
        join_all(
            refilling
                .into_iter()
                .map(|(follower, handing)| follower.hand(handing, table, ids(rows))),
        )
        .await;
        // What is queued for a follower may write them yet: so it is done in its turn.
        let settled = others.iter().map(|follower| follower.settled(table, ids(rows)));
        if join_all(settled).await.contains(&false) {
            self.mark().await?;
        }
        Ok(())
    }

    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        self.primary.history(after, limit).await
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        self.unmarked(|adapter| adapter.record(changes)).await
    }

    /// The primary's: followers that fail are in [`lags`](FanOut::lags).
    async fn health(&self) -> Result<(), AdapterError> {
        self.primary.health().await
    }
}

fn ids(rows: &[(RowId, Row)]) -> Vec<RowId> {
    rows.iter().map(|(row_id, _)| row_id.clone()).collect()
}

impl fmt::Display for FanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.primary)?;
        self.followers.iter().try_for_each(|follower| write!(f, ", then {}", follower.adapter))
    }
}

//! Whether a backend holds and shows the gateway's rows, row by row; and on request, it is made so.
//!
//! Pushes and flushing go on meanwhile, so a first look finds rows that only seem to differ. Each such
//! row is looked at again while nothing is flushed to this backend: then the backend is at its
//! watermark, and a row that no commit after the watermark has changed must be the same. A row that
//! such a commit has changed is waited for and looked at once more.
//!
//! Both sides are read in pages, in the order of row ids. Only rows are written: tables, views, grants
//! and the history stay.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::clock::WallClock;
use lakesync::name::{Position, RowId, TableName};
use lakesync::row::Row;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::fill::{Held, beside};
use super::reconcile::{Verdict, judge, pairs};
use super::{Flush, FlushError, Place};
use crate::gateway::{Gateway, Progress};
use crate::store::StoreError;

mod report;

pub use report::{Difference, Order, Table, VerifyError};
use report::{digest, is_same};

/// How many ids of shown rows are looked at together.
const SHOWN_MAX: usize = 256;
/// How often a row is looked at that changes all the time, and how long each of its commits is waited
/// for.
const LOOKS_MAX: usize = 5;
const COMMIT_WAIT: Duration = Duration::from_secs(10);

/// What is said of a verification: tables as they are compared, and why it broke off if it did.
pub type Answers = mpsc::Receiver<Result<Table, VerifyError>>;

impl Flush {
    /// Verifies a backend of a gateway. It goes on for as long as somebody listens.
    pub fn verify(
        self: &Arc<Self>,
        gateway: Gateway,
        order: Order,
        mut shutdown: watch::Receiver<bool>,
    ) -> Answers {
        let (answers, listener) = mpsc::channel(1);
        let (flush, stop, ended) = (Arc::clone(self), self.stop.clone(), answers.clone());
        let verify = async move {
            let mut stopping = shutdown.clone();
            let done = tokio::select! {
                biased;
                // Who listens is told, rather than take what came so far for all.
                _ = stopping.wait_for(|stopping| *stopping) => Err(FlushError::ShuttingDown.into()),
                done = flush.compare(&gateway, &order, &answers, &mut shutdown) => done,
            };
            if let Err(error) = done {
                // Who does not listen any more need not know.
                let _ = answers.send(Err(error)).await;
            }
        };
        self.tasks.spawn(async move {
            if stop.run_until_cancelled(verify).await.is_none() {
                // An answer without a table says that the gateway has none. If there is no room for
                // this, tables were told, and that some are left.
                let _ = ended.try_send(Err(FlushError::ShuttingDown.into()));
            }
        });
        listener
    }

    async fn compare(
        &self,
        gateway: &Gateway,
        order: &Order,
        answers: &mpsc::Sender<Result<Table, VerifyError>>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), VerifyError> {
        let (name, progress) = chosen(gateway, order.backend.as_deref())?;
        // So that as little as possible has to be waited for.
        let only = vec![(Arc::clone(&name), progress.clone())];
        self.flush_to(gateway, only, shutdown).await?;
        let place = self.place(gateway, &name).ok_or(StoreError::Closed)?;
        let failed = |error| VerifyError::Backend { name: Arc::clone(&name), error };
        let unusable = |what: &String| failed(AdapterError::Mismatch(what.clone()));
        let adapter = Arc::clone(place.adapter.as_ref().map_err(unusable)?);
        let schema = gateway.schema();
        let mut left = schema.tables().count();
        for table in schema.tables() {
            left -= 1;
            let report = Table { name: table.table.to_string(), left, ..Table::default() };
            let mut check = Check {
                gateway,
                place: &place,
                adapter: &*adapter,
                table: &table.table,
                order,
                clock: &*self.clock,
                answers,
                progress: progress.clone(),
                report,
                digests: (Sha256::new(), Sha256::new()),
            };
            match check.run().await {
                Ok(()) => {}
                Err(Stop::NobodyListens) => return Ok(()),
                Err(Stop::Backend(error)) => return Err(failed(error)),
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The backend of this name, or the only one.
fn chosen(
    gateway: &Gateway,
    name: Option<&str>,
) -> Result<(Arc<str>, watch::Receiver<Progress>), VerifyError> {
    let mut backends = gateway.backends();
    let known = backends.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", ");
    match (name, backends.len()) {
        (_, 0) => return Err(FlushError::NoBackend.into()),
        (None, 1) => {}
        (None, _) => return Err(VerifyError::WhichBackend(known)),
        (Some(name), _) => backends.retain(|(own, _)| **own == *name),
    }
    let unknown = || VerifyError::UnknownBackend { name: name.unwrap_or_default().into(), known };
    backends.pop().ok_or_else(unknown)
}

/// Why the comparison of a table ends early.
enum Stop {
    NobodyListens,
    Backend(AdapterError),
    Failed(VerifyError),
}

impl From<AdapterError> for Stop {
    fn from(error: AdapterError) -> Self {
        Self::Backend(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// The comparison of one table.
struct Check<'c> {
    gateway: &'c Gateway,
    place: &'c Place,
    adapter: &'c dyn Adapter,
    table: &'c TableName,
    order: &'c Order,
    clock: &'c dyn WallClock,
    answers: &'c mpsc::Sender<Result<Table, VerifyError>>,
    progress: watch::Receiver<Progress>,
    report: Table,
    digests: (Sha256, Sha256),
}

/// What both sides held of a row when it was looked at again. It is known of no row that changes all
/// the time.
type Settled = BTreeMap<RowId, (Option<Row>, Option<Row>)>;

impl Check<'_> {
    async fn run(&mut self) -> Result<(), Stop> {
        let mut held = Held::of(self.adapter, self.table, None);
        let mut after = None;
        loop {
            let rows = self.gateway.rows_after(self.table, after.as_ref()).await?;
            after = rows.last().map(|(row_id, _)| row_id.clone());
            let mut rest = &rows[..];
            loop {
                let (theirs, is_all) = held.next(after.as_ref()).await?;
                let own = beside(&mut rest, &theirs, is_all);
                self.page(own, &theirs).await?;
                if is_all {
                    break;
                }
            }
            self.tell().await?;
            if after.is_none() {
                break;
            }
        }
        self.look_for_strangers().await?;
        let (own, theirs) = std::mem::take(&mut self.digests);
        self.report.digests = Some((own.finalize().into(), theirs.finalize().into()));
        self.tell().await
    }

    /// Says how far it is.
    async fn tell(&self) -> Result<(), Stop> {
        if self.order.expires_ms <= self.clock.now_ms() {
            return Err(Stop::Failed(VerifyError::TokenExpired));
        }
        let told = self.answers.send(Ok(self.report.clone())).await;
        told.map_err(|_| Stop::NobodyListens)
    }

    /// Compares some rows of the gateway's with all that the backend has between them.
    async fn page(&mut self, own: &[(RowId, Row)], theirs: &[(RowId, Row)]) -> Result<(), Stop> {
        let misshown = self.adapter.misshown(self.table, theirs).await?;
        let misshown: HashSet<RowId> = misshown.into_iter().collect();
        let pairs = pairs(own, theirs);
        let suspects = pairs
            .iter()
            .filter(|(row_id, own, theirs)| misshown.contains(*row_id) || !is_same(*own, *theirs));
        let suspects: Vec<RowId> = suspects.map(|(row_id, ..)| (*row_id).clone()).collect();
        let settled = self.settle(suspects).await?;
        for (row_id, own, theirs) in pairs {
            let (own, theirs) = match settled.get(row_id) {
                Some((own, theirs)) => (own.as_ref(), theirs.as_ref()),
                None => (own, theirs),
            };
            self.report.rows += u64::from(own.is_some_and(Row::is_live));
            digest(&mut self.digests.0, row_id, own);
            digest(&mut self.digests.1, row_id, theirs);
        }
        Ok(())
    }

    /// Looks for rows that people see and that the backend holds no state of.
    async fn look_for_strangers(&mut self) -> Result<(), Stop> {
        let mut after = None;
        loop {
            let shown = self.adapter.shown(self.table, after.as_ref(), SHOWN_MAX).await?;
            let Some(last) = shown.last().cloned() else { return Ok(()) };
            let held = self.adapter.find(self.table, &shown).await?;
            let live = held.into_iter().filter(|(_, row)| row.is_live());
            let known: HashSet<RowId> = live.map(|(row_id, _)| row_id).collect();
            let strangers: Vec<_> = shown.into_iter().filter(|id| !known.contains(id)).collect();
            if !strangers.is_empty() {
                self.look_again_at_strangers(after.as_ref(), strangers).await?;
            }
            after = Some(last);
        }
    }

    /// Counts those of `strangers`, all of them after `after`, that people still see while nothing is
    /// flushed, and that neither the backend nor the gateway knows of.
    async fn look_again_at_strangers(
        &mut self,
        after: Option<&RowId>,
        strangers: Vec<RowId>,
    ) -> Result<(), Stop> {
        let _turn = self.place.turn.lock().await;
        let seen = self.seen(after, strangers.last()).await?;
        let strangers: Vec<_> = strangers.into_iter().filter(|id| seen.contains(id)).collect();
        let held = self.adapter.find(self.table, &strangers).await?;
        let held: HashMap<RowId, Row> = held.into_iter().collect();
        let own = self.gateway.rows_of(self.table, &strangers).await?;
        let own: HashMap<RowId, Row> = own.into_iter().map(|(id, _, row)| (id, row)).collect();
        let is_live =
            |rows: &HashMap<RowId, Row>, id: &RowId| rows.get(id).is_some_and(Row::is_live);
        // A row that the gateway has is the log's to bring, or was found missing before.
        let extra = strangers.into_iter().filter(|id| !is_live(&held, id) && !is_live(&own, id));
        let extra: Vec<RowId> = extra.collect();
        extra.iter().for_each(|row_id| self.report.count(row_id, Difference::Extra));
        if self.order.remove_extra && !extra.is_empty() {
            // What is remembered of a delete stays.
            let gone = |row_id: RowId| {
                let known = held.get(&row_id).cloned();
                (row_id, known)
            };
            let gone: Vec<_> = extra.into_iter().map(gone).collect();
            self.adapter.overwrite(self.table, &gone).await?;
            let seen = self.seen(after, gone.last().map(|(row_id, _)| row_id)).await?;
            let refused = gone.iter().filter(|(row_id, _)| seen.contains(row_id)).count();
            self.report.wrote(gone.len(), refused);
        }
        Ok(())
    }

    /// The rows that people see after `after`, up to `last` and some more.
    async fn seen(
        &self,
        after: Option<&RowId>,
        last: Option<&RowId>,
    ) -> Result<HashSet<RowId>, Stop> {
        let (mut seen, mut after) = (HashSet::new(), after.cloned());
        while after.as_ref() < last {
            let shown = self.adapter.shown(self.table, after.as_ref(), SHOWN_MAX).await?;
            let Some(last) = shown.last() else { break };
            after = Some(last.clone());
            seen.extend(shown);
        }
        Ok(seen)
    }

    /// Looks again at rows that seem to differ, and does about them what was ordered.
    async fn settle(&mut self, mut row_ids: Vec<RowId>) -> Result<Settled, Stop> {
        let mut settled = Settled::new();
        for _ in 0..LOOKS_MAX {
            if row_ids.is_empty() {
                return Ok(settled);
            }
            let newest = self.look_again(&mut row_ids, &mut settled).await?;
            let log = self.gateway.record().log_id;
            let has = |now: &Progress| {
                now.mark.is_some_and(|mark| mark.log == log && newest <= mark.position)
            };
            if !row_ids.is_empty() {
                // Rows of a commit that does not come in time are looked at all the same.
                let _ = timeout(COMMIT_WAIT, self.progress.wait_for(has)).await;
            }
        }
        self.report.unsettled += row_ids.len() as u64;
        Ok(settled)
    }

    /// Looks at rows while nothing is flushed to the backend. Leaves in `row_ids` those that a commit
    /// has changed which the backend does not have yet, and returns the newest such commit.
    async fn look_again(
        &mut self,
        row_ids: &mut Vec<RowId>,
        settled: &mut Settled,
    ) -> Result<Position, Stop> {
        let _turn = self.place.turn.lock().await;
        let reached = self.adapter.watermark(self.gateway.record().log_id).await?;
        let held = self.adapter.find(self.table, row_ids).await?;
        let wrong = self.adapter.misshown(self.table, &held).await?;
        let wrong: HashSet<RowId> = wrong.into_iter().collect();
        let mut held: HashMap<RowId, Row> = held.into_iter().collect();
        // Read last: what the backend lacks of this is newer than its watermark.
        let own = self.gateway.rows_of(self.table, row_ids).await?;
        let forgotten = self.gateway.forgotten();
        let mut own: HashMap<RowId, (Position, Row)> =
            own.into_iter().map(|(row_id, position, row)| (row_id, (position, row))).collect();
        let (mut later, mut newest, mut repairs) = (Vec::new(), reached, Vec::new());
        for row_id in std::mem::take(row_ids) {
            let theirs = held.remove(&row_id);
            let own = match own.remove(&row_id) {
                Some((position, _)) if reached < position => {
                    newest = newest.max(position);
                    later.push(row_id);
                    continue;
                }
                own => own.map(|(_, row)| row),
            };
            let difference = match judge(own.as_ref(), theirs.as_ref(), forgotten) {
                _ if is_same(own.as_ref(), theirs.as_ref()) => {
                    wrong.contains(&row_id).then_some(Difference::Changed)
                }
                Verdict::Same => None,
                Verdict::Behind if theirs.is_none() => Some(Difference::Missing),
                Verdict::Behind | Verdict::Outdated => Some(Difference::Outdated),
                // It may be the only copy of what somebody wrote.
                Verdict::Beyond if own.as_ref().is_some_and(Row::is_live) => {
                    Some(Difference::Newer)
                }
                Verdict::Beyond => Some(Difference::Extra),
            };
            if let Some(difference) = difference {
                self.report.count(&row_id, difference);
                let is_repaired = match difference {
                    Difference::Newer => false,
                    Difference::Extra => self.order.remove_extra,
                    _ => self.order.repair,
                };
                if is_repaired {
                    repairs.push((row_id.clone(), own.clone()));
                }
            }
            settled.insert(row_id, (own, theirs));
        }
        if !repairs.is_empty() {
            self.write(&repairs).await?;
        }
        *row_ids = later;
        Ok(newest)
    }

    /// Writes rows anew. What the database refuses of a row is left out where people look, though the
    /// write succeeds: so the rows are looked at once more.
    async fn write(&mut self, rows: &[(RowId, Option<Row>)]) -> Result<(), Stop> {
        self.adapter.overwrite(self.table, rows).await?;
        let kept = rows.iter().filter_map(|(row_id, row)| Some((row_id.clone(), row.clone()?)));
        let kept: Vec<(RowId, Row)> = kept.collect();
        let refused = self.adapter.misshown(self.table, &kept).await?;
        self.report.wrote(rows.len(), refused.len());
        Ok(())
    }
}

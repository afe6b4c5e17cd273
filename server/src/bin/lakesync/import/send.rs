//! Pushing rows: a batch at a time, again until the gateway has answered, and what it made of them.

use std::time::Duration;

use lakesync::delta::{Cell, Delta, Op};
use lakesync::error::{ErrorKind, Reason};
use lakesync::hlc::Hlc;
use lakesync::limits::PUSH_ROWS_MAX;
use lakesync::name::{ClientId, ColumnName, Gateway, RowId, TableName};
use lakesync::proto::v1::{Outcome, outcome};
use lakesync::stamp::Stamp;
use lakesync::status::Problem;
use lakesync::value::Value;
use lakesync_client::Transport;
use lakesync_client::transport::Push;
use lakesync_server::gateway::REPLAYED;
use tokio::time::Instant;

use super::refused::{Refused, Tally};
use super::state::Stamps;
use super::widen::Target;
use crate::exit::Exit;
use crate::sync::failed;

/// About what a push carries: a quarter of what a message may.
const PUSH_BYTES: usize = 1 << 20;
/// Rows in a push: some of them may be sent twice.
const ROWS_MAX: usize = PUSH_ROWS_MAX / 2;
/// What a change takes beside its values, and each of its cells.
const OVERHEAD_BYTES: usize = 32;
/// How the waits grow, and how long a gateway may take nothing before the import is given up.
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Who pushes, and where to.
pub(super) struct Sender<'a> {
    pub(super) server: &'a dyn Transport,
    pub(super) gateway: &'a Gateway,
    pub(super) client: ClientId,
    pub(super) table: TableName,
    pub(super) stamps: Stamps,
    waiting: Vec<Delta>,
    bytes: usize,
    pub(super) tally: Tally,
}

impl<'a> Sender<'a> {
    pub(super) fn new(
        server: &'a dyn Transport,
        gateway: &'a Gateway,
        client: ClientId,
        table: TableName,
        stamps: Stamps,
    ) -> Self {
        let (waiting, tally) = (Vec::new(), Tally::default());
        Self { server, gateway, client, table, stamps, waiting, bytes: 0, tally }
    }

    /// Takes a row, and pushes once there are many.
    pub(super) async fn add(&mut self, row_id: RowId, cells: Vec<Cell>) -> Result<(), Exit> {
        let sizes = cells.iter().map(|cell| OVERHEAD_BYTES + cell.value.size());
        let bytes = OVERHEAD_BYTES + row_id.as_str().len() + sizes.sum::<usize>();
        if !self.waiting.is_empty() && PUSH_BYTES < self.bytes + bytes {
            self.flush().await?;
        }
        self.bytes += bytes;
        let delta = self.delta(row_id, self.stamps.first, cells);
        self.waiting.push(delta);
        if ROWS_MAX <= self.waiting.len() {
            self.flush().await?;
        }
        Ok(())
    }

    /// Pushes what waits. What lost with the first run's stamp is tried with this run's: it may have
    /// changed since.
    pub(super) async fn flush(&mut self) -> Result<(), Exit> {
        self.bytes = 0;
        let deltas = std::mem::take(&mut self.waiting);
        let lost = self.push(deltas).await?;
        let Some(hlc) = self.stamps.again else {
            self.tally.kept += lost.len() as u64;
            return Ok(());
        };
        let anew = lost.into_iter().map(|mut delta| {
            delta.stamp.hlc = hlc;
            delta
        });
        let lost = self.push(anew.collect()).await?;
        self.tally.kept += lost.len() as u64;
        Ok(())
    }

    fn delta(&self, row_id: RowId, hlc: Hlc, cells: Vec<Cell>) -> Delta {
        let stamp = Stamp { hlc, client: self.client.clone() };
        Delta { table: self.table.clone(), row_id, stamp, op: Op::Upsert(cells) }
    }

    /// Pushes `deltas`, in parts if need be. What lost to newer writes, with the cells that did.
    async fn push(&mut self, deltas: Vec<Delta>) -> Result<Vec<Delta>, Exit> {
        let (mut parts, mut lost) = (vec![deltas], Vec::new());
        while let Some(mut deltas) = parts.pop() {
            if deltas.is_empty() {
                continue;
            }
            match self.answer(&deltas).await? {
                Answer::Told(outcomes) => self.settle(deltas, &outcomes, &mut lost),
                Answer::TooLarge(problem) if deltas.len() == 1 => {
                    let why = problem.message;
                    self.tally.refuse(Refused::row(deltas[0].row_id.as_str(), why));
                }
                Answer::TooLarge(_) => {
                    parts.push(deltas.split_off(deltas.len() / 2));
                    parts.push(deltas);
                }
            }
        }
        Ok(lost)
    }

    fn settle(&mut self, deltas: Vec<Delta>, outcomes: &[Outcome], lost: &mut Vec<Delta>) {
        // All changes are of one table: one group, in which they are counted as they were given.
        let mut told: Vec<Option<&Outcome>> = vec![None; deltas.len()];
        for outcome in outcomes {
            if let Some(slot) = told.get_mut(outcome.row as usize) {
                *slot = Some(outcome);
            }
        }
        for (delta, outcome) in deltas.into_iter().zip(told) {
            let Some(outcome) = outcome else {
                self.tally.written += 1;
                continue;
            };
            match outcome.kind() {
                outcome::Kind::Superseded if outcome.reason == REPLAYED => {
                    self.tally.unchanged += 1
                }
                outcome::Kind::Superseded => lost.push(delta),
                outcome::Kind::PartlySuperseded => lost.push(only(delta, &outcome.columns)),
                _ => self.tally.refuse(Refused::by(&delta, outcome)),
            }
        }
    }

    /// What the gateway says, once it says anything.
    async fn answer(&self, deltas: &[Delta]) -> Result<Answer, Exit> {
        // A push that takes long is no failure: only what follows one counts.
        let mut failing_since = None;
        let mut wait = WAIT_FIRST;
        loop {
            let push = Push { gateway: self.gateway, client: &self.client, deltas };
            let problem = match self.server.push(push).await {
                Ok(pushed) => return Ok(Answer::Told(pushed.outcomes)),
                Err(problem) => problem,
            };
            if is_too_large(&problem) {
                return Ok(Answer::TooLarge(problem));
            }
            let since = failing_since.get_or_insert_with(Instant::now);
            if !problem.kind.is_retryable() || PATIENCE < since.elapsed() {
                return Err(self.given_up(problem));
            }
            tracing::debug!(%problem, "the gateway takes nothing; trying again");
            tokio::time::sleep(problem.retry_after.unwrap_or_default() + wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    fn given_up(&self, problem: Problem) -> Exit {
        let way_out = match problem.reason {
            Some(Reason::ClientIdTaken) => {
                format!(
                    "; the token's sub must be that of the first import, which pushed as {}",
                    self.client
                )
            }
            Some(Reason::ScopeMissing | Reason::OutOfScope) => super::advice(&problem).to_owned(),
            _ => "; made again, the same command goes on".to_owned(),
        };
        failed(problem.into()).with(&way_out)
    }
}

enum Answer {
    Told(Vec<Outcome>),
    TooLarge(Problem),
}

/// A message beyond the server's limit is refused before it is read, and then without a reason.
fn is_too_large(problem: &Problem) -> bool {
    match problem.reason {
        Some(reason) => reason == Reason::TooLarge,
        None => problem.kind == ErrorKind::Expired,
    }
}

/// The change, as far as these columns go.
fn only(mut delta: Delta, columns: &[String]) -> Delta {
    if let Op::Upsert(cells) = &mut delta.op {
        cells.retain(|cell| columns.iter().any(|column| column == cell.column.as_str()));
    }
    delta
}

/// A row's cells; or the column that can't take its value, and why.
pub(super) fn cells(
    columns: &[Option<Target>],
    values: Vec<Value>,
) -> Result<Vec<Cell>, (ColumnName, String)> {
    let named = columns.iter().zip(values);
    let cell = |(target, value): (&Option<Target>, Value)| {
        let target = target.as_ref()?;
        let value = target.value(value).map_err(|why| (target.name.clone(), why));
        Some(value.map(|value| Cell { column: target.name.clone(), value }))
    };
    named.filter_map(cell).collect()
}

//! Sending what was written here, one batch after the other. A batch counts as sent once the
//! gateway has answered it; until then it is sent again, which changes nothing.

use lakesync::error::{ErrorKind, Reason};
use lakesync::limits::SKIP_POSITIONS_MAX;
use lakesync::name::Position;
use lakesync::proto::v1::{Outcome, outcome};
use lakesync::status::Problem;
use tokio::time::Instant;

use super::error::is_of_the_line;
use super::{Core, Round, SyncError};
use crate::db::{Batch, DbError, Settled, Share};
use crate::event::Event;
use crate::status::Phase;
use crate::transport::{Push, Pushed};

/// Times that stamps may be found ahead of the server's clock, each time corrected by it.
const DRIFTS_MAX: u32 = 3;

/// The state of sending everything.
struct Sending<'a> {
    /// How many changes the next batch may hold.
    rows_max: usize,
    /// How often the clock was found ahead and corrected.
    drifts: u32,
    /// The numbers, in order, of changes that stayed ahead all the same: the others go first.
    waiting: &'a mut Vec<i64>,
    /// Whether the schema was fetched because a change did not fit it.
    schema_fetched: bool,
    sent: Sent,
}

/// What was sent.
#[derive(Default)]
pub(super) struct Sent {
    /// The commits that the changes became.
    pub(super) committed: Vec<Position>,
    /// Whether another replica has given back what was to be given back here: its word is there to
    /// be pulled.
    pub(super) outrun: bool,
}

impl Core {
    /// Sends everything that was not sent yet. The changes numbered in `waiting`, which is sorted,
    /// are passed over, and those that are found ahead of the server's clock again and again join
    /// them.
    pub(super) async fn push_all(
        &self,
        waiting: &mut Vec<i64>,
        round: &mut Round,
    ) -> Result<Sent, SyncError> {
        let waited = waiting.len();
        let mut sending = Sending {
            rows_max: self.push_rows_max(),
            drifts: 0,
            waiting,
            schema_fetched: false,
            sent: Sent::default(),
        };
        while let Some(batch) = self.next_batch(sending.rows_max, sending.waiting).await? {
            self.board.enter(Phase::Pushing);
            self.push_batch(batch, &mut sending, round).await?;
            self.count().await?;
        }
        // Leaving out one's own commits saves work; the rest of them may arrive.
        sending.sent.committed.truncate(SKIP_POSITIONS_MAX);
        let changes = sending.waiting.len();
        if waited < changes {
            tracing::warn!(
                changes,
                "changes wait: the server finds their stamps ahead of its clock"
            );
        }
        Ok(sending.sent)
    }

    /// What to send next: at most so many changes, and about as much as the line carries well.
    async fn next_batch(&self, rows_max: usize, waiting: &[i64]) -> Result<Option<Batch>, DbError> {
        self.db.pending(Share { rows_max, bytes_target: self.sizing.push_bytes() }, waiting).await
    }

    async fn push_batch(
        &self,
        batch: Batch,
        sending: &mut Sending<'_>,
        round: &mut Round,
    ) -> Result<(), SyncError> {
        if batch.deltas.is_empty() {
            let settled = self.db.settle(batch, &[]).await?;
            self.tell_settled(settled, round);
            return Ok(());
        }
        let (gateway, client) = (&self.gateway, self.db.client_id());
        let push = Push { gateway, client, deltas: &batch.deltas };
        let began = Instant::now();
        match self.transport.push(push).await {
            Ok(pushed) => {
                self.sizing.pushed(batch.bytes, began.elapsed());
                self.settle(batch, pushed, sending, round).await
            }
            Err(problem) if is_too_large(&problem) && batch.deltas.len() == 1 => {
                let settled = self.db.settle(batch, &[refused(&problem)]).await?;
                self.tell_settled(settled, round);
                Ok(())
            }
            Err(problem) if is_too_large(&problem) => {
                sending.rows_max = batch.deltas.len() / 2;
                Ok(())
            }
            Err(problem) => {
                if is_of_the_line(&problem) {
                    self.sizing.push_failed();
                }
                Err(problem.into())
            }
        }
    }

    async fn settle(
        &self,
        batch: Batch,
        pushed: Pushed,
        sending: &mut Sending<'_>,
        round: &mut Round,
    ) -> Result<(), SyncError> {
        // What has taken effect is found to be there already when the batch is sent again.
        let misfit = pushed.outcomes.iter().any(is_misfit);
        let first = misfit && !std::mem::replace(&mut sending.schema_fetched, true);
        if first && self.refresh_schema().await? {
            return Ok(());
        }
        let rows = batch.deltas.len();
        let settled = self.db.settle(batch, &pushed.outcomes).await?;
        let drifted = settled.drifted.clone();
        sending.sent.outrun |= settled.outrun;
        self.tell_settled(settled, round);
        self.tell_pushed(&pushed, rows);
        sending.sent.committed.extend(pushed.position);
        if drifted.is_empty() {
            return Ok(self.observe(pushed.server_hlc).await?);
        }
        sending.drifts += 1;
        if DRIFTS_MAX < sending.drifts {
            sending.waiting.extend(drifted);
            sending.waiting.sort_unstable();
        }
        // The server's wall clock, exactly: `server_hlc` may be ahead of it.
        self.forget_server();
        self.greet().await
    }

    fn tell_settled(&self, settled: Settled, round: &mut Round) {
        round.accepted += settled.accepted;
        round.superseded += settled.superseded.len();
        round.rejected += settled.rejected.len();
        for superseded in settled.superseded {
            self.bell.tell(Event::Superseded(superseded));
        }
        for rejected in settled.rejected {
            self.bell.tell(Event::Rejected(rejected));
        }
    }

    fn tell_pushed(&self, pushed: &Pushed, rows: usize) {
        self.board.note(|status| {
            status.traffic.up_rows += rows as u64;
            status.traffic.up_bytes += pushed.bytes;
        });
        self.bell.tell(Event::Pushed { position: pushed.position, rows });
    }

    /// Whether anything waits to be sent.
    pub(super) async fn has_pending(&self) -> Result<bool, DbError> {
        self.count().await?;
        Ok(0 < self.board.read().pending)
    }
}

/// A message beyond the server's limit is refused before it is read, and then without a reason; a
/// push has no cursor that could be out of range.
fn is_too_large(problem: &Problem) -> bool {
    match problem.reason {
        Some(reason) => reason == Reason::TooLarge,
        None => problem.kind == ErrorKind::Expired,
    }
}

fn is_misfit(outcome: &Outcome) -> bool {
    outcome.reason == Reason::SchemaMismatch.as_str()
}

/// The outcome of a batch of one change that is too large by itself.
fn refused(problem: &Problem) -> Outcome {
    Outcome {
        table: 0,
        row: 0,
        kind: outcome::Kind::Rejected.into(),
        reason: Reason::TooLarge.to_string(),
        message: problem.message.clone(),
        columns: Vec::new(),
    }
}

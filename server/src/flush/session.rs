//! Reaching a backend: what it has, and from where it goes on. Settled by reading, never by deleting.

use std::sync::Arc;

use lakesync::adapter::{Adapter, Batch};
use lakesync::name::{LogId, Position, RowId};
use lakesync::schema::Schema;
use tokio::sync::watch;

use super::fill::{Fill, Held, beside, level};
use super::reconcile::pairs;
use super::{Backend, Failure, failpoint};
use crate::gateway::{Gateway, Mark, Needs, Progress};

/// What is known of a backend that was reached.
pub(super) struct Session {
    /// How far it has come.
    pub(super) mark: Mark,
    pub(super) prepared: Arc<Schema>,
}

/// One backend of one gateway, and who is told how it goes.
#[derive(Clone, Copy)]
pub(super) struct Reach<'r> {
    pub(super) gateway: &'r Gateway,
    pub(super) backend: &'r Backend,
    pub(super) adapter: &'r dyn Adapter,
    /// Held while rows are written.
    pub(super) turn: &'r tokio::sync::Mutex<()>,
    pub(super) progress: &'r watch::Sender<Progress>,
}

impl Session {
    /// Reaches the backend, and fills it with rows if the log begins too late for it. How far that
    /// has come is in `fill`, for the next time if it breaks off.
    pub(super) async fn begin(reach: Reach<'_>, fill: &mut Option<Fill>) -> Result<Self, Failure> {
        let Reach { gateway, backend, adapter, progress, .. } = reach;
        let name = &backend.name;
        let log = gateway.record().log_id;
        let known = progress.borrow().mark;
        // Before anything is changed there: it may be somebody else's.
        let position = whose(adapter, log, known.as_ref()).await?;
        let prepared = gateway.schema();
        adapter.prepare(&prepared).await?;
        failpoint::reach("after-prepare");
        let position = match (position, known) {
            (Position::START, Some(known)) if known.log != log && !known.is_ahead => {
                continue_log(gateway, adapter, &known).await?
            }
            (position, _) => position,
        };
        let was_ahead = known.filter(|known| known.log == log && known.is_ahead);
        if was_ahead.is_some() || gateway.head()? < position {
            let mark = was_ahead.unwrap_or(Mark { log, position, changes: 0, is_ahead: true });
            progress.send_modify(|progress| progress.mark = Some(mark));
            // For good: the log will grow past that position, and be another one.
            gateway.remember(name, mark).await?;
            return Err(Failure::Ahead(mark.position));
        }
        if known.is_some_and(|known| known.log == log && position < known.position) {
            // It was emptied, or put back to an older state. Who asks how far it is hears so from now
            // on, not once it has caught up.
            let mark = Mark { log, position, changes: 0, is_ahead: false };
            progress.send_modify(|progress| progress.mark = Some(mark));
        }
        let changes = match known {
            Some(known) if known.log == log && known.position == position => known.changes,
            // Not known exactly: what was flushed and not remembered is counted as waiting.
            Some(known) if known.log == log && known.position < position => known.changes,
            _ => 0,
        };
        let mark = Mark { log, position, changes, is_ahead: false };
        let mut session = Self { mark, prepared };
        if position < gateway.trimmed() {
            let filled = session.fill(reach, fill).await;
            if filled.is_err() {
                // Nothing of the log is kept for a backend that is away.
                progress.send_modify(|progress| progress.floor = Needs::Rows);
            }
            filled?;
        }
        *fill = None;
        let mark = session.mark;
        let has_all = gateway.head()? == mark.position;
        progress.send_modify(|progress| {
            progress.mark = Some(mark);
            if has_all {
                progress.error = None;
            }
            progress.floor = Needs::After(mark.position);
            progress.prepared = Some(Arc::clone(&session.prepared));
        });
        gateway.remember(name, mark).await?;
        Ok(session)
    }

    /// Whether there is room for all that the schema has.
    pub(super) fn is_prepared(&self, gateway: &Gateway) -> bool {
        Arc::ptr_eq(&gateway.schema(), &self.prepared)
    }

    /// Makes room for what the schema has gained.
    pub(super) async fn prepare(&mut self, reach: Reach<'_>) -> Result<(), Failure> {
        let Reach { gateway, adapter, progress, .. } = reach;
        if !self.is_prepared(gateway) {
            let schema = gateway.schema();
            adapter.prepare(&schema).await?;
            progress.send_modify(|progress| progress.prepared = Some(Arc::clone(&schema)));
            self.prepared = schema;
        }
        Ok(())
    }

    /// Makes the backend's rows those of the gateway, and then gives it the position where that began.
    async fn fill(&mut self, reach: Reach<'_>, held: &mut Option<Fill>) -> Result<(), Failure> {
        let Reach { gateway, adapter, progress, .. } = reach;
        // From here on the log is trimmed no further than this.
        let hold = |start| progress.send_modify(|progress| progress.floor = Needs::After(start));
        adapter.fence().await?;
        let goes_on = match held.as_ref() {
            Some(fill) => {
                hold(fill.start);
                fill.goes_on(gateway, adapter).await?
            }
            None => false,
        };
        if !goes_on {
            tracing::info!(backend = %adapter, "the log begins too late: all rows are compared");
            *held = Some(Fill::new(gateway, adapter, &self.prepared).await?);
        }
        let fill = held.as_mut().expect("BUG: it was put there just now");
        hold(fill.start);
        gateway.retain().await?;
        let schema = gateway.schema();
        for table in schema.tables() {
            let Some(mut after) = fill.after(&table.table) else { continue };
            let mut held = Held::of(adapter, &table.table, after.clone());
            loop {
                let page = self.page(reach, &mut held, fill, after);
                let Some(last) = page.await? else { break };
                after = Some(last);
            }
        }
        adapter.write(&moves(self.mark.log, self.mark.position, fill.start)).await?;
        let (written, removed) = (fill.tally.written, fill.tally.removed);
        tracing::info!(backend = %adapter, written, removed, "all rows are there");
        self.mark = Mark { position: fill.start, changes: fill.changes, ..self.mark };
        Ok(())
    }

    /// Compares a page of the gateway's rows with those of the backend up to the same row, or all
    /// that are left once the gateway has no more. Returns the last row of the gateway's, if there
    /// was any.
    async fn page(
        &mut self,
        reach: Reach<'_>,
        held: &mut Held<'_>,
        fill: &mut Fill,
        after: Option<RowId>,
    ) -> Result<Option<RowId>, Failure> {
        let Reach { gateway, backend, adapter, .. } = reach;
        // A page is a turn: other gateways go on writing meanwhile.
        let mut turn = backend.turn().await;
        let rows = gateway.rows_after(held.table(), after.as_ref()).await?;
        // A table that was widened meanwhile holds what the old type does not.
        if !self.is_prepared(gateway) {
            drop(turn);
            self.prepare(reach).await?;
            turn = backend.turn().await;
        }
        let _writing = reach.turn.lock().await;
        let last = rows.last().map(|(row_id, _)| row_id.clone());
        let mut rest = &rows[..];
        loop {
            let (theirs, is_all) = held.next(last.as_ref()).await?;
            let own = beside(&mut rest, &theirs, is_all);
            let done = level(adapter, held.table(), &pairs(own, &theirs), gateway).await?;
            fill.tally.written += done.written;
            fill.tally.removed += done.removed;
            if is_all {
                break;
            }
        }
        drop(turn);
        failpoint::reach("after-page");
        if let Some(last) = &last {
            fill.came_to(held.table(), last.clone());
        }
        Ok(last)
    }
}

/// How far the backend has come in `log`, unless it holds somebody else's rows.
async fn whose(
    adapter: &dyn Adapter,
    log: LogId,
    known: Option<&Mark>,
) -> Result<Position, Failure> {
    let position = adapter.watermark(log).await?;
    if position != Position::START {
        return Ok(position);
    }
    let logs = adapter.logs().await?;
    let ours = |other: &LogId| *other == log || known.is_some_and(|known| known.log == *other);
    match logs.is_empty() || logs.iter().any(ours) {
        true => Ok(Position::START),
        false => Err(Failure::Foreign),
    }
}

/// Goes on where the log ended that this one continues: a gateway restored from a copy begins a new
/// log, and its commits up to the mark in the copy are those that the backend has.
async fn continue_log(
    gateway: &Gateway,
    adapter: &dyn Adapter,
    known: &Mark,
) -> Result<Position, Failure> {
    if adapter.watermark(known.log).await? < known.position || known.position == Position::START {
        return Ok(Position::START);
    }
    let log = gateway.record().log_id;
    adapter.write(&moves(log, Position::START, known.position)).await?;
    Ok(known.position)
}

/// A batch that moves a watermark, and does nothing else.
fn moves(log: LogId, from: Position, to: Position) -> Batch {
    Batch::new(log, from.next(), to, Vec::new()).expect("BUG: positions that do not ascend")
}

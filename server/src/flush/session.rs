//! Reaching a backend: what it has, and from where it goes on. Settled by reading, never by deleting.

use std::sync::Arc;

use lakesync::adapter::{Adapter, Batch};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::schema::Schema;
use tokio::sync::watch;

use super::fill::Fill;
use super::{Backend, Failure, failpoint};
use crate::gateway::{AHEAD, Gateway, Mark, NEEDS_ROWS, Progress};

/// What is known of a backend that was reached.
pub(super) struct Session {
    /// How far it has come.
    pub(super) mark: Mark,
    pub(super) prepared: Arc<Schema>,
}

impl Session {
    /// Reaches the backend, and fills it with rows if the log begins too late for it. How far that
    /// has come is in `fill`, for the next time if it breaks off.
    pub(super) async fn begin(
        gateway: &Gateway,
        backend: &Backend,
        adapter: &dyn Adapter,
        progress: &watch::Sender<Progress>,
        fill: &mut Option<Fill>,
    ) -> Result<Self, Failure> {
        let name = &backend.name;
        let log = gateway.record().log_id;
        let known = progress.borrow().mark;
        // Before anything is changed there: it may be somebody else's.
        let position = whose(adapter, log, known.as_ref()).await?;
        let prepared = gateway.schema();
        adapter.prepare(&prepared).await?;
        failpoint::reach("after-prepare");
        let position = match (position, known) {
            (Position::START, Some(known)) if known.log != log && known.changes != AHEAD => {
                continue_log(gateway, adapter, &known).await?
            }
            (position, _) => position,
        };
        let was_ahead = known.filter(|known| known.log == log && known.changes == AHEAD);
        if was_ahead.is_some() || gateway.head()? < position {
            let mark = was_ahead.unwrap_or(Mark { log, position, changes: AHEAD });
            progress.send_modify(|progress| progress.mark = Some(mark));
            // For good: the log will grow past that position, and be another one.
            gateway.remember(name, mark).await?;
            return Err(Failure::Ahead(mark.position));
        }
        let changes = match known {
            Some(known) if known.log == log && known.position == position => known.changes,
            // Not known exactly: what was flushed and not remembered is counted as waiting.
            Some(known) if known.log == log && known.position < position => known.changes,
            _ => 0,
        };
        let mut session = Self { mark: Mark { log, position, changes }, prepared };
        if position < gateway.trimmed() {
            let filled = session.fill(gateway, backend, adapter, progress, fill).await;
            if filled.is_err() {
                // Nothing of the log is kept for a backend that is away.
                progress.send_modify(|progress| progress.floor = NEEDS_ROWS);
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
            progress.floor = mark.position;
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
    pub(super) async fn prepare(
        &mut self,
        gateway: &Gateway,
        adapter: &dyn Adapter,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        if !self.is_prepared(gateway) {
            let schema = gateway.schema();
            adapter.prepare(&schema).await?;
            progress.send_modify(|progress| progress.prepared = Some(Arc::clone(&schema)));
            self.prepared = schema;
        }
        Ok(())
    }

    /// Gives the backend every row as it is now, and then the position where that began.
    async fn fill(
        &mut self,
        gateway: &Gateway,
        backend: &Backend,
        adapter: &dyn Adapter,
        progress: &watch::Sender<Progress>,
        held: &mut Option<Fill>,
    ) -> Result<(), Failure> {
        // From here on the log is trimmed no further than this.
        let hold = |start| progress.send_modify(|progress| progress.floor = start);
        let goes_on = match held.as_ref() {
            Some(fill) => {
                hold(fill.start);
                fill.goes_on(gateway, adapter).await?
            }
            None => false,
        };
        if !goes_on {
            tracing::info!(backend = %adapter, "the log begins too late: all rows are written");
            *held = Some(Fill::new(gateway, adapter).await?);
        }
        let fill = held.as_mut().expect("BUG: it was put there just now");
        hold(fill.start);
        gateway.retain().await?;
        let schema = gateway.schema();
        for table in schema.tables() {
            let Some(mut after) = fill.after(&table.table) else { continue };
            loop {
                let page =
                    self.page(gateway, backend, adapter, progress, &table.table, after.as_ref());
                let Some(last) = page.await? else { break };
                fill.came_to(&table.table, last.clone());
                after = Some(last);
            }
        }
        adapter.write(&moves(self.mark.log, self.mark.position, fill.start)).await?;
        self.mark = Mark { position: fill.start, changes: fill.changes, ..self.mark };
        Ok(())
    }

    /// Writes a page of rows. Returns the last one, if there was any.
    async fn page(
        &mut self,
        gateway: &Gateway,
        backend: &Backend,
        adapter: &dyn Adapter,
        progress: &watch::Sender<Progress>,
        table: &TableName,
        after: Option<&RowId>,
    ) -> Result<Option<RowId>, Failure> {
        // A page is a turn: other gateways go on writing meanwhile.
        let mut turn = backend.turn().await;
        let rows = gateway.rows_after(table, after).await?;
        let Some((last, _)) = rows.last() else { return Ok(None) };
        // A table that was widened meanwhile holds what the old type does not.
        if !self.is_prepared(gateway) {
            drop(turn);
            self.prepare(gateway, adapter, progress).await?;
            turn = backend.turn().await;
        }
        adapter.join(table, &rows).await?;
        drop(turn);
        failpoint::reach("after-page");
        Ok(Some(last.clone()))
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

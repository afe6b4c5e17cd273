//! Reaching a backend: what it has, and from where it goes on. Settled by reading, never by deleting.

use std::sync::Arc;

use lakesync::adapter::{Adapter, Batch};
use lakesync::name::{LogId, Position};
use lakesync::schema::Schema;
use tokio::sync::watch;

use super::{Backend, Failure, failpoint};
use crate::gateway::{AHEAD, Gateway, Mark, NEEDS_ROWS, Progress};

/// What is known of a backend that was reached.
pub(super) struct Session {
    /// How far it has come.
    pub(super) mark: Mark,
    pub(super) prepared: Arc<Schema>,
}

impl Session {
    /// Reaches the backend, and fills it with rows if the log begins too late for it.
    pub(super) async fn begin(
        gateway: &Gateway,
        backend: &Backend,
        adapter: &dyn Adapter,
        progress: &watch::Sender<Progress>,
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
            let filled = session.fill(gateway, backend, adapter, progress).await;
            if filled.is_err() {
                // It begins anew, from where the log is then.
                progress.send_modify(|progress| progress.floor = NEEDS_ROWS);
            }
            filled?;
        }
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

    /// Gives the backend every row as it is now, and then the position where that began: what has
    /// changed meanwhile comes again with the log, and merges to the same.
    async fn fill(
        &mut self,
        gateway: &Gateway,
        backend: &Backend,
        adapter: &dyn Adapter,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        let (changes, _) = gateway.growth().total();
        let start = gateway.head()?;
        tracing::info!(backend = %adapter, "the log begins too late: all rows are written");
        // The log may be trimmed up to here: nothing before it is needed any more.
        progress.send_modify(|progress| progress.floor = start);
        gateway.retain().await?;
        let schema = gateway.schema();
        for table in schema.tables() {
            let mut after = None;
            loop {
                // A page is a turn: other gateways go on writing meanwhile.
                let mut turn = backend.turn().await;
                let rows = gateway.rows_after(&table.table, after.as_ref()).await?;
                let Some((last, _)) = rows.last() else { break };
                // A table that was widened meanwhile holds what the old type does not.
                if !self.is_prepared(gateway) {
                    drop(turn);
                    self.prepare(gateway, adapter, progress).await?;
                    turn = backend.turn().await;
                }
                adapter.join(&table.table, &rows).await?;
                drop(turn);
                failpoint::reach("after-page");
                after = Some(last.clone());
            }
        }
        adapter.write(&moves(self.mark.log, self.mark.position, start)).await?;
        self.mark = Mark { position: start, changes, ..self.mark };
        Ok(())
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

//! Copying all of one backend to another, of whatever kind the two are.
//!
//! The source's watermarks are read first, and given to the target last: what is written to the
//! source meanwhile, the gateway writes to the target again, which changes nothing that is there.
//! Every step may be repeated. What is held in memory is a page of each side.

use std::ops::ControlFlow;

use lakesync::adapter::{Adapter, AdapterError, Batch};
use lakesync::name::{Position, RowId, TableName};
use lakesync::row::Row;

use crate::fit;
use crate::pace::{self, Pace};

mod checkpoint;
mod verify;

pub use checkpoint::{BadCheckpoint, Checkpoint};
pub use verify::{Difference, Report, Tally, verify};

use checkpoint::Stage;

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing is copied yet. To be kept all the same: without it, a target that the first page
    /// reached is taken for another's.
    Begun,
    /// So many rows of a table are copied.
    Rows(&'a TableName, u64),
    /// So many changes of the history are copied.
    Changes(u64),
    /// The target has the source's watermarks: it is complete.
    Copied,
    /// So many rows of a table were found to be the same.
    Verified(&'a TableName, u64),
}

/// Who is told how far a migration has come.
pub trait Progress: Send {
    /// After each step. A migration that breaks off later resumes from `at`, if it was kept. To
    /// break it off here, return [`ControlFlow::Break`].
    fn done(&mut self, step: Step<'_>, at: &Checkpoint) -> ControlFlow<()>;
}

/// Why a migration broke off. Unless the two differ, it can be resumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigrateError {
    /// The source failed.
    #[error("the source failed: {0}")]
    Source(#[source] AdapterError),
    /// The target failed.
    #[error("the target failed: {0}")]
    Target(#[source] AdapterError),
    /// The target is not empty, and nothing says that this migration filled it.
    #[error(
        "the target already holds {0}: choose an empty one, such as another schema, database or \
         prefix, or resume the migration that filled it from its checkpoint"
    )]
    Filled(String),
    /// The two are not the same, though nothing was written meanwhile.
    #[error("the target is not what the source is: {0}")]
    Differs(Difference),
    /// [`Progress`] said so.
    #[error("stopped; resume from the last checkpoint")]
    Stopped,
}

/// Copies all that `source` holds to `target`, or what is left of it after `from`, and verifies it.
pub async fn migrate(
    source: &dyn Adapter,
    target: &dyn Adapter,
    from: Option<Checkpoint>,
    progress: &mut dyn Progress,
) -> Result<Report, MigrateError> {
    let mut at = match from {
        Some(checkpoint) => checkpoint,
        None => begin(source, target, progress).await?,
    };
    let schema = source.schema().await.map_err(MigrateError::Source)?;
    target.prepare(&schema).await.map_err(MigrateError::Target)?;
    let mut copy = Copy { source, target, progress };
    for table in schema.tables().map(|table| &table.table) {
        copy.rows(table, &mut at).await?;
    }
    copy.history(&mut at).await?;
    copy.watermarks(&mut at).await?;
    verify(source, target, &at, progress).await
}

async fn begin(
    source: &dyn Adapter,
    target: &dyn Adapter,
    progress: &mut dyn Progress,
) -> Result<Checkpoint, MigrateError> {
    if let Some(what) = held(target).await.map_err(MigrateError::Target)? {
        return Err(MigrateError::Filled(what));
    }
    let at = Checkpoint::first(watermarks(source).await.map_err(MigrateError::Source)?);
    tell(progress, Step::Begun, &at)?;
    Ok(at)
}

/// What a backend holds, if it holds anything.
async fn held(target: &dyn Adapter) -> Result<Option<String>, AdapterError> {
    let logs = target.logs().await?.len();
    if logs != 0 {
        return Ok(Some(format!("rows of {logs} {}", if logs == 1 { "log" } else { "logs" })));
    }
    for table in target.schema().await?.tables() {
        if !target.rows(&table.table, None, 1).await?.is_empty() {
            return Ok(Some(format!("rows in table {}", table.table)));
        }
    }
    let history = target.history(None, 1).await?;
    Ok((!history.is_empty()).then(|| "a history".to_owned()))
}

/// The watermark of each log, in the order of their ids.
async fn watermarks(source: &dyn Adapter) -> Result<checkpoint::Watermarks, AdapterError> {
    let mut all = checkpoint::Watermarks::new();
    for log in source.logs().await? {
        all.insert(log, source.watermark(log).await?);
    }
    Ok(all)
}

fn tell(progress: &mut dyn Progress, step: Step<'_>, at: &Checkpoint) -> Result<(), MigrateError> {
    if progress.done(step, at).is_break() { Err(MigrateError::Stopped) } else { Ok(()) }
}

struct Copy<'a> {
    source: &'a dyn Adapter,
    target: &'a dyn Adapter,
    progress: &'a mut dyn Progress,
}

impl Copy<'_> {
    /// Copies a table from where the checkpoint stands in it, unless it stands beyond.
    async fn rows(&mut self, table: &TableName, at: &mut Checkpoint) -> Result<(), MigrateError> {
        let (mut after, mut done) = match &at.stage {
            Stage::Rows { table: reached, .. } if table < reached => return Ok(()),
            Stage::Rows { table: reached, after, done } if table == reached => {
                (Some(after.clone()), *done)
            }
            Stage::Begun | Stage::Rows { .. } => (None, 0),
            Stage::History { .. } | Stage::Watermarks | Stage::Copied => return Ok(()),
        };
        let mut pace = Pace::default();
        loop {
            let page = self.source.rows(table, after.as_ref(), pace.count()).await;
            let page = page.map_err(MigrateError::Source)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            self.join(table, &page).await?;
            done += page.len() as u64;
            after = Some(last.clone());
            at.stage = Stage::Rows { table: table.clone(), after: last.clone(), done };
            tell(self.progress, Step::Rows(table, done), at)?;
            pace.took(
                page.len(),
                page.iter().map(|(id, row)| id.as_str().len() + row.size()).sum(),
            );
        }
    }

    /// Rows may be of a schema that the source was prepared for meanwhile.
    async fn join(&self, table: &TableName, page: &[(RowId, Row)]) -> Result<(), MigrateError> {
        let joined = self.target.join(table, page).await;
        if !joined.as_ref().is_err_and(fit::is_outdated) {
            return joined.map_err(MigrateError::Target);
        }
        let schema = self.source.schema().await.map_err(MigrateError::Source)?;
        self.target.prepare(&schema).await.map_err(MigrateError::Target)?;
        self.target.join(table, page).await.map_err(MigrateError::Target)
    }

    async fn history(&mut self, at: &mut Checkpoint) -> Result<(), MigrateError> {
        let (mut after, mut done) = match at.stage {
            Stage::Begun | Stage::Rows { .. } => (None, 0),
            Stage::History { after, done } => (Some(after), done),
            Stage::Watermarks | Stage::Copied => return Ok(()),
        };
        let mut pace = Pace::default();
        loop {
            let page = self.source.history(after.as_ref(), pace.count()).await;
            let page = page.map_err(MigrateError::Source)?;
            let Some(last) = page.last().map(|change| change.place) else { break };
            self.target.record(&page).await.map_err(MigrateError::Target)?;
            done += page.len() as u64;
            after = Some(last);
            at.stage = Stage::History { after: last, done };
            tell(self.progress, Step::Changes(done), at)?;
            pace.took(page.len(), page.iter().map(|change| pace::size(&change.delta)).sum());
        }
        at.stage = Stage::Watermarks;
        tell(self.progress, Step::Changes(done), at)
    }

    /// From here on, the gateway may write to the target.
    async fn watermarks(&mut self, at: &mut Checkpoint) -> Result<(), MigrateError> {
        if at.stage != Stage::Copied {
            for (log, position) in at.watermarks.iter().filter(|(_, at)| **at != Position::START) {
                let all = Batch::new(*log, Position::START.next(), *position, Vec::new());
                let all = all.expect("BUG: from the first position to a later one");
                self.target.write(&all).await.map_err(MigrateError::Target)?;
            }
            at.stage = Stage::Copied;
        }
        tell(self.progress, Step::Copied, at)
    }
}

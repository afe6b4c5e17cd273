//! What commits hold for a reader that sees everything. From memory, if the newest commits there reach
//! back to where the reader stands; else from the store.

use std::sync::Arc;

use lakesync::name::Position;
use lakesync::proto::v1::TableChanges;

use super::ReadError;
use super::commit::{self, Commit};
use super::draft::{Batch, Drafts};
use super::stand::Stand;
use crate::store::{LogEntry, StoreError};

/// The next pages of a reader, up to `durable`.
pub(super) async fn gather(
    stand: &Stand,
    mut batch: Batch<'_>,
    durable: Position,
) -> Result<Drafts, ReadError> {
    let mut through = stand.at();
    for commit in next(stand, batch.read_bytes(), durable).await? {
        through = commit.position;
        if let Some(drafts) =
            batch.add((commit.position, Some(commit.chain)), wanted(stand, &commit)?)?
        {
            return Ok(drafts);
        }
    }
    Ok(batch.close(through)?)
}

/// The commits that follow, about `bytes_max` of them, and one at least.
async fn next(
    stand: &Stand,
    bytes_max: usize,
    durable: Position,
) -> Result<Vec<Arc<Commit>>, ReadError> {
    let (inner, at) = (&stand.gateway.0, stand.at());
    if let Some(recent) = inner.tail.after(at, bytes_max) {
        return Ok(recent);
    }
    let stored = inner.store.log(inner.record.id, at, bytes_max).await;
    // Asked after the reading, whatever came of it: the log may have been trimmed meanwhile, which
    // leaves a gap, or nothing to read.
    stand.gateway.check_held(at)?;
    let commit = |entry: LogEntry| Commit::new(entry.position, entry.commit, Vec::new());
    let shown = stored?.into_iter().filter(|entry| entry.position <= durable);
    let commits: Vec<_> = shown.map(|entry| Arc::new(commit(entry))).collect();
    if commits.is_empty() {
        let gap = format!("the log ends after {at} and its head is {durable}");
        return Err(StoreError::Corrupt(gap).into());
    }
    Ok(commits)
}

/// What of a commit this reader is to have.
fn wanted(stand: &Stand, commit: &Commit) -> Result<Vec<TableChanges>, ReadError> {
    let mut tables = commit::decode(&commit.bytes)?;
    if stand.has_already(commit.position, commit::pushed_by(&tables)) {
        return Ok(Vec::new());
    }
    stand.narrow(&mut tables);
    Ok(tables)
}

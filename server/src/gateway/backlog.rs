//! What a backend is still to be given: durable commits in order, and rows where the log begins too
//! late.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use lakesync::adapter::Commit;
use lakesync::hlc::Hlc;
use lakesync::limits::COPY_BYTES_TARGET;
use lakesync::name::{Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;
use lakesync::wire;
use tokio::sync::watch;

use super::flushed::{Mark, Progress};
use super::message::Message;
use super::{Gateway, Inner, commit, keys, stored};
use crate::store::{LogEntry, StoreError};

/// Commits that follow one another.
#[derive(Clone, Debug)]
pub struct Backlog {
    /// The commits, in order; one at least.
    pub commits: Vec<Commit>,
    /// How many changes they hold.
    pub changes: u64,
    /// How many bytes they take in the log.
    pub bytes: usize,
    /// When the first of them was made, in milliseconds since the Unix epoch.
    pub made_ms: u64,
}

/// How much one reading of the log takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins: after this position.
    pub after: Position,
    /// Where it ends at the latest.
    pub through: Position,
    /// After how many changes it ends.
    pub changes_max: u64,
    /// Before how many bytes it ends, but for the first commit.
    pub bytes_max: usize,
}

/// How much is read from the log at a time. What small changes fill is mostly much less than the
/// bytes that would do as well, and what was read beyond would be read again with the next batch.
const PIECE_BYTES_MAX: usize = 256 << 10;

impl Stretch {
    /// How many more bytes `backlog` may take; none if it is complete.
    fn left(&self, backlog: Option<&Backlog>) -> Option<usize> {
        let Some(Backlog { changes, bytes, .. }) = backlog else { return Some(self.bytes_max) };
        let left = self.bytes_max.checked_sub(*bytes).filter(|left| 0 < *left);
        left.filter(|_| *changes < self.changes_max)
    }
}

impl Backlog {
    fn add(backlog: &mut Option<Self>, entry: &LogEntry) -> Result<(), StoreError> {
        let (commit, made_ms) = decode(entry)?;
        let empty = || Self { commits: Vec::new(), changes: 0, bytes: 0, made_ms };
        let backlog = backlog.get_or_insert_with(empty);
        backlog.changes += commit.deltas.len() as u64;
        backlog.bytes += entry.commit.len();
        backlog.commits.push(commit);
        Ok(())
    }
}

/// A gateway, for as long as somebody else keeps it open.
#[derive(Clone, Debug)]
pub struct WeakGateway(Weak<Inner>);

impl WeakGateway {
    /// The gateway, unless it was closed.
    pub fn upgrade(&self) -> Option<Gateway> {
        self.0.upgrade().map(Gateway)
    }
}

/// Tells of a gateway's growth without keeping it open.
#[derive(Clone, Debug)]
pub struct Growth {
    head: watch::Receiver<Result<Position, StoreError>>,
    schema: watch::Receiver<Arc<Schema>>,
    gauges: Arc<super::Gauges>,
}

impl Growth {
    /// The newest durable commit, or why there is none any more.
    pub fn head(&self) -> Result<Position, StoreError> {
        self.head.borrow().clone()
    }

    /// How many changes and bytes the log was ever given.
    pub fn total(&self) -> (u64, u64) {
        self.gauges.total()
    }

    /// The tables.
    pub fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema.borrow())
    }

    /// Resolves when the head has moved, or the tables have grown, since it was last asked; false if
    /// neither ever will again.
    pub async fn moved(&mut self) -> bool {
        tokio::select! {
            moved = self.head.changed() => moved.is_ok(),
            grown = self.schema.changed() => grown.is_ok(),
        }
    }

    /// Resolves once the log has failed or was closed.
    pub async fn ended(&mut self) {
        // An error means that nobody is there to move it any more.
        let _ = self.head.wait_for(Result::is_err).await;
    }
}

impl Gateway {
    /// This gateway, without keeping it open.
    pub fn downgrade(&self) -> WeakGateway {
        WeakGateway(Arc::downgrade(&self.0))
    }

    /// What tells of this gateway's growth.
    pub fn growth(&self) -> Growth {
        let schema = self.0.schema.clone();
        Growth { head: self.0.tail.listen(), schema, gauges: Arc::clone(&self.0.gauges) }
    }

    /// The newest durable commit.
    pub fn head(&self) -> Result<Position, StoreError> {
        self.0.tail.head()
    }

    /// Through which position the log was trimmed.
    pub fn trimmed(&self) -> Position {
        self.0.gauges.trimmed()
    }

    /// Deletes before this may have been forgotten. So a row that the gateway lacks, and of which a
    /// backend has nothing newer than this, may have been deleted. Any other delete is remembered.
    pub fn forgotten(&self) -> Hlc {
        Hlc(self.0.gauges.swept.load(Ordering::Acquire))
    }

    /// How flushing to the backend `name` goes, as whoever flushes tells it.
    pub fn progress(&self, name: &str) -> Option<watch::Sender<Progress>> {
        self.0.flushed.of(name).cloned()
    }

    /// Each backend, and how flushing to it goes.
    pub fn backends(&self) -> Vec<(Arc<str>, watch::Receiver<Progress>)> {
        let all = self.0.flushed.senders();
        all.map(|(name, progress)| (Arc::clone(name), progress.subscribe())).collect()
    }

    /// Asks the flushers to flush now what is durable, and to ask their backends how far they are.
    pub fn ask_to_flush(&self) {
        for (_, progress) in self.0.flushed.senders() {
            progress.send_modify(|progress| progress.asked += 1);
        }
    }

    /// Durable commits; `None` if the log no longer holds the first of them, or ends before it.
    pub async fn backlog(&self, stretch: Stretch) -> Result<Option<Backlog>, StoreError> {
        let inner = &self.0;
        let through = stretch.through.min(inner.tail.head()?);
        let mut backlog: Option<Backlog> = None;
        let mut after = stretch.after;
        while let Some(left) = stretch.left(backlog.as_ref()).filter(|_| after < through) {
            let piece = left.min(PIECE_BYTES_MAX);
            let entries = inner.store.log(inner.record.id, after, piece).await?;
            // Asked afterwards, so that a trim under way can't leave a silent gap.
            if after < inner.gauges.trimmed() || entries.is_empty() {
                break;
            }
            for entry in entries {
                let left = stretch.left(backlog.as_ref());
                let fits = backlog.is_none() || left.is_some_and(|left| entry.commit.len() <= left);
                if through < entry.position || !fits {
                    return Ok(backlog);
                }
                after = entry.position;
                Backlog::add(&mut backlog, &entry)?;
                // Others are served between two commits: each may take some milliseconds.
                tokio::task::yield_now().await;
            }
        }
        Ok(backlog)
    }

    /// Some rows of a table after `after`, deleted ones among them; empty means there are no more.
    /// What is returned is durable.
    pub async fn rows_after(
        &self,
        table: &TableName,
        after: Option<&RowId>,
    ) -> Result<Vec<(RowId, Row)>, StoreError> {
        let inner = &self.0;
        let prefix = keys::table(table);
        let after = after.map(|row_id| keys::row(table, row_id));
        let scanned =
            inner.store.scan(inner.record.id, &prefix, after.as_deref(), COPY_BYTES_TARGET);
        let stored = scanned.await?;
        self.settle().await?;
        let row = |(key, bytes): &(bytes::Bytes, bytes::Bytes)| {
            let illegal = || StoreError::Corrupt(format!("row {key:?}: illegal key"));
            let (_, row) = stored::decode(key, bytes)?;
            Ok((keys::row_id(key, &prefix).ok_or_else(illegal)?, row))
        };
        stored.iter().map(row).collect()
    }

    /// Those of the rows `row_ids` of a table that there are, deleted ones among them, each with the
    /// position of the newest commit that changed it. What is returned is durable.
    pub async fn rows_of(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Position, Row)>, StoreError> {
        let inner = &self.0;
        let keys: Vec<_> = row_ids.iter().map(|row_id| keys::row(table, row_id)).collect();
        let mut found = Vec::new();
        let mut done = 0;
        while done < keys.len() {
            let rest = &keys[done..];
            let stored = inner.store.rows(inner.record.id, rest, COPY_BYTES_TARGET).await?;
            for (key, bytes) in rest.iter().zip(&stored) {
                if let Some(bytes) = bytes {
                    let (position, row) = stored::decode(key, bytes)?;
                    found.push((row_ids[done].clone(), position, row));
                }
                done += 1;
            }
            if stored.is_empty() {
                return Err(StoreError::Corrupt("a store that answers no row".to_owned()));
            }
        }
        self.settle().await?;
        Ok(found)
    }

    /// Remembers how far a backend has come, and trims what that allows. It may be lost in a crash:
    /// the backend knows as well.
    pub async fn remember(&self, name: &Arc<str>, mark: Mark) -> Result<(), StoreError> {
        self.tell(Message::Flushed { name: Arc::clone(name), mark }).await
    }

    /// Trims what may go, now that a backend's floor has moved.
    pub async fn retain(&self) -> Result<(), StoreError> {
        self.tell(Message::Retain).await
    }

    async fn tell(&self, message: Message) -> Result<(), StoreError> {
        let stopped = || self.ended().unwrap_or(StoreError::Closed);
        self.0.mailbox.send(message).await.map_err(|_| stopped())
    }
}

fn decode(entry: &LogEntry) -> Result<(Commit, u64), StoreError> {
    let (tables, hlc) = (commit::decode(&entry.commit)?, commit::hlc(&entry.commit)?);
    let corrupt =
        |error: wire::WireError| StoreError::Corrupt(format!("commit {}: {error}", entry.position));
    let deltas = wire::decode_deltas(tables).map_err(corrupt)?;
    Ok((Commit { position: entry.position, deltas }, hlc.ms()))
}

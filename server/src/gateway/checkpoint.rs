//! Checkpoints: every row there is, in chunks, to a replica that is empty or outdated.
//!
//! The scan is fuzzy: rows are read as they are now, while pushes go on. The end's cursor is the
//! head when the scan began, however often it was resumed, so the pull that follows brings whatever
//! the scan saw too early or too late. Merging it again changes nothing.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use lakesync::limits::PAGE_BYTES_TARGET;
use lakesync::name::{Position, RowId, TableName};
use lakesync::proto::v1::checkpoint_response::Event;
use lakesync::proto::v1::{CheckpointChunk, CheckpointEnd, CheckpointResponse};
use lakesync::row::Row;
use lakesync::wire;

use super::cursor::{Cursor, Resume, Selection};
use super::out::{Answers, Out, Stopped};
use super::{Gateway, ReadError, keys};
use crate::store::StoreError;

/// What a replica asks for.
#[derive(Clone, Debug, Default)]
pub struct CheckpointOptions {
    /// Which tables it wants; empty is all.
    pub tables: Vec<TableName>,
    /// Where a broken checkpoint stopped; empty is from the start.
    pub resume: String,
}

impl Gateway {
    /// Streams all rows. A bad resume token is refused before the stream begins.
    pub async fn checkpoint(
        &self,
        options: CheckpointOptions,
        stopped: Stopped,
    ) -> Result<Answers<CheckpointResponse>, ReadError> {
        let selection = Selection::of(&options.tables);
        let (start, rows_done, after) = match options.resume.as_str() {
            "" => {
                let (log_id, position) = (self.0.record.log_id, self.0.tail.head()?);
                (Cursor { log_id, position, tables: selection }, 0, None)
            }
            text => {
                let resume = Resume::decode(text)?;
                resume.start.check(self.0.record.log_id, selection)?;
                self.check_held(resume.start.position).await?;
                (resume.start, resume.rows_done, Some((resume.table, resume.after)))
            }
        };
        let (out, answers) = Out::new(self, stopped);
        let scan = Scan { gateway: self.clone(), start, rows_done, out };
        tokio::spawn(scan.run(options.tables, after));
        Ok(answers)
    }
}

/// One checkpoint under way.
struct Scan {
    gateway: Gateway,
    start: Cursor,
    rows_done: u64,
    out: Out<CheckpointResponse>,
}

impl Scan {
    async fn run(mut self, wanted: Vec<TableName>, after: Option<(TableName, Vec<u8>)>) {
        if let Err(error) = self.send_all(&wanted, after).await {
            self.out.end(error);
        }
    }

    async fn send_all(
        &mut self,
        wanted: &[TableName],
        after: Option<(TableName, Vec<u8>)>,
    ) -> Result<(), ReadError> {
        let (from, mut key) = match after {
            Some((table, key)) => (Some(table), Some(key)),
            None => (None, None),
        };
        // Tables created later are not missed: all of their rows come after the start.
        for table in self.gateway.schema().tables() {
            let name = &table.table;
            let earlier = from.as_ref().is_some_and(|from| name < from);
            if earlier || !(wanted.is_empty() || wanted.contains(name)) {
                continue;
            }
            let resumed = if from.as_ref() == Some(name) { key.take() } else { None };
            if !self.send_table(name, table.version, resumed).await? {
                return Ok(());
            }
        }
        let end =
            CheckpointEnd { cursor: self.start.encode(), rows: self.rows_done, complete: true };
        self.out.send(CheckpointResponse { event: Some(Event::End(end)) }).await?;
        Ok(())
    }

    /// Sends the rows of one table after a key. False if the reader has gone.
    async fn send_table(
        &mut self,
        table: &TableName,
        version: u32,
        mut after: Option<Vec<u8>>,
    ) -> Result<bool, ReadError> {
        let prefix = keys::table(table);
        loop {
            let stored = self.scan(&prefix, after.as_deref()).await?;
            let Some((last, _)) = stored.last() else { return Ok(true) };
            after = Some(last.to_vec());
            let rows = stored.iter().map(|(key, bytes)| decode(key, bytes, &prefix));
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            let live = rows.iter().filter(|(_, row)| row.is_live());
            self.rows_done += live.clone().count() as u64;
            let rows = wire::encode_rows(table, version, live.map(|(id, row)| (id, row)));
            if rows.rows.is_empty() {
                continue;
            }
            let resume = Resume {
                start: self.start,
                rows_done: self.rows_done,
                table: table.clone(),
                after: last.to_vec(),
            };
            let total = self.gateway.0.gauges.rows.load(Ordering::Acquire);
            let chunk = CheckpointChunk {
                rows: Some(rows),
                resume: resume.encode(),
                rows_done: self.rows_done,
                rows_total: total.max(self.rows_done),
            };
            let event = Some(Event::Chunk(chunk));
            if !self.out.send(CheckpointResponse { event }).await? {
                return Ok(false);
            }
        }
    }

    /// Reads rows, and waits until all that was read is durable: a row may be newer than the disk.
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let inner = &self.gateway.0;
        let rows = inner.store.scan(inner.record.id, prefix, after, PAGE_BYTES_TARGET).await?;
        let read = Position(inner.gauges.committed.load(Ordering::Acquire));
        let mut head = inner.tail.subscribe();
        let durable = head.wait_for(|head| head.as_ref().map_or(true, |head| read <= *head));
        match durable.await.as_deref() {
            Ok(Ok(_)) => Ok(rows),
            Ok(Err(error)) => Err(error.clone().into()),
            Err(_) => Err(StoreError::Closed.into()),
        }
    }
}

fn decode(key: &[u8], bytes: &[u8], prefix: &[u8]) -> Result<(RowId, Row), StoreError> {
    let corrupt =
        |what: &dyn ToString| StoreError::Corrupt(format!("row {key:?}: {}", what.to_string()));
    let row_id = keys::row_id(key, prefix).ok_or_else(|| corrupt(&"illegal key"))?;
    Ok((row_id, Row::decode(bytes).map_err(|error| corrupt(&error))?))
}

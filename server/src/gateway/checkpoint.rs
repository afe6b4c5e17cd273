//! Checkpoints: every row there is, in chunks, to a replica that is empty or outdated.
//!
//! The scan is fuzzy: rows are read as they are now, while pushes go on. The end's cursor is the
//! head when the scan began, however often it was resumed, so the pull that follows brings whatever
//! the scan saw too early or too late. Merging it again changes nothing.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use lakesync::limits::{MESSAGE_BYTES_MAX, PAGE_BYTES_TARGET};
use lakesync::name::{RowId, TableName};
use lakesync::proto::v1::checkpoint_response::Event;
use lakesync::proto::v1::{CheckpointChunk, CheckpointEnd, CheckpointResponse, TableChanges};
use lakesync::row::Row;
use lakesync::wire;
use prost::Message;

use super::cursor::{Cursor, Resume, Selection};
use super::out::{Answers, Out, Stopped};
use super::{Gateway, ReadError, keys};
use crate::store::StoreError;

/// The largest chunk: its resume token and framing need some room in a message as well.
const CHUNK_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 4 * 3;

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
            let Some(stored) = self.scan(&prefix, after.as_deref()).await? else {
                return Ok(false);
            };
            let Some((last, _)) = stored.last() else { return Ok(true) };
            after = Some(last.to_vec());
            let rows = stored.iter().map(|(key, bytes)| decode(key, bytes, &prefix));
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            let whole = 0..rows.len();
            let mut pieces = vec![whole];
            while let Some(piece) = pieces.pop() {
                let sent = wire::encode_rows(table, version, live(&rows[piece.clone()]));
                // Stamps of single cells can make rows much larger than they are stored.
                if CHUNK_BYTES_MAX < sent.encoded_len() && 1 < piece.len() {
                    let middle = piece.start + piece.len() / 2;
                    pieces.extend([middle..piece.end, piece.start..middle]);
                } else if !self.send_chunk(table, sent, &stored, piece, &rows).await? {
                    return Ok(false);
                }
            }
        }
    }

    /// Sends one chunk, unless it holds nothing. False if the reader has gone.
    async fn send_chunk(
        &mut self,
        table: &TableName,
        sent: TableChanges,
        stored: &[(Bytes, Bytes)],
        piece: Range<usize>,
        rows: &[(RowId, Row)],
    ) -> Result<bool, ReadError> {
        if sent.rows.is_empty() {
            return Ok(true);
        }
        let count = live(&rows[piece.clone()]).count() as u64;
        self.rows_done = self.rows_done.saturating_add(count);
        let resume = Resume {
            start: self.start,
            rows_done: self.rows_done,
            table: table.clone(),
            after: stored[piece.end - 1].0.to_vec(),
        };
        let total = self.gateway.0.gauges.rows.load(Ordering::Acquire);
        let chunk = CheckpointChunk {
            rows: Some(sent),
            resume: resume.encode(),
            rows_done: self.rows_done,
            rows_total: total.max(self.rows_done),
        };
        self.out.send(CheckpointResponse { event: Some(Event::Chunk(chunk)) }).await
    }

    /// Reads rows, and waits until all that was read is durable: a row may be newer than the disk.
    /// `None` if the reader has gone.
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Result<Option<Vec<(Bytes, Bytes)>>, ReadError> {
        let inner = &self.gateway.0;
        let read = async {
            let rows = inner.store.scan(inner.record.id, prefix, after, PAGE_BYTES_TARGET).await?;
            // The head moves together with the rows, so it is that of the newest row read at least.
            let newest = inner.store.head(inner.record.id).await?;
            let mut head = inner.tail.subscribe();
            let durable = head.wait_for(|head| head.as_ref().map_or(true, |head| newest <= *head));
            match durable.await.as_deref() {
                Ok(Ok(_)) => Ok(rows),
                Ok(Err(error)) => Err(error.clone()),
                Err(_) => Err(StoreError::Closed),
            }
        };
        Ok(self.out.unless_ended(read).await?.transpose()?)
    }
}

/// The rows that exist.
fn live(rows: &[(RowId, Row)]) -> impl Iterator<Item = (&RowId, &Row)> {
    rows.iter().filter(|(_, row)| row.is_live()).map(|(id, row)| (id, row))
}

fn decode(key: &[u8], bytes: &[u8], prefix: &[u8]) -> Result<(RowId, Row), StoreError> {
    let corrupt =
        |what: &dyn ToString| StoreError::Corrupt(format!("row {key:?}: {}", what.to_string()));
    let row_id = keys::row_id(key, prefix).ok_or_else(|| corrupt(&"illegal key"))?;
    Ok((row_id, Row::decode(bytes).map_err(|error| corrupt(&error))?))
}

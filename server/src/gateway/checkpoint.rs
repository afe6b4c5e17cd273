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

use super::allowance::Stream;
use super::cursor::{Cursor, CursorError, Place, Resume, Seal};
use super::holds::Hold;
use super::lens::Caller;
use super::out::{Answers, Out, Stopped};
use super::permit::Permit;
use super::scan::Held;
use super::{Gateway, ReadError, keys, stored};
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
    /// The cursor that expired, if any: rows that the reader holds as they are need not be sent.
    pub since: String,
}

impl Gateway {
    /// Streams all rows that the caller may see. A bad resume token is refused before the stream
    /// begins.
    pub async fn checkpoint(
        &self,
        caller: &Caller,
        options: CheckpointOptions,
        stopped: Stopped,
    ) -> Result<Answers<CheckpointResponse>, ReadError> {
        let (lens, now) = self.standing(caller, &options.tables)?;
        let held = match &lens {
            Some(_) => self.held(&options.since, &now).await,
            None => None,
        };
        let changes = self.0.gauges.changes.load(Ordering::Acquire);
        let (start, changes, rows_done, place) = match options.resume.as_str() {
            "" => (now, changes, 0, None),
            text => {
                let resume = Resume::decode(text, &self.seal())?;
                resume.start.check(&now)?;
                self.check_commit(&resume.start).await?;
                (resume.start, resume.changes, resume.rows_done, Some(resume.place))
            }
        };
        let place_taken = self.place(caller)?;
        let permit = Permit::new(self, caller, start.view.generation);
        let (out, answers) = Out::new(self, permit, stopped);
        let (gateway, tables, seal) = (self.clone(), options.tables, self.seal());
        let _hold = self.0.holds.take(start.position);
        let scan = Scan {
            _place: place_taken,
            _hold,
            gateway,
            tables,
            start,
            seal,
            changes,
            rows_done,
            out,
        };
        match lens {
            None => _ = tokio::spawn(scan.run(place)),
            Some(lens) => {
                let since = held.as_ref().map_or_else(Default::default, Held::fingerprint);
                let entry = match place {
                    Some(Place::Entry(entry)) if entry.since != since => {
                        let other = "the checkpoint was begun with another `since`";
                        return Err(CursorError::Expired(other).into());
                    }
                    Some(Place::Entry(entry)) => Some(entry),
                    _ => None,
                };
                tokio::spawn(scan.run_within(lens, held, entry));
            }
        }
        Ok(answers)
    }
}

/// One checkpoint under way.
pub(super) struct Scan {
    _place: Stream,
    /// Without the commits after its beginning, a checkpoint is worth nothing.
    _hold: Hold,
    pub(super) gateway: Gateway,
    /// Which tables the reader wants; empty is all.
    pub(super) tables: Vec<TableName>,
    pub(super) start: Cursor,
    seal: Seal,
    /// How many changes the log had ever held at the beginning, at the least.
    changes: u64,
    pub(super) rows_done: u64,
    pub(super) out: Out<CheckpointResponse>,
}

impl Scan {
    async fn run(mut self, place: Option<Place>) {
        let after = match place {
            Some(Place::Row(table, key)) => Some((table, key)),
            _ => None,
        };
        if let Err(error) = self.send_all(after).await {
            self.out.end(error);
        }
    }

    async fn send_all(&mut self, after: Option<(TableName, Vec<u8>)>) -> Result<(), ReadError> {
        let (from, mut key) = match after {
            Some((table, key)) => (Some(table), Some(key)),
            None => (None, None),
        };
        // Tables created later are not missed: all of their rows come after the start.
        for table in self.gateway.schema().tables() {
            let name = &table.table;
            let earlier = from.as_ref().is_some_and(|from| name < from);
            if earlier || !self.wants(name) {
                continue;
            }
            let resumed = if from.as_ref() == Some(name) { key.take() } else { None };
            if !self.send_table(name, table.version, resumed).await? {
                return Ok(());
            }
        }
        if self.tables.is_empty() {
            self.check_count()?;
        }
        self.send_end().await
    }

    /// Compares the rows that were sent with those that the gateway counts, where all were to be sent:
    /// whoever is told that it has them all removes the others. A change since the beginning makes a
    /// difference of one row at most.
    fn check_count(&self) -> Result<(), StoreError> {
        let gauges = &self.gateway.0.gauges;
        // In this order: changes are shown before the rows that they make or remove.
        let rows = gauges.rows.load(Ordering::Acquire);
        let since = gauges.changes.load(Ordering::Acquire).saturating_sub(self.changes);
        if rows.abs_diff(self.rows_done) <= since {
            return Ok(());
        }
        let (id, found) = (self.gateway.0.record.id.0, self.rows_done);
        let what = format!("gateway {id} counts {rows} rows, and {found} are there");
        tracing::error!("{what}; no checkpoint says that it is complete: restore a backup");
        Err(StoreError::Corrupt(what))
    }

    /// Whether the reader asked for a table.
    pub(super) fn wants(&self, table: &TableName) -> bool {
        self.tables.is_empty() || self.tables.contains(table)
    }

    pub(super) async fn send_end(&self) -> Result<(), ReadError> {
        let (cursor, rows) = (self.start.encode(&self.seal), self.rows_done);
        let end = CheckpointEnd { cursor, rows, complete: true };
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
        let place = Place::Row(table.clone(), stored[piece.end - 1].0.to_vec());
        let total = self.gateway.0.gauges.rows.load(Ordering::Acquire);
        self.send_rows(sent, place, total).await
    }

    /// Sends rows, after which a checkpoint goes on from `place`. False if the reader has gone.
    pub(super) async fn send_rows(
        &self,
        rows: TableChanges,
        place: Place,
        total: u64,
    ) -> Result<bool, ReadError> {
        let (start, changes, rows_done) = (self.start.clone(), self.changes, self.rows_done);
        let chunk = CheckpointChunk {
            rows: Some(rows),
            resume: Resume { start, changes, rows_done, place }.encode(&self.seal),
            rows_done,
            rows_total: total.max(rows_done),
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
            self.gateway.settle().await?;
            Ok::<_, StoreError>(rows)
        };
        Ok(self.out.unless_ended(read).await?.transpose()?)
    }
}

/// The rows that exist.
fn live(rows: &[(RowId, Row)]) -> impl Iterator<Item = (&RowId, &Row)> {
    rows.iter().filter(|(_, row)| row.is_live()).map(|(id, row)| (id, row))
}

fn decode(key: &[u8], bytes: &[u8], prefix: &[u8]) -> Result<(RowId, Row), StoreError> {
    let (_, row) = stored::decode(key, bytes)?;
    let illegal = || StoreError::Corrupt(format!("row {key:?}: illegal key"));
    Ok((keys::row_id(key, prefix).ok_or_else(illegal)?, row))
}

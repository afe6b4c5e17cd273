//! Checkpoints: every row there is, in chunks, to a replica that is empty or outdated.
//!
//! The scan is fuzzy: rows are read as they are now, while pushes go on. The end's cursor is the
//! head when the scan began, however often it was resumed, so the pull that follows brings whatever
//! the scan saw too early or too late. Merging it again changes nothing.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use lakesync::name::{RowId, TableName};
use lakesync::proto::v1::checkpoint_response::Event;
use lakesync::proto::v1::{CheckpointChunk, CheckpointEnd, CheckpointResponse, TableChanges};
use lakesync::row::Row;
use lakesync::wire;

use super::cursor::{Cursor, CursorError, Place, Resume, Seal};
use super::holds::Hold;
use super::judge::in_chunks;
use super::lens::Caller;
use super::out::{Answers, Out, Room, Stopped};
use super::permit::Permit;
use super::scan::Held;
use super::{Gateway, ReadError, keys, stored};
use crate::store::StoreError;

/// What a replica asks for.
#[derive(Clone, Debug, Default)]
pub struct CheckpointOptions {
    /// Which tables it wants; empty is all.
    pub tables: Vec<TableName>,
    /// Where a broken checkpoint stopped; empty is from the start.
    pub resume: String,
    /// The cursor that expired, if any: rows that the reader holds as they are need not be sent.
    pub since: String,
    /// Near how many bytes to close chunks; zero leaves it to the gateway.
    pub bytes_max: usize,
    /// Whether to send rows without stamps, to a reader that keeps none.
    pub whole_rows: bool,
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
        let quota = self.place(caller)?;
        let permit = Permit::new(self, caller, start.view.generation);
        let (mut out, answers) = Out::new(self, permit, quota, stopped);
        if lens.is_some() {
            out.read_nothing_ahead();
        }
        let (gateway, seal) = (self.clone(), self.seal());
        let CheckpointOptions { tables, bytes_max, whole_rows, .. } = options;
        let _hold = self.0.holds.take(start.position);
        let scan = Scan {
            _hold,
            gateway,
            tables,
            bytes_max,
            whole_rows,
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
    /// Without the commits after its beginning, a checkpoint is worth nothing.
    _hold: Hold,
    pub(super) gateway: Gateway,
    /// Which tables the reader wants; empty is all.
    pub(super) tables: Vec<TableName>,
    bytes_max: usize,
    whole_rows: bool,
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
            let Some(mut room) = self.room().await? else { return Ok(false) };
            let Some(stored) = self.scan(&prefix, after.as_deref()).await? else {
                return Ok(false);
            };
            let Some((last, _)) = stored.last() else { return Ok(true) };
            after = Some(last.to_vec());
            let rows = stored.iter().map(|(key, bytes)| decode(key, bytes, &prefix));
            let rows = rows.filter(|row| row.as_ref().map_or(true, |(_, _, row)| row.is_live()));
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            let encode = |rows: &[(Bytes, RowId, Row)]| {
                self.encode(table, version, rows.iter().map(|(_, row_id, row)| (row_id, row)))
            };
            let chunks = in_chunks(&rows, self.page_bytes(), &encode);
            let (total, mut sent) = (self.gateway.0.gauges.rows.load(Ordering::Acquire), 0);
            for (count, chunk) in chunks.into_iter().filter(|(count, _)| 0 < *count) {
                sent += count;
                self.rows_done = self.rows_done.saturating_add(count as u64);
                let place = Place::Row(table.clone(), rows[sent - 1].0.to_vec());
                self.send_rows(room, chunk, place, total);
                let Some(more) = self.room().await? else { return Ok(false) };
                room = more;
            }
        }
    }

    /// Rows that exist, as this reader wants them.
    pub(super) fn encode<'a>(
        &self,
        table: &TableName,
        version: u32,
        rows: impl IntoIterator<Item = (&'a RowId, &'a Row)>,
    ) -> TableChanges {
        match self.whole_rows {
            true => wire::encode_whole_rows(table, version, rows),
            false => wire::encode_rows(table, version, rows),
        }
    }

    /// Where to close a chunk.
    pub(super) fn page_bytes(&self) -> usize {
        self.gateway.0.flight.page_bytes(self.bytes_max)
    }

    /// Waits until a chunk may be read. `None` if the reader has gone.
    pub(super) async fn room(&self) -> Result<Option<Room>, ReadError> {
        self.out.room(self.page_bytes()).await
    }

    /// Sends rows, after which a checkpoint goes on from `place`.
    pub(super) fn send_rows(&self, room: Room, rows: TableChanges, place: Place, total: u64) {
        let (start, changes, rows_done) = (self.start.clone(), self.changes, self.rows_done);
        let chunk = CheckpointChunk {
            rows: Some(rows),
            resume: Resume { start, changes, rows_done, place }.encode(&self.seal),
            rows_done,
            rows_total: total.max(rows_done),
        };
        self.out.put(room, CheckpointResponse { event: Some(Event::Chunk(chunk)) });
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
            let bytes_max = self.page_bytes();
            let rows = inner.store.scan(inner.record.id, prefix, after, bytes_max).await?;
            self.gateway.settle().await?;
            Ok::<_, StoreError>(rows)
        };
        Ok(self.out.unless_ended(inner.flight.in_turn(read)).await?.transpose()?)
    }
}

fn decode(key: &Bytes, bytes: &[u8], prefix: &[u8]) -> Result<(Bytes, RowId, Row), StoreError> {
    let (_, row) = stored::decode(key, bytes)?;
    let illegal = || StoreError::Corrupt(format!("row {key:?}: illegal key"));
    Ok((key.clone(), keys::row_id(key, prefix).ok_or_else(illegal)?, row))
}

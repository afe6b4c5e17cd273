//! Checkpoints within a scope: the rows of each of its bucket instances, each row once.
//!
//! A row in several instances is sent with the first of them. One that moves between two of them
//! meanwhile may be passed over, and is then brought by the pull that follows: it moved after the
//! checkpoint began. Only the instances' own entries, and the rows they name, are read.

use std::sync::Arc;

use bytes::Bytes;
use lakesync::name::{Position, RowId, TableName};
use lakesync::proto::v1::TableChanges;
use lakesync::row::Row;
use lakesync::rules::Instance;
use lakesync::wire;

use super::checkpoint::Scan;
use super::cursor::{Cursor, Entry, Fingerprint, Place, fingerprint};
use super::index::Index;
use super::judge::in_chunks;
use super::lens::Lens;
use super::out::Room;
use super::{Gateway, ReadError, keys, stored};
use crate::store::StoreError;

/// How many bytes of index entries are read at a time.
const ENTRIES_BYTES: usize = 64 << 10;
/// How many rows are read at a time, if they are no more than a page.
const ROWS_MAX: usize = 1_024;

/// What a reader holds of before: rows it need not be sent again.
pub(super) struct Held {
    cursor: Cursor,
    fingerprint: Fingerprint,
    /// The rules it saw through; none if there were none, and it saw everything.
    index: Option<Arc<Index>>,
}

impl Gateway {
    /// What the reader holds who comes with the cursor `since`, as far as that can be known.
    pub(super) async fn held(&self, since: &str, now: &Cursor) -> Option<Held> {
        let cursor = Cursor::decode(since, &self.seal()).ok()?;
        if (cursor.log_id, cursor.tables) != (now.log_id, now.tables)
            || self.check_commit(&cursor).await.is_err()
        {
            return None;
        }
        let in_force = self.0.in_force.borrow();
        let index = match cursor.view.generation {
            0 => None,
            seen => {
                let known = in_force.index.iter().chain(&in_force.previous);
                Some(Arc::clone(known.into_iter().find(|index| index.generation == seen)?))
            }
        };
        let known = index.is_none() || cursor.view.is_listed();
        let fingerprint = fingerprint(since.as_bytes());
        known.then_some(Held { cursor, fingerprint, index })
    }
}

impl Held {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether the reader has the row as it is now: it has not changed since, and was in scope then.
    fn has(&self, table: &TableName, row_id: &RowId, position: Position, row: &Row) -> bool {
        if self.cursor.position < position {
            return false;
        }
        let Some(index) = &self.index else { return true };
        let instances = index.rules.instances(table, row_id, row);
        instances.iter().any(|instance| self.cursor.view.held.contains(instance))
    }
}

/// A row that is to be sent: all of it, or only that it is as the reader holds it.
struct Due {
    table: TableName,
    row_id: RowId,
    row: Row,
    held: bool,
    key: Bytes,
}

impl Scan {
    pub(super) async fn run_within(mut self, lens: Lens, held: Option<Held>, entry: Option<Entry>) {
        if let Err(error) = self.send_within(&lens, held.as_ref(), entry).await {
            self.out.end(error);
        }
    }

    async fn send_within(
        &mut self,
        lens: &Lens,
        held: Option<&Held>,
        entry: Option<Entry>,
    ) -> Result<(), ReadError> {
        for instance in lens.scope.instances() {
            let after = match &entry {
                Some(entry) if instance < entry.instance => continue,
                Some(entry) if instance == entry.instance => Some(entry.after.clone()),
                _ => None,
            };
            let sent = match lens.index.rules.whole_tables(&instance) {
                None => self.send_instance(lens, held, instance, after).await?,
                Some(tables) => self.send_tables(lens, held, instance, tables, after).await?,
            };
            if !sent {
                return Ok(());
            }
        }
        self.send_end().await
    }

    /// Sends the rows of one instance after a row's key. False if the reader has gone.
    async fn send_instance(
        &mut self,
        lens: &Lens,
        held: Option<&Held>,
        instance: Instance,
        after: Option<Vec<u8>>,
    ) -> Result<bool, ReadError> {
        let prefix = keys::bucket_rows(lens.index.generation, &instance);
        let mut after = after.map(|row_key| [&prefix[..], &row_key].concat());
        loop {
            let inner = &self.gateway.0;
            let entries =
                inner.store.scan(inner.record.id, &prefix, after.as_deref(), ENTRIES_BYTES);
            let Some(entries) = self.out.unless_ended(entries).await? else { return Ok(false) };
            let entries = entries?;
            let Some((last, _)) = entries.last() else { return Ok(true) };
            after = Some(last.to_vec());
            let keys: Vec<Bytes> =
                entries.iter().map(|(key, _)| key.slice(prefix.len()..)).collect();
            let mut keys = keys.as_slice();
            while !keys.is_empty() {
                let Some(room) = self.room().await? else { return Ok(false) };
                let Some(rows) = self.read(&mut keys).await? else { return Ok(false) };
                let due = self.due(lens, held, instance, &rows)?;
                if !self.send_due(room, (lens, held), instance, due).await? {
                    return Ok(false);
                }
            }
        }
    }

    /// Sends all rows of some tables, which an instance holds, after a row's key. False if the reader
    /// has gone.
    async fn send_tables(
        &mut self,
        lens: &Lens,
        held: Option<&Held>,
        instance: Instance,
        tables: &[TableName],
        resumed: Option<Vec<u8>>,
    ) -> Result<bool, ReadError> {
        for table in tables {
            if !self.wants(table) {
                continue;
            }
            let prefix = keys::table(table);
            // A resumed checkpoint goes on within one of the tables, which are sorted like their keys.
            let within = |key: &Vec<u8>| prefix <= *key;
            if resumed.as_ref().is_some_and(|key| prefix < *key && !key.starts_with(&prefix)) {
                continue;
            }
            let mut after = resumed.clone().filter(within);
            loop {
                let Some(room) = self.room().await? else { return Ok(false) };
                let inner = &self.gateway.0;
                let read = async {
                    let bytes_max = self.page_bytes();
                    let scanned =
                        inner.store.scan(inner.record.id, &prefix, after.as_deref(), bytes_max);
                    let rows = scanned.await?;
                    self.gateway.settle().await?;
                    Ok::<_, StoreError>(rows)
                };
                let read = inner.flight.in_turn(read);
                let Some(rows) = self.out.unless_ended(read).await? else { return Ok(false) };
                let rows = rows?;
                let Some((last, _)) = rows.last() else { break };
                after = Some(last.to_vec());
                let due = self.due(lens, held, instance, &rows)?;
                if !self.send_due(room, (lens, held), instance, due).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Reads about a page of rows: the first of `keys`, which moves on to the others. `None` if the
    /// reader has gone.
    async fn read(&self, keys: &mut &[Bytes]) -> Result<Option<Vec<(Bytes, Bytes)>>, ReadError> {
        let inner = &self.gateway.0;
        let some = &keys[..keys.len().min(ROWS_MAX)];
        let read = async {
            let rows = inner.store.rows(inner.record.id, some, self.page_bytes()).await?;
            self.gateway.settle().await?;
            Ok::<_, StoreError>(rows)
        };
        let read = inner.flight.in_turn(read);
        let Some(rows) = self.out.unless_ended(read).await? else { return Ok(None) };
        let rows = rows?;
        let answered;
        (answered, *keys) = keys.split_at(rows.len());
        let found = answered.iter().cloned().zip(rows);
        Ok(Some(found.filter_map(|(key, bytes)| Some((key, bytes?))).collect()))
    }

    /// Those of the rows that are due with this instance: the first of the reader's that has them.
    fn due(
        &self,
        lens: &Lens,
        held: Option<&Held>,
        instance: Instance,
        rows: &[(Bytes, Bytes)],
    ) -> Result<Vec<Due>, StoreError> {
        let mut due = Vec::new();
        for (key, bytes) in rows {
            let (position, row) = stored::decode(key, bytes)?;
            let illegal = || StoreError::Corrupt(format!("row {key:?}: illegal key"));
            let (table, row_id) = keys::parse_row(key).ok_or_else(illegal)?;
            let instances = lens.index.rules.instances(&table, &row_id, &row);
            let first = instances.iter().filter(|one| lens.scope.holds(one)).min();
            if first == Some(&instance) && self.wants(&table) {
                let held = held.is_some_and(|held| held.has(&table, &row_id, position, &row));
                due.push(Due { table, row_id, row, held, key: key.clone() });
            }
        }
        Ok(due)
    }

    /// Sends rows in chunks of one table near a page's size, each judged again if it had to wait for
    /// another. False if the reader has gone.
    async fn send_due(
        &mut self,
        mut room: Room,
        (lens, held): (&Lens, Option<&Held>),
        instance: Instance,
        due: Vec<Due>,
    ) -> Result<bool, ReadError> {
        let mut waited = false;
        let since = held.map_or_else(Default::default, Held::fingerprint);
        for rows in due.chunk_by(|one, next| one.table == next.table && one.held == next.held) {
            let mut sent = 0;
            for (count, mut chunk) in
                in_chunks(rows, self.page_bytes(), &|rows| self.encode_due(rows))
            {
                let (some, mut count) = (&rows[sent..sent + count], count);
                sent += count;
                if waited {
                    let Some(still) = self.still_due(lens, instance, some).await? else {
                        return Ok(false);
                    };
                    if still.is_empty() {
                        continue;
                    }
                    (count, chunk) = (still.len(), self.encode_due(&still));
                }
                waited = true;
                self.rows_done += count as u64;
                let after = rows[sent - 1].key.to_vec();
                let place = Place::Entry(Entry { since, instance, after });
                self.send_rows(room, chunk, place, 0);
                let Some(more) = self.room().await? else { return Ok(false) };
                room = more;
            }
        }
        Ok(true)
    }

    /// Those of the rows that are due after a wait. A row that was held then still is: what changed it
    /// since follows the checkpoint. `None` if the reader has gone.
    async fn still_due(
        &self,
        lens: &Lens,
        instance: Instance,
        rows: &[Due],
    ) -> Result<Option<Vec<Due>>, ReadError> {
        let keys: Vec<Bytes> = rows.iter().map(|due| due.key.clone()).collect();
        let (mut keys, mut still) = (keys.as_slice(), Vec::new());
        while !keys.is_empty() {
            let Some(found) = self.read(&mut keys).await? else { return Ok(None) };
            still.extend(self.due(lens, None, instance, &found)?);
        }
        let held = rows.first().is_some_and(|due| due.held);
        still.iter_mut().for_each(|due| due.held = held);
        Ok(Some(still))
    }

    /// Rows of one table, all of them held or none.
    fn encode_due(&self, rows: &[Due]) -> TableChanges {
        let Some(Due { table, held, .. }) = rows.first() else { return TableChanges::default() };
        if *held {
            return wire::encode_unchanged(table, rows.iter().map(|due| &due.row_id));
        }
        let version = self.gateway.schema().table(table).map_or(0, |table| table.version);
        self.encode(table, version, rows.iter().map(|due| (&due.row_id, &due.row)))
    }
}

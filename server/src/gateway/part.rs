//! What one commit means to the readers of one bucket instance, as the index keeps it.
//!
//! Stored form, version 1: the version byte, the length of the pusher's id and the id, then a
//! `lakesync.v1.Page` whose tables hold the changes as they are sent. Rows that enter are whole, up
//! to [`WHOLE_BYTES_MAX`]; of more of them only the ids stand there, as changes of no kind, and
//! their readers look them up: one small commit may let in rows of any size.

use bytes::Bytes;
use lakesync::delta::Delta;
use lakesync::name::{ClientId, RowId, TableName};
use lakesync::proto::v1::{ChangeKind, Page, RowChange, TableChanges};
use lakesync::row::Row;
use lakesync::rules::Instance;
use lakesync::wire;
use prost::Message;

use crate::store::StoreError;

const VERSION: u8 = 1;
/// How many bytes of whole rows a part holds.
const WHOLE_BYTES_MAX: usize = 1 << 20;

/// One instance's part of a commit.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) instance: Instance,
    /// Its stored form.
    pub(super) bytes: Bytes,
}

impl Part {
    /// The part of an instance that holds whole tables: it is the commit, and stored nowhere else.
    pub(super) fn of_whole_tables(instance: Instance) -> Self {
        Self { instance, bytes: Bytes::new() }
    }

    /// Whether it stands in the index.
    pub(super) fn is_stored(&self) -> bool {
        !self.bytes.is_empty()
    }
}

/// A stored part, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Opened {
    /// Who pushed the commit.
    pub(super) client: String,
    pub(super) tables: Vec<TableChanges>,
}

/// A part under way.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    whole_bytes: usize,
}

impl Writer {
    pub(super) fn begin(client: &ClientId) -> Self {
        let client = client.as_str().as_bytes();
        let length = u8::try_from(client.len()).expect("BUG: a client id of 256 bytes");
        Self { bytes: [&[VERSION, length], client].concat(), whole_bytes: 0 }
    }

    /// Adds changes of the pusher's as they are.
    pub(super) fn changes(&mut self, client: &ClientId, changes: &[&Delta]) {
        wire::put_commit(client, changes, &mut self.bytes);
    }

    /// Adds whole rows of one table.
    pub(super) fn whole(&mut self, table: &TableName, version: u32, rows: &[(&RowId, &Row)]) {
        let fits = rows.iter().take_while(|(_, row)| {
            self.whole_bytes += row.size();
            self.whole_bytes <= WHOLE_BYTES_MAX
        });
        let (whole, named) = rows.split_at(fits.count());
        self.put(wire::encode_rows(table, version, whole.iter().copied()));
        let entry = |(row_id, _): &(&RowId, &Row)| RowChange {
            row_id: row_id.to_string(),
            kind: ChangeKind::Unspecified.into(),
            ..RowChange::default()
        };
        let rows = named.iter().map(entry).collect();
        self.put(TableChanges { table: table.to_string(), rows, ..TableChanges::default() });
    }

    /// Adds that rows of one table left.
    pub(super) fn exits(&mut self, table: &TableName, rows: &[&RowId]) {
        self.put(wire::encode_exits(table, rows.iter().copied()));
    }

    /// Pages one after another are one page of all their tables.
    fn put(&mut self, changes: TableChanges) {
        if !changes.rows.is_empty() {
            self.bytes.extend(Page { tables: vec![changes], ..Page::default() }.encode_to_vec());
        }
    }

    pub(super) fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

/// Understands a stored part.
pub(super) fn open(bytes: &Bytes) -> Result<Opened, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("a bucket's part of a commit: {what}"));
    let [VERSION, length, ..] = bytes[..] else { return Err(corrupt("unknown version")) };
    let end = 2 + usize::from(length);
    let client = bytes.get(2..end).and_then(|client| str::from_utf8(client).ok());
    let client = client.ok_or_else(|| corrupt("no client"))?.to_owned();
    let page = Page::decode(bytes.slice(end..)).map_err(|error| corrupt(&error.to_string()))?;
    Ok(Opened { client, tables: page.tables })
}

#[cfg(test)]
mod tests {
    use lakesync::delta::{Cell, Op};
    use lakesync::testing;
    use lakesync::value::Value;

    use super::*;

    fn shown(opened: &Opened) -> Vec<(&str, i32)> {
        let rows = opened.tables.iter().flat_map(|table| &table.rows);
        rows.map(|row| (row.row_id.as_str(), row.kind)).collect()
    }

    #[test]
    fn what_was_added_is_read_back_in_order() {
        let (ann, table): (ClientId, TableName) = (testing::id("ann"), testing::id("todos"));
        let delta = testing::delta("ann@1 title=milk");
        let row = testing::fold(&[testing::delta("bob@2 done=yes")]);
        let mut part = Writer::begin(&ann);
        part.changes(&ann, &[&delta]);
        part.whole(&table, 3, &[(&testing::id("whole"), &row)]);
        part.exits(&table, &[&testing::id("gone")]);
        let bytes = part.finish();
        let opened = open(&bytes).expect("whole");
        assert_eq!(opened.client, "ann");
        assert_eq!(shown(&opened), [("r", 1), ("whole", 1), ("gone", 3)]);
        assert!(open(&bytes.slice(1..)).is_err());
        assert!(open(&Bytes::from_static(&[VERSION, 9, b'a'])).is_err());
    }

    #[test]
    fn of_very_many_whole_rows_only_ids_are_kept() {
        let (ann, table): (ClientId, TableName) = (testing::id("ann"), testing::id("todos"));
        let mut delta = testing::delta("ann@1 title=");
        let value = Value::String("x".repeat(WHOLE_BYTES_MAX / 2));
        delta.op = Op::Upsert(vec![Cell { column: testing::id("title"), value }]);
        let (row, a, b) = (testing::fold(&[delta]), testing::id("a"), testing::id("b"));
        let mut part = Writer::begin(&ann);
        part.whole(&table, 3, &[(&a, &row), (&b, &row)]);
        let bytes = part.finish();
        assert!(bytes.len() < WHOLE_BYTES_MAX);
        assert_eq!(shown(&open(&bytes).expect("whole")), [("a", 1), ("b", 0)]);
    }
}

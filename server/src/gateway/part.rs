//! What one commit means to the readers of one bucket instance, as the index keeps it.
//!
//! Stored form, version 1: the version byte, a count and as many places of changes in the commit's
//! own page (two numbers of 16 bits each, big-endian), then a `lakesync.v1.Page` with what the commit
//! does not say itself: rows that enter, whole, and exits. Of whole rows beyond [`WHOLE_BYTES_MAX`]
//! only the ids stand there, as changes of no kind, and their readers look them up: one small commit
//! may let in rows of any size.

use bytes::Bytes;
use lakesync::name::{RowId, TableName};
use lakesync::proto::v1::{ChangeKind, Page, RowChange, TableChanges};
use lakesync::row::Row;
use lakesync::rules::Instance;
use lakesync::wire;
use prost::Message;

use crate::store::StoreError;

const VERSION: u8 = 1;
const PLACE_BYTES: usize = 2 * size_of::<u16>();
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

/// Where a change stands in the page of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) table: u16,
    pub(super) row: u16,
}

/// A part under way.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    whole_bytes: usize,
}

impl Writer {
    /// A part with these changes of the commit.
    pub(super) fn begin(changes: &[Place]) -> Self {
        let count = u16::try_from(changes.len()).expect("BUG: a commit beyond its bound");
        let mut bytes = Vec::with_capacity(1 + size_of::<u16>() + changes.len() * PLACE_BYTES);
        bytes.push(VERSION);
        bytes.extend(count.to_be_bytes());
        for Place { table, row } in changes {
            bytes.extend(table.to_be_bytes());
            bytes.extend(row.to_be_bytes());
        }
        Self { bytes, whole_bytes: 0 }
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

/// What a stored part tells of its commit, whose tables are given.
pub(super) fn open(
    bytes: &Bytes,
    commit: &[TableChanges],
) -> Result<Vec<TableChanges>, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("a bucket's part of a commit: {what}"));
    let [VERSION, high, low, ..] = bytes[..] else { return Err(corrupt("unknown version")) };
    let count = usize::from(u16::from_be_bytes([high, low]));
    let start = 1 + size_of::<u16>();
    let end = start + count * PLACE_BYTES;
    let places = bytes.get(start..end).ok_or_else(|| corrupt("it ends early"))?;
    let mut tables: Vec<TableChanges> = Vec::new();
    let mut open = None;
    for [table_high, table_low, row_high, row_low] in places.as_chunks::<PLACE_BYTES>().0 {
        let at = u16::from_be_bytes([*table_high, *table_low]);
        let row = usize::from(u16::from_be_bytes([*row_high, *row_low]));
        let table = commit.get(usize::from(at)).ok_or_else(|| corrupt("no such table"))?;
        let change = table.rows.get(row).ok_or_else(|| corrupt("no such change"))?;
        if open != Some(at) {
            let TableChanges { table, schema_version, columns, clients, .. } = table;
            tables.push(TableChanges {
                table: table.clone(),
                schema_version: *schema_version,
                columns: columns.clone(),
                clients: clients.clone(),
                rows: Vec::new(),
            });
            open = Some(at);
        }
        tables.last_mut().expect("BUG: just pushed").rows.push(change.clone());
    }
    let page = Page::decode(bytes.slice(end..)).map_err(|error| corrupt(&error.to_string()))?;
    tables.extend(page.tables);
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use lakesync::delta::{Cell, Delta, Op};
    use lakesync::name::ClientId;
    use lakesync::testing;
    use lakesync::value::Value;

    use super::*;

    fn shown(tables: &[TableChanges]) -> Vec<(&str, i32)> {
        let rows = tables.iter().flat_map(|table| &table.rows);
        rows.map(|row| (row.row_id.as_str(), row.kind)).collect()
    }

    /// A commit of three changes, of two tables.
    fn commit() -> Vec<TableChanges> {
        let ann: ClientId = testing::id("ann");
        let change = |table: &str, row: &str| Delta {
            table: testing::id(table),
            row_id: testing::id(row),
            ..testing::delta("ann@1 title=milk")
        };
        wire::encode_commit(&ann, [change("a", "1"), change("a", "2"), change("b", "3")])
    }

    #[test]
    fn what_was_added_is_read_back_in_order() {
        let table: TableName = testing::id("todos");
        let row = testing::fold(&[testing::delta("bob@2 done=yes")]);
        let mut part = Writer::begin(&[Place { table: 0, row: 1 }, Place { table: 1, row: 0 }]);
        part.whole(&table, 3, &[(&testing::id("whole"), &row)]);
        part.exits(&table, &[&testing::id("gone")]);
        let (bytes, commit) = (part.finish(), commit());
        let tables = open(&bytes, &commit).expect("whole");
        assert_eq!(shown(&tables), [("2", 1), ("3", 1), ("whole", 1), ("gone", 3)]);
        assert_eq!(
            (&tables[0].columns, &tables[0].clients),
            (&commit[0].columns, &commit[0].clients)
        );
        assert!(open(&bytes, &commit[..1]).is_err(), "of another commit");
        assert!(open(&bytes.slice(1..), &commit).is_err());
        assert!(open(&bytes.slice(..4), &commit).is_err());
    }

    #[test]
    fn of_very_many_whole_rows_only_ids_are_kept() {
        let table: TableName = testing::id("todos");
        let mut delta = testing::delta("ann@1 title=");
        let value = Value::String("x".repeat(WHOLE_BYTES_MAX / 2));
        delta.op = Op::Upsert(vec![Cell { column: testing::id("title"), value }]);
        let (row, a, b) = (testing::fold(&[delta]), testing::id("a"), testing::id("b"));
        let mut part = Writer::begin(&[]);
        part.whole(&table, 3, &[(&a, &row), (&b, &row)]);
        let bytes = part.finish();
        assert!(bytes.len() < WHOLE_BYTES_MAX);
        assert_eq!(shown(&open(&bytes, &[]).expect("whole")), [("a", 1), ("b", 0)]);
    }
}

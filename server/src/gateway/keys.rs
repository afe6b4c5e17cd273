//! The one place that builds the keys of rows and meta entries.
//!
//! A row's key is its table, a zero byte and its id: neither holds a zero byte, so keys sort by
//! (table, row id) and those of one table share a prefix.

use bytes::Bytes;
use lakesync::hlc::Hlc;
use lakesync::name::{ClientId, Position, RowId, TableName};
use lakesync::rules::Instance;

/// The gateway's tables, as one encoded `GetSchemaResponse`.
pub(super) const SCHEMA: &[u8] = b"schema";
/// The gateway's counters and clock.
pub(super) const COUNTERS: &[u8] = b"counters";
/// There while a gateway is being restored: its rows are not all there, and nobody may see any.
pub(super) const RESTORING: &[u8] = b"restoring";
/// Where the index of tombstones begins.
pub(super) const TOMBSTONES: &[u8] = b"tombstone/";

/// What stands in front of index entries among the rows: no table's name begins with it.
const INDEX: u8 = 1;
/// The first key after all index entries.
pub(super) const ROWS: &[u8] = &[INDEX + 1];
/// In an instance's entries: the rows it holds.
const BUCKET_ROWS: u8 = b'r';
/// In an instance's entries: what commits mean to it.
const BUCKET_COMMITS: u8 = b'c';
/// The gateway's sync rules, those in force and those on their way.
pub(super) const RULES: &[u8] = b"rules";

/// Where the subjects begin whose earlier tokens are refused.
pub(super) const REVOKED: &[u8] = b"revoked/";

const FLUSHED: &[u8] = b"flushed/";
const CLIENTS: &[u8] = b"client/";
const HLC_BYTES: usize = size_of::<u64>();

/// The key of a row.
pub(super) fn row(table: &TableName, row_id: &RowId) -> Bytes {
    [table.as_str().as_bytes(), b"\0", row_id.as_str().as_bytes()].concat().into()
}

/// What the keys of a table's rows begin with.
pub(super) fn table(table: &TableName) -> Vec<u8> {
    [table.as_str().as_bytes(), b"\0"].concat()
}

/// The id in a row's key, behind the prefix of its table.
pub(super) fn row_id(key: &[u8], table_prefix: &[u8]) -> Option<RowId> {
    RowId::parse(str::from_utf8(key.strip_prefix(table_prefix)?).ok()?).ok()
}

/// The key under which the subject of a client id is kept.
pub(super) fn client(client: &ClientId) -> Bytes {
    [CLIENTS, client.as_str().as_bytes()].concat().into()
}

/// The key under which it is kept how far the backend of this name has come.
pub(super) fn flushed(backend: &str) -> Bytes {
    [FLUSHED, backend.as_bytes()].concat().into()
}

/// The key under which it is kept since when a subject's tokens count again.
pub(super) fn revoked(subject: &str) -> Bytes {
    [REVOKED, subject.as_bytes()].concat().into()
}

/// The subject in such a key.
pub(super) fn parse_revoked(key: &[u8]) -> Option<&str> {
    str::from_utf8(key.strip_prefix(REVOKED)?).ok()
}

/// The key of an entry in the index of tombstones, which sorts by the time of the delete.
pub(super) fn tombstone(deleted: Hlc, row_key: &[u8]) -> Bytes {
    [TOMBSTONES, &deleted.0.to_be_bytes(), row_key].concat().into()
}

/// The delete's time and the row's key in an entry of the index of tombstones.
pub(super) fn parse_tombstone(key: &[u8]) -> Option<(Hlc, &[u8])> {
    let (hlc, row_key) = key.strip_prefix(TOMBSTONES)?.split_first_chunk::<HLC_BYTES>()?;
    Some((Hlc(u64::from_be_bytes(*hlc)), row_key))
}

/// What the keys of all index entries of a generation of rules begin with.
pub(super) fn generation(generation: u32) -> Vec<u8> {
    [&[INDEX][..], &generation.to_be_bytes()].concat()
}

/// What the keys of the rows that an instance holds begin with; the row's key follows.
pub(super) fn bucket_rows(generation: u32, instance: &Instance) -> Vec<u8> {
    bucket(generation, instance, BUCKET_ROWS, &[])
}

fn bucket(generation: u32, instance: &Instance, kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[INDEX][..], &generation.to_be_bytes(), &instance.to_bytes(), &[kind], rest].concat()
}

/// The entry that an instance holds a row.
pub(super) fn bucket_row(generation: u32, instance: &Instance, row_key: &[u8]) -> Bytes {
    bucket(generation, instance, BUCKET_ROWS, row_key).into()
}

/// What the keys of an instance's parts of commits begin with; the position follows.
pub(super) fn bucket_commits(generation: u32, instance: &Instance) -> Vec<u8> {
    bucket(generation, instance, BUCKET_COMMITS, &[])
}

/// The entry of an instance's part of a commit.
pub(super) fn bucket_commit(generation: u32, instance: &Instance, position: Position) -> Bytes {
    bucket(generation, instance, BUCKET_COMMITS, &position.0.to_be_bytes()).into()
}

/// The position in the key of a part, behind its instance's prefix.
pub(super) fn position(key: &[u8], prefix: &[u8]) -> Option<Position> {
    let position = key.strip_prefix(prefix)?.try_into().ok()?;
    Some(Position(u64::from_be_bytes(position)))
}

/// The table and the id in a row's key.
pub(super) fn parse_row(key: &[u8]) -> Option<(TableName, RowId)> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let table = TableName::parse(str::from_utf8(&key[..end]).ok()?).ok()?;
    Some((table, RowId::parse(str::from_utf8(&key[end + 1..]).ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_keep_tables_apart() {
        let (todo, todos) = (TableName::parse("todo"), TableName::parse("todos"));
        let (todo, todos) = (todo.expect("legal"), todos.expect("legal"));
        let id = RowId::parse("s🦀").expect("legal");
        let key = row(&todos, &id);
        assert_eq!(row_id(&key, &table(&todos)), Some(id));
        assert_eq!(row_id(&key, &table(&todo)), None);
        assert!(row(&todo, &RowId::parse("~").expect("legal")) < key);
    }

    #[test]
    fn index_entries_stand_apart_from_rows_and_from_each_other() {
        let instance = Instance::from_bytes(&[7; Instance::BYTES]);
        let (table, id) =
            (TableName::parse("A").expect("legal"), RowId::parse("r").expect("legal"));
        let row = row(&table, &id);
        assert_eq!(parse_row(&row), Some((table, id)));
        let entry = bucket_row(9, &instance, &row);
        assert_eq!(entry.strip_prefix(&bucket_rows(9, &instance)[..]), Some(&row[..]));
        let commit = bucket_commit(9, &instance, Position(258));
        assert_eq!(position(&commit, &bucket_commits(9, &instance)), Some(Position(258)));
        for key in [&entry, &commit] {
            assert!(key.starts_with(&generation(9)) && key[..] < *ROWS && *ROWS <= row[..]);
            assert!(!key.starts_with(&generation(10)));
        }
        assert!(!commit.starts_with(&bucket_rows(9, &instance)));
    }

    #[test]
    fn tombstones_sort_by_time() {
        let early = tombstone(Hlc(255), b"z");
        let late = tombstone(Hlc(256), b"a");
        assert!(early < late);
        assert_eq!(parse_tombstone(&late), Some((Hlc(256), b"a".as_slice())));
    }
}

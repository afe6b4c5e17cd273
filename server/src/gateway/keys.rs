//! The one place that builds the keys of rows and meta entries.
//!
//! A row's key is its table, a zero byte and its id: neither holds a zero byte, so keys sort by
//! (table, row id) and those of one table share a prefix.

use bytes::Bytes;
use lakesync::hlc::Hlc;
use lakesync::name::{ClientId, RowId, TableName};

/// The gateway's tables, as one encoded `GetSchemaResponse`.
pub(super) const SCHEMA: &[u8] = b"schema";
/// The gateway's counters and clock.
pub(super) const COUNTERS: &[u8] = b"counters";
/// Where the index of tombstones begins.
pub(super) const TOMBSTONES: &[u8] = b"tombstone/";

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

/// The key of an entry in the index of tombstones, which sorts by the time of the delete.
pub(super) fn tombstone(deleted: Hlc, row_key: &[u8]) -> Bytes {
    [TOMBSTONES, &deleted.0.to_be_bytes(), row_key].concat().into()
}

/// The delete's time and the row's key in an entry of the index of tombstones.
pub(super) fn parse_tombstone(key: &[u8]) -> Option<(Hlc, &[u8])> {
    let (hlc, row_key) = key.strip_prefix(TOMBSTONES)?.split_first_chunk::<HLC_BYTES>()?;
    Some((Hlc(u64::from_be_bytes(*hlc)), row_key))
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
    fn tombstones_sort_by_time() {
        let early = tombstone(Hlc(255), b"z");
        let late = tombstone(Hlc(256), b"a");
        assert!(early < late);
        assert_eq!(parse_tombstone(&late), Some((Hlc(256), b"a".as_slice())));
    }
}

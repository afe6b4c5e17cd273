//! What of a draft is sent, judged when it is sent: of a row that has left the reader's scope meanwhile,
//! or is gone, only that is told. Rows that are sent whole are read here.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use lakesync::name::{Position, RowId, TableName};
use lakesync::proto::v1::{ChangeKind, TableChanges};
use lakesync::row::Row;
use lakesync::wire;
use prost::Message;

use super::draft::{Draft, Name, Named, Word, changes, parse, retain, word};
use super::lens::Lens;
use super::stand::Stand;
use super::{Gateway, ReadError, keys, stored};
use crate::store::StoreError;

/// How many rows are looked up at a time, if they are no more than a page.
const LOOK_UP_ROWS_MAX: usize = 1_024;
/// How many rows of a part of a commit are looked up at a time, where each may be a message of its own.
const NAMED_MAX: usize = 16;
/// A row of the store, if it is there, and the position of its newest change.
type Found<'a> = (&'a (TableName, RowId), Option<(Position, Row)>);

/// Takes the next piece of a draft, and returns the messages that the reader is sent of it.
pub(super) async fn judge(
    stand: &Stand,
    draft: &mut Draft,
) -> Result<Vec<Vec<TableChanges>>, ReadError> {
    let page_bytes = stand.page_bytes();
    if !draft.named.is_empty() {
        let named = draft.named.make_contiguous();
        let (messages, count) = look_up(stand, named, page_bytes).await?;
        draft.named.drain(..count);
        return Ok(messages);
    }
    let mut tables = std::mem::take(&mut draft.tables);
    if let Some(lens) = stand.lens.as_ref().filter(|_| !draft.is_judged) {
        let gone = gone_by_now(stand, lens, &tables, page_bytes).await?;
        retain(&mut tables, |name, change| {
            !(matches!(word(change), Word::Upsert(_)) && gone.contains(name))
        });
    }
    Ok(vec![tables])
}

/// The rows that `tables` tell of as being in scope, and that are not as they are now.
async fn gone_by_now(
    stand: &Stand,
    lens: &Lens,
    tables: &[TableChanges],
    bytes_max: usize,
) -> Result<HashSet<Name>, ReadError> {
    let told = changes(tables).filter(|(_, change)| matches!(word(change), Word::Upsert(_)));
    let told: HashSet<Name> = told.map(|(name, _)| name).collect();
    let keys = told.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let (mut gone, mut left) = (HashSet::new(), keys.as_slice());
    while !left.is_empty() {
        let some = &left[..left.len().min(LOOK_UP_ROWS_MAX)];
        let found = rows(&stand.gateway, some.iter(), bytes_max).await?;
        left = &left[found.len()..];
        for ((table, row_id), row) in found {
            if !row.is_some_and(|(_, row)| sees(Some(lens), table, row_id, &row)) {
                gone.insert((table.as_str().to_owned(), row_id.as_str().to_owned()));
            }
        }
    }
    // A row may have left by a commit that is not durable yet: wait for it, or for its loss.
    stand.gateway.settle().await?;
    Ok(gone)
}

/// Whether the row may be shown, and is there to be shown.
fn sees(lens: Option<&Lens>, table: &TableName, row_id: &RowId, row: &Row) -> bool {
    match lens {
        None => row.is_live(),
        Some(lens) => lens.scope.reads(&lens.index.rules.instances(table, row_id, row)),
    }
}

/// Rows as the store has them now, and no more than about `bytes_max`: the first of those asked for.
async fn rows<'a>(
    gateway: &Gateway,
    asked: impl Iterator<Item = &'a (TableName, RowId)> + Clone,
    bytes_max: usize,
) -> Result<Vec<Found<'a>>, StoreError> {
    let keys: Vec<Bytes> = asked.clone().map(|(table, row_id)| keys::row(table, row_id)).collect();
    let found = gateway.0.store.rows(gateway.0.record.id, &keys, bytes_max).await?;
    let row = |((name, key), bytes): ((&'a _, &Bytes), Option<Bytes>)| {
        Ok((name, bytes.map(|bytes| stored::decode(key, &bytes)).transpose()?))
    };
    asked.zip(&keys).zip(found).map(row).collect()
}

/// The first of `named` as they are now, about a page of them: what is sent of them, and of how many.
async fn look_up(
    stand: &Stand,
    named: &[Named],
    page_bytes: usize,
) -> Result<(Vec<Vec<TableChanges>>, usize), ReadError> {
    let whole_rows = stand.options.whole_rows;
    let count_max = if whole_rows { LOOK_UP_ROWS_MAX } else { NAMED_MAX };
    let some = named.iter().take(count_max);
    let found = rows(&stand.gateway, some.map(|one| &one.key), page_bytes).await?;
    stand.gateway.settle().await?;
    // What is judged is sent at once: a second message would wait for the first to leave.
    let (mut count, mut messages) = (found.len(), in_messages(stand, &found, named, page_bytes));
    while stand.lens.is_some() && 1 < count && 1 < messages.len() {
        count = count.div_ceil(2);
        messages = in_messages(stand, &found[..count], named, page_bytes);
    }
    Ok((messages, count))
}

/// Rows as they were found, in messages. They are the first of `named`.
fn in_messages(
    stand: &Stand,
    found: &[Found<'_>],
    named: &[Named],
    page_bytes: usize,
) -> Vec<Vec<TableChanges>> {
    let (schema, lens) = (stand.gateway.schema(), stand.lens.as_ref());
    let mut here: BTreeMap<&TableName, Vec<(&RowId, &Row)>> = BTreeMap::new();
    let mut gone: BTreeMap<(&TableName, ChangeKind), Vec<&RowId>> = BTreeMap::new();
    for (((table, row_id), row), Named { otherwise, .. }) in found.iter().zip(named) {
        match (row.as_ref().filter(|(_, row)| sees(lens, table, row_id, row)), otherwise) {
            (Some((_, row)), _) => here.entry(table).or_default().push((row_id, row)),
            (None, Some(kind)) => gone.entry((table, *kind)).or_default().push(row_id),
            (None, None) => {}
        }
    }
    let mut sent: Vec<TableChanges> = Vec::new();
    for ((table, kind), rows) in gone {
        sent.push(match kind {
            ChangeKind::Delete => wire::encode_deletes(table, rows),
            _ => wire::encode_exits(table, rows),
        });
    }
    for (table, rows) in here {
        let version = schema.table(table).map_or(0, |table| table.version);
        let encode = |rows: &[(&RowId, &Row)]| {
            let rows = rows.iter().copied();
            match stand.options.whole_rows {
                true => wire::encode_whole_rows(table, version, rows),
                false => wire::encode_rows(table, version, rows),
            }
        };
        sent.extend(in_chunks(&rows, page_bytes, &encode).into_iter().map(|(_, chunk)| chunk));
    }
    pack(sent, page_bytes)
}

/// Rows in chunks of about `bytes_max`, each with how many rows it is of: what a row takes in a message
/// is known only once it is encoded, and may be more than it takes in the store.
pub(super) fn in_chunks<R>(
    rows: &[R],
    bytes_max: usize,
    encode: &impl Fn(&[R]) -> TableChanges,
) -> Vec<(usize, TableChanges)> {
    let encoded = encode(rows);
    if rows.len() < 2 || encoded.encoded_len() <= bytes_max + bytes_max / 2 {
        return vec![(rows.len(), encoded)];
    }
    let (first, second) = rows.split_at(rows.len() / 2);
    let mut chunks = in_chunks(first, bytes_max, encode);
    chunks.extend(in_chunks(second, bytes_max, encode));
    chunks
}

/// Tables together in messages of about `bytes_max`.
fn pack(tables: Vec<TableChanges>, bytes_max: usize) -> Vec<Vec<TableChanges>> {
    let (mut messages, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for table in tables {
        let more = table.encoded_len();
        match messages.last_mut() {
            Some(message) if bytes + more <= bytes_max => {
                bytes += more;
                message.push(table);
            }
            _ => {
                bytes = more;
                messages.push(vec![table]);
            }
        }
    }
    messages
}

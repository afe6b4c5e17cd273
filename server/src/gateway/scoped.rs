//! What commits mean to a reader within a scope: the parts of its bucket instances, united.
//!
//! A row that is in several of them is told of once, and has left only when it left the last. What
//! is sent is judged when it is sent: of a row that has left the scope meanwhile, or is gone, only
//! that is told. Commits in memory tell this themselves, for they reach to the head; for older ones
//! the rows are looked up as they are now. Nothing is read but the instances' own entries.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use lakesync::limits::PAGE_BYTES_TARGET;
use lakesync::name::{ClientId, Position, RowId, TableName};
use lakesync::proto::v1::{ChangeKind, RowChange, TableChanges};
use lakesync::row::Row;
use lakesync::rules::Scope;
use lakesync::wire;
use prost::Message;

use super::gather::{recent, stored_parts};
use super::lens::Lens;
use super::reader::Reader;
use super::{Gateway, ReadError, keys, stored};
use crate::store::StoreError;

/// One commit's changes that exceed this travel in several pages; the cursor moves with the last.
const PIECE_BYTES_MAX: usize = 3 << 20;
/// How many rows are looked up at a time, if they are no more than a page.
const LOOK_UP_ROWS_MAX: usize = 1_024;
/// How many named rows are looked up at a time: each is a message of its own, and once it was judged it
/// should not wait for many others.
const NAMED_MAX: usize = 16;

/// What one page holds.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) tables: Vec<TableChanges>,
    /// Whole rows that are to be looked up, and sent before.
    pub(super) named: Vec<(TableName, RowId)>,
    /// The position that the reader has reached with it.
    pub(super) at: Position,
}

/// A row of a message: the table's name and the row's id.
type Name = (String, String);

/// The next pages of a reader, after where it stands and up to `durable`.
pub(super) async fn gather(
    reader: &Reader,
    lens: &Lens,
    durable: Position,
) -> Result<Vec<Piece>, ReadError> {
    let gathered = match recent(reader, lens, durable) {
        Some(recent) => recent,
        None => stored_parts(reader, lens, durable).await?,
    };
    let whole = lens.whole_tables();
    let (mut united, mut own) = (Vec::new(), HashSet::new());
    let (mut through, mut bytes) = (gathered.through, 0);
    for (position, source) in gathered.commits {
        if PAGE_BYTES_TARGET <= bytes && !gathered.to_the_head {
            // Enough for a page: what follows is read again with the next.
            through = Position(position.0 - 1);
            break;
        }
        let opened = source.open(reader, position, &whole).await?;
        if holds_already(reader, position, &opened.client) {
            own.insert(position);
        }
        let tables = unite(opened.parts);
        bytes += tables.iter().map(Message::encoded_len).sum::<usize>();
        united.push((position, tables));
    }
    let gone = match gathered.to_the_head {
        true => gone_by_the_head(&united),
        false => gone_by_now(reader, lens, &united).await?,
    };
    for (position, tables) in &mut united {
        if own.contains(position) {
            tables.clear();
        }
        reader.narrow(tables);
        retain(tables, |name, change| !(is_upsert(change) && gone.contains(name)));
    }
    Ok(into_pieces(reader.at(), through, united))
}

/// What a position's parts tell of a row; of several the greatest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Exit,
    Delete,
    /// The row is in the scope, and this many cells are told of it: all, if it is whole.
    Upsert(usize),
}

fn word(change: &RowChange) -> Word {
    match ChangeKind::try_from(change.kind) {
        Ok(ChangeKind::ScopeExit) => Word::Exit,
        Ok(ChangeKind::Delete) => Word::Delete,
        Ok(ChangeKind::Upsert) => Word::Upsert(change.cells.len()),
        // A row that is only named is whole.
        _ => Word::Upsert(usize::MAX),
    }
}

fn is_upsert(change: &RowChange) -> bool {
    matches!(word(change), Word::Upsert(_))
}

/// Whether the reader pushed the commit itself, or says that it has it.
fn holds_already(reader: &Reader, position: Position, pushed_by: &str) -> bool {
    let is_by = |client: &ClientId| pushed_by == client.as_str();
    reader.is_skipped(position, is_by) || reader.is_own(position, is_by)
}

/// One position's changes, each row from the part that tells most of it.
fn unite(parts: Vec<Vec<TableChanges>>) -> Vec<TableChanges> {
    let mut told: HashMap<Name, (Word, usize)> = HashMap::new();
    if 1 < parts.len() {
        for (nth, part) in parts.iter().enumerate() {
            for (name, change) in changes(part) {
                let said = (word(change), nth);
                let most = told.entry(name).or_insert(said);
                *most = said.max(*most);
            }
        }
    }
    let mut united = Vec::new();
    for (nth, mut part) in parts.into_iter().enumerate() {
        if !told.is_empty() {
            retain(&mut part, |name, _| told.get(name).is_none_or(|(_, most)| *most == nth));
        }
        united.append(&mut part);
    }
    united
}

fn changes(tables: &[TableChanges]) -> impl Iterator<Item = (Name, &RowChange)> {
    tables.iter().flat_map(|table| {
        table.rows.iter().map(|change| ((table.table.clone(), change.row_id.clone()), change))
    })
}

/// Keeps the changes that pass, and the tables that have any.
fn retain(tables: &mut Vec<TableChanges>, mut keep: impl FnMut(&Name, &RowChange) -> bool) {
    for table in &mut *tables {
        let name = table.table.clone();
        let before = table.rows.len();
        table.rows.retain(|change| keep(&(name.clone(), change.row_id.clone()), change));
        if table.rows.len() < before {
            wire::forget_unused_names(table);
        }
    }
    tables.retain(|table| !table.rows.is_empty());
}

/// The rows that are out of scope at the head, to which `united` reaches.
fn gone_by_the_head(united: &[(Position, Vec<TableChanges>)]) -> HashSet<Name> {
    let mut gone = HashSet::new();
    for (_, tables) in united {
        // A row that came back is told of as the delete, then the row: the last word counts.
        for (name, change) in changes(tables) {
            match is_upsert(change) {
                true => gone.remove(&name),
                false => gone.insert(name),
            };
        }
    }
    gone
}

/// The rows that are out of scope as they are now.
async fn gone_by_now(
    reader: &Reader,
    lens: &Lens,
    united: &[(Position, Vec<TableChanges>)],
) -> Result<HashSet<Name>, ReadError> {
    let all = united.iter().flat_map(|(_, tables)| changes(tables));
    let told: HashSet<Name> =
        all.filter(|(_, change)| is_upsert(change)).map(|(name, _)| name).collect();
    let mut gone = HashSet::new();
    let names = told.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let mut left = names.as_slice();
    while !left.is_empty() {
        for ((table, row_id), row) in rows(&reader.gateway, &mut left, LOOK_UP_ROWS_MAX).await? {
            let here = row.is_some_and(|(_, row)| {
                lens.scope.reads(&lens.index.rules.instances(table, row_id, &row))
            });
            if !here {
                gone.insert((table.as_str().to_owned(), row_id.as_str().to_owned()));
            }
        }
    }
    // A row may have left by a commit that is not durable yet: wait for it, or for its loss.
    reader.gateway.settle().await?;
    Ok(gone)
}

fn parse((table, row_id): &Name) -> Result<(TableName, RowId), StoreError> {
    let corrupt = |_| StoreError::Corrupt(format!("a part of a commit names {table}/{row_id}"));
    Ok((TableName::parse(table).map_err(corrupt)?, RowId::parse(row_id).map_err(corrupt)?))
}

/// A row of the store, if it is there, and whose state it is.
type Found<'a> = (&'a (TableName, RowId), Option<(Position, Row)>);

/// Up to `count_max` rows as the store has them now, and no more than about a page: the first of
/// `left`, which moves on to the others.
async fn rows<'a>(
    gateway: &Gateway,
    left: &mut &'a [(TableName, RowId)],
    count_max: usize,
) -> Result<Vec<Found<'a>>, StoreError> {
    let some = left.iter().take(count_max);
    let keys: Vec<Bytes> = some.map(|(table, row_id)| keys::row(table, row_id)).collect();
    let found = gateway.0.store.rows(gateway.0.record.id, &keys, PAGE_BYTES_TARGET).await?;
    let answered;
    (answered, *left) = left.split_at(found.len());
    let row = |((name, key), bytes): ((&'a _, &Bytes), Option<Bytes>)| {
        Ok((name, bytes.map(|bytes| stored::decode(key, &bytes)).transpose()?))
    };
    answered.iter().zip(&keys).zip(found).map(row).collect()
}

/// Whole rows of those that are in scope now, one message each: of the first of `left`, which moves on
/// to the others.
pub(super) async fn look_up(
    gateway: &Gateway,
    lens: &Lens,
    left: &mut &[(TableName, RowId)],
) -> Result<Vec<TableChanges>, ReadError> {
    let found = rows(gateway, left, NAMED_MAX).await?;
    gateway.settle().await?;
    let (schema, scope): (_, &Scope) = (gateway.schema(), &lens.scope);
    let mut sent = Vec::new();
    for ((table, row_id), row) in found {
        let Some((_, row)) = row else { continue };
        if scope.reads(&lens.index.rules.instances(table, row_id, &row)) {
            let version = schema.table(table).map_or(0, |table| table.version);
            sent.push(wire::encode_rows(table, version, [(row_id, &row)]));
        }
    }
    Ok(sent)
}

/// Pages near their target that hold whole commits, up to `through`. The first is enough for now,
/// unless it is part of a commit that needs several.
fn into_pieces(
    from: Position,
    through: Position,
    united: Vec<(Position, Vec<TableChanges>)>,
) -> Vec<Piece> {
    let mut page = Piece { tables: Vec::new(), named: Vec::new(), at: from };
    let mut bytes = 0;
    for (position, mut tables) in united {
        let more: usize = tables.iter().map(Message::encoded_len).sum();
        if 0 < bytes && PAGE_BYTES_TARGET < bytes + more {
            return vec![page];
        }
        let named = take_named(&mut tables);
        let alone = !named.is_empty() || PIECE_BYTES_MAX < more;
        if alone && !page.tables.is_empty() {
            // An exit among what comes before must not follow a row that comes back.
            return vec![page];
        }
        if alone {
            return split(page.at, position, tables, named);
        }
        bytes += more;
        page.tables.append(&mut tables);
        page.at = position;
        if PAGE_BYTES_TARGET <= bytes {
            return vec![page];
        }
    }
    page.at = through;
    vec![page]
}

/// Takes out the rows that are only named.
fn take_named(tables: &mut Vec<TableChanges>) -> Vec<(TableName, RowId)> {
    let is_named = |change: &RowChange| word(change) == Word::Upsert(usize::MAX);
    let all = changes(tables).filter(|(_, change)| is_named(change));
    // What is no name was in no part: nothing is lost with it.
    let named: Vec<_> = all.filter_map(|(name, _)| parse(&name).ok()).collect();
    retain(tables, |_, change| !is_named(change));
    named
}

/// One commit in pieces, of which only the last reaches its position.
fn split(
    from: Position,
    position: Position,
    tables: Vec<TableChanges>,
    named: Vec<(TableName, RowId)>,
) -> Vec<Piece> {
    let mut pieces = vec![Piece { tables: Vec::new(), named, at: from }];
    let mut bytes = 0;
    for mut table in tables {
        for change in std::mem::take(&mut table.rows) {
            let more = change.encoded_len();
            if 0 < bytes && PAGE_BYTES_TARGET < bytes + more {
                pieces.push(Piece { tables: Vec::new(), named: Vec::new(), at: from });
                bytes = 0;
            }
            let open = pieces.last_mut().expect("BUG: there is a first piece");
            match open.tables.last_mut() {
                Some(last) if same_head(last, &table) => last.rows.push(change),
                _ => open.tables.push(TableChanges { rows: vec![change], ..table.clone() }),
            }
            bytes += more;
        }
    }
    pieces.last_mut().expect("BUG: there is a first piece").at = position;
    pieces
}

/// Whether rows of both mean the same.
fn same_head(one: &TableChanges, other: &TableChanges) -> bool {
    (&one.table, one.schema_version) == (&other.table, other.schema_version)
        && one.columns == other.columns
        && one.clients == other.clients
}

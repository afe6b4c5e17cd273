//! What commits mean to a reader within a scope: the parts of its bucket instances, united.
//!
//! A row that is in several of them is told of once, and has left only when it left the last. Commits
//! that reach to the head tell by themselves what has left the scope; for others the rows are looked up
//! when they are sent (see [`judge`](super::judge)). Only the instances' own entries are read.

use std::collections::{HashMap, HashSet};

use lakesync::name::Position;
use lakesync::proto::v1::TableChanges;
use prost::Message;

use super::ReadError;
use super::draft::{Batch, Drafts, Name, Word, changes, retain, word};
use super::gather::{recent, stored_parts};
use super::lens::Lens;
use super::stand::Stand;

/// The next pages of a reader, up to `durable` at the least where they are in memory, and at the most
/// where they are not.
pub(super) async fn gather(
    stand: &Stand,
    mut batch: Batch<'_>,
    lens: &Lens,
    durable: Position,
) -> Result<Drafts, ReadError> {
    let mut gathered = match recent(stand, lens) {
        Some(recent) => recent,
        None => stored_parts(stand, lens, durable).await?,
    };
    let whole = lens.whole_tables();
    let (mut united, mut held) = (Vec::new(), HashSet::new());
    let mut bytes = 0;
    for (position, source) in gathered.commits {
        if batch.read_bytes() <= bytes {
            // Enough for a page: what follows is gathered again with the next.
            gathered.through = Position(position.0 - 1);
            gathered.to_the_head = false;
            break;
        }
        let opened = source.open(stand, position, &whole).await?;
        if stand.has_already(position, Some(&opened.client)) {
            held.insert(position);
        }
        let tables = unite(opened.parts);
        bytes += tables.iter().map(Message::encoded_len).sum::<usize>();
        united.push((position, tables));
    }
    let gone = match gathered.to_the_head {
        true => {
            batch = batch.judged();
            gone_by_the_head(&united)
        }
        false => HashSet::new(),
    };
    for (position, mut tables) in united {
        if held.contains(&position) {
            tables.clear();
        }
        stand.narrow(&mut tables);
        if !stand.options.whole_rows {
            retain(&mut tables, |name, change| {
                !(matches!(word(change), Word::Upsert(_)) && gone.contains(name))
            });
        }
        if let Some(drafts) = batch.add((position, None), tables)? {
            return Ok(drafts);
        }
    }
    Ok(batch.close(gathered.through)?)
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

/// The rows that are out of scope at the head, to which `united` reaches.
fn gone_by_the_head(united: &[(Position, Vec<TableChanges>)]) -> HashSet<Name> {
    let mut gone = HashSet::new();
    for (_, tables) in united {
        // A row that came back is told of as the delete, then the row: the last word counts.
        for (name, change) in changes(tables) {
            match matches!(word(change), Word::Upsert(_)) {
                true => gone.remove(&name),
                false => gone.insert(name),
            };
        }
    }
    gone
}

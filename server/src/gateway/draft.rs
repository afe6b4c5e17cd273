//! Pages before they are sent: which changes each is made of.
//!
//! A page holds whole commits, near the size that its reader asked for, and of few rows where rows are
//! sent whole. A commit that is larger goes
//! into several drafts of its own, whose changes are sorted by row, so that a reader for whom the rest
//! could not be kept in memory goes on after the last row it was sent. The cursor moves with the last.

use std::collections::{HashMap, VecDeque};

use lakesync::name::{Position, RowId, TableName};
use lakesync::proto::v1::{ChangeKind, RowChange, TableChanges};
use lakesync::wire;
use prost::Message;

use super::commit::Chain;
use super::flight::{Flight, Kept, held_bytes};
use super::stand::Stand;
use crate::store::StoreError;

/// A row of a message: the table's name and the row's id.
pub(super) type Name = (String, String);
/// Where a commit that needs several pages goes on: after this row of the commit at this position.
pub(super) type Part = (Position, Name);

/// How many rows several commits together may have for a reader of whole rows: what they take is known
/// only once they are looked up, and the reader has to wait for all of them.
const WHOLE_ROWS_MAX: usize = 64;
/// About as many bytes of commits have that many rows, mostly.
const WHOLE_ROWS_READ_BYTES: usize = 16 << 10;
/// What a row that is looked up takes in memory beside its name.
const NAMED_BYTES: usize = size_of::<Named>() + 32;

/// What one page is to be made of. It may take several messages.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Changes as the log or the index has them.
    pub(super) tables: Vec<TableChanges>,
    /// Rows that are looked up, and sent before the changes.
    pub(super) named: VecDeque<Named>,
    /// Whether what left the scope of the reader was left out already.
    pub(super) is_judged: bool,
    /// The position that the reader reaches with it, or would if it did not continue.
    pub(super) at: Position,
    /// The chain at that position, if it is at hand.
    pub(super) chain: Option<Chain>,
    /// Whether the commit goes on in the next draft.
    pub(super) continues: bool,
    /// The last row in it, where it is a part of a commit.
    pub(super) last: Option<Name>,
}

/// A row that is sent as it is when it is sent.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) key: (TableName, RowId),
    /// What the reader is told where it may not see the row.
    pub(super) otherwise: Option<ChangeKind>,
}

/// Drafts in the order of their sending: the first is enough for now, unless it continues.
pub(super) type Drafts = VecDeque<Draft>;

impl Draft {
    /// Whether all of it was sent.
    pub(super) fn is_over(&self) -> bool {
        self.tables.is_empty() && self.named.is_empty()
    }

    /// About how much memory it takes.
    fn held_bytes(&self) -> usize {
        let of_name = |Named { key: (table, row_id), .. }: &Named| {
            NAMED_BYTES + table.as_str().len() + row_id.as_str().len()
        };
        held_bytes(&self.tables) + self.named.iter().map(of_name).sum::<usize>()
    }
}

/// Keeps the rest of a large commit, if there is room for it. Else it is gathered again.
pub(super) fn keep_rest(drafts: &mut Drafts, flight: &Flight) -> Option<Kept> {
    if drafts.len() < 2 {
        return None;
    }
    let kept = flight.keep(drafts.iter().skip(1).map(Draft::held_bytes).sum());
    if kept.is_none() {
        drafts.truncate(1);
    }
    kept
}

/// What a commit tells of a row; of several the greatest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Word {
    Exit,
    Delete,
    /// The row is in the scope, and this many cells are told of it: all, if it is whole.
    Upsert(usize),
}

/// A row of which only the name is known is whole.
const NAMED: Word = Word::Upsert(usize::MAX);

pub(super) fn word(change: &RowChange) -> Word {
    match ChangeKind::try_from(change.kind) {
        Ok(ChangeKind::ScopeExit) => Word::Exit,
        Ok(ChangeKind::Delete) => Word::Delete,
        Ok(ChangeKind::Upsert) => Word::Upsert(change.cells.len()),
        _ => NAMED,
    }
}

/// Each change, with its row's name.
pub(super) fn changes(tables: &[TableChanges]) -> impl Iterator<Item = (Name, &RowChange)> {
    tables.iter().flat_map(|table| {
        table.rows.iter().map(|change| ((table.table.clone(), change.row_id.clone()), change))
    })
}

pub(super) fn parse((table, row_id): &Name) -> Result<(TableName, RowId), StoreError> {
    let corrupt = |_| StoreError::Corrupt(format!("a commit names {table}/{row_id}"));
    Ok((TableName::parse(table).map_err(corrupt)?, RowId::parse(row_id).map_err(corrupt)?))
}

/// Commits on their way into one page.
pub(super) struct Batch<'a> {
    page_bytes: usize,
    rows_max: usize,
    whole_rows: bool,
    within_scope: bool,
    part: Option<&'a Part>,
    open: Draft,
    bytes: usize,
    rows: usize,
}

impl<'a> Batch<'a> {
    /// A page for `stand`, of `rows_max` rows or a little more. `part` says what it was sent of a
    /// commit that is under way.
    pub(super) fn begin(stand: &Stand, rows_max: usize, part: Option<&'a Part>) -> Self {
        Self {
            page_bytes: stand.page_bytes(),
            rows_max,
            whole_rows: stand.options.whole_rows,
            within_scope: stand.lens.is_some(),
            part,
            open: Draft { at: stand.at(), ..Draft::default() },
            bytes: 0,
            rows: 0,
        }
    }

    /// How many bytes of commits are enough for a page.
    pub(super) fn read_bytes(&self) -> usize {
        match self.whole_rows {
            true => self.page_bytes.min(WHOLE_ROWS_READ_BYTES),
            false => self.page_bytes,
        }
    }

    /// The same for changes that were judged.
    pub(super) fn judged(mut self) -> Self {
        self.open.is_judged = true;
        self
    }

    /// Adds the next commit. Once the page is full, that is what there is to send; a commit that did
    /// not fit is gathered again.
    pub(super) fn add(
        &mut self,
        (position, chain): (Position, Option<Chain>),
        mut tables: Vec<TableChanges>,
    ) -> Result<Option<Drafts>, StoreError> {
        let more = tables.iter().map(Message::encoded_len).sum::<usize>();
        // A row that is looked up may be newer than what other commits in the page say of it.
        let alone = self.page_bytes < more || has_named(&tables);
        let rows = self.rows + tables.iter().map(|table| table.rows.len()).sum::<usize>();
        let fits = self.bytes + more <= self.page_bytes && rows <= self.together_max();
        if !self.open.tables.is_empty() && (alone || !fits) {
            return self.take().map(Some);
        }
        if alone {
            return self.split((position, chain), tables).map(Some);
        }
        (self.open.at, self.open.chain) = (position, chain);
        self.open.tables.append(&mut tables);
        self.bytes += more;
        self.rows = rows;
        let rows_max = self.rows_max.min(self.together_max());
        let is_full = self.page_bytes <= self.bytes || rows_max <= self.rows;
        if is_full { self.take().map(Some) } else { Ok(None) }
    }

    /// How many rows several commits may have together.
    fn together_max(&self) -> usize {
        if self.whole_rows { WHOLE_ROWS_MAX } else { usize::MAX }
    }

    /// The page with all commits that were added. It reaches `through`.
    pub(super) fn close(mut self, through: Position) -> Result<Drafts, StoreError> {
        if self.open.at != through {
            (self.open.at, self.open.chain) = (through, None);
        }
        self.take()
    }

    fn take(&mut self) -> Result<Drafts, StoreError> {
        let draft = std::mem::take(&mut self.open);
        Ok([self.finish(draft)?].into())
    }

    fn finish(&self, mut draft: Draft) -> Result<Draft, StoreError> {
        if self.whole_rows {
            draft.named = self.names(&draft.tables)?;
            draft.tables.clear();
        } else {
            draft.named = take_named(&mut draft.tables)?;
        }
        Ok(draft)
    }

    /// Each row that changed, once. Where it can't be seen any more, its last change counts: of a row
    /// that left the scope meanwhile nothing is told but that.
    fn names(&self, tables: &[TableChanges]) -> Result<VecDeque<Named>, StoreError> {
        let (mut named, mut places) = (VecDeque::new(), HashMap::new());
        for (name, change) in changes(tables) {
            let otherwise = match word(change) {
                Word::Delete => ChangeKind::Delete,
                _ if !self.within_scope => ChangeKind::Delete,
                Word::Exit | Word::Upsert(_) => ChangeKind::ScopeExit,
            };
            let place = *places.entry(name.clone()).or_insert(named.len());
            let entry = Named { key: parse(&name)?, otherwise: Some(otherwise) };
            match named.get_mut(place) {
                Some(known) => *known = entry,
                None => named.push_back(entry),
            }
        }
        Ok(named)
    }

    /// One commit in as many drafts as it needs, after the part of it that was sent.
    fn split(
        &self,
        (position, chain): (Position, Option<Chain>),
        tables: Vec<TableChanges>,
    ) -> Result<Drafts, StoreError> {
        let sent = self.part.filter(|(at, _)| *at == position).map(|(_, name)| name);
        let mut heads = Vec::new();
        let mut rows: Vec<(Name, usize, RowChange)> = Vec::new();
        for (nth, mut table) in tables.into_iter().enumerate() {
            let changes = std::mem::take(&mut table.rows).into_iter();
            let named =
                changes.map(|change| ((table.table.clone(), change.row_id.clone()), nth, change));
            rows.extend(named.filter(|(name, ..)| sent.is_none_or(|sent| sent < name)));
            heads.push(table);
        }
        // The sort is stable: a row that came back is told of as the delete, then the row.
        rows.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let mut drafts = Drafts::new();
        let mut rows = rows.into_iter().peekable();
        loop {
            let (mut bytes, mut last, mut piece) = (0, None, Vec::new());
            while let Some((name, nth, change)) = rows.next_if(|(name, _, change)| {
                let fits = bytes + change.encoded_len() <= self.page_bytes;
                bytes == 0 || fits || last.as_ref() == Some(name)
            }) {
                bytes += change.encoded_len();
                last = Some(name);
                piece.push((nth, change));
            }
            let (tables, continues) = (regroup(&heads, piece), rows.peek().is_some());
            let at = position;
            let draft = Draft { tables, at, chain, continues, last, ..Draft::default() };
            drafts.push_back(self.finish(draft)?);
            if !continues {
                return Ok(drafts);
            }
        }
    }
}

/// Changes under the heads of their tables, with the names that they use and no others.
fn regroup(heads: &[TableChanges], changes: Vec<(usize, RowChange)>) -> Vec<TableChanges> {
    let mut groups: HashMap<usize, TableChanges> = HashMap::new();
    for (nth, change) in changes {
        groups.entry(nth).or_insert_with(|| heads[nth].clone()).rows.push(change);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(nth, _)| *nth);
    let tables = groups.into_iter().map(|(_, mut table)| {
        wire::forget_unused_names(&mut table);
        table
    });
    tables.collect()
}

fn has_named(tables: &[TableChanges]) -> bool {
    tables.iter().flat_map(|table| &table.rows).any(|change| word(change) == NAMED)
}

/// Takes out the rows of which only the name is known.
fn take_named(tables: &mut Vec<TableChanges>) -> Result<VecDeque<Named>, StoreError> {
    if !has_named(tables) {
        return Ok(VecDeque::new());
    }
    let all = changes(tables).filter(|(_, change)| word(change) == NAMED);
    let named = all.map(|(name, _)| Ok(Named { key: parse(&name)?, otherwise: None }));
    let named = named.collect::<Result<VecDeque<_>, StoreError>>()?;
    retain(tables, |_, change| word(change) != NAMED);
    Ok(named)
}

/// Keeps the changes that pass, and the tables that have any.
pub(super) fn retain(
    tables: &mut Vec<TableChanges>,
    mut keep: impl FnMut(&Name, &RowChange) -> bool,
) {
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

#[cfg(test)]
mod tests {
    use lakesync::testing;

    use super::*;

    #[test]
    fn names_that_are_kept_are_counted() {
        let draft = || {
            let named = (0..100).map(|nth| Named {
                key: (testing::id("todos"), testing::id(&nth.to_string())),
                otherwise: None,
            });
            Draft { named: named.collect(), ..Draft::default() }
        };
        let drafts = || Drafts::from([draft(), draft(), draft()]);
        let (mut some, mut none) = (drafts(), drafts());
        assert!(keep_rest(&mut some, &Flight::new(1 << 20)).is_some());
        assert_eq!(some.len(), 3);
        assert!(keep_rest(&mut none, &Flight::new(8 << 10)).is_none());
        assert_eq!(none.len(), 1, "it is gathered again");
    }
}

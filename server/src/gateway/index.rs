//! The index that sync rules need: which rows each bucket instance holds, and what each commit means
//! to its readers. Written in the commit's own group, so it is never behind.
//!
//! A bucket without filters holds whole tables: their rows and the log are its index, and nothing is
//! written for it.
//!
//! A commit as a whole is judged: the instances that a row was in before it, against those after it.
//! Who had the row and keeps it gets its change; who gains it gets the whole row; who loses it gets
//! an exit, or the delete; nobody else learns of it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use lakesync::delta::{Delta, Op};
use lakesync::error::Reason;
use lakesync::name::{ClientId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::rules::{Instance, Scope, SyncRules};
use lakesync::schema::Schema;
use lakesync::wire::Refusal;

use super::keys;
use super::part::{self, Part};
use super::{Bug, Planted};

/// Rules in force, and the number that their index entries carry. Every change of rules is another
/// generation, with an index of its own.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) generation: u32,
    pub(super) rules: SyncRules,
    /// The head when they came into force: no cursor of theirs is from before.
    pub(super) since: Position,
}

/// What a pusher may change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'a> {
    /// There are no rules.
    Everything,
    /// Rows within a scope.
    Within(&'a SyncRules, &'a Scope),
}

impl Access<'_> {
    /// Refuses unless the row may be written as it is. One that does not exist is nobody's.
    pub(super) fn check(&self, delta: &Delta, row: &Row) -> Result<(), Refusal> {
        let Self::Within(rules, scope) = self else { return Ok(()) };
        if !row.is_live() {
            return Ok(());
        }
        let instances = rules.instances(&delta.table, &delta.row_id, row);
        if scope.writes(&instances) {
            return Ok(());
        }
        // Who may see the row may know why; anybody else learns nothing of it.
        let message = match scope.reads(&instances) {
            true => "the token may read this row and not write it",
            false => "the row is, or would be, in no bucket that the token may write",
        };
        Err(Refusal::new(Reason::OutOfScope, message))
    }

    /// Whether anything is ever refused.
    pub(super) fn is_limited(&self) -> bool {
        matches!(self, Self::Within(..))
    }
}

/// The rows that a commit changes, and where they were.
#[derive(Debug, Default)]
pub(super) struct Moves {
    places: HashMap<Bytes, usize>,
    rows: Vec<Moved>,
}

#[derive(Debug)]
struct Moved {
    key: Bytes,
    table: TableName,
    row_id: RowId,
    /// Per index, in its order.
    before: Vec<Vec<Instance>>,
    /// Whether nothing at all was known of the row.
    fresh: bool,
    was_live: bool,
    /// Its effective changes, by their place in the commit.
    changes: Vec<usize>,
}

/// Where a row was, per index, before a change that may not take effect.
#[derive(Debug)]
pub(super) struct Before {
    instances: Vec<Vec<Instance>>,
    fresh: bool,
    live: bool,
}

impl Before {
    pub(super) fn of(indexes: &[Arc<Index>], delta: &Delta, row: &Row) -> Self {
        let of = |index: &Arc<Index>| index.rules.instances(&delta.table, &delta.row_id, row);
        let (fresh, live) = (*row == Row::default(), row.is_live());
        Self { instances: indexes.iter().map(of).collect(), fresh, live }
    }
}

impl Moves {
    /// Whether the commit has changed the row already.
    pub(super) fn knows(&self, key: &Bytes) -> bool {
        self.places.contains_key(key)
    }

    /// Notes that the change at `place` of the commit took effect. `before` counts for the first.
    pub(super) fn note(
        &mut self,
        key: &Bytes,
        delta: &Delta,
        before: Option<Before>,
        place: usize,
    ) {
        let at = match (self.places.get(key), before) {
            (Some(at), _) => *at,
            (None, Some(Before { instances, fresh, live })) => {
                let (table, row_id) = (delta.table.clone(), delta.row_id.clone());
                let (key, changes) = (key.clone(), Vec::new());
                self.places.insert(key.clone(), self.rows.len());
                let (before, was_live) = (instances, live);
                self.rows.push(Moved { key, table, row_id, before, fresh, was_live, changes });
                self.rows.len() - 1
            }
            (None, None) => return,
        };
        self.rows[at].changes.push(place);
    }
}

/// What a commit writes to the index, and what it means to readers.
#[derive(Debug, Default)]
pub(super) struct Described {
    /// New states of index entries.
    pub(super) entries: Vec<(Bytes, Option<Bytes>)>,
    /// The parts of readers under the rules in force, sorted by instance.
    pub(super) parts: Vec<Part>,
    /// Instances of whole tables that the commit concerns: the log itself is their part.
    wakes: BTreeSet<Instance>,
}

/// What happened to a row, as one instance's readers are told.
#[derive(Clone, Copy, Debug)]
enum Told<'a> {
    /// Its one change, which they can take as it is.
    Change(&'a Delta),
    /// All of it.
    Whole(&'a TableName, &'a RowId, &'a Row),
    Exit(&'a TableName, &'a RowId),
}

/// A commit under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committed<'a> {
    pub(super) client: &'a ClientId,
    pub(super) position: Position,
    pub(super) schema: &'a Schema,
    pub(super) effective: &'a [Delta],
    pub(super) planted: Option<&'a Planted>,
}

impl Committed<'_> {
    fn suffers(&self, bug: Bug) -> Option<&Planted> {
        self.planted.filter(|planted| planted.is(bug))
    }
}

/// Describes a commit to the indexes: of the first, whose rules are in force if `active`, its
/// readers' parts as well. `row` gives a row's state after the commit.
pub(super) fn describe<'a>(
    indexes: &[Arc<Index>],
    active: bool,
    moves: &'a Moves,
    commit: Committed<'a>,
    row: impl Fn(&Bytes) -> Option<&'a Row>,
) -> Described {
    let mut described = Described::default();
    for (nth, index) in indexes.iter().enumerate() {
        let mut told: BTreeMap<Instance, Vec<Told<'a>>> = BTreeMap::new();
        let state = |moved: &Moved| row(&moved.key).expect("BUG: a row that moved was not loaded");
        // Whether the log does as a part. A delete of what was not there is nobody's to hear of, and
        // of several changes of a row only what is left of them is told.
        let told_as_is =
            |one: &Moved| one.changes.len() == 1 && (one.was_live || state(one).is_live());
        let as_is = moves.rows.iter().all(told_as_is);
        let is_log = |instance: &Instance| as_is && index.rules.whole_tables(instance).is_some();
        if !as_is {
            told.extend(index.rules.whole_instances().map(|instance| (instance, Vec::new())));
        }
        for moved in &moves.rows {
            let row = state(moved);
            let (before, table, row_id) = (&moved.before[nth], &moved.table, &moved.row_id);
            let mut after = index.rules.instances(table, row_id, row);
            if commit.suffers(Bug::FilterOnChange).is_some() {
                after = moved.judged_alone(index, commit.effective);
            }
            for instance in before.iter().filter(|instance| !after.contains(instance)) {
                if is_log(instance) {
                    described.wakes.insert(*instance);
                    continue;
                }
                described.put(index, instance, &moved.key, None);
                let leaves = moved.leaves(row, commit.effective);
                if commit.suffers(Bug::ExitNotSent).is_none() {
                    told.entry(*instance).or_default().push(leaves);
                }
                for stranger in commit.strangers(leaves, &[before, &after[..]].concat()) {
                    told.entry(stranger).or_default().push(leaves);
                }
            }
            for instance in &after {
                if is_log(instance) {
                    described.wakes.insert(*instance);
                    continue;
                }
                let had = before.contains(instance);
                if !had {
                    described.put(index, instance, &moved.key, Some(Bytes::new()));
                }
                let had = had || commit.suffers(Bug::EntryInPart).is_some();
                told.entry(*instance).or_default().push(moved.stays(had, row, commit.effective));
                commit.strangers(Told::Whole(table, row_id, row), &after);
            }
        }
        if nth == 0 && active {
            described.tell(index, told, commit);
            let whole = std::mem::take(&mut described.wakes).into_iter();
            described.parts.extend(whole.map(Part::of_whole_tables));
        }
        described.wakes.clear();
    }
    described.parts.sort_unstable_by_key(|part| part.instance);
    described
}

impl Described {
    fn put(&mut self, index: &Index, instance: &Instance, row_key: &[u8], value: Option<Bytes>) {
        if index.rules.whole_tables(instance).is_some() {
            return; // The rows themselves are its entries.
        }
        self.entries.push((keys::bucket_row(index.generation, instance, row_key), value));
    }

    fn tell(
        &mut self,
        index: &Index,
        told: BTreeMap<Instance, Vec<Told<'_>>>,
        commit: Committed<'_>,
    ) {
        for (instance, told) in told {
            let bytes = encode(&told, commit);
            let key = keys::bucket_commit(index.generation, &instance, commit.position);
            self.entries.push((key, Some(bytes.clone())));
            self.parts.push(Part { instance, bytes });
        }
    }
}

impl Committed<'_> {
    /// Whom a planted bug tells of what is none of theirs.
    fn strangers(&self, told: Told<'_>, known: &[Instance]) -> Vec<Instance> {
        let strangers = [Bug::ExitToStrangers, Bug::DeleteToStrangers].map(|bug| {
            let all = self.suffers(bug).map(|planted| planted.strangers(known));
            let tells = match told {
                Told::Exit(..) => bug == Bug::ExitToStrangers,
                Told::Change(_) => bug == Bug::DeleteToStrangers,
                Told::Whole(..) => false,
            };
            all.filter(|_| tells).unwrap_or_default()
        });
        strangers.concat()
    }
}

impl Moved {
    /// Where a planted bug takes the row to be, which looks at its last change alone.
    fn judged_alone(&self, index: &Index, effective: &[Delta]) -> Vec<Instance> {
        let mut row = Row::default();
        if let Some(last) = self.changes.last() {
            row.merge(&effective[*last]);
        }
        index.rules.instances(&self.table, &self.row_id, &row)
    }

    /// What those are told who had the row and have it no longer.
    fn leaves<'a>(&'a self, row: &Row, effective: &'a [Delta]) -> Told<'a> {
        let changes = self.changes.iter().rev().map(|at| &effective[*at]);
        let delete = changes.into_iter().find(|change| change.op == Op::Delete);
        match delete.filter(|_| !row.is_live()) {
            Some(delete) => Told::Change(delete),
            None => Told::Exit(&self.table, &self.row_id),
        }
    }

    /// What those are told who have the row now. Of several changes only what is left of them is
    /// told: between two of them the row may have been somebody else's.
    fn stays<'a>(&'a self, had: bool, row: &'a Row, effective: &'a [Delta]) -> Told<'a> {
        match self.changes.as_slice() {
            [only] if had || self.fresh => Told::Change(&effective[*only]),
            _ => Told::Whole(&self.table, &self.row_id, row),
        }
    }
}

fn encode(told: &[Told<'_>], commit: Committed<'_>) -> Bytes {
    let mut changes: Vec<&Delta> = Vec::new();
    let mut whole: BTreeMap<&TableName, Vec<(&RowId, &Row)>> = BTreeMap::new();
    let mut exits: BTreeMap<&TableName, Vec<&RowId>> = BTreeMap::new();
    for told in told {
        match *told {
            Told::Change(delta) => changes.push(delta),
            Told::Whole(table, row_id, row) => whole.entry(table).or_default().push((row_id, row)),
            Told::Exit(table, row_id) => exits.entry(table).or_default().push(row_id),
        }
    }
    let mut part = part::Writer::begin(commit.client);
    part.changes(commit.client, &changes);
    for (table, rows) in whole {
        let version = commit.schema.table(table).map_or(0, |table| table.version);
        part.whole(table, version, &rows);
    }
    for (table, rows) in exits {
        part.exits(table, &rows);
    }
    part.finish()
}

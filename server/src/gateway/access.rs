//! Who may change a row: those in whose scope it is, before and after the change. A row that does not
//! exist is nobody's, but one that was deleted is remembered with where it was: only who could change
//! it then may delete it again, or be told that it is gone. Pure.

use std::sync::Arc;

use lakesync::delta::{Cell, Delta, Op};
use lakesync::error::Reason;
use lakesync::row::Row;
use lakesync::rules::{Instance, Scope};
use lakesync::wire::Refusal;

use super::index::{INDEXES_MAX, Index};

/// What a pusher may change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'a> {
    /// There are no rules.
    Everything,
    /// Rows within a scope of the rules in force, whose index is the first.
    Within(&'a Scope),
}

/// Where a row is: the instances that hold it, per index.
#[derive(Clone, Debug, Default)]
pub(super) struct Spot {
    pub(super) instances: [Vec<Instance>; INDEXES_MAX],
    pub(super) live: bool,
    /// Whether nothing at all is known of the row.
    pub(super) fresh: bool,
}

/// Where a row was when it was deleted: the instances that held it, each with its generation of rules.
/// Of a row that is there, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grave(pub(super) Vec<(u32, Instance)>);

impl Access<'_> {
    /// Refuses unless the row may be written as it is. One that does not exist is nobody's.
    pub(super) fn check(&self, spot: &Spot) -> Result<(), Refusal> {
        let Self::Within(scope) = self else { return Ok(()) };
        let [instances, _] = &spot.instances;
        if !spot.live || scope.writes(instances) {
            return Ok(());
        }
        // Who may see the row may know why; anybody else learns nothing of it.
        Err(match scope.reads(instances) {
            true => {
                Refusal::new(Reason::OutOfScope, "the token may read this row and not write it")
            }
            false => out_of_scope(),
        })
    }

    /// Whether what became of a row that does not exist is the pusher's to know and to change.
    pub(super) fn knew(&self, indexes: &[Arc<Index>], grave: &Grave, delta: &Delta) -> bool {
        let (Self::Within(scope), Some(index)) = (self, indexes.first()) else { return true };
        // Whoever may write all rows of the table could change it wherever it was.
        let all = index.rules.whole_instances().filter(|instance| {
            let tables = index.rules.whole_tables(instance);
            tables.is_some_and(|tables| tables.contains(&delta.table))
        });
        grave.under(index.generation).chain(all).any(|instance| scope.writes(&[instance]))
    }

    /// Whether anything is ever refused.
    pub(super) fn is_limited(&self) -> bool {
        matches!(self, Self::Within(_))
    }
}

impl Spot {
    pub(super) fn of(indexes: &[Arc<Index>], delta: &Delta, row: &Row) -> Self {
        let (live, fresh) = (row.is_live(), *row == Row::default());
        let mut spot = Self { live, fresh, ..Self::default() };
        for (instances, index) in spot.instances.iter_mut().zip(indexes) {
            *instances = index.rules.instances(&delta.table, &delta.row_id, row);
        }
        spot
    }

    /// Where a row would be that nothing but the change is known of.
    pub(super) fn alone(indexes: &[Arc<Index>], delta: &Delta) -> Self {
        let mut row = Row::default();
        row.merge(delta);
        Self::of(indexes, delta, &row)
    }
}

impl Grave {
    /// The grave of a row that was at `spot`.
    pub(super) fn at(indexes: &[Arc<Index>], spot: &Spot) -> Self {
        let all = indexes.iter().zip(&spot.instances);
        let each = |(index, instances): (&Arc<Index>, &Vec<Instance>)| {
            instances.iter().map(|one| (index.generation, *one)).collect::<Vec<_>>()
        };
        Self(all.flat_map(each).collect())
    }

    fn under(&self, generation: u32) -> impl Iterator<Item = Instance> {
        self.0.iter().filter(move |(of, _)| *of == generation).map(|(_, instance)| *instance)
    }
}

/// What is said of a row that is none of the pusher's, whether or not there is one.
pub(super) fn out_of_scope() -> Refusal {
    let message = "the row is, or would be, in no bucket that the token may write";
    Refusal::new(Reason::OutOfScope, message)
}

/// Whether a row holds all that a change would write, and by the same stamp: it took effect before.
pub(super) fn holds(row: &Row, delta: &Delta) -> bool {
    let Op::Upsert(cells) = &delta.op else { return row.deleted() == Some(&delta.stamp) };
    let by_it = |cell: &Cell| {
        let held = row.cell(&cell.column);
        held.is_some_and(|held| held.stamp == delta.stamp && held.value == cell.value)
    };
    !cells.is_empty() && cells.iter().all(by_it)
}

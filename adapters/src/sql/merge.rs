//! Which rows a batch makes of those there are. Pure: a database reads the rows that are touched,
//! this merges, and the database writes what changed.

use std::collections::HashMap;
use std::ops::Range;

use lakesync::delta::Delta;
use lakesync::name::{RowId, TableName};
use lakesync::row::Row;

/// The changes of one table, sorted by row id; those of one row in their order.
#[derive(Debug)]
pub(crate) struct Touched<'b> {
    pub(crate) table: &'b TableName,
    deltas: Vec<&'b Delta>,
}

/// A row to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed<'b> {
    pub(crate) row_id: &'b RowId,
    /// Whether its state was there before.
    pub(crate) known: bool,
    /// What it is now.
    pub(crate) row: Row,
}

/// Changes by table and row.
pub(crate) fn touched<'b>(deltas: impl Iterator<Item = &'b Delta>) -> Vec<Touched<'b>> {
    let mut sorted: Vec<&Delta> = deltas.collect();
    sorted.sort_by(|a, b| (&a.table, &a.row_id).cmp(&(&b.table, &b.row_id)));
    let tables = sorted.chunk_by(|a, b| a.table == b.table);
    tables.map(|deltas| Touched { table: &deltas[0].table, deltas: deltas.to_vec() }).collect()
}

impl<'b> Touched<'b> {
    /// The rows that are touched, each once, in order.
    pub(crate) fn row_ids(&self) -> Vec<&'b RowId> {
        self.deltas.chunk_by(same_row).map(|deltas| &deltas[0].row_id).collect()
    }

    /// The changes of some rows alone, by their places in [`row_ids`](Self::row_ids).
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        let deltas = self.deltas.chunk_by(same_row).skip(rows.start).take(rows.len());
        Self { table: self.table, deltas: deltas.flatten().copied().collect() }
    }

    /// The rows that the changes make of `held`, in order; those that stay as they are left out.
    pub(crate) fn merged(&self, held: &mut HashMap<RowId, Row>) -> Vec<Changed<'b>> {
        let deltas = self.deltas.chunk_by(same_row);
        deltas
            .filter_map(|deltas| {
                change(&deltas[0].row_id, held, |row| {
                    deltas.iter().for_each(|delta| {
                        row.merge(delta);
                    });
                })
            })
            .collect()
    }
}

/// The rows that joining `rows` makes of `held`; those that stay as they are left out. A row id
/// that is given twice comes once, with all that was given.
pub(crate) fn joined<'b>(
    rows: &'b [(RowId, Row)],
    held: &mut HashMap<RowId, Row>,
) -> Vec<Changed<'b>> {
    let mut sorted: Vec<&(RowId, Row)> = rows.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let rows = sorted.chunk_by(|a, b| a.0 == b.0);
    rows.filter_map(|parts| {
        change(&parts[0].0, held, |row| {
            parts.iter().for_each(|(_, part)| {
                row.join(part);
            });
        })
    })
    .collect()
}

fn change<'b>(
    row_id: &'b RowId,
    held: &mut HashMap<RowId, Row>,
    merge: impl FnOnce(&mut Row),
) -> Option<Changed<'b>> {
    let before = held.remove(row_id);
    let known = before.is_some();
    let mut row = before.clone().unwrap_or_default();
    merge(&mut row);
    (before.as_ref() != Some(&row)).then_some(Changed { row_id, known, row })
}

fn same_row(a: &&Delta, b: &&Delta) -> bool {
    a.row_id == b.row_id
}

#[cfg(test)]
mod tests {
    use lakesync::testing::{delta, fold};

    use super::*;

    fn of(table: &str, row_id: &str, text: &str) -> Delta {
        let (table, row_id) = (table.parse().expect("legal"), row_id.parse().expect("legal"));
        Delta { table, row_id, ..delta(text) }
    }

    #[test]
    fn rows_are_merged_once_each_and_in_order() {
        let deltas = [
            of("b", "r", "ann@1 a=1"),
            of("a", "s", "ann@1 a=1"),
            of("a", "r", "ann@1 a=1"),
            of("a", "s", "ann@2 b=2"),
            of("a", "q", "ann@1 a=1"),
        ];
        let touched = touched(deltas.iter());
        let tables: Vec<_> = touched.iter().map(|touched| touched.table.as_str()).collect();
        assert_eq!(tables, ["a", "b"]);
        let ids: Vec<_> = touched[0].row_ids().into_iter().map(RowId::as_str).collect();
        assert_eq!(ids, ["q", "r", "s"]);

        let known = fold(&[of("a", "r", "zoë@9 a=9")]);
        let mut held = HashMap::from([
            ("r".parse().expect("legal"), known.clone()),
            ("q".parse().expect("legal"), fold(&deltas[4..])),
        ]);
        let mut with_both = known;
        with_both.merge(&deltas[2]);
        let merged = touched[0].part(1..3).merged(&mut held);
        let s = Changed {
            row_id: &deltas[1].row_id,
            known: false,
            row: fold(&[deltas[1].clone(), deltas[3].clone()]),
        };
        assert_eq!(merged, [s], "r has a newer write, and q is as it was");
    }

    #[test]
    fn joined_rows_are_what_all_parts_make() {
        let part = |text: &str| ("r".parse().expect("legal"), fold(&[delta(text)]));
        let parts = [part("ann@1 a=1"), part("ann@2 b=2")];
        let all = fold(&[delta("ann@1 a=1"), delta("ann@2 b=2")]);
        let joined_now = joined(&parts, &mut HashMap::new());
        assert_eq!(joined_now.len(), 1);
        assert_eq!((&joined_now[0].row, joined_now[0].known), (&all, false));
        let mut held = HashMap::from([(parts[0].0.clone(), all)]);
        assert_eq!(joined(&parts, &mut held), []);
    }
}

//! Cells that are not shown, since the database refused them: counted, never repeated.
//!
//! What a database can't hold is refused when it is pushed, as far as that is known. Whatever else a
//! database refuses, such as a text in a column that somebody made shorter, must not stop the rows
//! behind it: the cell is NULL where people look, and exact in our own table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lakesync::name::TableName;

use super::error::Said;

/// How many columns are told apart.
const PLACES_MAX: usize = 100;

/// Cells that were refused, by table, column and code.
#[derive(Debug, Default)]
pub(crate) struct Hidden {
    places: BTreeMap<(String, String, String), u64>,
    others: u64,
}

/// One of them, or a row as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) table: String,
    /// Empty for a row as a whole.
    pub(crate) column: String,
    pub(crate) code: String,
}

impl Cell {
    /// A cell of this table that the database refused so.
    pub(crate) fn new(table: &TableName, column: &str, said: &Said) -> Self {
        Self { table: table.to_string(), column: column.to_owned(), code: said.code.clone() }
    }
}

impl Hidden {
    /// Counts them.
    pub(crate) fn add(&mut self, cells: Vec<Cell>) {
        for Cell { table, column, code } in cells {
            let place = (table, column, code);
            match self.places.len() < PLACES_MAX || self.places.contains_key(&place) {
                true => *self.places.entry(place).or_default() += 1,
                false => self.others += 1,
            }
        }
    }

    /// What there is, for people.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let trouble = |((table, column, code), count): (&(String, String, String), &u64)| {
            let mut text = format!("table {table}");
            let what = match column.as_str() {
                "" => "rows are not shown",
                column => {
                    // Writing to a text can't fail.
                    let _ = write!(text, ", column {column}");
                    "cells show NULL"
                }
            };
            format!(
                "{text}: {count} {what}, which the database refused ({code}); _lakesync_rows has them"
            )
        };
        let mut troubles: Vec<_> = self.places.iter().map(trouble).collect();
        if 0 < self.others {
            troubles.push(format!("{} cells more show NULL", self.others));
        }
        troubles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_counted_by_their_place() {
        let cell = |table: usize, column: &str| Cell {
            table: format!("t{table}"),
            column: column.to_owned(),
            code: "22001".to_owned(),
        };
        let mut hidden = Hidden::default();
        hidden.add(vec![cell(1, "a"), cell(1, ""), cell(1, "a")]);
        let troubles = hidden.troubles();
        assert!(troubles[0].starts_with("table t1: 1 rows are not shown"), "{troubles:?}");
        assert!(troubles[1].starts_with("table t1, column a: 2 cells show NULL"), "{troubles:?}");
        hidden.add((0..200).map(|table| cell(table, "b")).collect());
        assert_eq!(hidden.troubles().len(), PLACES_MAX + 1, "its size is bounded");
    }
}

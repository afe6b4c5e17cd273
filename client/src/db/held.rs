//! What this file holds of a row: what the gateway is known to have, what was not sent yet, and
//! what the application's table shows.
//!
//! Invariant: a known value stands in `_lakesync_base` if the table does not show it, and nowhere
//! but in the table otherwise.

use std::collections::HashMap;

use lakesync::delta::{Cell, Delta, Op};
use lakesync::name::{ColumnName, RowId};
use lakesync::row::Row;
use lakesync::value::Value;

use super::convert::{from_stored, to_stored};
use super::layout::{OP_UPSERT, is_delete};
use super::sql::Stored;
use super::table::{LocalColumn, Place, Table};

mod load;

pub(super) use load::{load, read_cells};

/// A row as this file holds it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) row_id: RowId,
    /// The key that finds it; `None` if no row of this table can have this id, or it has no rowid
    /// yet.
    pub(super) key: Option<Vec<Stored>>,
    /// What the gateway is known to have.
    pub(super) known: Row,
    /// Unsent changes, in the order they were made.
    pub(super) pending: Vec<Pending>,
    /// What the table shows, by local column; `None` if there is no such row.
    pub(super) image: Option<Vec<Stored>>,
    /// The known values that unsent writes hide, by column number.
    pub(super) base: HashMap<u32, Stored>,
    /// Which local columns had been written when this was loaded; the others show their default.
    pub(super) written: Vec<bool>,
    /// Whether stamps of it are recorded.
    pub(super) recorded: bool,
    /// Since when it has been parked, if it is.
    pub(super) parked_since: Option<i64>,
    /// The last checkpoint that contained it.
    pub(super) seen: i64,
}

/// An unsent change.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) seq: i64,
    pub(super) delta: Delta,
    /// What exactly was written, by column number: some of it no typed value can express.
    pub(super) raw: HashMap<u32, Stored>,
}

impl Pending {
    /// Leaves only these columns.
    pub(super) fn trim(&mut self, columns: &[u32], table: &Table) {
        self.raw.retain(|column, _| columns.contains(column));
        if matches!(self.delta.op, Op::Upsert(_)) {
            self.delta.op = op(table, OP_UPSERT, &self.raw);
        }
    }
}

impl Held {
    /// A row of which nothing is held yet.
    pub(super) fn new(row_id: &RowId, key: Option<Vec<Stored>>) -> Self {
        Self {
            row_id: row_id.clone(),
            key,
            known: Row::default(),
            pending: Vec::new(),
            image: None,
            base: HashMap::new(),
            written: Vec::new(),
            recorded: false,
            parked_since: None,
            seen: 0,
        }
    }

    /// What the gateway is known to have, with the unsent changes laid over it.
    pub(super) fn visible(&self) -> Row {
        let mut visible = self.known.clone();
        for pending in &self.pending {
            visible.merge(&pending.delta);
        }
        visible
    }

    /// What the table should show, by local column: `None` for no row.
    pub(super) fn desired(&self, table: &Table) -> Option<Vec<Wish>> {
        let visible = self.visible();
        if !visible.is_live() {
            return None;
        }
        let key = table.key.columns();
        let wish = |(at, column): (usize, &LocalColumn)| {
            if column.in_key {
                let part = key.iter().position(|sql| *sql == column.sql);
                let value = part.and_then(|part| self.key.as_ref()?.get(part)).cloned();
                let cell = visible.cell(&column.name).map(|cell| to_stored(&cell.value));
                return value.map_or(Wish::Keep, |value| Wish::Value(as_written(value, cell)));
            }
            let Some(cell) = visible.cell(&column.name) else {
                let written = self.image.is_some() && self.written.get(at) == Some(&true);
                return match (written, &column.default) {
                    (false, _) => Wish::Keep,
                    (true, None) => Wish::Value(Stored::Null),
                    (true, Some(_)) => Wish::Default,
                };
            };
            let own = self.pending.iter().find(|pending| pending.delta.stamp == cell.stamp);
            let raw = own.and_then(|pending| pending.raw.get(&column.field_id)).cloned();
            Wish::Value(raw.unwrap_or_else(|| to_stored(&cell.value)))
        };
        Some(table.columns.iter().enumerate().map(wish).collect())
    }
}

/// A value of the key as its cell was written. The id of a row tells 1 from 1.0 as little as SQLite
/// does when it compares them, and yet they are two values.
fn as_written(of_id: Stored, cell: Option<Stored>) -> Stored {
    match (&of_id, cell) {
        (Stored::Integer(integer), Some(Stored::Real(real)))
            if real.fract() == 0.0 && real as i64 == *integer =>
        {
            Stored::Real(real)
        }
        _ => of_id,
    }
}

/// What a column should show.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    /// This.
    Value(Stored),
    /// Its default: what had been written was deleted.
    Default,
    /// Whatever it shows: nobody ever wrote it.
    Keep,
}

/// What an outbox row does. Text that is not UTF-8 stands as its bytes: it is never sent so.
pub(super) fn op(table: &Table, op: i64, raw: &HashMap<u32, Stored>) -> Op {
    if is_delete(op) {
        return Op::Delete;
    }
    let cell = |column: &lakesync::schema::Column| {
        let stored = raw.get(&column.field_id)?;
        let value = from_stored(column.kind, stored).unwrap_or_else(|| match stored {
            Stored::Garbled(bytes) => Value::Bytes(bytes.clone().into()),
            _ => Value::Null,
        });
        Some(Cell { column: column.name.clone(), value })
    };
    Op::Upsert(table.schema.columns.iter().filter_map(cell).collect())
}

/// SQL that finds the row of `_t` whose key stands in the columns of a VALUES list, from the
/// `first` on.
pub(super) fn on_key(table: &Table, values: &str, first: usize) -> String {
    // The comparison that a column's own collation makes may find more than the one row.
    let binary = |(at, column): (usize, String)| {
        format!(
            "_t.{column} = {values}.column{0} AND _t.{column} = {values}.column{0} COLLATE BINARY",
            at + first
        )
    };
    table.key.columns().into_iter().enumerate().map(binary).collect::<Vec<_>>().join(" AND ")
}

/// Whether cells of this column are kept in the table.
pub(super) fn is_local(table: &Table, column: &ColumnName) -> bool {
    matches!(table.place(column), Some(Place::Local(_)))
}

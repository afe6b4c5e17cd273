//! Changes on their way up, and commits: deltas of one client ⇄ `TableChanges`.
//!
//! Each change is understood or refused for itself: one bad change never blocks the rest.

use std::collections::HashMap;

use crate::delta::{Cell, Delta, Op};
use crate::error::Reason;
use crate::hlc::Hlc;
use crate::limits::NAME_BYTES_MAX;
use crate::name::{ClientId, ColumnName, RowId, TableName};
use crate::proto::v1::{self as proto, ChangeKind};
use crate::stamp::Stamp;
use crate::value::Value;
use crate::wire::dictionary::Dictionary;
use crate::wire::{decode_value, encode_value};

mod bounds;
mod weigh;

pub use bounds::{Oversized, fit_answer, measure_push};
pub use weigh::weigh_push;

/// One pushed change: where it stood in the request, and what it says if it can be understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Index into `PushRequest.tables`.
    pub table: u32,
    /// Index into `TableChanges.rows`.
    pub row: u32,
    /// The change, or why it is refused.
    pub delta: Result<Delta, Refusal>,
}

/// What the system keeps beside a piece of memory that it gives, about.
const ALLOCATION_BYTES: usize = 16;

impl Offer {
    /// What it takes in memory, about; bytes of values, which are shared with the request, not counted.
    pub fn memory_bytes(&self) -> usize {
        let inner = match &self.delta {
            Ok(Delta { row_id, op: Op::Upsert(cells), .. }) => {
                let cells: usize = cells.iter().map(cell_memory_bytes).sum();
                row_id.as_str().len() + cells + 3 * ALLOCATION_BYTES
            }
            Ok(Delta { row_id, op: Op::Delete, .. }) => {
                row_id.as_str().len() + 2 * ALLOCATION_BYTES
            }
            Err(refusal) => refusal.message.len() + 2 * ALLOCATION_BYTES,
        };
        size_of::<Self>() + inner
    }
}

fn cell_memory_bytes(cell: &Cell) -> usize {
    let text = match &cell.value {
        Value::String(text) | Value::Json(text) | Value::Decimal(text) => {
            text.len() + ALLOCATION_BYTES
        }
        _ => 0,
    };
    size_of::<Cell>() + text
}

/// Why one change is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// For developers, in English.
    pub message: String,
    /// The columns concerned, if single columns are.
    pub columns: Vec<String>,
}

impl Refusal {
    /// A refusal that concerns no single column.
    pub fn new(reason: Reason, message: impl ToString) -> Self {
        Self { reason, message: message.to_string(), columns: Vec::new() }
    }

    fn malformed(message: impl ToString) -> Self {
        Self::new(Reason::InvalidRequest, message)
    }

    /// A text that is no legal name may be as long as the request: its start must do.
    fn of_column(column: &str, message: impl ToString) -> Self {
        let start = &column[..column.floor_char_boundary(NAME_BYTES_MAX)];
        let columns = vec![start.to_owned()];
        Self { columns, ..Self::malformed(message) }
    }
}

/// Understands the changes of a push, each for itself, in the order they were sent.
pub fn decode_push(tables: Vec<proto::TableChanges>, client: &ClientId) -> Vec<Offer> {
    let mut offers = Vec::with_capacity(tables.iter().map(|table| table.rows.len()).sum());
    for (at, changes) in (0..).zip(tables) {
        let mut names = Names::parse(&changes, at);
        for (row, change) in (0..).zip(changes.rows) {
            let delta = names.decode(change, client);
            offers.push(Offer { table: at, row, delta });
        }
    }
    offers
}

/// The dictionaries of one `TableChanges`, parsed once.
struct Names {
    table: Result<TableName, Refusal>,
    columns: Vec<Result<ColumnName, Refusal>>,
    /// For each column the change that named it last, counted from one.
    named_by: Vec<u32>,
    change: u32,
}

impl Names {
    /// `at` is the place in the request. A dictionary that names a column twice refuses every change
    /// that comes with it.
    fn parse(changes: &proto::TableChanges, at: u32) -> Self {
        let column = |text: &String| {
            ColumnName::parse(text).map_err(|error| Refusal::of_column(text, error))
        };
        let table = TableName::parse(&changes.table).map_err(Refusal::malformed);
        Self {
            table: named_twice(changes, at).map_or(table, Err),
            columns: changes.columns.iter().map(column).collect(),
            named_by: vec![0; changes.columns.len()],
            change: 0,
        }
    }

    fn decode(&mut self, change: proto::RowChange, client: &ClientId) -> Result<Delta, Refusal> {
        let table = self.table.clone()?;
        let row_id = RowId::parse(&change.row_id).map_err(Refusal::malformed)?;
        let stamp = change.stamp.ok_or_else(|| Refusal::malformed("the stamp is missing"))?;
        if stamp.client != 0 {
            return Err(Refusal::malformed(
                "a pushed change is stamped by the client that pushes it",
            ));
        }
        let op = match ChangeKind::try_from(change.kind) {
            Ok(ChangeKind::Upsert) => Op::Upsert(self.cells(change.cells)?),
            Ok(ChangeKind::Delete) if change.cells.is_empty() => Op::Delete,
            Ok(ChangeKind::Delete) => return Err(Refusal::malformed("a delete has no cells")),
            _ => return Err(Refusal::malformed("a pushed change is an upsert or a delete")),
        };
        let stamp = Stamp { hlc: Hlc(stamp.hlc), client: client.clone() };
        let delta = Delta { table, row_id, stamp, op };
        if !change.delta_id.is_empty() && change.delta_id != delta.id().0.as_slice() {
            let message = format!("the change does not match its delta id; it is {}", delta.id());
            return Err(Refusal::new(Reason::Corruption, message));
        }
        Ok(delta)
    }

    fn cells(&mut self, cells: Vec<proto::Cell>) -> Result<Vec<Cell>, Refusal> {
        self.change += 1;
        cells.into_iter().map(|cell| self.cell(cell)).collect()
    }

    fn cell(&mut self, cell: proto::Cell) -> Result<Cell, Refusal> {
        let at = cell.column as usize;
        let column = self.columns.get(at).cloned().unwrap_or_else(|| {
            let known = self.columns.len();
            Err(Refusal::malformed(format!("column {at} of a dictionary of {known}")))
        })?;
        if std::mem::replace(&mut self.named_by[at], self.change) == self.change {
            return Err(Refusal::of_column(column.as_str(), "the column is written twice"));
        }
        if cell.stamp.is_some() {
            return Err(Refusal::of_column(
                column.as_str(),
                "a pushed cell has no stamp of its own",
            ));
        }
        match decode_value(cell.value) {
            Ok(value) => Ok(Cell { column, value }),
            Err(what) => Err(Refusal::of_column(column.as_str(), what)),
        }
    }
}

/// A column that a dictionary names twice, ignoring case: which of the two a cell means can't be told.
fn named_twice(changes: &proto::TableChanges, at: u32) -> Option<Refusal> {
    let mut places = HashMap::with_capacity(changes.columns.len());
    changes.columns.iter().enumerate().find_map(|(nth, text)| {
        let first = places.insert(text.to_ascii_lowercase(), nth)?;
        let message = format!(
            "tables[{at}].columns[{nth}] is the same as columns[{first}]; a dictionary names each \
             column once, ignoring case"
        );
        Some(Refusal::of_column(text, message))
    })
}

/// Changes as a push carries them: in order, grouped while the table stays the same. All are
/// `deltas` of the pushing client, whom the request names.
pub fn encode_push(deltas: impl IntoIterator<Item = Delta>) -> Vec<proto::TableChanges> {
    encode(deltas, &[])
}

/// Changes as the log and pages carry them: what `client` wrote, and who that is.
pub fn encode_commit(
    client: &ClientId,
    deltas: impl IntoIterator<Item = Delta>,
) -> Vec<proto::TableChanges> {
    encode(deltas, &[client.to_string()])
}

fn encode(deltas: impl IntoIterator<Item = Delta>, clients: &[String]) -> Vec<proto::TableChanges> {
    let mut tables: Vec<proto::TableChanges> = Vec::new();
    let mut columns = Dictionary::default();
    for delta in deltas {
        if tables.last().is_none_or(|last| last.table != delta.table.as_str()) {
            close(&mut tables, &mut columns);
            let (table, clients) = (delta.table.to_string(), clients.to_vec());
            tables.push(proto::TableChanges { table, clients, ..Default::default() });
        }
        let changes = tables.last_mut().expect("BUG: just pushed");
        let (kind, cells) = match delta.op {
            Op::Delete => (ChangeKind::Delete, Vec::new()),
            Op::Upsert(cells) => {
                let cell = |(hint, cell): (usize, Cell)| proto::Cell {
                    column: columns.place(&cell.column, hint),
                    value: Some(encode_value(cell.value)),
                    stamp: None,
                };
                (ChangeKind::Upsert, cells.into_iter().enumerate().map(cell).collect())
            }
        };
        changes.rows.push(proto::RowChange {
            row_id: delta.row_id.to_string(),
            kind: kind.into(),
            stamp: Some(proto::Stamp { hlc: delta.stamp.hlc.0, client: 0 }),
            cells,
            ..Default::default()
        });
    }
    close(&mut tables, &mut columns);
    tables
}

/// Gives the last table the columns that its changes used.
fn close(tables: &mut [proto::TableChanges], columns: &mut Dictionary<ColumnName>) {
    if let Some(last) = tables.last_mut() {
        last.columns = std::mem::take(columns).into_texts();
    }
}

#[cfg(test)]
mod tests;

//! Changes and whole rows on their way down ⇄ `TableChanges`.
//!
//! Whatever arrives, an upsert, a delete or a whole row, is a part of a row to join into what is
//! there. A whole row that was deleted once and came back travels as the delete, then the row.

use crate::delta::{Cell, Delta, Op};
use crate::hlc::Hlc;
use crate::name::{ClientId, ColumnName, RowId, TableName};
use crate::proto::v1::{self as proto, ChangeKind};
use crate::row::{Row, StampedCell};
use crate::stamp::Stamp;
use crate::wire::dictionary::Dictionary;
use crate::wire::{WireError, decode_value, encode_value};

/// What arrived for one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// The row's table.
    pub table: TableName,
    /// The row's id.
    pub row_id: RowId,
    /// What arrived.
    pub what: Incoming,
}

/// What a replica does about a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// Join this into the row.
    Join(Row),
    /// The row left the replica's scope: drop it locally.
    ScopeExit,
    /// The row is as the replica holds it: keep it.
    Unchanged,
}

/// Understands the changes of a page or chunk. Any that can't be understood is the server's error,
/// or a newer server's word: nothing may be applied.
pub fn decode_changes(tables: Vec<proto::TableChanges>) -> Result<Vec<Arrival>, WireError> {
    let mut arrivals = Vec::with_capacity(tables.iter().map(|table| table.rows.len()).sum());
    for (at, changes) in tables.into_iter().enumerate() {
        let fault = |field: &str, what: &dyn ToString| {
            WireError::new(format!("tables[{at}].{field}"), what.to_string())
        };
        let table = TableName::parse(&changes.table).map_err(|error| fault("table", &error))?;
        let columns = changes.columns.iter().map(|text| ColumnName::parse(text));
        let columns = columns.collect::<Result<Vec<_>, _>>();
        let clients = changes.clients.iter().map(|text| ClientId::parse(text));
        let clients = clients.collect::<Result<Vec<_>, _>>();
        let names = Names {
            columns: columns.map_err(|error| fault("columns", &error))?,
            clients: clients.map_err(|error| fault("clients", &error))?,
        };
        for (row, change) in changes.rows.into_iter().enumerate() {
            let decoded = names.decode(&table, change);
            arrivals.push(decoded.map_err(|what| fault(&format!("rows[{row}]"), &what))?);
        }
    }
    Ok(arrivals)
}

/// Understands the changes of a commit as its log keeps it: upserts and deletes of one stamp each.
pub fn decode_deltas(tables: Vec<proto::TableChanges>) -> Result<Vec<Delta>, WireError> {
    let delta = |Arrival { table, row_id, what }: Arrival| {
        let (stamp, op) = match what {
            Incoming::Join(Row { cells, written: Some(stamp), deleted: None }) => {
                let cell = |cell: StampedCell| Cell { column: cell.column, value: cell.value };
                (stamp, Op::Upsert(cells.into_iter().map(cell).collect()))
            }
            Incoming::Join(Row { deleted: Some(stamp), .. }) => (stamp, Op::Delete),
            _ => return Err(WireError::new("tables", format!("row {row_id}: it is no change"))),
        };
        Ok(Delta { table, row_id, stamp, op })
    };
    decode_changes(tables)?.into_iter().map(delta).collect()
}

struct Names {
    columns: Vec<ColumnName>,
    clients: Vec<ClientId>,
}

impl Names {
    fn decode(&self, table: &TableName, change: proto::RowChange) -> Result<Arrival, String> {
        let row_id = RowId::parse(&change.row_id).map_err(|error| error.to_string())?;
        let what = match ChangeKind::try_from(change.kind) {
            Ok(ChangeKind::ScopeExit) => Incoming::ScopeExit,
            Ok(ChangeKind::Unchanged) => Incoming::Unchanged,
            Ok(ChangeKind::Delete) => {
                let deleted = Some(self.stamp(change.stamp)?);
                Incoming::Join(Row { deleted, ..Row::default() })
            }
            Ok(ChangeKind::Upsert) => {
                let written = self.stamp(change.stamp)?;
                let cells = change.cells.into_iter().map(|cell| self.cell(cell, &written));
                let mut cells = cells.collect::<Result<Vec<_>, _>>()?;
                cells.sort_unstable_by(|a, b| a.column.cmp(&b.column));
                if cells.windows(2).any(|pair| pair[0].column == pair[1].column) {
                    return Err("a column stands twice".to_owned());
                }
                Incoming::Join(Row { cells, written: Some(written), deleted: None })
            }
            _ => return Err(format!("unknown kind of change {}", change.kind)),
        };
        Ok(Arrival { table: table.clone(), row_id, what })
    }

    fn cell(&self, cell: proto::Cell, written: &Stamp) -> Result<StampedCell, String> {
        let column = self.columns.get(cell.column as usize).ok_or("unknown column index")?.clone();
        let stamp = match cell.stamp {
            None => written.clone(),
            own => self.stamp(own)?,
        };
        Ok(StampedCell { column, stamp, value: decode_value(cell.value)? })
    }

    fn stamp(&self, stamp: Option<proto::Stamp>) -> Result<Stamp, String> {
        let stamp = stamp.ok_or("the stamp is missing")?;
        let client = self.clients.get(stamp.client as usize).ok_or("unknown client index")?.clone();
        Ok(Stamp { hlc: Hlc(stamp.hlc), client })
    }
}

/// Whole live rows of one table, each cell with its stamp where it differs from its row's. Rows
/// that do not exist are left out.
pub fn encode_rows<'a>(
    table: &TableName,
    schema_version: u32,
    rows: impl IntoIterator<Item = (&'a RowId, &'a Row)>,
) -> proto::TableChanges {
    let (mut columns, mut clients) = (Dictionary::default(), Dictionary::default());
    let mut changes = Vec::new();
    for (row_id, row) in rows {
        let Some(written) = row.written().filter(|_| row.is_live()) else { continue };
        if let Some(deleted) = row.deleted() {
            let stamp = encode_stamp(&mut clients, deleted);
            changes.push(change(row_id, ChangeKind::Delete, stamp, Vec::new()));
        }
        let stamp = encode_stamp(&mut clients, written);
        let cells = row.cells().iter().enumerate().map(|(hint, cell)| proto::Cell {
            column: columns.place(&&cell.column, hint),
            value: Some(encode_value(cell.value.clone())),
            stamp: (cell.stamp != *written).then(|| encode_stamp(&mut clients, &cell.stamp)),
        });
        let cells = cells.collect();
        changes.push(change(row_id, ChangeKind::Upsert, stamp, cells));
    }
    proto::TableChanges {
        table: table.to_string(),
        schema_version,
        columns: columns.into_texts(),
        clients: clients.into_texts(),
        rows: changes,
    }
}

/// Whole live rows of one table without any stamps, for readers that keep none: each replaces what
/// the reader has of the row. Rows that do not exist are left out.
pub fn encode_whole_rows<'a>(
    table: &TableName,
    schema_version: u32,
    rows: impl IntoIterator<Item = (&'a RowId, &'a Row)>,
) -> proto::TableChanges {
    let mut columns = Dictionary::default();
    let mut changes = Vec::new();
    for (row_id, row) in rows.into_iter().filter(|(_, row)| row.is_live()) {
        let cells = row.cells().iter().enumerate().map(|(hint, cell)| proto::Cell {
            column: columns.place(&&cell.column, hint),
            value: Some(encode_value(cell.value.clone())),
            stamp: None,
        });
        let (cells, kind) = (cells.collect(), ChangeKind::Upsert.into());
        let row_id = row_id.to_string();
        changes.push(proto::RowChange { row_id, kind, cells, ..Default::default() });
    }
    proto::TableChanges {
        table: table.to_string(),
        schema_version,
        columns: columns.into_texts(),
        rows: changes,
        ..Default::default()
    }
}

/// Rows of one table that exist no longer, without stamps.
pub fn encode_deletes<'a>(
    table: &TableName,
    rows: impl IntoIterator<Item = &'a RowId>,
) -> proto::TableChanges {
    encode_ids(table, ChangeKind::Delete, rows)
}

/// Rows of one table that leave a reader's scope.
pub fn encode_exits<'a>(
    table: &TableName,
    rows: impl IntoIterator<Item = &'a RowId>,
) -> proto::TableChanges {
    encode_ids(table, ChangeKind::ScopeExit, rows)
}

/// Rows of one table that are as the reader holds them.
pub fn encode_unchanged<'a>(
    table: &TableName,
    rows: impl IntoIterator<Item = &'a RowId>,
) -> proto::TableChanges {
    encode_ids(table, ChangeKind::Unchanged, rows)
}

fn encode_ids<'a>(
    table: &TableName,
    kind: ChangeKind,
    rows: impl IntoIterator<Item = &'a RowId>,
) -> proto::TableChanges {
    let change = |row_id: &RowId| proto::RowChange {
        row_id: row_id.to_string(),
        kind: kind.into(),
        ..Default::default()
    };
    let rows = rows.into_iter().map(change).collect();
    proto::TableChanges { table: table.to_string(), rows, ..Default::default() }
}

fn change(
    row_id: &RowId,
    kind: ChangeKind,
    stamp: proto::Stamp,
    cells: Vec<proto::Cell>,
) -> proto::RowChange {
    let (row_id, kind) = (row_id.to_string(), kind.into());
    proto::RowChange { row_id, kind, stamp: Some(stamp), cells, ..Default::default() }
}

fn encode_stamp<'a>(clients: &mut Dictionary<&'a ClientId>, stamp: &'a Stamp) -> proto::Stamp {
    proto::Stamp { hlc: stamp.hlc.0, client: clients.place(&&stamp.client, 0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;
    use crate::wire::encode_commit;

    fn join_all(tables: Vec<proto::TableChanges>) -> Row {
        let mut row = Row::default();
        for arrival in decode_changes(tables).expect("well-formed") {
            let Incoming::Join(part) = arrival.what else { panic!("no exit was sent") };
            row.join(&part);
        }
        row
    }

    proptest! {
        #[test]
        fn whole_rows_round_trip(deltas in testing::deltas()) {
            let row = testing::fold(&deltas);
            let (table, id) = ("todos".parse().expect("a name"), "r".parse().expect("an id"));
            let arrived = join_all(vec![encode_rows(&table, 1, [(&id, &row)])]);
            let expected = if row.is_live() { row } else { Row::default() };
            prop_assert_eq!(arrived, expected);
        }

        #[test]
        fn commits_make_the_row_their_deltas_make(mut deltas in testing::deltas()) {
            let ann: ClientId = "ann".parse().expect("an id");
            for delta in &mut deltas {
                delta.stamp.client = ann.clone();
            }
            prop_assert_eq!(join_all(encode_commit(&ann, deltas.clone())), testing::fold(&deltas));
        }
    }
}

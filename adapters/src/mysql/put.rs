//! Writing rows, states and history, many at once: in the place of those there are or, which is
//! faster, as new ones only, where one that is there is an error.

use lakesync::adapter::Place;
use lakesync::delta::Delta;
use lakesync::name::RowId;
use lakesync::row::Row;
use sqlx::mysql::MySqlConnection;

use super::names::quoted;
use super::read::{ids, number};
use super::statement::{Insert, Parameter, over};
use super::types::{CAPACITY, DIALECT};
use crate::sql::error::Failure;
use crate::sql::exact;
use crate::sql::merge::Changed;
use crate::sql::names::{HISTORY, Names, ROWS};
use crate::sql::render::render;
use crate::sql::shown::Shown;

/// How long a row may be where people look, since a statement must carry it whole. Escapes make some
/// values several times as long as they are: those that do not fit are NULL.
const SHOWN_BYTES_MAX: usize = 4 << 20;

/// Puts live rows into their table.
pub(super) async fn rows(
    connection: &mut MySqlConnection,
    names: &Names,
    table: &Shown<'_>,
    rows: &[(&RowId, &Row)],
    is_new: bool,
) -> Result<(), Failure> {
    let key = quoted(&table.key);
    let columns: Vec<_> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let listed: String = columns.iter().map(|name| format!(", {name}")).collect();
    let sets: String = columns.iter().map(|name| format!(", {name} = VALUES({name})")).collect();
    let insert = Insert {
        head: format!("INSERT INTO {} ({key}{listed})", names.synced(table.table)),
        // A unique index that somebody added may find another row instead, which would be written
        // over in silence. A key can't be NULL, so that is an error.
        tail: unless(is_new, || {
            format!("ON DUPLICATE KEY UPDATE {key} = IF({key} = VALUES({key}), {key}, NULL){sets}")
        }),
        width: 1 + columns.len(),
    };
    let shown = rows.iter().map(|(row_id, row)| shown(table, row_id, row));
    Ok(insert.run(connection, shown).await?)
}

/// What a row shows, its key first.
pub(super) fn shown<'r>(table: &Shown<'_>, row_id: &'r RowId, row: &'r Row) -> Vec<Parameter<'r>> {
    let mut bytes = 0;
    let cells = table.columns.iter().map(|column| {
        let value = row.cell(column.column).map(|cell| &cell.value);
        let value = value.and_then(|value| render(&DIALECT, column.kind, value));
        let shown = Parameter::shown(value);
        if SHOWN_BYTES_MAX < bytes + shown.size() {
            return Parameter::Null;
        }
        bytes += shown.size();
        shown
    });
    std::iter::once(Parameter::Text(row_id.as_str().into())).chain(cells).collect()
}

/// Takes rows out of their table, those that are there.
pub(super) async fn delete(
    connection: &mut MySqlConnection,
    names: &Names,
    table: &Shown<'_>,
    row_ids: &[&RowId],
) -> Result<(), Failure> {
    let key = quoted(&table.key);
    let head = format!("DELETE FROM {} WHERE {key} IN (", names.synced(table.table));
    for statement in over(&head, &[], &ids(row_ids)) {
        statement.run(connection).await?;
    }
    Ok(())
}

/// Puts states into our own table.
pub(super) async fn states(
    connection: &mut MySqlConnection,
    names: &Names,
    table_id: i32,
    rows: &[&Changed<'_>],
    is_new: bool,
) -> Result<(), Failure> {
    let insert = Insert {
        head: format!("INSERT INTO {} (table_id, row_id, state)", names.own(ROWS)),
        tail: unless(is_new, || "ON DUPLICATE KEY UPDATE state = VALUES(state)".to_owned()),
        width: 3,
    };
    let states = rows.iter().map(|changed| {
        let row_id = Parameter::Text(changed.row_id.as_str().into());
        vec![number(table_id), row_id, Parameter::Bytes(changed.row.encode().into())]
    });
    Ok(insert.run(connection, states).await?)
}

/// Takes states out of our own table.
pub(super) async fn delete_states(
    connection: &mut MySqlConnection,
    names: &Names,
    table_id: i32,
    row_ids: &[&RowId],
) -> Result<(), Failure> {
    let head = format!("DELETE FROM {} WHERE table_id = ? AND row_id IN (", names.own(ROWS));
    for statement in over(&head, &[number(table_id)], &ids(row_ids)) {
        statement.run(connection).await?;
    }
    Ok(())
}

/// Adds changes to the history. Those that it holds stay as they are, unless all are to be new.
pub(super) async fn history<'d>(
    connection: &mut MySqlConnection,
    names: &Names,
    changes: impl Iterator<Item = (Place, &'d Delta)> + Send,
    is_new: bool,
) -> Result<(), Failure> {
    let insert = Insert {
        head: format!(
            "INSERT INTO {} (log_id, position, `index`, table_name, row_id, delta_id, hlc, \
             happened_at, client, op, cells, exact)",
            names.own(HISTORY)
        ),
        tail: unless(is_new, || "ON DUPLICATE KEY UPDATE log_id = log_id".to_owned()),
        width: 12,
    };
    Ok(insert.run(connection, changes.map(|(place, delta)| told(place, delta))).await?)
}

/// What makes an INSERT take the place of what is there.
fn unless(is_new: bool, tail: impl FnOnce() -> String) -> String {
    if is_new { String::new() } else { tail() }
}

fn told(place: Place, delta: &Delta) -> Vec<Parameter<'_>> {
    let hlc = delta.stamp.hlc;
    // 48 bits of milliseconds, which go beyond the year 9999.
    let micros = hlc.ms().cast_signed() * 1_000;
    let (first, last) = CAPACITY.timestamps;
    let happened = (first..=last).contains(&micros).then(|| (DIALECT.timestamp)(micros));
    let cells = exact::cells(&CAPACITY, delta).filter(|cells| cells.len() <= SHOWN_BYTES_MAX);
    let optional =
        |text: Option<String>| text.map_or(Parameter::Null, |t| Parameter::Text(t.into()));
    vec![
        Parameter::Bytes(place.log.0.to_vec().into()),
        Parameter::Number(place.position.0),
        Parameter::Number(place.index.into()),
        Parameter::Text(delta.table.as_str().into()),
        Parameter::Text(delta.row_id.as_str().into()),
        Parameter::Bytes(delta.id().0.to_vec().into()),
        Parameter::Number(hlc.0),
        optional(happened),
        Parameter::Text(delta.stamp.client.as_str().into()),
        Parameter::Text(exact::op(delta).into()),
        optional(cells),
        Parameter::Bytes(exact::encode(&delta.op).into()),
    ]
}

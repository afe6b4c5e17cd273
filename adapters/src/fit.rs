//! What a schema says of changes, for adapters that hold one: which it knows, and how it grows.

use std::sync::Arc;

use lakesync::adapter::AdapterError;
use lakesync::delta::{Delta, Op};
use lakesync::name::{ColumnName, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::{Proposal, Schema, TableSchema};
use lakesync::value::Value;

/// The table of this name, or the error that it was not prepared.
pub(crate) fn table<'s>(
    schema: &'s Schema,
    table: &TableName,
) -> Result<&'s TableSchema, AdapterError> {
    let known = schema.table(table).map(Arc::as_ref);
    known.ok_or_else(|| AdapterError::UnknownTable(table.clone()))
}

/// Whether rows of `schema` can hold what `delta` writes.
pub(crate) fn check(schema: &Schema, delta: &Delta) -> Result<(), AdapterError> {
    let known = table(schema, &delta.table)?;
    let Op::Upsert(cells) = &delta.op else { return Ok(()) };
    cells.iter().try_for_each(|cell| check_cell(known, &delta.row_id, &cell.column, &cell.value))
}

/// Whether `table` can hold `rows`. What it can't show now, it would not show later either.
pub(crate) fn check_rows(table: &TableSchema, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
    rows.iter().try_for_each(|(row_id, row)| check_row(table, row_id, row))
}

/// Whether `table` can hold `row`, likewise.
pub(crate) fn check_row(
    table: &TableSchema,
    row_id: &RowId,
    row: &Row,
) -> Result<(), AdapterError> {
    let mut cells = row.cells().iter();
    cells.try_for_each(|cell| check_cell(table, row_id, &cell.column, &cell.value))
}

fn check_cell(
    table: &TableSchema,
    row_id: &RowId,
    column: &ColumnName,
    value: &Value,
) -> Result<(), AdapterError> {
    let Some(known) = table.column(column) else {
        let (table, column) = (table.table.clone(), column.clone());
        return Err(AdapterError::UnknownColumn { table, column });
    };
    if !known.kind.held(value) {
        let (table, row_id) = (table.table.clone(), row_id.clone());
        let (column, wanted, found) = (column.clone(), known.kind, value.kind());
        return Err(AdapterError::Unfit { table, row_id, column, wanted, found });
    }
    Ok(())
}

/// Whether the backend may have been prepared for an older schema than what it was given is of.
pub(crate) fn is_outdated(error: &AdapterError) -> bool {
    use AdapterError::{Unfit, UnknownColumn, UnknownTable};
    matches!(error, UnknownTable(_) | UnknownColumn { .. } | Unfit { .. })
}

/// The tables of `wanted` that `held` has in an older version or not at all, if it can grow so.
pub(crate) fn newer<'w>(
    held: &Schema,
    wanted: &'w Schema,
) -> Result<Vec<&'w TableSchema>, AdapterError> {
    let known = |table: &TableSchema| held.table(&table.table).map_or(0, |held| held.version);
    let newer = wanted.tables().map(Arc::as_ref).filter(|table| known(table) < table.version);
    let newer: Vec<_> = newer.collect();
    let proposals: Vec<_> = newer.iter().map(|table| proposal(table)).collect();
    let fits = held.evolve(&proposals);
    fits.map_err(|error| AdapterError::Mismatch(error.to_string()))?;
    Ok(newer)
}

/// `held` with the tables `newer`. Ids and versions are the gateway's to give: what it sent is kept.
pub(crate) fn grown(held: &Schema, newer: &[&TableSchema]) -> Schema {
    let held = held.tables().map(Arc::as_ref);
    Schema::from_stored(held.chain(newer.iter().copied()).cloned())
}

/// Somebody's column in the place of one that is new.
pub(crate) fn taken(table: &TableSchema, column: &str) -> AdapterError {
    AdapterError::Mismatch(format!(
        "table {} has a column {column} that was not synced and holds values; rename it, or empty it",
        table.table
    ))
}

fn proposal(table: &TableSchema) -> Proposal {
    Proposal {
        table: table.table.clone(),
        key: table.key.clone(),
        columns: table.columns.iter().map(|column| (column.name.clone(), column.kind)).collect(),
        primary_key: table.primary_key.clone(),
    }
}

//! Whether tables and changes fit what a backend was prepared for. Pure: what must be known before
//! anything is touched.

use std::sync::Arc;

use lakesync::adapter::AdapterError;
use lakesync::delta::{Delta, Op};
use lakesync::name::TableName;
use lakesync::schema::{Proposal, Schema, TableSchema};

/// What a backend that was prepared for `held` holds after it was prepared for `wished` as well.
pub(crate) fn grown(held: &Schema, wished: &Schema) -> Result<Schema, AdapterError> {
    let known = |table: &TableSchema| held.table(&table.table).map_or(0, |t| t.version);
    let newer: Vec<_> = wished.tables().filter(|table| known(table) < table.version).collect();
    let proposals: Vec<_> = newer.iter().map(|table| proposal(table)).collect();
    let fits = held.evolve(&proposals);
    fits.map_err(|error| AdapterError::Mismatch(error.to_string()))?;
    // Ids and versions are the gateway's to give: what it sent is kept, not what fitted.
    let tables = held.tables().chain(newer).map(|table| TableSchema::clone(table));
    Ok(Schema::from_stored(tables))
}

/// Whether a backend that was prepared for `schema` takes `delta`.
pub(crate) fn check(schema: &Schema, delta: &Delta) -> Result<(), AdapterError> {
    let known = table(schema, &delta.table)?;
    let Op::Upsert(cells) = &delta.op else { return Ok(()) };
    for cell in cells {
        let (table, column) = (delta.table.clone(), cell.column.clone());
        let Some(known) = known.column(&column) else {
            return Err(AdapterError::UnknownColumn { table, column });
        };
        if !known.kind.held(&cell.value) {
            let (row_id, wanted) = (delta.row_id.clone(), known.kind);
            let found = cell.value.kind();
            return Err(AdapterError::Unfit { table, row_id, column, wanted, found });
        }
    }
    Ok(())
}

/// The table of that name.
pub(crate) fn table<'a>(
    schema: &'a Schema,
    table: &TableName,
) -> Result<&'a TableSchema, AdapterError> {
    let known = schema.table(table).map(Arc::as_ref);
    known.ok_or_else(|| AdapterError::UnknownTable(table.clone()))
}

fn proposal(table: &TableSchema) -> Proposal {
    Proposal {
        table: table.table.clone(),
        key: table.key.clone(),
        columns: table.columns.iter().map(|column| (column.name.clone(), column.kind)).collect(),
        primary_key: table.primary_key.clone(),
    }
}

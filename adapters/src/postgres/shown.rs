//! What people see of rows: which rows there are, and whether they look as they should. The database
//! compares, so that a value equals itself whatever notation its type gives it.

use std::collections::HashSet;

use lakesync::limits::ROW_ID_BYTES_MAX;
use lakesync::name::RowId;
use lakesync::row::Row;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::names::quoted;
use super::statement::Statement;
use super::types;
use super::upsert::{bound, chunks};
use crate::sql::error::{Failure, corrupt};
use crate::sql::names::Names;
use crate::sql::shown::Shown;

/// A page of the ids in a table, in the order of bytes.
pub(super) async fn ids(
    connection: &mut PgConnection,
    names: &Names,
    table: &Shown<'_>,
    after: Option<&RowId>,
    limit: usize,
) -> Result<Vec<RowId>, Failure> {
    let (key, synced) = (quoted(&table.key), names.synced(table.table));
    let sql = format!(
        "SELECT {key} FROM {synced} WHERE {key} COLLATE \"C\" > $1 \
         AND octet_length({key}) <= {ROW_ID_BYTES_MAX} ORDER BY {key} COLLATE \"C\" LIMIT $2"
    );
    // No row id is empty, so that all come after the empty text.
    let after = after.map_or("", RowId::as_str);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = Statement::new(sql).bind(after).bind(limit).rows(connection).await?;
    rows.iter().map(row_id).collect()
}

/// The ids of those rows that are there with these very values.
pub(super) async fn as_given(
    connection: &mut PgConnection,
    names: &Names,
    table: &Shown<'_>,
    rows: &[(&RowId, &Row)],
) -> Result<HashSet<RowId>, Failure> {
    let key = quoted(&table.key);
    let (mut arrays, mut aliases) = ("$1::text[]".to_owned(), "k".to_owned());
    let mut same = "true".to_owned();
    for (at, column) in table.columns.iter().enumerate() {
        let (name, kind) = (quoted(&column.name), types::name(column.kind));
        arrays += &format!(", ${}::text[]", at + 2);
        aliases += &format!(", c{at}");
        same += &format!(" AND t.{name} IS NOT DISTINCT FROM u.c{at}::{kind}");
    }
    // One look into the index per row, whatever the planner thinks of their number.
    let sql = format!(
        "SELECT u.k FROM unnest({arrays}) AS u ({aliases}) CROSS JOIN LATERAL \
         (SELECT * FROM {} WHERE {key} = u.k LIMIT 1) AS t WHERE {same}",
        names.synced(table.table)
    );
    let mut found = HashSet::new();
    for chunk in chunks(rows, |(_, row)| row.size()) {
        for row in &bound(&sql, table, chunk).rows(connection).await? {
            found.insert(row_id(row)?);
        }
    }
    Ok(found)
}

fn row_id(row: &PgRow) -> Result<RowId, Failure> {
    Ok(row.try_get::<&str, _>(0)?.parse().map_err(corrupt)?)
}

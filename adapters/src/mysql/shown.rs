//! What people see of rows: which rows there are, and whether they look as they should. The database
//! compares, so that a value equals itself whatever notation its type gives it.

use std::collections::HashSet;

use lakesync::limits::ROW_ID_BYTES_MAX;
use lakesync::name::RowId;
use lakesync::row::Row;
use lakesync::schema::ColumnType;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::names::quoted;
use super::put::shown;
use super::read::text;
use super::statement::{PARAMETERS_MAX, Parameter, STATEMENT_BYTES, Statement};
use super::types::{Flavour, SCALE_MAX};
use super::version::flavour;
use crate::sql::error::{Failure, corrupt};
use crate::sql::names::Names;
use crate::sql::shown::Shown;

/// How many rows one statement compares at most.
const ROWS_MAX: usize = 64;

/// A page of the ids in a table, in the order of bytes.
pub(super) async fn ids(
    connection: &mut MySqlConnection,
    names: &Names,
    table: &Shown<'_>,
    after: Option<&RowId>,
    limit: usize,
) -> Result<Vec<RowId>, Failure> {
    let (key, synced) = (quoted(&table.key), names.synced(table.table));
    let sql = format!(
        "SELECT {key} FROM {synced} WHERE {key} > ? AND OCTET_LENGTH({key}) <= {ROW_ID_BYTES_MAX} \
         AND LOCATE(CHAR(0), {key}) = 0 ORDER BY {key} LIMIT ?"
    );
    // No row id is empty, so that all come after the empty text.
    let after = after.map_or("", RowId::as_str);
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let rows = Statement::kept(sql).bind(after).bind(limit).rows(connection).await?;
    rows.iter().map(row_id).collect()
}

/// The ids of those rows that are there with these very values.
pub(super) async fn as_given(
    connection: &mut MySqlConnection,
    names: &Names,
    table: &Shown<'_>,
    rows: &[(&RowId, &Row)],
) -> Result<HashSet<RowId>, Failure> {
    let flavour = flavour(connection).await?;
    let (key, synced) = (quoted(&table.key), names.synced(table.table));
    let mut one = format!("({key} = ?");
    for column in &table.columns {
        one += " AND ";
        one += &same(flavour, &quoted(&column.name), column.kind);
    }
    one.push(')');
    let rows_max = ROWS_MAX.min(PARAMETERS_MAX / (1 + table.columns.len())).max(1);
    let (mut found, mut done) = (HashSet::new(), 0);
    while done < rows.len() {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for (row_id, row) in rows[done..].iter().take(rows_max) {
            let given = shown(table, row_id, row);
            bytes += size(&given);
            if !piece.is_empty() && STATEMENT_BYTES < bytes {
                break;
            }
            piece.push(given);
        }
        done += piece.len();
        let any = vec![one.as_str(); piece.len()].join(" OR ");
        let mut statement = Statement::new(format!("SELECT {key} FROM {synced} WHERE {any}"));
        piece.iter().flatten().for_each(|parameter| statement.add_parameter(parameter));
        for row in &statement.rows(connection).await? {
            found.insert(row_id(row)?);
        }
    }
    Ok(found)
}

fn row_id(row: &MySqlRow) -> Result<RowId, Failure> {
    Ok(text(row, 0)?.parse().map_err(corrupt)?)
}

fn size(row: &[Parameter<'_>]) -> usize {
    row.iter().map(Parameter::size).sum()
}

/// Whether a quoted `column` holds what a parameter says. The parameter is text, or bytes: it is given
/// the column's type, as the two would be compared by their nearest doubles else. Texts are compared
/// by their bytes, whatever their collations.
fn same(flavour: Flavour, column: &str, kind: ColumnType) -> String {
    match kind {
        ColumnType::Bool | ColumnType::Int64 => format!("{column} <=> CAST(? AS SIGNED)"),
        ColumnType::Double => format!("{column} <=> (? + 0e0)"),
        ColumnType::Decimal { precision, scale } if scale <= SCALE_MAX => {
            format!("{column} <=> CAST(? AS DECIMAL({precision},{scale}))")
        }
        ColumnType::Timestamp => format!("{column} <=> CAST(? AS DATETIME(6))"),
        ColumnType::Date => format!("{column} <=> CAST(? AS DATE)"),
        ColumnType::Bytes => format!("{column} <=> ?"),
        ColumnType::Json if flavour == Flavour::MySql => format!("{column} <=> CAST(? AS JSON)"),
        ColumnType::Json
        | ColumnType::String
        | ColumnType::Any
        | ColumnType::Uuid
        | ColumnType::Decimal { .. } => format!("CAST({column} AS BINARY) <=> CAST(? AS BINARY)"),
    }
}

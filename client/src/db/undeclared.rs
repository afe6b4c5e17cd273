//! Synced tables that the gateway does not declare: it was made anew, or restored from a copy of
//! before them. What is here of them may be all there is, so their rows stay and their changes wait.

use std::collections::BTreeSet;

use lakesync::schema::TableSchema;
use sqlx::SqliteConnection;

use super::error::DbError;
use super::layout;
use super::sql::{Statement, integer, text};

/// The key in `_lakesync_meta` of their numbers.
const KEY: &str = "undeclared";

/// Remembers which of the tables here are not among those that the gateway declares.
pub(super) async fn note(
    connection: &mut SqliteConnection,
    declared: &[TableSchema],
) -> Result<(), DbError> {
    let mut lacking = Vec::new();
    let sql = "SELECT id, name FROM _lakesync_tables ORDER BY id";
    for row in Statement::new(sql).rows(connection).await? {
        let name = text(&row, 1)?;
        if declared.iter().all(|table| !table.table.as_str().eq_ignore_ascii_case(&name)) {
            lacking.push(integer(&row, 0)?.to_string());
        }
    }
    let lacking = lacking.join(",");
    if layout::get(connection, KEY).await?.unwrap_or_default() != lacking {
        layout::put(connection, KEY, &lacking).await?;
    }
    Ok(())
}

/// Their numbers.
pub(super) async fn read(connection: &mut SqliteConnection) -> Result<BTreeSet<i64>, DbError> {
    let lacking = layout::get(connection, KEY).await?.unwrap_or_default();
    Ok(lacking.split(',').filter_map(|id| id.parse().ok()).collect())
}

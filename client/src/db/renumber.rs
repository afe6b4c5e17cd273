//! Columns whose permanent numbers are others now: the gateway was made anew, and its tables were
//! declared in another order. What is recorded under the old numbers moves to the new ones.

use std::collections::BTreeMap;

use lakesync::schema::TableSchema;
use sqlx::SqliteConnection;

use super::error::DbError;
use super::sql::Statement;

/// Where what is recorded by column number stands, and how to find a table's rows there.
const PLACES: [(&str, &str); 5] = [
    ("cells", "tbl = ?1"),
    ("base", "tbl = ?1"),
    ("unknown", "tbl = ?1"),
    ("outbox_cells", "seq IN (SELECT seq FROM _lakesync_outbox WHERE tbl = ?1)"),
    ("rejected_cells", "id IN (SELECT id FROM _lakesync_rejected WHERE tbl = ?1)"),
];

/// Moves what is recorded of table `id` from the numbers of `before` to those of `after`. `local`
/// lists the columns that the file's table has, and is returned as it reads from now on; `None` if
/// no number changes its meaning.
pub(super) async fn renumber(
    connection: &mut SqliteConnection,
    id: i64,
    before: &TableSchema,
    after: &TableSchema,
    local: &str,
) -> Result<Option<String>, DbError> {
    let numbers: BTreeMap<u32, Option<u32>> = before
        .columns
        .iter()
        .map(|old| (old.field_id, after.column(&old.name).map(|new| new.field_id)))
        .collect();
    let means_another = |(old, new): (&u32, &Option<u32>)| match new {
        Some(new) => old != new,
        None => after.columns.iter().any(|column| column.field_id == *old),
    };
    if !numbers.iter().any(means_another) {
        return Ok(None);
    }
    spell_out(connection, id, &numbers).await?;
    for (place, condition) in PLACES {
        // Negative numbers keep a column that has moved from being moved again.
        for (old, new) in &numbers {
            let action = match new {
                Some(new) => format!("UPDATE _lakesync_{place} SET col = -{new}"),
                None => format!("DELETE FROM _lakesync_{place}"),
            };
            let statement = Statement::new(format!("{action} WHERE {condition} AND col = ?2"));
            statement.bind(id).bind(i64::from(*old)).once().run(connection).await?;
        }
        let sql = format!("UPDATE _lakesync_{place} SET col = -col WHERE {condition} AND col < 0");
        Statement::new(sql).bind(id).once().run(connection).await?;
    }
    let moved = |text: &str| numbers.get(&text.parse().ok()?).copied().flatten();
    let local: String = local.split(',').filter_map(moved).map(|new| format!("{new},")).collect();
    Ok(Some(if local.is_empty() { ",".to_owned() } else { local }))
}

/// Lists the stamp of every cell, so that none is told by how wide its table once was.
async fn spell_out(
    connection: &mut SqliteConnection,
    id: i64,
    numbers: &BTreeMap<u32, Option<u32>>,
) -> Result<(), DbError> {
    for old in numbers.keys() {
        let sql = "INSERT OR IGNORE INTO _lakesync_cells (tbl, row_id, col, hlc, client) \
                   SELECT tbl, row_id, ?2, hlc, client FROM _lakesync_rows \
                   WHERE tbl = ?1 AND width >= ?2";
        let statement = Statement::new(sql).bind(id).bind(i64::from(*old));
        statement.run(connection).await?;
    }
    let sql = "UPDATE _lakesync_rows SET width = 0 WHERE tbl = ?";
    Statement::new(sql).bind(id).run(connection).await?;
    Ok(())
}

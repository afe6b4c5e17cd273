//! Cells of columns that the application's table lacked, moving in once it has them.

use lakesync::name::RowId;
use lakesync::row::{Row, StampedCell};
use lakesync::value::Value;
use lakesync::wire::{Arrival, Incoming};

use super::apply::{Applying, Mode};
use super::error::DbError;
use super::requeue;
use super::session::Work;
use super::sql::{Statement, Stored, integer, maybe_integer, stored, text};
use super::table::Table;

/// Cells moved together, so that memory stays bounded.
const CELLS_MAX: i64 = 5_000;

/// Shows in the table what was kept aside for these of its columns.
pub(super) async fn move_in(
    work: &mut Work<'_>,
    table: &Table,
    columns: &[u32],
) -> Result<(), DbError> {
    let table_id = table.id;
    for column in columns {
        if let Some(local) = table.column(i64::from(*column)) {
            requeue::unwatched_column(work, table, local).await?;
        }
        // Nothing was written to this column where nothing was kept aside; without a mark, the
        // stamp that most cells of a row share would stand for it.
        let sql = "INSERT INTO _lakesync_cells (tbl, row_id, col, hlc, client) \
                   SELECT r.tbl, r.row_id, ?2, NULL, NULL FROM _lakesync_rows r \
                   WHERE r.tbl = ?1 AND r.width >= ?2 AND NOT EXISTS (SELECT 1 FROM \
                   _lakesync_cells c WHERE c.tbl = r.tbl AND c.row_id = r.row_id AND c.col = ?2)";
        let statement = Statement::new(sql).bind(table_id).bind(i64::from(*column));
        statement.run(work.connection()).await?;
        loop {
            let arrivals = take(work, table_id, *column).await?;
            if arrivals.is_empty() {
                break;
            }
            let mut applying = Applying::begin(work).await?;
            applying.join(work, arrivals, Mode::Changes(None)).await?;
            applying.check_references(work).await?;
            applying.end(work).await?;
        }
    }
    Ok(())
}

/// Takes some cells from aside, as if they had just arrived.
async fn take(work: &mut Work<'_>, table_id: i64, column: u32) -> Result<Vec<Arrival>, DbError> {
    let Some(table) = work.registry.by_id(table_id).cloned() else { return Ok(Vec::new()) };
    let Some(name) = table.column(i64::from(column)).map(|column| column.name.clone()) else {
        return Ok(Vec::new());
    };
    let sql = "DELETE FROM _lakesync_unknown WHERE (tbl, row_id, col) IN (SELECT tbl, row_id, col \
               FROM _lakesync_unknown WHERE tbl = ? AND col = ? LIMIT ?) \
               RETURNING row_id, hlc, client, value";
    let statement = Statement::new(sql).bind(table_id).bind(i64::from(column)).bind(CELLS_MAX);
    let mut arrivals = Vec::new();
    for row in statement.rows(work.connection()).await? {
        let stamp = work.clients.stamp(maybe_integer(&row, 1)?, integer(&row, 2)?)?;
        let (Ok(row_id), Some(stamp), Stored::Blob(bytes)) =
            (RowId::parse(&text(&row, 0)?), stamp, stored(&row, 3)?)
        else {
            continue;
        };
        let value = Value::decode(&mut bytes.as_slice()).map_err(|error| DbError::Damaged {
            table: "_lakesync_unknown",
            what: error.to_string(),
        })?;
        let cell = StampedCell { column: name.clone(), stamp, value };
        let what = Incoming::Join(Row::assemble(vec![cell], None, None));
        arrivals.push(Arrival { table: table.name().clone(), row_id, what });
    }
    Ok(arrivals)
}

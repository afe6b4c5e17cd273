//! What an application wrote while nobody watched: rows of a table that it made anew, as migrations
//! do that copy a table, drop it and rename the copy; and values of a column that it added and
//! filled in the same breath.

use super::error::DbError;
use super::install;
use super::key::Key;
use super::layout::{self, NOW_MS, OP_ADOPTED, OP_UPSERT};
use super::session::Work;
use super::sql::{Statement, integer, script};
use super::table::{LocalColumn, Table};

/// Takes up a table whose triggers were gone. Rows that nobody else knows are queued. What was
/// changed of the others can't be told, so the gateway's word is fetched anew.
pub(super) async fn unwatched_rows(work: &mut Work<'_>, table: &Table) -> Result<(), DbError> {
    let row_id = table.key.row_id_sql("_t");
    let absent = |from: &str| {
        format!(
            "NOT EXISTS (SELECT 1 FROM _lakesync_{from} _x WHERE _x.tbl = {} AND _x.row_id = {row_id})",
            table.id
        )
    };
    let condition = ["rows", "outbox", "parked"].map(absent).join(" AND ");
    let columns: Vec<&LocalColumn> = table.columns.iter().collect();
    queue(work, table, OP_ADOPTED, &condition, &columns).await?;
    // Rowids that a copy has renumbered would name other rows; their ids are all there is.
    if !matches!(table.key, Key::Mapped { .. }) {
        install::forget_known(work.connection(), table.id).await?;
        layout::forget_cursor(work.connection()).await?;
    }
    Ok(())
}

/// Takes up a column that the application has added. Its values are queued where they are not the
/// default and nothing was kept aside for them.
pub(super) async fn unwatched_column(
    work: &mut Work<'_>,
    table: &Table,
    column: &LocalColumn,
) -> Result<(), DbError> {
    let condition = format!(
        "_t.{} IS NOT ({}) AND NOT EXISTS (SELECT 1 FROM _lakesync_unknown _x WHERE _x.tbl = {} \
         AND _x.row_id = {} AND _x.col = {})",
        column.sql,
        column.default.as_deref().unwrap_or("NULL"),
        table.id,
        table.key.row_id_sql("_t"),
        column.field_id
    );
    queue(work, table, OP_UPSERT, &condition, &[column]).await
}

/// Queues rows of the table as written now, one after the other: these columns of those rows that
/// meet the condition.
async fn queue(
    work: &mut Work<'_>,
    table: &Table,
    op: i64,
    condition: &str,
    columns: &[&LocalColumn],
) -> Result<(), DbError> {
    let connection = work.connection();
    let tick = format!(
        "UPDATE _lakesync_clock SET seq = seq + 1, \
         hlc = max(hlc + 1, ({NOW_MS} + offset_ms) << 16) WHERE id = 1 RETURNING seq, hlc"
    );
    let Some(row) = Statement::new(tick).row(connection).await? else { return Ok(()) };
    let (seq, hlc) = (integer(&row, 0)?, integer(&row, 1)?);
    let row_id = table.key.row_id_sql("_t");
    let sql = format!(
        "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op) \
         SELECT {seq} + row_number() OVER (), {}, {row_id}, {hlc} + row_number() OVER (), {op} \
         FROM {} _t WHERE {row_id} IS NOT NULL AND {condition}",
        table.id,
        table.sql()
    );
    let rows = Statement::new(sql).once().run(connection).await?;
    for column in columns.iter().filter(|_| rows != 0) {
        let sql = format!(
            "INSERT INTO _lakesync_outbox_cells (seq, col, value) SELECT _o.seq, {}, _t.{} \
             FROM {} _t CROSS JOIN _lakesync_outbox _o \
             ON _o.tbl = {} AND _o.row_id = {row_id} AND _o.seq > {seq}",
            column.field_id,
            column.sql,
            table.sql(),
            table.id
        );
        Statement::new(sql).once().run(connection).await?;
    }
    let sql = format!("UPDATE _lakesync_clock SET seq = seq + {rows}, hlc = hlc + {rows}");
    Ok(script(connection, sql).await?)
}

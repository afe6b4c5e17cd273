//! What an application wrote while nobody watched: rows of a table that it made anew, as migrations
//! do that copy a table, drop it and rename the copy; and values of a column that it added and
//! filled in the same breath.

use sqlx::SqliteConnection;

use super::error::DbError;
use super::install;
use super::key::Key;
use super::layout::{self, NOW_MS, OP_ADOPTED, OP_DELETE, OP_UPSERT, stamp_above};
use super::session::Work;
use super::sql::{RANDOM_UUID, Statement, integer, quoted, script};
use super::table::{LocalColumn, Table};

/// Takes up a table whose triggers were gone. Rows that nobody else knows are queued. What was
/// changed of the others can't be told, so the gateway's word is fetched anew.
pub(super) async fn unwatched_rows(work: &mut Work<'_>, table: &Table) -> Result<(), DbError> {
    let columns: Vec<&LocalColumn> = table.columns.iter().collect();
    if let Key::Mapped { ids, rowid } = &table.key {
        delete_known(work, table).await?;
        map_anew(work, table, ids, rowid).await?;
        queue(work, table, OP_ADOPTED, "1", &columns).await?;
    } else {
        let row_id = table.key.row_id_sql("_t");
        let absent = |from: &str| {
            format!(
                "NOT EXISTS (SELECT 1 FROM _lakesync_{from} _x \
                 WHERE _x.tbl = {} AND _x.row_id = {row_id})",
                table.id
            )
        };
        let condition = ["rows", "outbox", "parked"].map(absent).join(" AND ");
        queue(work, table, OP_ADOPTED, &condition, &columns).await?;
    }
    install::forget_known(work.connection(), table.id).await?;
    Ok(layout::forget_cursor(work.connection()).await?)
}

/// Queues the deletion of all rows of a table without keys. A copy may have renumbered it, and then
/// no row of it can be told to be one of these: all of them are new.
async fn delete_known(work: &mut Work<'_>, table: &Table) -> Result<(), DbError> {
    let connection = work.connection();
    let Some((seq, hlc)) = tick(connection).await? else { return Ok(()) };
    let sql = format!(
        "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op) \
         SELECT {seq} + row_number() OVER (), {0}, _d.row_id, {1}, {OP_DELETE} \
         FROM (SELECT row_id FROM _lakesync_rows WHERE tbl = {0} \
         AND coalesce(deleted_hlc, -1) <= written_hlc \
         UNION SELECT row_id FROM _lakesync_outbox WHERE tbl = {0}) _d",
        table.id,
        stamp_above(table.id, "_d.row_id", &format!("{hlc} + row_number() OVER ()"))
    );
    let rows = Statement::new(sql).once().run(connection).await?;
    pass(connection, rows).await
}

/// Gives every row of a table without keys a new id.
async fn map_anew(
    work: &mut Work<'_>,
    table: &Table,
    ids: &str,
    rowid: &str,
) -> Result<(), DbError> {
    let sql = format!(
        "DELETE FROM {0}; INSERT INTO {0} (rowid, row_id) \
         SELECT _t.{rowid}, {RANDOM_UUID} FROM {1} _t;",
        quoted(ids),
        table.sql()
    );
    Ok(script(work.connection(), sql).await?)
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
    let Some((seq, hlc)) = tick(connection).await? else { return Ok(()) };
    let row_id = table.key.row_id_sql("_t");
    let sql = format!(
        "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op) \
         SELECT {seq} + row_number() OVER (), {}, {row_id}, {}, {op} \
         FROM {} _t WHERE {row_id} IS NOT NULL AND {condition}",
        table.id,
        stamp_above(table.id, &row_id, &format!("{hlc} + row_number() OVER ()")),
        table.sql()
    );
    let rows = Statement::new(sql).once().run(connection).await?;
    // Rows whose key names none are refused before they leave; their values would be mixed up.
    for column in columns.iter().filter(|_| rows != 0) {
        let sql = format!(
            "INSERT INTO _lakesync_outbox_cells (seq, col, value) SELECT _o.seq, {}, _t.{} \
             FROM {} _t CROSS JOIN _lakesync_outbox _o \
             ON _o.tbl = {} AND _o.row_id = {row_id} AND _o.seq > {seq} AND _o.row_id <> ''",
            column.field_id,
            column.sql,
            table.sql(),
            table.id
        );
        Statement::new(sql).once().run(connection).await?;
    }
    pass(connection, rows).await
}

/// Advances the clock by one change: its number and its reading.
async fn tick(connection: &mut SqliteConnection) -> Result<Option<(i64, i64)>, DbError> {
    let sql = format!(
        "UPDATE _lakesync_clock SET seq = seq + 1, \
         hlc = max(hlc + 1, ({NOW_MS} + offset_ms) << 16) WHERE id = 1 RETURNING seq, hlc"
    );
    let row = Statement::new(sql).row(connection).await?;
    Ok(row.map(|row| Ok::<_, sqlx::Error>((integer(&row, 0)?, integer(&row, 1)?))).transpose()?)
}

/// Advances the clock by so many changes that were made of one reading.
async fn pass(connection: &mut SqliteConnection, rows: u64) -> Result<(), DbError> {
    let sql = format!("UPDATE _lakesync_clock SET seq = seq + {rows}, hlc = hlc + {rows}");
    Ok(script(connection, sql).await?)
}

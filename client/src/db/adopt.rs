//! Adopting: a table of the application begins to record its changes, and every row it holds is
//! queued as if it had been inserted just now. One transaction, so that no edit slips in between.

use lakesync::name::TableName;

use super::error::DbError;
use super::install;
use super::layout::{self, NOW_MS, OP_ADOPTED};
use super::ranges;
use super::session::Work;
use super::sql::{Statement, integer, script};
use super::table::{Entry, Table};

/// Adopts one table, whose schema is installed. Adopting it again changes nothing.
pub(super) async fn adopt(work: &mut Work<'_>, name: &TableName) -> Result<(), DbError> {
    let refuse = |reason: String| DbError::Unadoptable { table: name.clone(), reason };
    let id = match work.registry.find(name) {
        Entry::Captured(_) => return Ok(()),
        Entry::Unknown => return Err(refuse("the gateway's schema does not have it".to_owned())),
        Entry::Waiting(id) => id,
    };
    install::fit(work.connection(), id, name).await?.map_err(refuse)?;
    let sql = "UPDATE _lakesync_tables SET captured = 1, local = '' WHERE id = ? RETURNING skipped";
    let row = Statement::new(sql).bind(id).row(work.connection()).await?;
    let skipped = row.map_or(Ok(0), |row| integer(&row, 0))? != 0;
    install::reconcile(work).await?;
    let Entry::Captured(table) = work.registry.find(name) else {
        return Err(refuse("it does not match the gateway's schema".to_owned()));
    };
    // What is known of an earlier life of the table is learnt anew.
    install::forget_known(work.connection(), id).await?;
    queue_rows(work, &table).await?;
    ranges::keep(work, &table).await?;
    if skipped {
        layout::forget_cursor(work.connection()).await?;
        let sql = "UPDATE _lakesync_tables SET skipped = 0 WHERE id = ?";
        Statement::new(sql).bind(id).run(work.connection()).await?;
    }
    Ok(())
}

/// Queues every row of the table as written now, one after the other.
async fn queue_rows(work: &mut Work<'_>, table: &Table) -> Result<(), DbError> {
    let connection = work.connection();
    let tick = format!(
        "UPDATE _lakesync_clock SET seq = seq + 1, \
         hlc = max(hlc + 1, ({NOW_MS} + offset_ms) << 16) WHERE id = 1 RETURNING seq, hlc"
    );
    let Some(row) = Statement::new(tick).row(connection).await? else { return Ok(()) };
    let (seq, hlc) = (integer(&row, 0)?, integer(&row, 1)?);
    let numbered = numbered(table);
    let sql = format!(
        "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op) \
         SELECT {seq} + _n.number, {}, {}, {hlc} + _n.number, {OP_ADOPTED} FROM {numbered}",
        table.id,
        table.key.row_id_sql("_t")
    );
    let rows = Statement::new(sql).once().run(connection).await?;
    for column in &table.columns {
        let sql = format!(
            "INSERT INTO _lakesync_outbox_cells (seq, col, value) \
             SELECT {seq} + _n.number, {}, _t.{} FROM {numbered}",
            column.field_id, column.sql
        );
        Statement::new(sql).once().run(connection).await?;
    }
    let sql = format!("UPDATE _lakesync_clock SET seq = seq + {rows}, hlc = hlc + {rows}");
    Ok(script(connection, sql).await?)
}

/// The rows `_t` of the table, each with its `_n.number`, which is the same in every statement. Only
/// keys are counted: SQLite would ask for the collations of other columns, which perhaps only the
/// application has.
fn numbered(table: &Table) -> String {
    let keys = match table.shape.rowid() {
        Some(rowid) => vec![rowid.to_owned()],
        None => table.key.columns(),
    };
    let list = keys.join(", ");
    let named = keys.iter().enumerate().map(|(at, key)| format!("{key} AS key_{at}"));
    let equal = keys.iter().enumerate().map(|(at, key)| format!("_t.{key} = _n.key_{at}"));
    format!(
        "(SELECT {}, row_number() OVER (ORDER BY {list}) AS number FROM {sql}) _n \
         CROSS JOIN {sql} _t ON {}",
        named.collect::<Vec<_>>().join(", "),
        equal.collect::<Vec<_>>().join(" AND "),
        sql = table.sql()
    )
}

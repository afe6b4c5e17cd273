//! The replica's clock: corrected by the server's, because stamps that are too far ahead are
//! refused and stamps that are far behind lose. Unsent changes are stamped again when it was far
//! off; they keep their order, and stay above what they were written over.

use lakesync::hlc::Hlc;
use lakesync::limits::CLOCK_DRIFT_MAX;

use super::ClockChange;
use super::error::DbError;
use super::layout::{NOW_MS, OP_RESTORED, OP_RESTORED_DELETE};
use super::session::{Work, to_sql};
use super::sql::{Statement, integer, maybe_integer};

/// Below this, a difference is the network's delay.
const NOISE_MS: i64 = 1_000;
const COUNTER_BITS: u32 = 16;
/// What was stamped by this clock. What is given back has the stamps that others once gave it.
const EDITS: &str = "op NOT IN (4, 5)";
const _: () = assert!(OP_RESTORED == 4 && OP_RESTORED_DELETE == 5);

/// Takes note of the server's time.
pub(super) async fn observe(work: &mut Work<'_>, server: Hlc) -> Result<ClockChange, DbError> {
    let drift_max_ms = i64::try_from(CLOCK_DRIFT_MAX.as_millis()).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT hlc, offset_ms, {NOW_MS}, (SELECT max(hlc) FROM _lakesync_outbox WHERE {EDITS}) \
         FROM _lakesync_clock WHERE id = 1"
    );
    let Some(row) = Statement::new(sql).row(work.connection()).await? else {
        let what = "the clock is missing".to_owned();
        return Err(DbError::Damaged { table: "_lakesync_clock", what });
    };
    let (last, offset_ms, now_ms) = (integer(&row, 0)?, integer(&row, 1)?, integer(&row, 2)?);
    let newest = maybe_integer(&row, 3)?;
    let server_ms = to_sql(server) >> COUNTER_BITS;

    let moved_ms = server_ms - (now_ms + offset_ms);
    let offset_ms = if moved_ms.abs() <= NOISE_MS { offset_ms } else { offset_ms + moved_ms };
    let mut shift_ms = if moved_ms.abs() <= drift_max_ms { 0 } else { moved_ms };
    // Changes stamped by a clock that has been set right since are still ahead.
    let ahead_ms = newest.map_or(0, |hlc| (hlc >> COUNTER_BITS) + shift_ms - server_ms);
    if drift_max_ms < ahead_ms {
        shift_ms -= ahead_ms;
    }
    let mut restamped = 0;
    let mut top = newest.unwrap_or(0);
    if shift_ms != 0 && newest.is_some() {
        (restamped, top) = restamp(work, shift_ms << COUNTER_BITS).await?;
    }
    restamped += hold_back(work, to_sql(server), drift_max_ms << COUNTER_BITS).await?;
    // The server has seen every stamp that anybody was sent, so its time is a safe floor.
    let far_ahead = to_sql(server) + (drift_max_ms << COUNTER_BITS) < last;
    let last = if far_ahead { 0 } else { last };
    let hlc = last.max(top).max(to_sql(server));
    let sql = "UPDATE _lakesync_clock SET hlc = ?, offset_ms = ? WHERE id = 1";
    Statement::new(sql).bind(hlc).bind(offset_ms).run(work.connection()).await?;
    Ok(ClockChange { offset_ms, restamped })
}

/// Shifts the stamps of all unsent changes. Returns how many, and the newest stamp now.
async fn restamp(work: &mut Work<'_>, shift: i64) -> Result<(u64, i64), DbError> {
    let sql = format!(
        "SELECT o.seq, o.hlc, max(coalesce(r.written_hlc, 0), coalesce(r.deleted_hlc, 0)) \
         FROM _lakesync_outbox o LEFT JOIN _lakesync_rows r \
         ON r.tbl = o.tbl AND r.row_id = o.row_id WHERE {EDITS} ORDER BY o.seq"
    );
    let rows = Statement::new(sql).rows(work.connection()).await?;
    let sql = format!("UPDATE _lakesync_outbox SET hlc = hlc + ? WHERE {EDITS}");
    let shifted = Statement::new(sql).bind(shift);
    shifted.run(work.connection()).await?;
    let mut last = 0;
    for row in &rows {
        let (seq, hlc, known) = (integer(row, 0)?, integer(row, 1)?, integer(row, 2)?);
        let floor = if known < hlc { known + 1 } else { 0 };
        let stamp = (hlc + shift).max(floor).max(last + 1);
        if stamp != hlc + shift {
            let sql = "UPDATE _lakesync_outbox SET hlc = ? WHERE seq = ?";
            Statement::new(sql).bind(stamp).bind(seq).run(work.connection()).await?;
        }
        last = stamp;
    }
    Ok((rows.len() as u64, last))
}

/// Stamps again, in their order, what is given back and ahead of a server whose clock is behind that
/// of the one before it. Returns how many.
async fn hold_back(work: &mut Work<'_>, server: i64, ahead_max: i64) -> Result<u64, DbError> {
    let sql = format!(
        "UPDATE _lakesync_outbox AS o SET hlc = ?1 + n.place FROM (SELECT seq, \
         row_number() OVER (ORDER BY hlc, seq) AS place FROM _lakesync_outbox \
         WHERE NOT ({EDITS}) AND ?1 + ?2 < hlc) n WHERE o.seq = n.seq"
    );
    Ok(Statement::new(sql).bind(server).bind(ahead_max).run(work.connection()).await?)
}

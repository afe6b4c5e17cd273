//! The replica's clock: corrected by the server's, because stamps that are too far ahead are
//! refused and stamps that are far behind lose. Unsent changes are stamped again when it was far
//! off; they keep their order, and stay above what they were written over.

use std::time::Duration;

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

/// Of a change `o` whose row was stamped by a clock far ahead of the server's: the gateway takes it if
/// its stamp follows that one by ticks. `?1` is the latest stamp that it takes otherwise.
const FOLLOWING: &str = "(?1 < o.hlc AND EXISTS (SELECT 1 FROM _lakesync_rows r \
                         WHERE r.tbl = o.tbl AND r.row_id = o.row_id \
                         AND ?1 < max(coalesce(r.written_hlc, 0), coalesce(r.deleted_hlc, 0))))";

/// What a server said of its clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Its reading.
    pub(crate) hlc: Hlc,
    /// How far ahead of the server's wall clock that may be.
    pub(crate) slack: Duration,
}

/// Takes note of a server's time.
///
/// Changes that follow a stamp of their row from the future do so by ticks. They neither set the clock
/// nor hold back the changes of other rows.
pub(super) async fn observe(work: &mut Work<'_>, server: Reading) -> Result<ClockChange, DbError> {
    let (drift_max_ms, slack_ms) = (millis(CLOCK_DRIFT_MAX), millis(server.slack));
    let server = to_sql(server.hlc);
    let limit = server.saturating_add(drift_max_ms << COUNTER_BITS);
    let sql = format!(
        "SELECT hlc, offset_ms, {NOW_MS}, (SELECT max(hlc) FROM _lakesync_outbox o \
         WHERE {EDITS} AND NOT {FOLLOWING}) FROM _lakesync_clock WHERE id = 1"
    );
    let Some(row) = Statement::new(sql).bind(limit).row(work.connection()).await? else {
        let what = "the clock is missing".to_owned();
        return Err(DbError::Damaged { table: "_lakesync_clock", what });
    };
    let (last, offset_ms, now_ms) = (integer(&row, 0)?, integer(&row, 1)?, integer(&row, 2)?);
    let newest = maybe_integer(&row, 3)?;
    let server_ms = server >> COUNTER_BITS;

    let moved_ms = server_ms - (now_ms + offset_ms);
    let is_right = (-NOISE_MS..=slack_ms + NOISE_MS).contains(&moved_ms);
    let offset_ms = if is_right { offset_ms } else { offset_ms + moved_ms };
    let is_far_off = !is_right && drift_max_ms < moved_ms.abs();
    let shift = if is_far_off { moved_ms << COUNTER_BITS } else { 0 };
    // Changes stamped by a clock that has been set right since are still ahead.
    let is_ahead = newest.is_some_and(|newest| limit < newest + shift);
    let (mut restamped, mut top) = (0, newest.unwrap_or(0));
    if newest.is_some() && (shift != 0 || is_ahead) {
        (restamped, top) = restamp(work, shift, (server, limit)).await?;
    }
    restamped += follow_closely(work, limit).await?;
    restamped += hold_back(work, server, drift_max_ms << COUNTER_BITS).await?;
    let last = if limit < last { 0 } else { last };
    let hlc = last.max(top).max(server);
    let sql = "UPDATE _lakesync_clock SET hlc = ?, offset_ms = ? WHERE id = 1";
    Statement::new(sql).bind(hlc).bind(offset_ms).run(work.connection()).await?;
    Ok(ClockChange { offset_ms, restamped })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Shifts the stamps of unsent changes, in their order, and sets those that are ahead of `limit` even
/// then to the `server`'s time. Returns how many, and the newest stamp now.
async fn restamp(
    work: &mut Work<'_>,
    shift: i64,
    (server, limit): (i64, i64),
) -> Result<(u64, i64), DbError> {
    let sql = format!(
        "SELECT o.seq, o.hlc, max(coalesce(r.written_hlc, 0), coalesce(r.deleted_hlc, 0)) \
         FROM _lakesync_outbox o LEFT JOIN _lakesync_rows r \
         ON r.tbl = o.tbl AND r.row_id = o.row_id \
         WHERE {EDITS} AND NOT {FOLLOWING} ORDER BY o.seq"
    );
    let rows = Statement::new(sql).bind(limit).rows(work.connection()).await?;
    let sql = format!(
        "UPDATE _lakesync_outbox AS o SET hlc = hlc + ?2 WHERE {EDITS} AND NOT {FOLLOWING}"
    );
    Statement::new(sql).bind(limit).bind(shift).run(work.connection()).await?;
    let mut last = 0;
    for row in &rows {
        let (seq, hlc, known) = (integer(row, 0)?, integer(row, 1)?, integer(row, 2)?);
        let floor = if known < hlc { known + 1 } else { 0 };
        let shifted = if limit < hlc + shift { server } else { hlc + shift };
        let stamp = shifted.max(floor).max(last + 1);
        if stamp != hlc + shift {
            let sql = "UPDATE _lakesync_outbox SET hlc = ? WHERE seq = ?";
            Statement::new(sql).bind(stamp).bind(seq).run(work.connection()).await?;
        }
        last = stamp;
    }
    Ok((rows.len() as u64, last))
}

/// Stamps the changes of each row from the future by ticks above it, in their order: those made before
/// the clock was corrected may be further ahead than the gateway takes. Returns how many.
async fn follow_closely(work: &mut Work<'_>, limit: i64) -> Result<u64, DbError> {
    let sql = format!(
        "UPDATE _lakesync_outbox AS u SET hlc = n.known + n.place FROM (\
         SELECT o.seq, max(coalesce(k.written_hlc, 0), coalesce(k.deleted_hlc, 0)) AS known, \
         row_number() OVER (PARTITION BY o.tbl, o.row_id ORDER BY o.seq) AS place \
         FROM _lakesync_outbox o JOIN _lakesync_rows k ON k.tbl = o.tbl AND k.row_id = o.row_id \
         WHERE {EDITS} AND {FOLLOWING} \
         AND max(coalesce(k.written_hlc, 0), coalesce(k.deleted_hlc, 0)) < o.hlc) n \
         WHERE u.seq = n.seq AND u.hlc <> n.known + n.place"
    );
    Ok(Statement::new(sql).bind(limit).run(work.connection()).await?)
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

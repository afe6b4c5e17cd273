//! The history: every change once, for people and exact.

use lakesync::adapter::{Change, Place};
use lakesync::delta::Delta;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::read::position;
use super::statement::Statement;
use super::types::CAPACITY;
use super::upsert::HistoryRecord;
use crate::sql::error::{Failure, corrupt};
use crate::sql::exact::{self, Stored};
use crate::sql::names::{HISTORY, Names};
use crate::sql::read::log_id;

/// A page of it.
pub(super) async fn read(
    connection: &mut PgConnection,
    names: &Names,
    after: Option<&Place>,
    limit: usize,
) -> Result<Vec<Change>, Failure> {
    let history = names.own(HISTORY);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let since = after.map_or("", |_| "WHERE (log_id, position, index) > ($2, $3, $4)");
    let sql = format!(
        "SELECT log_id, position, index, table_name, row_id, hlc, client, exact FROM {history} {since} \
         ORDER BY log_id, position, index LIMIT $1"
    );
    let mut statement = Statement::new(sql).bind(limit);
    if let Some(place) = after {
        let (position, index) = (place.position.0.cast_signed(), i64::from(place.index));
        statement = statement.bind(&place.log.0[..]).bind(position).bind(index);
    }
    statement.rows(connection).await?.iter().map(change).collect()
}

fn change(row: &PgRow) -> Result<Change, Failure> {
    let index: i64 = row.try_get(2)?;
    let index = u32::try_from(index).map_err(corrupt)?;
    let place = Place { log: log_id(row.try_get(0)?)?, position: position(row, 1)?, index };
    let stored = Stored {
        table: row.try_get(3)?,
        row_id: row.try_get(4)?,
        hlc: row.try_get::<i64, _>(5)?.cast_unsigned(),
        client: row.try_get(6)?,
        exact: row.try_get(7)?,
    };
    Ok(Change { place, delta: stored.delta()? })
}

/// A change as the history's columns hold it.
pub(super) fn record(place: Place, delta: &Delta) -> HistoryRecord<'_> {
    let hlc = delta.stamp.hlc;
    HistoryRecord {
        log: place.log.0,
        position: place.position.0.cast_signed(),
        index: place.index.into(),
        table: delta.table.as_str(),
        row_id: delta.row_id.as_str(),
        delta_id: delta.id().0,
        hlc: hlc.0.cast_signed(),
        // 48 bits of milliseconds.
        micros: hlc.ms().cast_signed() * 1_000,
        client: delta.stamp.client.as_str(),
        op: exact::op(delta),
        cells: exact::cells(&CAPACITY, delta),
        exact: exact::encode(&delta.op),
    }
}

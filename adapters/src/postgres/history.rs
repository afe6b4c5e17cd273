//! The history: every change once, for people and exact.

use lakesync::adapter::{Change, Place};
use lakesync::delta::Delta;
use sqlx::Row;

use super::names::HISTORY;
use super::read::{log_id, position};
use super::session::Failure;
use super::statement::Statement;
use super::types::CAPACITY;
use super::upsert::HistoryRecord;
use super::{Postgres, upsert};
use crate::sql::error::corrupt;
use crate::sql::exact;

impl Postgres {
    pub(super) async fn read_history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, Failure> {
        if !self.keeps_history {
            return Ok(Vec::new());
        }
        let history = self.names.own(HISTORY);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let since = after.map_or("", |_| "WHERE (log_id, position, index) > ($2, $3, $4)");
        let sql = format!(
            "SELECT log_id, position, index, exact FROM {history} {since} \
             ORDER BY log_id, position, index LIMIT $1"
        );
        let mut statement = Statement::new(sql).bind(limit);
        if let Some(place) = after {
            let (position, index) = (place.position.0.cast_signed(), i64::from(place.index));
            statement = statement.bind(&place.log.0[..]).bind(position).bind(index);
        }
        let mut session = self.session().await?;
        let rows = match statement.rows(&mut session).await.map_err(Failure::from) {
            Ok(rows) => rows,
            Err(failure) if failure.is_absence() => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
        session.end();
        let change = |row| {
            let index: i64 = sqlx::postgres::PgRow::try_get(row, 2)?;
            let index = u32::try_from(index).map_err(corrupt)?;
            let place = Place { log: log_id(row, 0)?, position: position(row, 1)?, index };
            Ok(Change { place, delta: exact::decode(row.try_get(3)?)? })
        };
        rows.iter().map(change).collect()
    }

    pub(super) async fn record_changes(&self, changes: &[Change]) -> Result<(), Failure> {
        if !self.keeps_history || changes.is_empty() {
            return Ok(());
        }
        self.ensure_installed().await?;
        let mut session = self.begin(self.server.options.call_timeout).await?;
        self.lock(&mut session).await?;
        let records: Vec<_> =
            changes.iter().map(|change| record(change.place, &change.delta)).collect();
        upsert::history(&mut session, &self.names, &records).await?;
        session.commit().await
    }
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
        exact: exact::encode(delta),
    }
}

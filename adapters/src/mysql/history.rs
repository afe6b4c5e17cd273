//! The history: every change once, for people and exact.

use lakesync::adapter::{Change, Place};
use lakesync::name::Position;
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::names::HISTORY;
use super::read::log_id;
use super::session::Failure;
use super::statement::Statement;
use super::{MySql, put};
use crate::sql::error::corrupt;
use crate::sql::exact;

impl MySql {
    pub(super) async fn read_history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, Failure> {
        if !self.keeps_history {
            return Ok(Vec::new());
        }
        let mut session = self.session().await?;
        let mut found = Vec::new();
        // The servers look up each of these in the key; the three as one condition they do not.
        for part in 0..3 {
            let left = limit - found.len();
            if left == 0 || (part != 2 && after.is_none()) {
                continue;
            }
            match self.read_part(&mut session, after, part, left).await {
                Ok(changes) => found.extend(changes),
                Err(failure) if failure.is_absence() => return Ok(Vec::new()),
                Err(failure) => return Err(failure),
            }
        }
        session.end();
        Ok(found)
    }

    /// Changes after a place: those of its commit, of its log, and of the logs behind it.
    async fn read_part(
        &self,
        connection: &mut MySqlConnection,
        after: Option<&Place>,
        part: usize,
        limit: usize,
    ) -> Result<Vec<Change>, Failure> {
        let condition = match (after, part) {
            (None, _) => "true",
            (_, 0) => "log_id = ? AND position = ? AND `index` > ?",
            (_, 1) => "log_id = ? AND position > ?",
            _ => "log_id > ?",
        };
        let sql = format!(
            "SELECT log_id, position, `index`, exact FROM {} WHERE {condition} \
             ORDER BY log_id, position, `index` LIMIT ?",
            self.names.own(HISTORY)
        );
        let mut statement = Statement::new(sql);
        if let Some(Place { log, position, index }) = after {
            statement = statement.bind(&log.0[..]);
            if part < 2 {
                statement = statement.bind(position.0);
            }
            if part < 1 {
                statement = statement.bind(u64::from(*index));
            }
        }
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let rows = statement.bind(limit).rows(connection).await?;
        rows.iter().map(change).collect()
    }

    pub(super) async fn record_changes(&self, changes: &[Change]) -> Result<(), Failure> {
        if !self.keeps_history || changes.is_empty() {
            return Ok(());
        }
        self.ensure_installed().await?;
        let mut session = self.begin(self.server.options.call_timeout).await?;
        self.lock(&mut session).await?;
        let changes = changes.iter().map(|change| (change.place, &change.delta));
        put::history(&mut session, &self.names, changes, false).await?;
        session.commit().await
    }
}

fn change(row: &MySqlRow) -> Result<Change, Failure> {
    let index: u64 = row.try_get(2)?;
    let index = u32::try_from(index).map_err(corrupt)?;
    let place = Place { log: log_id(row, 0)?, position: Position(row.try_get(1)?), index };
    Ok(Change { place, delta: exact::decode(row.try_get_unchecked(3)?)? })
}

//! The history: every change once, for people and exact.

use lakesync::adapter::{Change, Place};
use lakesync::name::Position;
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::read::text;
use super::statement::Statement;
use crate::sql::error::{Failure, corrupt};
use crate::sql::exact::Stored;
use crate::sql::names::{HISTORY, Names};
use crate::sql::read::log_id;

/// A page of it.
pub(super) async fn read(
    connection: &mut MySqlConnection,
    names: &Names,
    after: Option<&Place>,
    limit: usize,
) -> Result<Vec<Change>, Failure> {
    let mut found = Vec::new();
    // The servers look up each of these in the key; the three as one condition they do not.
    for part in 0..3 {
        let left = limit - found.len();
        if left == 0 || (part != 2 && after.is_none()) {
            continue;
        }
        found.extend(read_part(connection, names, after, part, left).await?);
    }
    Ok(found)
}

/// Changes after a place: those of its commit, of its log, and of the logs behind it.
async fn read_part(
    connection: &mut MySqlConnection,
    names: &Names,
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
        "SELECT log_id, position, `index`, table_name, row_id, hlc, client, exact FROM {} \
         WHERE {condition} ORDER BY log_id, position, `index` LIMIT ?",
        names.own(HISTORY)
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
    statement.bind(limit).rows(connection).await?.iter().map(change).collect()
}

fn change(row: &MySqlRow) -> Result<Change, Failure> {
    let index: u64 = row.try_get(2)?;
    let index = u32::try_from(index).map_err(corrupt)?;
    let (log, position) = (log_id(row.try_get_unchecked(0)?)?, Position(row.try_get(1)?));
    let place = Place { log, position, index };
    let stored = Stored {
        table: text(row, 3)?,
        row_id: text(row, 4)?,
        hlc: row.try_get(5)?,
        client: text(row, 6)?,
        exact: row.try_get_unchecked(7)?,
    };
    Ok(Change { place, delta: stored.delta()? })
}

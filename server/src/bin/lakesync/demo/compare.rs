//! Whether two files hold the same rows, asked of SQLite itself and not of LakeSync.

use std::path::Path;

use lakesync::name::TableName;
use lakesync_client::Replica;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::edit::quoted;
use crate::exit::Exit;

/// What two files have in common.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Rows that both hold.
    pub(super) rows: u64,
    /// Rows that the gateway refused, which nobody expects to be the same.
    pub(super) refused: u64,
}

/// A table, and how each file's rows of it get their ids.
struct Table {
    name: String,
    left_id: String,
    right_id: String,
}

/// Compares the columns that both files have of each table, duplicates counted. Says how many rows
/// there are, or where they differ.
pub(super) async fn compare(
    left: (&Path, &Replica),
    right: (&Path, &Replica),
    tables: &[TableName],
) -> Result<Found, Exit> {
    let options = SqliteConnectOptions::new().filename(left.0).read_only(true);
    let mut connection =
        SqliteConnection::connect_with(&options).await.map_err(Exit::input_output)?;
    let path = right.0.to_str().ok_or_else(|| Exit::input_output("a path that is no text"))?;
    let attached = sqlx::query("ATTACH ? AS other").bind(path).execute(&mut connection).await;
    attached.map_err(Exit::input_output)?;
    let (left_ids, right_ids) = (row_ids(left.1).await?, row_ids(right.1).await?);
    let id = |ids: &[(TableName, String)], table: &TableName| {
        let found = ids.iter().find(|(name, _)| name == table);
        found.map(|(_, sql)| sql.clone()).unwrap_or_else(|| "NULL".to_owned())
    };
    let mut found = Found::default();
    for table in tables {
        let table = Table {
            name: table.to_string(),
            left_id: id(&left_ids, table),
            right_id: id(&right_ids, table),
        };
        let more = table.compare(&mut connection).await?;
        found.rows += more.rows;
        found.refused += more.refused;
    }
    Ok(found)
}

/// How the rows of each synced table get their ids.
async fn row_ids(replica: &Replica) -> Result<Vec<(TableName, String)>, Exit> {
    let candidates = replica.inspect().await.map_err(Exit::input_output)?;
    let adopted = candidates.into_iter().filter_map(|candidate| candidate.verdict.ok());
    Ok(adopted.filter_map(|table| Some((table.proposal.table, table.row_id?))).collect())
}

impl Table {
    async fn compare(&self, connection: &mut SqliteConnection) -> Result<Found, Exit> {
        let ids = self.refused();
        let refused = number(connection, format!("SELECT count(*) FROM ({ids})")).await;
        let refused = refused.map_err(Exit::input_output)?;
        let differing = self.differing(connection, refused).await.map_err(Exit::input_output)?;
        if 0 < differing {
            return Err(Exit::software(format!(
                "{}: {differing} rows differ between the replicas",
                self.name
            )));
        }
        let sql = format!("SELECT count(*) FROM {}", self.rows("main", &self.left_id, refused));
        Ok(Found { rows: number(connection, sql).await.map_err(Exit::input_output)?, refused })
    }

    async fn differing(
        &self,
        connection: &mut SqliteConnection,
        refused: u64,
    ) -> Result<u64, sqlx::Error> {
        let shared = "SELECT name FROM pragma_table_info(?, 'main') \
                      INTERSECT SELECT name FROM pragma_table_info(?, 'other') ORDER BY name";
        let names = sqlx::query(shared).bind(&self.name).bind(&self.name);
        let names = names.fetch_all(&mut *connection).await?;
        let names = names.iter().map(|row| row.try_get::<String, _>(0));
        let columns = names.collect::<Result<Vec<_>, _>>()?;
        // `quote` tells 1 from '1' and from 1.0, which comparison does not.
        let list = columns.iter().map(|name| format!("quote(_t.{})", quoted(name)));
        let list = list.collect::<Vec<_>>().join(", ");
        let of = |rows: String| format!("SELECT {list}, count(*) FROM {rows} GROUP BY {list}");
        let left = of(self.rows("main", &self.left_id, refused));
        let right = of(self.rows("other", &self.right_id, refused));
        let sql = format!(
            "SELECT (SELECT count(*) FROM ({left} EXCEPT {right})) \
                  + (SELECT count(*) FROM ({right} EXCEPT {left}))"
        );
        number(connection, sql).await
    }

    /// The table of a file without the rows that were refused, if any were.
    fn rows(&self, file: &str, row_id: &str, refused: u64) -> String {
        let table = format!("{file}.{} AS _t", quoted(&self.name));
        if refused == 0 {
            return table;
        }
        // Ids that are kept beside a table are this file's own.
        let row_id = row_id.replace("\"_lakesync_ids_", &format!("{file}.\"_lakesync_ids_"));
        format!("{table} WHERE coalesce({row_id}, '') NOT IN ({})", self.refused())
    }

    /// The ids of the rows that were refused on either side.
    fn refused(&self) -> String {
        let name = self.name.replace('\'', "''");
        let of = |file: &str| {
            format!("SELECT row_id FROM {file}._lakesync_rejected WHERE table_name = '{name}'")
        };
        format!("{} UNION {}", of("main"), of("other"))
    }
}

async fn number(connection: &mut SqliteConnection, sql: String) -> Result<u64, sqlx::Error> {
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

//! Whether two files hold the same rows, asked of SQLite itself and not of LakeSync.

use std::path::Path;

use lakesync::name::TableName;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::edit::quoted;
use crate::exit::Exit;

/// Compares the columns that both files have of each table, duplicates counted. Says how many rows
/// there are, or where they differ.
pub(super) async fn equal(left: &Path, right: &Path, tables: &[TableName]) -> Result<u64, Exit> {
    let options = SqliteConnectOptions::new().filename(left).read_only(true);
    let mut connection =
        SqliteConnection::connect_with(&options).await.map_err(Exit::input_output)?;
    let right = right.to_str().ok_or_else(|| Exit::input_output("a path that is no text"))?;
    let attached = sqlx::query("ATTACH ? AS other").bind(right).execute(&mut connection).await;
    attached.map_err(Exit::input_output)?;
    let mut rows = 0;
    for table in tables {
        let differing =
            differing(&mut connection, table.as_str()).await.map_err(Exit::input_output)?;
        if 0 < differing {
            return Err(Exit::software(format!(
                "{table}: {differing} rows differ between the replicas"
            )));
        }
        let sql = format!("SELECT count(*) FROM main.{}", quoted(table.as_str()));
        rows += number(&mut connection, sql).await.map_err(Exit::input_output)?;
    }
    Ok(rows)
}

async fn differing(connection: &mut SqliteConnection, table: &str) -> Result<u64, sqlx::Error> {
    let shared = "SELECT name FROM pragma_table_info(?, 'main') \
                  INTERSECT SELECT name FROM pragma_table_info(?, 'other') ORDER BY name";
    let names = sqlx::query(shared).bind(table).bind(table).fetch_all(&mut *connection).await?;
    let names = names.iter().map(|row| row.try_get::<String, _>(0));
    let columns = names.collect::<Result<Vec<_>, _>>()?;
    // `quote` tells 1 from '1' and from 1.0, which comparison does not.
    let list = columns.iter().map(|name| format!("quote({})", quoted(name)));
    let list = list.collect::<Vec<_>>().join(", ");
    let of = |file: &str| {
        let table = quoted(table);
        format!("SELECT {list}, count(*) FROM {file}.{table} GROUP BY {list}")
    };
    let (left, right) = (of("main"), of("other"));
    let sql = format!(
        "SELECT (SELECT count(*) FROM ({left} EXCEPT {right})) \
              + (SELECT count(*) FROM ({right} EXCEPT {left}))"
    );
    number(connection, sql).await
}

async fn number(connection: &mut SqliteConnection, sql: String) -> Result<u64, sqlx::Error> {
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

//! A live query shows what the file holds, at once and after every change that matters.

use std::time::Duration;

use futures_util::StreamExt;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::*;

async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.connect().await.expect("opens")
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::query(sql).execute(connection).await.expect(sql);
}

fn live(
    path: &Path,
    sql: &str,
    params: Vec<SqlValue>,
) -> BoxStream<'static, Result<Rows, QueryError>> {
    let pulse = Pulse::new(path, Duration::from_millis(1));
    watch(path, &pulse, sql.to_owned(), params)
}

#[tokio::test]
async fn results_follow_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    let mut other = open(&path).await;
    run(&mut other, "CREATE TABLE t (a); CREATE TABLE noise (a)").await;
    run(&mut other, "INSERT INTO t VALUES (1)").await;
    let mut live = live(&path, "SELECT a FROM t WHERE a >= ? ORDER BY a", vec![1.into()]);
    let mut shown = async || live.next().await.expect("goes on").expect("works").rows;

    assert_eq!(shown().await, [[SqlValue::Integer(1)]]);
    run(&mut other, "INSERT INTO noise VALUES (1)").await;
    run(&mut other, "INSERT INTO t VALUES (0), ('two')").await;
    let two = [[SqlValue::Integer(1)], [SqlValue::Text("two".into())]];
    assert_eq!(shown().await, two, "what makes no difference makes no result");
    run(&mut other, "DELETE FROM t").await;
    assert!(shown().await.is_empty());
}

#[tokio::test]
async fn every_storage_class_is_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    open(&path).await;
    let sql = "SELECT NULL AS n, 7, 1.5, 'x', x'00ff', ?, ?, ?, ?, ?";
    let params: Vec<SqlValue> =
        vec![SqlValue::Null, 8.into(), 2.5.into(), "y".into(), vec![1_u8].into()];
    let rows = live(&path, sql, params).next().await.expect("a result").expect("works");
    let expected = [
        SqlValue::Null,
        SqlValue::Integer(7),
        SqlValue::Real(1.5),
        SqlValue::Text("x".into()),
        SqlValue::Blob(vec![0, 255]),
        SqlValue::Null,
        SqlValue::Integer(8),
        SqlValue::Real(2.5),
        SqlValue::Text("y".into()),
        SqlValue::Blob(vec![1]),
    ];
    assert_eq!(rows.rows, [expected]);
    assert_eq!(rows.columns[0], "n");
}

#[tokio::test]
async fn an_error_is_shown_once_and_overcome() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    let mut other = open(&path).await;
    let mut live = live(&path, "SELECT a FROM t", Vec::new());
    let error = live.next().await.expect("goes on").expect_err("no table yet");
    assert!(error.to_string().contains("no such table"), "{error}");
    run(&mut other, "CREATE TABLE noise (a)").await;
    run(&mut other, "CREATE TABLE t (a)").await;
    assert!(live.next().await.expect("goes on").expect("works").rows.is_empty());
}

#[tokio::test]
async fn a_live_query_cannot_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    run(&mut open(&path).await, "CREATE TABLE t (a)").await;
    let mut live = live(&path, "INSERT INTO t VALUES (1) RETURNING a", Vec::new());
    assert!(live.next().await.expect("goes on").is_err());
}

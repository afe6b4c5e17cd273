//! How fast rows arrive, compared with multi-row INSERTs of the same rows. Run by hand, in release:
//! `cargo test --release -p lakesync-adapters --test it speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use lakesync::adapter::{Adapter, Batch, Commit};
use lakesync::delta::{Delta, Op};
use lakesync::name::Position;
use lakesync::schema::ColumnType;
use lakesync::value::Value;
use lakesync_adapters::mysql::MySql;
use lakesync_adapters::testing::{Durability, MariaDb};
use sqlx::{Connection, MySqlConnection};

use super::adapter;
use crate::fixtures::{LOG, schema, upsert};

const ROWS: u64 = 1_000_000;
const COMMIT_ROWS: u64 = 1_000;

#[tokio::test]
#[ignore = "takes minutes"]
async fn rows_arrive_at_a_third_of_an_inserts_speed() {
    let Some(server) = MariaDb::start_with(Durability::Machine).await else { return };
    let columns = [
        ("title", ColumnType::String),
        ("done", ColumnType::Bool),
        ("count", ColumnType::Int64),
        ("at", ColumnType::Timestamp),
        ("note", ColumnType::String),
    ];
    for (keeps_history, batch_rows) in [(false, 10_000), (true, 10_000)] {
        let name = server.fresh();
        let adapter = adapter(&server, &name, keeps_history);
        adapter.prepare(&schema("t", 1, &columns)).await.expect("prepare");
        let new = flush(&adapter, 0, ROWS, batch_rows).await;
        // Every tenth row, all over the table.
        let known = flush(&adapter, ROWS, ROWS / 10, batch_rows).await;
        let insert = plain_inserts(&server, &name, batch_rows).await;
        let speed = |rows: u64, took: Duration| rows as f64 / took.as_secs_f64();
        let plain = speed(ROWS, insert);
        let (new, known) = (speed(ROWS, new), speed(ROWS / 10, known));
        report(&format!(
            "history {keeps_history}, {batch_rows} a batch: {new:.0} new rows/s and {known:.0} \
             known rows/s; INSERT: {plain:.0} rows/s; ratio {:.2}",
            new / plain
        ));
        server.mariadb(&format!("DROP DATABASE {name}")).await;
    }
}

/// Writes `rows` changes in batches, and says how long the adapter took.
async fn flush(adapter: &MySql, from: u64, rows: u64, batch_rows: u64) -> Duration {
    let mut took = Duration::ZERO;
    for first in (from..from + rows).step_by(usize::try_from(batch_rows).expect("small")) {
        let commits = (first..first + batch_rows).step_by(COMMIT_ROWS as usize).map(|start| {
            let deltas = (start..start + COMMIT_ROWS).map(change).collect();
            Commit { position: Position(start / COMMIT_ROWS + 1), deltas }
        });
        let (start, end) = (first / COMMIT_ROWS + 1, (first + batch_rows) / COMMIT_ROWS);
        let batch = Batch::new(LOG, Position(start), Position(end), commits.collect());
        let batch = batch.expect("a legal batch");
        let start = Instant::now();
        adapter.write(&batch).await.expect("write");
        took += start.elapsed();
    }
    took
}

/// About 200 bytes of a row, whose ids come in no order.
fn change(at: u64) -> Delta {
    let row = if at < ROWS { at } else { (at - ROWS) * 10 };
    let scattered = row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let id = format!("{scattered:016x}-{row:016x}");
    let cells = [
        ("title", Value::String(format!("a title of the row that was written as number {at}"))),
        ("done", Value::Bool(at.is_multiple_of(2))),
        ("count", Value::Int64(at.cast_signed())),
        ("at", Value::Timestamp(1_700_000_000_000_000 + at.cast_signed())),
        ("note", Value::String("some words that stand for a note of middling length. ".repeat(2))),
    ];
    upsert("t", &id, at + 1, &cells)
}

/// The same rows, a thousand a statement, as often committed as the adapter does.
async fn plain_inserts(server: &MariaDb, name: &str, batch_rows: u64) -> Duration {
    server.mariadb(&format!("CREATE TABLE {name}.plain LIKE {name}.t")).await;
    let mut connection = MySqlConnection::connect_with(&server.options()).await.expect("up");
    let mut took = Duration::ZERO;
    for first in (0..ROWS).step_by(usize::try_from(batch_rows).expect("small")) {
        let statements = (first..first + batch_rows).step_by(1_000).map(|start| {
            let rows: Vec<_> = (start..start + 1_000).map(literal).collect();
            let sql = format!("INSERT INTO {name}.plain VALUES {}", rows.join(", "));
            sqlx::AssertSqlSafe(sql)
        });
        let statements: Vec<_> = statements.collect();
        let start = Instant::now();
        sqlx::raw_sql("START TRANSACTION").execute(&mut connection).await.expect("begin");
        for sql in statements {
            sqlx::raw_sql(sql).execute(&mut connection).await.expect("insert");
        }
        sqlx::raw_sql("COMMIT").execute(&mut connection).await.expect("commit");
        took += start.elapsed();
    }
    took
}

fn literal(at: u64) -> String {
    let delta = change(at);
    let Op::Upsert(cells) = &delta.op else { unreachable!("BUG: all are upserts") };
    let values = cells.iter().map(|cell| match &cell.value {
        Value::String(text) => format!("'{text}'"),
        Value::Bool(truth) => u8::from(*truth).to_string(),
        Value::Int64(number) => number.to_string(),
        Value::Timestamp(_) => "'2023-11-14 22:13:20.123456'".to_owned(),
        other => unreachable!("BUG: no column holds {other:?}"),
    });
    format!("('{}', {})", delta.row_id, values.collect::<Vec<_>>().join(", "))
}

#[expect(clippy::print_stderr, reason = "a measurement says what it measured")]
fn report(line: &str) {
    eprintln!("{line}");
}

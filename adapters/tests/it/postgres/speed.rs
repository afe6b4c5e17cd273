//! How fast rows arrive, compared with a plain COPY of the same rows. Run by hand, in release:
//! `cargo test --release -p lakesync-adapters --test it speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use lakesync::adapter::{Adapter, Batch, Commit};
use lakesync::delta::Delta;
use lakesync::name::Position;
use lakesync::schema::ColumnType;
use lakesync::value::Value;
use lakesync_adapters::postgres::Postgres;
use lakesync_adapters::testing::{Durability, Postgres as Testing};

use super::adapter;
use crate::fixtures::{LOG, schema, upsert};

const ROWS: u64 = 1_000_000;
const COMMIT_ROWS: u64 = 1_000;

#[tokio::test]
#[ignore = "takes minutes"]
async fn rows_arrive_beside_a_copy() {
    let Some(server) = Testing::start_with(Durability::Machine).await else { return };
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
        let copy = plain_copy(&server, &name).await;
        let speed = |rows: u64, took: Duration| rows as f64 / took.as_secs_f64();
        let plain = speed(ROWS, copy);
        let (new, known) = (speed(ROWS, new), speed(ROWS / 10, known));
        report(&format!(
            "history {keeps_history}, {batch_rows} a batch: {new:.0} new rows/s and {known:.0} \
             known rows/s; COPY: {plain:.0} rows/s; ratio {:.2}",
            new / plain
        ));
        server.psql(&format!("DROP SCHEMA {name} CASCADE; CHECKPOINT")).await;
    }
}

/// Writes `rows` changes in batches, and says how long the adapter took.
async fn flush(adapter: &Postgres, from: u64, rows: u64, batch_rows: u64) -> Duration {
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

async fn plain_copy(server: &Testing, name: &str) -> Duration {
    let file = format!("/tmp/lakesync-{}.copy", server.address().port());
    let set = format!("SET search_path = {name}; CREATE TABLE plain (LIKE t INCLUDING ALL);");
    server.psql(&format!("{set} COPY t TO '{file}'")).await;
    server.psql("CHECKPOINT").await;
    let start = Instant::now();
    server.psql(&format!("COPY {name}.plain FROM '{file}'")).await;
    let took = start.elapsed();
    server.psql(&format!("COPY (SELECT 1) TO PROGRAM 'rm {file}'")).await;
    took
}

#[expect(clippy::print_stderr, reason = "a measurement says what it measured")]
fn report(line: &str) {
    eprintln!("{line}");
}

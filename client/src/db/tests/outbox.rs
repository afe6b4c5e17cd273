//! Batches: what goes into one push, and where a large backlog is cut.

use lakesync::delta::{Delta, Op};
use lakesync::proto::v1::Outcome;

use super::super::Share;
use super::super::sql::script;
use super::model::{Device, Gateway, keyed};

async fn device() -> Device {
    Device::with(&[keyed("notes", "a:text b:text")]).await
}

fn shown(deltas: &[Delta]) -> Vec<String> {
    let cells = |op: &Op| match op {
        Op::Delete => " delete".to_owned(),
        Op::Upsert(cells) => cells.iter().map(|cell| format!(" {}", cell.column)).collect(),
    };
    deltas.iter().map(|delta| format!("{}{}", delta.row_id, cells(&delta.op))).collect()
}

/// Runs `sql` and expects one batch of these changes; and that what was left out does not matter.
async fn check(sql: &str, expected: &[&str]) {
    let (mut device, mut other) = (device().await, device().await);
    let mut gateway = Gateway::default();
    device.run(sql).await;
    let batch = device.db.pending_at_most(10_000).await.unwrap().unwrap();
    assert_eq!(shown(&batch.deltas), expected, "after {sql}");
    device.sync(&mut gateway).await;
    other.sync(&mut gateway).await;
    let all = "SELECT * FROM notes ORDER BY 1";
    assert_eq!(other.ask(all).await, device.ask(all).await);
    assert_eq!(device.db.counts().await.unwrap().pending, 0);
}

#[tokio::test]
async fn what_is_overwritten_within_a_batch_is_left_out() {
    let insert = "INSERT INTO notes VALUES ('x', '1', '1')";
    check(&format!("{insert}; UPDATE notes SET a = '2'"), &["x b", "x a"]).await;
    check(&format!("{insert}; UPDATE notes SET a = '2', b = '2'"), &["x a b"]).await;
    // What nobody knows of is sent before its delete: rules may ask whose it was.
    let made_and_deleted =
        format!("{insert}; UPDATE notes SET a = '2', b = '2'; DELETE FROM notes");
    check(&made_and_deleted, &["x a b", "x delete"]).await;
    check(&format!("{insert}; DELETE FROM notes; {insert}"), &["x a b", "x delete", "x a b"]).await;
    check(
        &format!("{insert}; INSERT INTO notes VALUES ('y', '1', '1'); UPDATE notes SET b = '3'"),
        &["x a", "y a", "x b", "y b"],
    )
    .await;
}

#[tokio::test]
async fn of_a_row_that_the_gateway_has_only_the_delete_is_sent() {
    let (mut device, mut gateway) = (device().await, Gateway::default());
    device.run("INSERT INTO notes VALUES ('x', '1', '1')").await;
    device.sync(&mut gateway).await;
    device.run("UPDATE notes SET a = '2'; DELETE FROM notes").await;
    let batch = device.db.pending_at_most(10_000).await.unwrap().unwrap();
    assert_eq!(shown(&batch.deltas), ["x delete"]);
}

#[tokio::test]
async fn what_was_left_out_for_a_change_that_is_refused_is_sent_after_all() {
    let mut ann = device().await;
    let mut gateway = Gateway { poison: Some("bad"), ..Gateway::default() };
    ann.run("INSERT INTO notes VALUES ('x', 'good', 'good'); UPDATE notes SET a = 'bad'").await;
    let settled = ann.push(&mut gateway).await;
    assert_eq!(settled.rejected.len(), 1);
    assert_eq!(ann.ask("SELECT * FROM notes").await, "x|good|good");
    assert_eq!(gateway.show("notes"), "x a=good b=good");
    assert_eq!(ann.db.counts().await.unwrap().pending, 0);
}

#[tokio::test]
async fn a_large_backlog_is_cut_where_a_transaction_ended() {
    let ann = device().await;
    for size in [3, 4, 4] {
        let mut transaction = ann.db.transaction().await.unwrap();
        for _ in 0..size {
            let sql = "INSERT INTO notes (a) VALUES ('x')";
            script(transaction.connection(), sql).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
    let mut gateway = Gateway::default();
    let mut sizes = Vec::new();
    while let Some(batch) = ann.db.pending_at_most(8).await.unwrap() {
        sizes.push(batch.deltas.len());
        let outcomes = gateway.push(ann.db.client_id(), &batch.deltas);
        ann.db.settle(batch, &outcomes).await.unwrap();
    }
    assert_eq!(sizes, [7, 4]);
}

#[tokio::test]
async fn without_a_known_boundary_it_is_cut_at_the_longest_pause() {
    let mut ann = device().await;
    for _ in 0..9 {
        ann.run("INSERT INTO notes (a) VALUES ('x')").await;
    }
    ann.run("UPDATE _lakesync_outbox SET hlc = hlc + (60000 << 16) WHERE seq > 6").await;
    let batch = ann.db.pending_at_most(8).await.unwrap().unwrap();
    assert_eq!(batch.deltas.len(), 6);
}

/// The sizes of the batches that a device sends, of about `bytes_target` each.
async fn batches(device: &Device, bytes_target: usize) -> Vec<usize> {
    let mut gateway = Gateway::default();
    let mut sizes = Vec::new();
    let share = Share { rows_max: 10_000, bytes_target };
    while let Some(batch) = device.db.pending(share, &[]).await.unwrap() {
        sizes.push(batch.deltas.len());
        let outcomes = gateway.push(device.db.client_id(), &batch.deltas);
        device.db.settle(batch, &outcomes).await.unwrap();
    }
    sizes
}

#[tokio::test]
async fn a_slow_line_gets_small_batches_and_whole_transactions() {
    let ann = device().await;
    // Of 1,000 bytes each.
    for size in [2, 1, 1, 6, 2, 1] {
        let mut transaction = ann.db.transaction().await.unwrap();
        for _ in 0..size {
            let sql = "INSERT INTO notes (a) VALUES (hex(zeroblob(460)))";
            script(transaction.connection(), sql).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
    assert_eq!(batches(&ann, 3_500).await, [3, 1, 6, 3]);
}

#[tokio::test]
async fn what_may_be_one_transaction_is_split_only_where_a_message_ends() {
    let mut ann = device().await;
    let many = |count| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
             INSERT INTO notes (a) SELECT hex(zeroblob(50000)) FROM n"
        )
    };
    ann.run(&many(20)).await;
    assert_eq!(batches(&ann, 256 << 10).await, [20], "2 MB of one statement");
    // Five statements of 2 MB, each a minute after the one before it.
    let mut seq = 20;
    for minute in 1..=5 {
        ann.run(&many(20)).await;
        let sql = format!("UPDATE _lakesync_outbox SET hlc = hlc + ({minute} * 60000 << 16)");
        ann.run(&format!("{sql} WHERE seq > {seq}")).await;
        seq += 20;
    }
    assert_eq!(batches(&ann, 256 << 10).await, [20, 20, 20, 20, 20]);
    // 10 MB of one statement are split in any case: as the line likes it.
    ann.run(&many(100)).await;
    let sizes = batches(&ann, 512 << 10).await;
    assert_eq!(sizes.iter().sum::<usize>(), 100);
    assert!(sizes[0] == 5, "{sizes:?}");
}

#[tokio::test]
async fn a_transaction_that_is_dropped_is_undone() {
    let mut ann = device().await;
    let mut transaction = ann.db.transaction().await.unwrap();
    script(transaction.connection(), "INSERT INTO notes (a) VALUES ('x')").await.unwrap();
    drop(transaction);
    ann.run("INSERT INTO notes (a) VALUES ('y')").await;
    assert_eq!(ann.ask("SELECT a FROM notes").await, "y");
    assert_eq!(ann.db.counts().await.unwrap().pending, 1);
}

#[tokio::test]
async fn a_batch_fits_into_a_message() {
    let mut ann = device().await;
    for _ in 0..6 {
        ann.run("INSERT INTO notes (a) VALUES (hex(zeroblob(500000)))").await;
    }
    let batch = ann.db.pending_at_most(10_000).await.unwrap().unwrap();
    assert!(
        (2..=3).contains(&batch.deltas.len()) && batch.bytes < 4 << 20,
        "{} bytes",
        batch.bytes
    );
    // And a single change always goes, whatever its size may be.
    assert_eq!(ann.db.pending_at_most(0).await.unwrap().unwrap().deltas.len(), 1);
}

#[tokio::test]
async fn an_edit_made_while_a_push_is_under_way_stays_unsent() {
    let mut ann = device().await;
    let mut gateway = Gateway::default();
    ann.run("INSERT INTO notes VALUES ('x', '1', '1')").await;
    let batch = ann.db.pending_at_most(10_000).await.unwrap().unwrap();
    ann.run("UPDATE notes SET a = '2'").await;
    let outcomes = gateway.push(ann.db.client_id(), &batch.deltas);
    ann.db.settle(batch, &outcomes).await.unwrap();
    assert_eq!(ann.outbox().await, "x 1='2'");
    assert_eq!(ann.ask("SELECT * FROM notes").await, "x|2|1");
    ann.sync(&mut gateway).await;
    assert_eq!(gateway.show("notes"), "x a=2 b=1");
}

#[tokio::test]
async fn an_answer_that_names_no_change_is_refused_whole() {
    let mut ann = device().await;
    ann.run("INSERT INTO notes VALUES ('x', '1', '1')").await;
    let batch = ann.db.pending_at_most(10_000).await.unwrap().unwrap();
    let stray = Outcome { row: 7, ..Outcome::default() };
    assert!(ann.db.settle(batch, &[stray]).await.is_err());
    assert_eq!(ann.db.counts().await.unwrap().pending, 1);
}

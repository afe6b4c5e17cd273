//! Capture: whoever writes to the file, the change arrives at the others, and a transaction of the
//! application is one commit at the gateway.

use std::collections::BTreeMap;
use std::path::Path;

use lakesync::proto::v1::{PullRequest, TableChanges};

use super::site::{Site, head, open, run, serve, shell};
use crate::harness::Setup;
use crate::harness::process::{command, run as finish};

const MADE_BY: &str = "CREATE TABLE todos (id TEXT PRIMARY KEY, title TEXT, rank INTEGER);";

#[tokio::test]
async fn the_shell_and_other_connections_are_captured() {
    if !shell().await {
        return;
    }
    let shell = Path::new("sqlite3");
    let server = serve(&Setup::new()).await;
    let ann = Site::with(&server, MADE_BY, &["todos"]).await;
    let mut bob = Site::synced(&server).await;

    let path = ann.path.to_str().expect("text");
    let sql = "INSERT INTO todos VALUES ('shell', 'it''s \u{1f95b}', 1);";
    let ended = finish(command(shell, [path, sql])).await;
    assert!(ended.status.success(), "{ended:?}");
    let mut other = open(&ann.path).await;
    run(&mut other, "INSERT INTO todos VALUES ('other', NULL, -1)").await;
    run(&mut other, "UPDATE todos SET rank = 2 WHERE id = 'shell'").await;

    ann.sync().await;
    bob.sync().await;
    let wanted = ["'other'|NULL|-1", "'shell'|'it''s \u{1f95b}'|2"];
    assert_eq!(bob.rows("todos", "id, title, rank").await, wanted);

    // The other way too: what arrives in the file is there for the shell, and is deleted by it.
    bob.run("UPDATE todos SET title = 'bob' WHERE id = 'other'").await;
    bob.sync().await;
    ann.sync().await;
    let ended = finish(command(shell, [path, "SELECT title FROM todos WHERE rank < 0"])).await;
    assert_eq!(ended.stdout, "bob\n");
    let ended = finish(command(shell, [path, "DELETE FROM todos"])).await;
    assert!(ended.status.success(), "{ended:?}");
    ann.sync().await;
    bob.sync().await;
    assert!(bob.rows("todos", "id").await.is_empty());
}

#[tokio::test]
async fn a_transaction_of_the_application_is_one_commit() {
    let server = serve(&Setup::new()).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    let before = head(&server).await;
    ann.run(
        "BEGIN;
         INSERT INTO todos VALUES ('a', 'milk', 1), ('b', 'oats', 2);
         UPDATE todos SET rank = 9 WHERE id = 'a';
         DELETE FROM todos WHERE id = 'b';
         INSERT INTO todos VALUES ('c', 'salt', 3);
         COMMIT;",
    )
    .await;
    ann.sync().await;
    assert_eq!(head(&server).await, before + 1, "one position");

    // More than one push holds: each transaction stays whole all the same.
    let server = serve(&Setup::new()).await;
    let ann = Site::with(&server, MADE_BY, &["todos"]).await;
    for round in 0..3 {
        let mut edit = ann.replica.transaction().await.expect("begins");
        // The longest pauses are in the middle of transactions: time does not tell them apart.
        let sql = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO todos SELECT '{round}-' || i, 'x', {round} FROM n;
             UPDATE _lakesync_clock SET offset_ms = offset_ms + 1000;
             INSERT INTO todos SELECT id || '-', title, rank FROM todos WHERE rank = {round}"
        );
        run(edit.connection(), &sql).await;
        edit.commit().await.expect("commits");
    }
    ann.sync().await;
    let first = 1;
    assert_eq!(head(&server).await, first + 1, "12,000 changes are two pushes");
    let request = PullRequest { skip_positions: vec![first], ..PullRequest::default() };
    let second = server.client("reader").await.pull_with(request).await.expect("a log");
    let mut changes = BTreeMap::<String, usize>::new();
    for id in row_ids(&second.tables()) {
        *changes.entry(id.split('-').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    // The first push is small: nothing is known of the line yet.
    let whole = [("1".to_owned(), 4_000), ("2".to_owned(), 4_000)];
    assert_eq!(changes, BTreeMap::from(whole), "cut between transactions");
}

fn row_ids(tables: &[TableChanges]) -> Vec<String> {
    tables.iter().flat_map(|table| table.rows.iter().map(|row| row.row_id.clone())).collect()
}

#[tokio::test]
async fn what_was_rolled_back_is_never_sent() {
    let server = serve(&Setup::new()).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    let mut bob = Site::synced(&server).await;
    ann.run("INSERT INTO todos VALUES ('kept', 'before', 1)").await;
    ann.run(
        "BEGIN;
         UPDATE todos SET title = 'during' WHERE id = 'kept';
         SAVEPOINT doubt;
         INSERT INTO todos VALUES ('never', 'x', 1);
         UPDATE todos SET rank = 99 WHERE id = 'kept';
         ROLLBACK TO doubt;
         INSERT INTO todos VALUES ('also', 'y', 2);
         RELEASE doubt;
         COMMIT;
         BEGIN; DELETE FROM todos; ROLLBACK;",
    )
    .await;
    let before = head(&server).await;
    ann.sync().await;
    bob.sync().await;
    let wanted = ["'also'|'y'|2", "'kept'|'during'|1"];
    assert_eq!(bob.rows("todos", "id, title, rank").await, wanted);
    let log = server.client("reader").await.pull("").await.expect("a log");
    let sent = row_ids(&log.tables()).iter().any(|id| id == "never");
    assert!(before < head(&server).await && !sent, "a row of an undone savepoint was sent");
    assert_eq!(ann.status().pending, 0);
}

#[tokio::test]
async fn a_table_of_the_gateway_is_there_to_be_written() {
    let server = Setup::new().start_with_tables().await;
    let mut ann = Site::synced(&server).await;
    ann.run("INSERT INTO todos (title, done, rank) VALUES ('milk', 1, 2)").await;
    ann.run("INSERT INTO notes (body) VALUES ('x')").await;
    ann.sync().await;
    let mut bob = Site::synced(&server).await;
    assert_eq!(bob.rows("todos", "title, done, rank, extra").await, ["'milk'|1|2|NULL"]);
    assert_eq!(bob.rows("notes", "body").await, ["'x'"]);
}

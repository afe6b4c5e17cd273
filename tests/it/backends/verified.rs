//! A backend is compared with its gateway, and repaired: rows that somebody has changed, removed or
//! added in the database are found, and everything else stays as it is.

use std::sync::atomic::{AtomicBool, Ordering};

use lakesync::value::Value;
use tonic::Code;

use super::servers::Database;
use crate::harness::changes::{at, delete, upsert, write};
use crate::harness::process::{lakesync, run};
use crate::harness::{Client, Setup, assert_refused, grant};

/// Rows that differ in `todos`: missing, outdated, changed, extra; and how many are repaired.
async fn found(client: &Client, repair: bool, remove_extra: bool) -> [u64; 5] {
    let tables = client.verify(repair, remove_extra).await.expect("verified");
    assert_eq!(tables.len(), 2, "{tables:?}");
    let notes = &tables["notes"];
    assert_eq!((notes.rows, notes.missing + notes.changed + notes.extra), (1, 0), "{notes:?}");
    assert_eq!(notes.gateway_digest, notes.backend_digest);
    let todos = &tables["todos"];
    assert_eq!((todos.unsettled, todos.gateway_digest.len()), (0, 32), "{todos:?}");
    [todos.missing, todos.outdated, todos.changed, todos.extra, todos.repaired]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_did_to_rows_is_found_and_repaired() {
    for database in Database::all().await {
        let schema = database.fresh();
        let setup =
            Setup::new().flush_to_settings(&database.settings("db", &schema, database.address()));
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        let rows = (0..600).map(|nth| {
            let cells = [
                ("title", Value::String(format!("title {nth} é"))),
                ("done", Value::Bool(nth % 2 == 0)),
                ("rank", Value::Int64(i64::MAX - nth)),
                ("extra", Value::Bytes(vec![0, 255].into())),
            ];
            write("ann", at(1), &format!("todos/{nth:03}"), cells)
        });
        ann.push(rows).await.expect("pushed");
        ann.push([delete("ann", at(2), "todos/009")]).await.expect("pushed");
        ann.push([upsert("ann", at(1), "notes/1", &[("body", "x")])]).await.expect("pushed");
        assert_eq!(found(&ann, false, false).await, [0; 5], "{database:?}");

        let own = |table: &str| format!("{}.{table}", database.quoted(&schema));
        let (todos, states) = (own("todos"), own("_lakesync_rows"));
        let view = own("titles");
        let rank = database.quoted("rank");
        for statement in [
            format!("CREATE VIEW {view} AS SELECT id, title FROM {todos}"),
            format!("UPDATE {todos} SET title = 'mine' WHERE id = '001'"),
            // The last digit of many.
            format!("UPDATE {todos} SET {rank} = {rank} - 1 WHERE id = '002'"),
            format!("UPDATE {todos} SET done = NULL WHERE id = '003'"),
            format!("DELETE FROM {todos} WHERE id = '004'"),
            format!("DELETE FROM {states} WHERE row_id = '005'"),
            format!("INSERT INTO {todos} (id, title) VALUES ('mine', 'x')"),
            format!("INSERT INTO {todos} (id, title) VALUES ('009', 'deleted before')"),
        ] {
            database.ask(&statement).await;
        }
        let all = format!("SELECT * FROM {todos} ORDER BY id");
        let history = format!("SELECT count(*) FROM {}", own("_lakesync_history"));
        let (before, told) = (database.ask(&all).await, database.ask(&history).await);
        assert_eq!(found(&ann, false, false).await, [1, 0, 4, 2, 0], "{database:?}");
        assert_eq!(database.ask(&all).await, before, "it was only looked at");

        let url = format!("http://{}", server.address);
        let token = server.token(&grant("operator", "admin"));
        let verify = |more: &[&str]| {
            let arguments = ["verify", "--url", &url, "--token", &token, "--gateway", "main"];
            lakesync(arguments.into_iter().chain(more.iter().copied()))
        };
        let ended = run(verify(&[])).await;
        assert_eq!(ended.status.code(), Some(65), "{ended:?}");
        let says = "todos  599 rows: 1 missing, 4 changed, 2 extra\n";
        assert!(ended.stdout.contains(says), "{ended:?}");
        assert!(ended.stdout.contains("  changed: 001\n"), "{ended:?}");
        assert!(ended.stderr.contains("7 rows differ; --repair"), "{ended:?}");
        let ended = run(verify(&["--backend", "db", "--repair"])).await;
        assert_eq!(ended.status.code(), Some(65), "{ended:?}");
        assert!(ended.stdout.contains("2 extra, 5 repaired"), "{ended:?}");
        assert!(ended.stderr.contains("2 rows differ; "), "{ended:?}");
        assert_eq!(found(&ann, true, false).await, [0, 0, 0, 2, 0], "what was added stays");
        let kept = format!("SELECT title FROM {view} WHERE id = 'mine'");
        assert_eq!(database.ask(&kept).await, ["x"], "and so do views");
        assert_eq!(found(&ann, false, true).await, [0, 0, 0, 2, 2]);
        let ended = run(verify(&[])).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.stdout.contains("todos  599 rows: the same, sha256 "), "{ended:?}");
        assert_eq!(database.ask(&format!("SELECT count(*) FROM {view}")).await, ["599"]);
        let title = format!("SELECT title FROM {todos} WHERE id = '001'");
        assert_eq!(database.ask(&title).await, ["title 1 é"]);
        assert_eq!(database.ask(&history).await, told, "the history stays as it was");
        // What is written later goes on as ever.
        ann.push([upsert("ann", at(9), "todos/005", &[("title", "later")])]).await.expect("pushed");
        assert_eq!(found(&ann, false, false).await, [0; 5]);
        let ended = run(verify(&["--backend", "elsewhere"])).await;
        assert!(ended.stderr.contains("no backend elsewhere; it has db"), "{ended:?}");
        server.stop().await.expect("stopped");
    }
}

/// Rows are written, deleted and made anew all the time: none of them seems to differ, and a repair
/// puts none back to what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_written_meanwhile_do_not_differ() {
    for database in Database::all().await {
        let schema = database.fresh();
        let setup =
            Setup::new().flush_to_settings(&database.settings("db", &schema, database.address()));
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        ann.push([upsert("ann", at(1), "notes/1", &[("body", "x")])]).await.expect("pushed");
        let is_over = AtomicBool::new(false);
        let writing = async {
            let mut hlc = 1;
            while !is_over.load(Ordering::SeqCst) {
                let row = |nth: u64| format!("todos/{:02}", nth % 40);
                let title = format!("{hlc}");
                let mut changes: Vec<_> = (hlc..hlc + 5)
                    .map(|nth| upsert("ann", at(nth), &row(nth * 7), &[("title", &title)]))
                    .collect();
                changes.push(delete("ann", at(hlc + 6), &row(hlc)));
                ann.push(changes).await.expect("pushed");
                hlc += 10;
            }
        };
        let verifying = async {
            for nth in 0..8 {
                let tables = ann.verify(nth % 2 == 1, nth % 2 == 1).await.expect("verified");
                let todos = &tables["todos"];
                let differ = todos.missing + todos.outdated + todos.changed + todos.extra;
                assert_eq!(differ, 0, "{database:?}: {todos:?}");
            }
            is_over.store(true, Ordering::SeqCst);
        };
        tokio::join!(writing, verifying);
        assert_eq!(found(&ann, false, false).await, [0; 5], "{database:?}");
        server.stop().await.expect("stopped");
    }
}

#[tokio::test]
async fn what_can_not_be_verified_is_said() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    assert_refused(ann.verify(false, false).await, Code::FailedPrecondition, "NO_BACKEND");
    server.stop().await.expect("stopped");
    let backend = crate::harness::backend::Backend::default;
    let two = Setup::new().flush_to("one", backend()).flush_to("two", backend());
    let server = two.start_with_tables().await;
    let ann = server.client("ann").await;
    let status =
        assert_refused(ann.verify(false, false).await, Code::InvalidArgument, "INVALID_REQUEST");
    assert!(status.message().contains("name one of one, two"), "{status:?}");
    server.stop().await.expect("stopped");
}

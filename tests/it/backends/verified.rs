//! A backend is compared with its gateway, and repaired: rows that somebody has changed, removed or
//! added in the database are found, and everything else stays as it is.

use std::sync::atomic::{AtomicBool, Ordering};

use lakesync::adapter::Adapter;
use lakesync::name::RowId;
use lakesync::testing::fold;
use lakesync::value::Value;
use tokio::process::Command;
use tonic::Code;

use super::servers::Database;
use crate::harness::backend::Backend;
use crate::harness::changes::{at, delete, upsert, write};
use crate::harness::process::{lakesync, run};
use crate::harness::{Client, MAIN, Server, Setup, assert_refused, grant};

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

/// The command, about the gateway `main`.
fn verify(server: &Server, more: &[&str]) -> Command {
    let url = format!("http://{}", server.address);
    let token = server.token(&grant("operator", "admin"));
    let arguments = ["verify", "--url", &url, "--token", &token, "--gateway", "main"];
    lakesync(arguments.into_iter().chain(more.iter().copied()))
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

        let verify = |more: &[&str]| verify(&server, more);
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

/// What the database refuses of a row is no repair, though writing it succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_database_refuses_are_not_told_as_repaired() {
    let backend = Backend::default();
    let server = Setup::new().flush_to("db", backend.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    for nth in 1..=3 {
        let row = format!("todos/{nth}");
        ann.push([upsert("ann", at(1), &row, &[("title", "x")])]).await.expect("pushed");
    }
    ann.flush().await.expect("flushed");
    // One somebody took out, and it comes back; another is refused; and one stands in nobody's way.
    let todos = "todos".parse().expect("a name");
    let id = |text: &str| -> RowId { text.parse().expect("a row id") };
    backend.memory.overwrite(&todos, &[(id("1"), None)]).await.expect("overwritten");
    backend.hidden.lock().expect("unpoisoned").insert(id("2"));
    backend.stuck.lock().expect("unpoisoned").insert(id("mine"));

    let tables = ann.verify(true, true).await.expect("verified");
    let found = &tables["todos"];
    assert_eq!((found.missing, found.changed, found.extra), (1, 1, 1), "{found:?}");
    assert_eq!((found.repaired, found.refused), (1, 2), "{found:?}");

    let ended = run(verify(&server, &["--repair"])).await;
    assert_eq!(ended.status.code(), Some(65), "{ended:?}");
    assert!(ended.stdout.contains("1 changed, 1 extra, 1 refused by the database"), "{ended:?}");
    // It is in both tables.
    let says = "3 rows differ; --remove-extra removes rows that the gateway does not have; the \
                database refused 1 of them; the backend's `troubles`";
    assert!(ended.stderr.contains(says), "{ended:?}");
    server.stop().await.expect("stopped");
}

/// Somebody made a column shorter: a row whose value does not fit is written without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_that_a_database_refuses_is_no_repair() {
    for database in Database::all().await {
        let schema = database.fresh();
        let setup =
            Setup::new().flush_to_settings(&database.settings("db", &schema, database.address()));
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        for (row, title) in [("todos/1", "longer"), ("todos/2", "b")] {
            ann.push([upsert("ann", at(1), row, &[("title", title)])]).await.expect("pushed");
        }
        ann.flush().await.expect("flushed");
        let todos = format!("{}.todos", database.quoted(&schema));
        for statement in [
            format!("UPDATE {todos} SET title = 'mine'"),
            match database {
                Database::Postgres(_) => format!("ALTER TABLE {todos} ALTER title TYPE varchar(4)"),
                Database::MariaDb(_) => format!("ALTER TABLE {todos} MODIFY title varchar(4)"),
            },
        ] {
            database.ask(&statement).await;
        }
        for (changed, repaired) in [(2, 1), (1, 0)] {
            let tables = ann.verify(true, false).await.expect("verified");
            let found = &tables["todos"];
            let counts = (found.changed, found.repaired, found.refused);
            assert_eq!(counts, (changed, repaired, 1), "{database:?}: {found:?}");
        }
        let troubles = &ann.stats().await.expect("stats").backends["db"].troubles;
        assert!(troubles.iter().any(|trouble| trouble.contains("title")), "{troubles:?}");
        let ended = run(verify(&server, &["--repair"])).await;
        assert_eq!(ended.status.code(), Some(65), "{ended:?}");
        server.stop().await.expect("stopped");
    }
}

/// Where a gateway was restored from an older copy, its backend may have the only copy of what was
/// written since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_newer_at_the_backend_are_never_put_back() {
    let backend = Backend::default();
    let server = Setup::new().flush_to("db", backend.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    for row in ["todos/1", "todos/2", "todos/3"] {
        ann.push([upsert("ann", at(1), row, &[("title", "old")])]).await.expect("pushed");
    }
    ann.flush().await.expect("flushed");
    // A newer cell, a newer delete, and a row that the gateway does not have at all.
    let todos = "todos".parse().expect("a name");
    let newer = [
        upsert("bob", at(5), "todos/1", &[("title", "new")]),
        delete("bob", at(5), "todos/2"),
        upsert("bob", at(5), "todos/4", &[("title", "new")]),
    ];
    let rows: Vec<_> = newer
        .iter()
        .map(|delta| (delta.row_id.clone(), fold(std::slice::from_ref(delta))))
        .collect();
    backend.memory.join(&todos, &rows).await.expect("joined");
    let before = backend.all("todos").await;

    let tables = ann.verify(true, false).await.expect("verified");
    let found = &tables["todos"];
    assert_eq!((found.newer, found.extra, found.repaired), (2, 1, 0), "{found:?}");
    assert_eq!(backend.all("todos").await, before);

    let ended = run(verify(&server, &["--repair", "--remove-extra"])).await;
    assert_eq!(ended.status.code(), Some(64), "{ended:?}");
    assert!(ended.stderr.contains("--yes goes on without asking"), "{ended:?}");
    assert_eq!(backend.all("todos").await, before, "nobody was asked");

    let ended = run(verify(&server, &["--repair", "--remove-extra", "--yes"])).await;
    assert_eq!(ended.status.code(), Some(65), "{ended:?}");
    assert!(ended.stdout.contains("1 extra, 2 newer at the backend, 1 repaired"), "{ended:?}");
    assert!(ended.stdout.contains("  newer: 1\n"), "{ended:?}");
    let says = "2 rows differ; 2 are newer at the backend, and are never overwritten";
    assert!(ended.stderr.contains(says), "{ended:?}");
    assert_eq!(backend.all("todos").await, before[..3], "only what is extra went");
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_gateway_without_tables_has_nothing_to_compare() {
    let server = Setup::new().flush_to("db", Backend::default()).start().await;
    let made = server.client("operator").await.create_gateway(MAIN).await;
    made.expect("created");
    let ended = run(verify(&server, &[])).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "the gateway has no tables; there is nothing to compare\n");
    let ended = run(verify(&server, &["--json"])).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout.trim(), r#"{"tables":[]}"#, "{ended:?}");
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn what_can_not_be_verified_is_said() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    assert_refused(ann.verify(false, false).await, Code::FailedPrecondition, "NO_BACKEND");
    server.stop().await.expect("stopped");
    let backend = Backend::default;
    let two = Setup::new().flush_to("one", backend()).flush_to("two", backend());
    let server = two.start_with_tables().await;
    let ann = server.client("ann").await;
    let status =
        assert_refused(ann.verify(false, false).await, Code::InvalidArgument, "INVALID_REQUEST");
    assert!(status.message().contains("name one of one, two"), "{status:?}");
    server.stop().await.expect("stopped");
}

//! What goes wrong between the server and a database: nothing is lost, nothing is doubled, and
//! nothing stays stuck once it is mended.

use std::time::Duration;

use lakesync_adapters::testing::{Fault, Postgres, Proxy};

use super::servers::Database;
use crate::harness::changes::{at, upsert};
use crate::harness::{Client, Setup, within};

/// A server that flushes by way of a proxy, and a client.
async fn behind(database: Database, schema: &str) -> (Proxy, Setup) {
    let proxy = Proxy::start(database.address()).await;
    let setup = Setup::new().flush_to_settings(&database.settings("db", schema, proxy.address()));
    (proxy, setup)
}

async fn push(client: &Client, nth: u64) {
    let row = format!("todos/{nth}");
    client.push([upsert("ann", at(nth), &row, &[("title", "x")])]).await.expect("pushed");
}

/// Asks for a flush until it comes to its end.
async fn flushed(client: &Client) {
    within(async {
        while client.flush().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn assert_all(database: Database, schema: &str, count: u64) {
    let of = |table: &str| format!("{}.{}", database.quoted(schema), database.quoted(table));
    for table in ["todos", "_lakesync_history"] {
        let counted = database.ask(&format!("SELECT count(*) FROM {}", of(table))).await;
        assert_eq!(counted, [count.to_string()], "{table} of {}", database.kind());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_are_made_again() {
    for database in Database::all().await {
        let schema = database.fresh();
        let (proxy, setup) = behind(database, &schema).await;
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        let commit = || "COMMIT".to_owned();
        let faults = [
            Some(Fault::CutBefore(commit())),
            Some(Fault::CutAnswer(commit())),
            Some(Fault::CutAfterBytes(100)),
            Some(Fault::Refuse),
            Some(Fault::Slow(Duration::from_millis(20))),
            None,
        ];
        let mut nth = 0;
        for fault in faults.iter().cycle().take(12) {
            push(&ann, nth).await;
            flushed(&ann).await;
            match fault {
                Some(fault) => proxy.set(fault.clone()),
                None => proxy.cut(),
            }
            push(&ann, nth + 1).await;
            // Pushes go on, whatever the backend does.
            let _ = ann.flush().await;
            proxy.heal();
            flushed(&ann).await;
            nth += 2;
            assert_all(database, &schema, nth).await;
        }
        server.stop().await.expect("stopped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_told_of_by_name_and_waited_for() {
    for database in Database::all().await {
        let schema = database.fresh();
        let (proxy, setup) = behind(database, &schema).await;
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        proxy.set(Fault::Refuse);
        proxy.cut();
        push(&ann, 0).await;
        let error = ann.flush().await.expect_err("nobody is there");
        assert!(error.message().starts_with("backend db: "), "{error:?}");
        assert!(!error.message().contains(lakesync_adapters::testing::PASSWORD), "{error:?}");
        let stats = ann.stats().await.expect("figures");
        assert_eq!(stats.backends["db"].lag_commits, 1);
        assert!(!stats.flush_errors["db"].is_empty());
        proxy.heal();
        flushed(&ann).await;
        assert!(ann.stats().await.expect("figures").flush_errors.is_empty());
        assert_all(database, &schema, 1).await;
        server.stop().await.expect("stopped");
    }
}

/// A failover to a server that only reads, locks that somebody holds, and sessions that are ended:
/// each is told or waited for, and mends itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_says_no_is_asked_again() {
    // A server of its own: others would be told no as well.
    let Some(postgres) = Postgres::start().await else { return };
    let postgres: &'static Postgres = Box::leak(Box::new(postgres));
    let database = Database::Postgres(postgres);
    let schema = database.fresh();
    let (_proxy, setup) = behind(database, &schema).await;
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    push(&ann, 0).await;
    flushed(&ann).await;

    let data = database.ask("SHOW data_directory").await.remove(0);
    let standby = std::path::Path::new(&data).join("standby.signal");
    std::fs::write(&standby, "").expect("written");
    postgres.restart().await;
    push(&ann, 1).await;
    let told = error_of(&ann, "recovery").await;
    assert!(told.starts_with("backend db: "), "{told}");
    std::fs::remove_file(&standby).expect("removed");
    postgres.restart().await;
    flushed(&ann).await;
    assert_all(database, &schema, 2).await;

    let table = format!("{}.{}", database.quoted(&schema), database.quoted("todos"));
    let locked = format!("BEGIN; LOCK TABLE {table}; SELECT pg_sleep(2); COMMIT");
    let holding = tokio::spawn(async move { database.ask(&locked).await });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    within(async {
        let mut nth = 2;
        while database.ask(waits).await == ["0"] {
            push(&ann, nth).await;
            nth += 1;
        }
    })
    .await;
    for end in ["pg_cancel_backend", "pg_terminate_backend"] {
        let ours = "FROM pg_stat_activity WHERE application_name = 'lakesync'";
        database.ask(&format!("SELECT {end}(pid) {ours}")).await;
    }
    within(holding).await.expect("no panic");
    flushed(&ann).await;
    let rows = ann.stats().await.expect("figures").rows;
    assert_all(database, &schema, rows).await;
    server.stop().await.expect("stopped");
}

/// People who lock the same rows the other way round: the database ends one of the two, which is
/// us, and what we wrote comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_the_database_ends_for_a_deadlock_comes_again() {
    for database in Database::all().await {
        let schema = database.fresh();
        let (_proxy, setup) = behind(database, &schema).await;
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        let rows = |title: &'static str, from: u64| {
            (0..2).map(move |nth| {
                upsert("ann", at(from + nth), &format!("todos/{nth}"), &[("title", title)])
            })
        };
        ann.push(rows("old", 0)).await.expect("pushed");
        flushed(&ann).await;

        let [table, own] = ["todos", "own"]
            .map(|name| format!("{}.{}", database.quoted(&schema), database.quoted(name)));
        database.ask(&format!("CREATE TABLE {own} (n int)")).await;
        let update = |nth| format!("UPDATE {table} SET title = 'theirs' WHERE id = '{nth}'");
        // Postgres ends who has waited for a second when both wait, so they wait for us and then ask
        // for what we have; MariaDB ends who has written least.
        let much = format!("INSERT INTO {own} VALUES (0){}", ", (0)".repeat(999));
        let (wait, busy) = match database {
            Database::Postgres(_) => (
                "DO $$ BEGIN WHILE NOT EXISTS (SELECT 1 FROM pg_locks \
                 WHERE NOT granted AND transactionid = pg_current_xact_id()::xid) \
                 LOOP PERFORM pg_sleep(0.02); END LOOP; END $$",
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'BEGIN; INSERT%' \
                 AND wait_event = 'PgSleep'",
            ),
            Database::MariaDb(_) => (
                "SELECT sleep(3)",
                "SELECT count(*) FROM information_schema.processlist \
                 WHERE info = 'SELECT sleep(3)'",
            ),
        };
        let theirs = format!("BEGIN; {much}; {}; {wait}; {}; COMMIT", update(1), update(0));
        let mut rounds = 0;
        let told = loop {
            rounds += 1;
            assert!(rounds < 10, "it is never us");
            let theirs = theirs.clone();
            let mut theirs = tokio::spawn(async move { database.ask(&theirs).await });
            within(async { while database.ask(busy).await == ["0"] {} }).await;
            ann.push(rows("new", 10 * rounds)).await.expect("pushed");
            let it_was_they = async {
                // They may end first although it is us.
                let _ = (&mut theirs).await;
                tokio::time::sleep(Duration::from_secs(2)).await;
            };
            tokio::select! {
                told = error_of(&ann, "eadlock") => {
                    within(async { while !theirs.is_finished() { tokio::task::yield_now().await } }).await;
                    break told;
                }
                () = it_was_they => {}
            }
        };
        assert!(told.starts_with("backend db: "), "{told}");
        flushed(&ann).await;
        let titles = format!("SELECT title FROM {table} ORDER BY id");
        assert_eq!(database.ask(&titles).await, ["new", "new"]);
        let history = format!("{}._lakesync_history", database.quoted(&schema));
        let counted = database.ask(&format!("SELECT count(*) FROM {history}")).await;
        assert_eq!(counted, [(2 + 2 * rounds).to_string()], "none is there twice");
        server.stop().await.expect("stopped");
    }
}

/// Asks for flushes until one fails with these words.
async fn error_of(client: &Client, words: &str) -> String {
    within(async {
        loop {
            match client.flush().await {
                Err(error) if error.message().contains(words) => return error.message().to_owned(),
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

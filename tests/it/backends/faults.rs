//! What goes wrong between the server and a database: nothing is lost, nothing is doubled, and
//! nothing stays stuck once it is mended.

use std::time::Duration;

use lakesync_adapters::testing::{Fault, Postgres, Proxy, USER};

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

/// A failover to a server that is read-only, and statements that are cut off: each is told by name,
/// and mends itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_says_no_is_asked_again() {
    // A server of its own: others would be told no as well.
    let Some(server) = Postgres::start().await else { return };
    let database = Database::Postgres(Box::leak(Box::new(server)));
    let schema = database.fresh();
    let (proxy, setup) = behind(database, &schema).await;
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    push(&ann, 0).await;
    flushed(&ann).await;
    for (nth, (setting, no, says)) in (1..).zip([
        ("default_transaction_read_only", "on", "read-only"),
        ("lock_timeout", "1", "timeout"),
    ]) {
        database.ask(&format!("ALTER ROLE {USER} SET {setting} = {no}")).await;
        // New sessions see it.
        proxy.cut();
        proxy.set(Fault::Slow(Duration::from_millis(5)));
        for row in 0..500 {
            push(&ann, nth * 1_000 + row).await;
        }
        let told = within(async {
            loop {
                if let Err(error) = ann.flush().await {
                    return error.message().to_owned();
                }
            }
        });
        let told = told.await;
        assert!(told.contains(says), "{told}");
        let undo = "SET default_transaction_read_only = off; SET statement_timeout = 0";
        database.ask(&format!("{undo}; ALTER ROLE {USER} RESET {setting}")).await;
        proxy.heal();
        proxy.cut();
        flushed(&ann).await;
        assert_all(database, &schema, nth * 500 + 1).await;
    }
    server.stop().await.expect("stopped");
}

//! What becomes of a database behind the server's back: it was away too long, it is emptied, or it is
//! put back to an older state.

use std::time::Duration;

use lakesync::clock::WallClock;
use lakesync::hlc::Hlc;

use super::servers::Database;
use crate::harness::changes::{at, delete, upsert};
use crate::harness::{Client, NOW_MS, Setup, within};

/// The titles of `todos` in the database, by id.
async fn titles(database: Database, schema: &str) -> Vec<String> {
    let table = format!("{}.{}", database.quoted(schema), database.quoted("todos"));
    let mut rows = database.ask(&format!("SELECT id, title FROM {table}")).await;
    rows.sort();
    rows
}

async fn set_title(client: &Client, hlc: Hlc, id: &str, title: &str) {
    let change = upsert("ann", hlc, &format!("todos/{id}"), &[("title", title)]);
    client.push([change]).await.expect("pushed");
}

/// Deletes that a database missed are forgotten by the gateway, and the log is trimmed beyond it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_away_too_long_lets_go_of_deleted_rows() {
    for database in Database::all().await {
        let schema = database.fresh();
        let settings = database.settings("db", &schema, database.address());
        let alone = Setup::new().set("log_size_max", "1MiB");
        let with_database = Setup::again(&alone).flush_to_settings(&settings);
        let server = with_database.start_with_tables().await;
        let ann = server.client("ann").await;
        // Their order is that of bytes, whatever the database would sort text by.
        for id in ["a", "B", "é", "Z", "z", "_", "gone"] {
            set_title(&ann, at(1), id, "old").await;
        }
        ann.flush().await.expect("flushed");
        drop(ann);
        server.stop().await.expect("stopped");

        let server = alone.start().await;
        let ann = server.client("ann").await;
        let gone = ["todos/gone", "todos/é", "todos/B"];
        ann.push(gone.map(|row| delete("ann", at(2), row))).await.expect("pushed");
        alone.clock.set(NOW_MS + 91 * 24 * 60 * 60 * 1_000);
        let ann = server.client("ann").await;
        let now = |nth| Hlc(Hlc::from_ms(alone.clock.now_ms()).0 + nth);
        let text = "x".repeat(200 << 10);
        for nth in 0..12 {
            let row = format!("notes/{nth}");
            ann.push([upsert("ann", now(nth), &row, &[("body", &text)])]).await.expect("pushed");
        }
        set_title(&ann, now(20), "a", "new").await;
        assert_ne!(ann.stats().await.expect("figures").tail, 0, "the log begins late");
        drop(ann);
        server.stop().await.expect("stopped");

        let server = with_database.start().await;
        let ann = server.client("ann").await;
        ann.flush().await.expect("flushed");
        let wanted = ["Z|old", "_|old", "a|new", "z|old"];
        assert_eq!(titles(database, &schema).await, wanted, "{database:?}");
        server.stop().await.expect("stopped");
    }
}

/// The schema is dropped, and later the database is put back, both while nothing is pushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_emptied_or_put_back_while_idle_is_filled_again() {
    for database in Database::all().await {
        for is_asked in [true, false] {
            let schema = database.fresh();
            let settings = database.settings("db", &schema, database.address());
            let check_every = if is_asked { "1h" } else { "100ms" };
            let settings = format!("{settings}check_every = '{check_every}'\n");
            let setup = Setup::new().flush_to_settings(&settings);
            let server = setup.start_with_tables().await;
            let ann = server.client("ann").await;
            set_title(&ann, at(1), "1", "first").await;
            set_title(&ann, at(2), "2", "second").await;
            ann.flush().await.expect("flushed");
            let wanted = ["1|first", "2|second"];
            let own = |table: &str| format!("{}.{table}", database.quoted(&schema));
            let is_there = format!(
                "SELECT count(*) FROM information_schema.tables \
                 WHERE table_schema = '{schema}' AND table_name = 'todos'"
            );
            let noticed = async || {
                if is_asked {
                    ann.flush().await.expect("flushed");
                } else {
                    within(async {
                        while database.ask(&is_there).await != ["1"]
                            || titles(database, &schema).await != wanted
                        {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    })
                    .await;
                }
                assert_eq!(titles(database, &schema).await, wanted);
                let history = format!("SELECT count(*) FROM {}", own("_lakesync_history"));
                assert_eq!(database.ask(&history).await, ["2"], "each change once");
            };
            let cascade = match database {
                Database::Postgres(_) => " CASCADE",
                Database::MariaDb(_) => "",
            };
            database.ask(&format!("DROP SCHEMA {}{cascade}", database.quoted(&schema))).await;
            noticed().await;

            // As it was after the first push.
            let back = [
                format!("DELETE FROM {} WHERE id = '2'", own("todos")),
                format!("DELETE FROM {} WHERE row_id = '2'", own("_lakesync_rows")),
                format!("DELETE FROM {} WHERE row_id = '2'", own("_lakesync_history")),
                format!("UPDATE {} SET position = 1", own("_lakesync_watermarks")),
            ];
            let back = match database {
                Database::Postgres(_) => format!("BEGIN; {}; COMMIT", back.join("; ")),
                Database::MariaDb(_) => format!("START TRANSACTION; {}; COMMIT", back.join("; ")),
            };
            database.ask(&back).await;
            noticed().await;
            server.stop().await.expect("stopped");
        }
    }
}

//! The server is killed between any two steps of a flush. Afterwards the database is the gateway's
//! rows: nothing is lost, and nothing is there twice.

use std::path::Path;

use lakesync::delta::Delta;
use lakesync_adapters::testing::{Fault, Proxy};

use super::servers::Database;
use crate::harness::changes::{delete, upsert};
use crate::harness::process::{Served, lakesync};
use crate::harness::{Client, Replica, within};
use crate::processes::{hlc_now, set_up};

/// The steps after which the server dies, and what they are named.
const FAILPOINTS: [&str; 4] = ["after-prepare", "before-write", "after-write", "after-mark"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_between_two_steps_of_a_flush_loses_and_doubles_nothing() {
    for database in Database::all().await {
        let place = tempfile::tempdir().expect("a directory");
        let schema = database.fresh();
        let file = place.path().join("lakesync.toml");
        std::fs::write(&file, database.settings("db", &schema, database.address()))
            .expect("written");
        let data = place.path().join("data");
        for (round, failpoint) in (0..).zip(FAILPOINTS.iter().cycle().take(12)) {
            let served = serve(&file, &data, Some(failpoint)).await;
            // It may die before any of these is answered.
            let client = served.client("ann").await;
            let _ = push(&client, round).await;
            let ended = within(served.ended()).await;
            assert!(!ended.status.success(), "{failpoint} was not reached: {ended:?}");
            if round % 3 == 2 {
                check(database, &schema, &file, &data).await;
            }
        }
        check(database, &schema, &file, &data).await;
    }
}

/// A backend that comes late is filled with rows, and the server dies after each page of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_while_it_fills_a_backend_fills_it_in_the_end() {
    for database in Database::all().await {
        let place = tempfile::tempdir().expect("a directory");
        let (file, data) = (place.path().join("lakesync.toml"), place.path().join("data"));
        let small = "log_size_max = '1MiB'\n";
        std::fs::write(&file, small).expect("written");
        let served = serve(&file, &data, None).await;
        let client = served.client("ann").await;
        set_up(&client).await;
        let text = "x".repeat(100 << 10);
        for nth in 0..30 {
            let row = format!("todos/{nth}");
            client
                .push([upsert("ann", hlc_now(), &row, &[("title", &text)])])
                .await
                .expect("pushed");
        }
        assert_ne!(client.stats().await.expect("figures").tail, 0, "the log begins late");
        served.signal("TERM").await;
        assert!(served.ended().await.status.success());

        let schema = database.fresh();
        let backend = database.settings("db", &schema, database.address());
        std::fs::write(&file, format!("{small}{backend}")).expect("written");
        for _ in 0..2 {
            // Nobody calls it: who is behind is flushed all the same.
            let ended = within(serve(&file, &data, Some("after-page")).await.ended()).await;
            assert!(!ended.status.success(), "{ended:?}");
        }
        let served = serve(&file, &data, None).await;
        let client = served.client("ann").await;
        assert_eq!(client.flush().await.expect("flushed").position, 30);
        let table = format!("{}.{}", database.quoted(&schema), database.quoted("todos"));
        let whole = format!("SELECT count(*), min(length(title)) FROM {table}");
        assert_eq!(database.ask(&whole).await, [format!("30|{}", text.len())]);
        served.signal("TERM").await;
        assert!(served.ended().await.status.success());
    }
}

/// What passes between the server and the database says where it dies: before and after the database
/// was told to commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_around_commit_loses_and_doubles_nothing() {
    for database in Database::all().await {
        let place = tempfile::tempdir().expect("a directory");
        let schema = database.fresh();
        let proxy = Proxy::start(database.address()).await;
        let file = place.path().join("lakesync.toml");
        std::fs::write(&file, database.settings("db", &schema, proxy.address())).expect("written");
        let data = place.path().join("data");
        for round in 0..6 {
            let served = serve(&file, &data, None).await;
            let client = served.client("ann").await;
            set_up(&client).await;
            client.flush().await.expect("flushed");
            let text = "COMMIT".to_owned();
            proxy.set(if round % 2 == 0 { Fault::CutBefore(text) } else { Fault::CutAnswer(text) });
            let fired = proxy.fired();
            push(&client, round).await.expect("pushed");
            within(async {
                while proxy.fired() == fired {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            served.kill().await;
            proxy.heal();
        }
        check(database, &schema, &file, &data).await;
    }
}

pub(super) async fn serve(file: &Path, data: &Path, failpoint: Option<&str>) -> Served {
    let [file, data_text] = [file, data].map(|path| path.to_str().expect("text"));
    let arguments = ["serve", "--config", file, "--data", data_text, "--listen", "127.0.0.1:0"];
    let mut command = lakesync(arguments);
    command.envs(failpoint.map(|failpoint| ("LAKESYNC_TEST_FAILPOINT", failpoint)));
    Served::spawn(command, data).await
}

async fn push(client: &Client, round: u64) -> Result<(), tonic::Status> {
    let mut operator = client.clone();
    let _ = operator.create_gateway("main").await;
    operator.put_schema(crate::harness::changes::tables()).await?;
    let row = |nth: u64| format!("todos/{}", (round * 3 + nth) % 10);
    let mut changes: Vec<Delta> = (0..5)
        .map(|nth| upsert(&client.id, hlc_now(), &row(nth), &[("title", &format!("{round}"))]))
        .collect();
    changes.push(delete(&client.id, hlc_now(), &row(6)));
    client.push(changes).await.map(drop)
}

/// The database is the gateway's rows, and its history is the log.
pub(super) async fn check(database: Database, schema: &str, file: &Path, data: &Path) {
    let served = serve(file, data, None).await;
    let client = served.client("ann").await;
    let flushed = client.flush().await.expect("flushed");
    let table = format!("{}.{}", database.quoted(schema), database.quoted("todos"));
    let mut found = database.ask(&format!("SELECT id, title FROM {table}")).await;
    found.sort();
    let replica = Replica::by_checkpoint(&client).await.expect("rows");
    let mut expected: Vec<String> = replica
        .rows_of("todos")
        .map(|(row_id, _)| {
            let title = replica.text(&format!("todos/{row_id}"), "title").expect("a title");
            format!("{row_id}|{title}")
        })
        .collect();
    expected.sort();
    assert_eq!(found, expected);
    let history = format!("{}.{}", database.quoted(schema), database.quoted("_lakesync_history"));
    let position = database.quoted("position");
    let counts = database
        .ask(&format!(
            "SELECT count(*), count(DISTINCT {position}), max({position}) FROM {history}"
        ))
        .await;
    let pulled = client.pull("").await.expect("the log");
    let changes: usize = pulled.tables().iter().map(|table| table.rows.len()).sum();
    assert_eq!(counts, [format!("{changes}|{0}|{0}", flushed.position)]);
    served.signal("TERM").await;
    assert!(served.ended().await.status.success());
}

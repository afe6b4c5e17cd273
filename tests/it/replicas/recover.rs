//! Recovery without a person: cursors that expired, servers that were restored, restarted or away.
//! What was not sent survives all of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lakesync::error::ErrorKind;
use lakesync_client::{Config, Phase, Replica, Status};
use lakesync_server::auth::Grant;

use super::dice::Dice;
use super::flaky::Flaky;
use super::site::{File, Site, config, line, rows, serve};
use crate::harness::{Server, Setup, grant, grant_for, open, within};

const MADE_BY: &str = "CREATE TABLE todos (id TEXT PRIMARY KEY, title TEXT, rank INTEGER);";
const COLUMNS: &str = "id, title, rank";

/// The same file with another server, as after a change of its address.
async fn moved_to(server: &Server, site: Site) -> Site {
    site.closed().open(config(line(server))).await
}

#[tokio::test]
async fn a_trimmed_log_leads_to_a_checkpoint_that_keeps_unsent_changes() {
    let small = |config: &mut lakesync_server::config::Config| config.log_bytes_max = 4 << 10;
    let server = serve(&Setup::new().tune(small)).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    ann.run("INSERT INTO todos VALUES ('gone', 'x', 1), ('edited', 'x', 1), ('kept', 'x', 1)")
        .await;
    ann.sync().await;
    let mut bob = Site::synced(&server).await;
    bob.run("INSERT INTO todos VALUES ('mine', 'unsent', 1)").await;
    bob.run("UPDATE todos SET title = 'unsent' WHERE id = 'edited'").await;
    ann.run("DELETE FROM todos WHERE id = 'gone'").await;
    for nth in 0..150 {
        ann.run(&format!("INSERT OR REPLACE INTO todos VALUES ('busy', 'title {nth}', {nth})"))
            .await;
        ann.sync().await;
    }
    let round = bob.sync().await;
    assert!(round.checkpoint, "the log was to be trimmed: {round:?}");
    ann.sync().await;
    let wanted =
        ["'busy'|'title 149'|149", "'edited'|'unsent'|1", "'kept'|'x'|1", "'mine'|'unsent'|1"];
    assert_eq!(bob.rows("todos", COLUMNS).await, wanted);
    assert_eq!(ann.rows("todos", COLUMNS).await, wanted);
    assert!(!bob.sync().await.checkpoint, "once is enough");
}

#[tokio::test]
async fn a_restored_server_is_given_back_what_the_copy_lacks() {
    let setup = Setup::new();
    let server = serve(&setup).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    ann.run("INSERT INTO todos VALUES ('old', 'x', 1)").await;
    ann.sync().await;
    let mut bob = Site::synced(&server).await;
    server.stop().await.expect("drained");

    let copy = Setup::new();
    let store = open(&setup.data(), 0).await;
    store.backup(&copy.data()).await.expect("copied");
    store.close().await.expect("closed");

    // What comes after the copy is lost with the original, and held by replicas only.
    let server = setup.start().await;
    (ann, bob) = (moved_to(&server, ann).await, moved_to(&server, bob).await);
    ann.run("INSERT INTO todos VALUES ('later', 'x', 1); UPDATE todos SET rank = 2").await;
    ann.sync().await;
    bob.sync().await;
    server.stop().await.expect("drained");
    bob.run("INSERT INTO todos VALUES ('unsent', 'x', 3)").await;

    let server = serve(&copy).await;
    (ann, bob) = (moved_to(&server, ann).await, moved_to(&server, bob).await);
    let round = ann.sync().await;
    assert!(round.checkpoint, "another log");
    assert_eq!((round.removed, round.restored), (0, 2), "a row, and a cell of another");
    assert!(bob.sync().await.checkpoint, "another log");
    ann.sync().await;
    let wanted = ["'later'|'x'|2", "'old'|'x'|2", "'unsent'|'x'|3"];
    assert_eq!(ann.rows("todos", COLUMNS).await, wanted);
    assert_eq!(bob.rows("todos", COLUMNS).await, wanted);
    assert_eq!(ann.status().pending + bob.status().pending, 0);
}

#[tokio::test]
async fn a_server_made_anew_is_given_everything_once_its_tables_are_declared() {
    let setup = Setup::new();
    let server = serve(&setup).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    ann.run("INSERT INTO todos VALUES ('one', 'x', 1), ('two', 'y', 2)").await;
    ann.sync().await;
    server.stop().await.expect("drained");

    let server = serve(&Setup::new()).await;
    // Somebody else was there before, and has declared something else.
    Site::with(&server, "CREATE TABLE other (id TEXT PRIMARY KEY);", &["other"]).await;
    let mut ann = moved_to(&server, ann).await;
    let todos: lakesync::name::TableName = "todos".parse().expect("a name");
    let round = ann.sync().await;
    assert_eq!((round.removed, round.rejected), (0, 0), "{round:?}");
    let wanted = ["'one'|'x'|1", "'two'|'y'|2"];
    assert_eq!(ann.rows("todos", COLUMNS).await, wanted);
    assert_eq!(ann.replica.undeclared().await.expect("a look").first(), Some(&todos));
    ann.replica.adopt(&[todos]).await.expect("declared again");
    assert_eq!(ann.sync().await.accepted, 2);
    let mut bob = Site::synced(&server).await;
    for site in [&mut ann, &mut bob] {
        assert_eq!(site.rows("todos", COLUMNS).await, wanted);
    }
}

#[tokio::test]
async fn a_follower_reconnects_by_itself() {
    let setup = Setup::new();
    let server = serve(&setup).await;
    let setup = setup.set("listen", &server.address.to_string());
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    let mut bob = Site::synced(&server).await;
    let mut followers = Vec::new();
    for site in [&ann, &bob] {
        let replica = site.replica.clone();
        followers.push(tokio::spawn(async move { replica.follow(std::future::pending()).await }));
    }
    follow(&ann, &bob).await;
    ann.run("INSERT INTO todos VALUES ('ann', 'x', 1)").await;
    bob.run("INSERT INTO todos VALUES ('bob', 'x', 2)").await;
    arrives(&mut ann, 2).await;
    arrives(&mut bob, 2).await;
    server.stop().await.expect("drained");
    is(&ann, |status| status.phase == Phase::Waiting && status.last_error.is_some()).await;
    // Edits of the time without a server are sent once there is one.
    ann.run("INSERT INTO todos VALUES ('meanwhile', 'x', 9)").await;
    let server = setup.start().await;
    follow(&ann, &bob).await;
    arrives(&mut bob, 3).await;
    bob.run("DELETE FROM todos WHERE id <> 'meanwhile'").await;
    arrives(&mut ann, 1).await;
    is(&ann, |status| status.pending == 0 && status.last_error.is_none()).await;
    followers.iter().for_each(tokio::task::JoinHandle::abort);
    server.stop().await.expect("drained");
}

async fn follow(ann: &Site, bob: &Site) {
    for site in [ann, bob] {
        is(site, |status| status.phase == Phase::Following).await;
    }
}

async fn is(site: &Site, like: impl FnMut(&Status) -> bool) {
    let mut status = site.replica.status();
    within(status.wait_for(like)).await.expect("the replica is open");
}

/// Waits until so many rows are there.
async fn arrives(site: &mut Site, rows: usize) {
    let mut live = site.replica.watch("SELECT id FROM todos", []);
    let shown = async {
        while let Some(result) = live.next().await {
            if result.is_ok_and(|found| found.rows.len() == rows) {
                return;
            }
        }
    };
    within(shown).await;
}

#[tokio::test]
async fn faults_are_told_apart_and_lose_nothing() {
    let setup = Setup::new();
    let server = serve(&setup).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    ann.run("INSERT INTO todos VALUES ('unsent', 'x', 1)").await;

    let second = Replica::open(&ann.path, config(line(&server))).await;
    let words = second.expect_err("a second one").to_string();
    assert!(words.contains("another process"), "{words}");

    let mut file = ann.closed();
    let url = format!("http://{}", server.address);
    let expired = server.token(&Grant { ttl: Duration::from_secs(1), ..grant("tester", "sync") });
    setup.clock.advance(120_000);
    let other_gateway = server.token(&grant_for("tester", "sync", "other"));
    for (token, kind) in [
        ("no token".to_owned(), ErrorKind::Unauthenticated),
        (expired, ErrorKind::Unauthenticated),
        (other_gateway, ErrorKind::Denied),
        (server.token(&grant("tester", "admin")), ErrorKind::Denied),
    ] {
        let config = Config::new(&url, "main").with_token(token);
        let site = file.open(config).await;
        let error = within(site.replica.sync()).await.expect_err("refused");
        assert_eq!(error.problem().map(|problem| problem.kind), Some(kind), "{error}");
        assert_eq!(site.status().last_error, Some(error.to_string()));
        assert_eq!(site.status().pending, 1, "nothing is lost");
        file = site.closed();
    }
    let site = file.open(config(line(&server))).await;
    server.stop().await.expect("drained");
    let error = within(site.replica.sync()).await.expect_err("nobody is there");
    assert_eq!(
        error.problem().map(|problem| problem.kind),
        Some(ErrorKind::Unavailable),
        "{error}"
    );

    let server = setup.start().await;
    let ann = moved_to(&server, site).await;
    assert_eq!(ann.sync().await.accepted, 1);
}

#[tokio::test]
async fn a_checkpoint_of_many_rows_is_resumed_by_another_process() {
    let server = serve(&Setup::new()).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    ann.run(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
         INSERT INTO todos SELECT printf('%05d', i), printf('%.*c', 500, 'x'), i FROM n",
    )
    .await;
    ann.sync().await;
    let dice = Dice::new(7);
    let mut file = File::made_by("").await;
    let mut attempts = 0;
    loop {
        // A connection that always breaks, and a process that then dies.
        let flaky = Flaky::new(line(&server), dice.clone());
        let site = file.open(config(Arc::new(flaky))).await;
        let done = within(site.replica.sync()).await.is_ok();
        file = site.closed();
        attempts += 1;
        if done {
            break;
        }
    }
    assert!(1 < attempts, "nothing was broken off");
    let wanted = ann.rows("todos", COLUMNS).await;
    assert_eq!(rows(&mut file.app, "todos", COLUMNS).await, wanted);
}

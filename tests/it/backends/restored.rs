//! A gateway whose data directory is gone comes back from its backend: rows, deletes and what replicas
//! had not sent yet; and nobody sees more than before.

use std::path::Path;
use std::sync::atomic::Ordering;

use lakesync::name::TableName;
use lakesync_adapters::testing::{Fault, Proxy};
use lakesync_server::gateway::{Restore, RestoreError};
use tonic::Code;

use super::killed;
use super::servers::Database;
use crate::harness::backend::{Backend, Fares};
use crate::harness::changes::{at, delete, upsert};
use crate::harness::process::{Ended, lakesync, run};
use crate::harness::{MAIN, NOW_MS, Replica, Server, Setup, assert_refused, open, within};
use crate::processes::{hlc_now, set_up};
use crate::replicas::site::{Site, config, line, serve};

/// The same file with another server.
async fn moved_to(server: &Server, site: Site) -> Site {
    site.closed().open(config(line(server))).await
}

async fn restore(data: &Path, from: &[&str], more: &[&str]) -> Ended {
    let data = data.to_str().expect("text");
    let arguments = ["restore", "--data", data, "--gateway", MAIN].into_iter();
    run(lakesync(arguments.chain(from.iter().copied()).chain(more.iter().copied()))).await
}

fn only_own_rows(dir: &Path) -> String {
    let file = dir.join("rules.yaml");
    let rules = "version: 1\nbuckets:\n  - name: own\n    tables: [todos]\n    filters:\n      \
                 - { column: title, op: eq, value: 'jwt:sub' }\n";
    std::fs::write(&file, rules).expect("written");
    file.to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_and_a_restored_gateway_come_to_hold_the_same() {
    for database in Database::all().await {
        let (schema, address) = (database.fresh(), database.address());
        let settings = database.settings("db", &schema, address);
        let setup = Setup::new().flush_to_settings(&settings);
        let server = serve(&setup).await;
        let made_by = "CREATE TABLE todos (id TEXT PRIMARY KEY, title TEXT, rank INTEGER);";
        let mut ann = Site::with(&server, made_by, &["todos"]).await;
        ann.run("INSERT INTO todos VALUES ('old', 'x', 1), ('gone', 'x', 1), ('kept', 'x', 1)")
            .await;
        ann.sync().await;
        let mut bob = Site::synced(&server).await;
        ann.run("DELETE FROM todos WHERE id = 'gone'").await;
        ann.sync().await;
        let operator = server.client("operator").await;
        operator.flush().await.expect("flushed");
        drop(operator);
        server.stop().await.expect("drained");

        // Bob does not know of the delete, and has changed that very row's neighbours.
        bob.run("INSERT INTO todos VALUES ('unsent', 'b', 2)").await;
        bob.run("UPDATE todos SET rank = 7 WHERE id = 'old'").await;
        ann.run("DELETE FROM todos WHERE id = 'kept'").await;
        std::fs::remove_dir_all(setup.data()).expect("gone");
        let url = database.url(address);
        let from = ["--from", &url, "--from-schema", &schema, "--backend", "db"];
        let ended = restore(&setup.data(), &from, &["--without-rules"]).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.stdout.contains("todos  2 rows, 1 delete remembered"), "{ended:?}");
        assert!(ended.stdout.contains("every token of it sees and writes every row"), "{ended:?}");

        let server = serve(&setup).await;
        (ann, bob) = (moved_to(&server, ann).await, moved_to(&server, bob).await);
        assert!(bob.sync().await.checkpoint, "another log");
        assert!(ann.sync().await.checkpoint, "another log");
        bob.sync().await;
        ann.sync().await;
        let mut carl = Site::synced(&server).await;
        let wanted = ["'old'|'x'|7", "'unsent'|'b'|2"];
        for site in [&mut ann, &mut bob, &mut carl] {
            assert_eq!(site.rows("todos", "id, title, rank").await, wanted);
            assert_eq!(site.status().pending, 0);
        }
        let operator = server.client("operator").await;
        assert_refused(operator.pull("").await, Code::OutOfRange, "CURSOR_EXPIRED");
        operator.flush().await.expect("flushed");
        let table = format!("{}.{}", database.quoted(&schema), database.quoted("todos"));
        let mut rows = database
            .ask(&format!("SELECT id, title, {} FROM {table}", database.quoted("rank")))
            .await;
        rows.sort();
        assert_eq!(rows, ["old|x|7", "unsent|b|2"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_in_force_from_the_first_moment_and_nothing_is_overwritten() {
    for database in Database::all().await {
        let place = tempfile::tempdir().expect("a directory");
        let (data, schema) = (place.path().join("data"), database.fresh());
        let file = place.path().join("lakesync.toml");
        let settings = database.settings("db", &schema, database.address());
        std::fs::write(&file, settings).expect("written");
        let served = killed::serve(&file, &data, None).await;
        let client = served.client("ann").await;
        set_up(&client).await;
        let row = |id: &str, owner: &str| upsert("ann", hlc_now(), id, &[("title", owner)]);
        client.push([row("todos/1", "ann"), row("todos/2", "bob")]).await.expect("pushed");
        client.flush().await.expect("flushed");
        let from = ["--config", file.to_str().expect("text"), "--from", "db"];

        let running = restore(&data, &from, &["--without-rules"]).await;
        assert_eq!(running.status.code(), Some(74), "{running:?}");
        assert!(running.stderr.contains("in use by another process"), "{running:?}");
        served.signal("TERM").await;
        drop(client);
        served.ended().await;
        let there = restore(&data, &from, &["--without-rules"]).await;
        assert_eq!(there.status.code(), Some(64), "{there:?}");
        assert!(there.stderr.contains("exists, and is not overwritten"), "{there:?}");
        let undecided = restore(&data, &from, &[]).await;
        assert_eq!(undecided.status.code(), Some(64), "{undecided:?}");

        std::fs::remove_dir_all(&data).expect("gone");
        let rules = only_own_rows(place.path());
        let bad = place.path().join("bad.yaml");
        let bad_text = std::fs::read_to_string(&rules).expect("rules").replace("title", "owner");
        std::fs::write(&bad, bad_text).expect("written");
        let unfit = restore(&data, &from, &["--rules", bad.to_str().expect("text")]).await;
        assert_eq!(unfit.status.code(), Some(78), "{unfit:?}");
        let ended = restore(&data, &from, &["--rules", &rules]).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let served = killed::serve(&file, &data, None).await;
        for (id, own, others) in [("ann", "todos/1", "todos/2"), ("bob", "todos/2", "todos/1")] {
            let client = served.client(id).await;
            let seen = Replica::by_checkpoint(&client).await.expect("rows");
            assert_eq!(seen.text(own, "title").as_deref(), Some(id));
            assert_eq!(seen.text(others, "title"), None);
        }
        let bob = served.client("bob").await;
        bob.push([upsert("bob", hlc_now(), "todos/3", &[("title", "bob")])]).await.expect("pushed");
        bob.flush().await.expect("flushed");
        let table = format!("{}.{}", database.quoted(&schema), database.quoted("todos"));
        assert_eq!(database.ask(&format!("SELECT count(*) FROM {table}")).await, ["3"]);
    }
}

/// From a combination of backends all come back: rows of either part, old ones and deletes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_combination_of_backends_is_one_to_restore_from() {
    let all = Database::all().await;
    let [Some(one), Some(other)] = [all.first(), all.last()] else { return };
    for combined in [
        "kind = 'route'\ndefault = 'a'\ntables = { notes = 'b' }",
        "kind = 'fan_out'\nprimary = 'a'\nfollowers = ['b']",
        // All is old at once.
        "kind = 'tier'\nhot = 'a'\ncold = 'b'\nafter = '0s'",
    ] {
        let place = tempfile::tempdir().expect("a directory");
        let (data, file) = (place.path().join("data"), place.path().join("lakesync.toml"));
        let schema = other.fresh();
        let a = one.settings("a", &one.fresh(), one.address());
        let b = other.settings("b", &schema, other.address());
        let settings =
            format!("flush_to = ['all']\n{a}{b}[backends.all]\n{combined}\nflush_age = '0s'\n");
        std::fs::write(&file, settings).expect("written");
        let served = killed::serve(&file, &data, None).await;
        let client = served.client("ann").await;
        set_up(&client).await;
        for nth in 0..10 {
            let row = format!("todos/{nth}");
            let note = upsert("ann", hlc_now(), &format!("notes/{nth}"), &[("body", "x")]);
            let todo = upsert("ann", hlc_now(), &row, &[("title", "x")]);
            client.push([todo, note]).await.expect("pushed");
            client.flush().await.expect("flushed");
        }
        client.push([delete("ann", hlc_now(), "todos/3")]).await.expect("pushed");
        client.flush().await.expect("flushed");
        let before = Replica::by_checkpoint(&client).await.expect("rows").live();
        assert_eq!(before.len(), 19, "{combined}");
        let of_b = format!("{}.{}", other.quoted(&schema), other.quoted("notes"));
        let in_b = format!("SELECT count(*) FROM {of_b}");
        within(async { while other.ask(&in_b).await != ["10"] {} }).await;
        served.signal("TERM").await;
        drop(client);
        served.ended().await;
        std::fs::remove_dir_all(&data).expect("gone");

        let from = ["--config", file.to_str().expect("text"), "--from", "all"];
        let ended = restore(&data, &from, &["--without-rules"]).await;
        assert_eq!(ended.status.code(), Some(0), "{combined}: {ended:?}");
        let served = killed::serve(&file, &data, None).await;
        let client = served.client("ann").await;
        assert_eq!(Replica::by_checkpoint(&client).await.expect("rows").live(), before);
        client.push([delete("ann", hlc_now(), "todos/4")]).await.expect("pushed");
        client.flush().await.expect("it goes on where it was");
    }
}

/// Where it breaks off, nobody sees half of a gateway, and the next restore makes it whole.
#[tokio::test]
async fn half_a_restored_gateway_is_never_served() {
    let backend = Backend::default();
    let setup = Setup::new().flush_to("memory", backend.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    for nth in 0..300 {
        let row = format!("todos/{nth}");
        ann.push([upsert("ann", at(nth), &row, &[("title", "x")])]).await.expect("pushed");
    }
    ann.push([delete("ann", at(400), "todos/7")]).await.expect("pushed");
    ann.flush().await.expect("flushed");
    let before = Replica::by_checkpoint(&ann).await.expect("rows").live();
    drop(ann);
    server.stop().await.expect("drained");
    std::fs::remove_dir_all(setup.data()).expect("gone");

    let restore = Restore {
        name: MAIN.parse().expect("a name"),
        backend: "memory".to_owned(),
        rules: None,
        now_ms: NOW_MS,
    };
    for pages in [1, 3] {
        let store = open(&setup.data(), 0).await;
        let mut left = pages;
        let mut copied = |_: &TableName, _| {
            left -= 1;
            if left == 0 {
                backend.fare(Fares::Away);
            }
        };
        let broken = restore.run(&*store, &backend, &mut copied).await;
        assert!(matches!(broken, Err(RestoreError::Backend(_))), "{broken:?}");
        store.close().await.expect("closed");
        backend.fare(Fares::Well);
        let server = setup.start().await;
        let ann = server.client("ann").await;
        assert_refused(ann.checkpoint().await, Code::Unavailable, "STORE_UNAVAILABLE");
        assert_refused(ann.pull("").await, Code::Unavailable, "STORE_UNAVAILABLE");
        drop(ann);
        server.stop().await.expect("drained");
    }
    let store = open(&setup.data(), 0).await;
    let restored = restore.run(&*store, &backend, &mut |_, _| {}).await.expect("restored");
    let todos = restored.tables.iter().find(|(table, ..)| table.as_str() == "todos");
    assert_eq!(todos.map(|(_, rows, deleted)| (*rows, *deleted)), Some((299, 1)));
    let again = restore.run(&*store, &backend, &mut |_, _| {}).await;
    assert!(matches!(again, Err(RestoreError::Exists(_))), "{again:?}");
    store.close().await.expect("closed");

    let server = setup.start().await;
    let ann = server.client("ann").await;
    assert_eq!(Replica::by_checkpoint(&ann).await.expect("rows").live(), before);
    assert_eq!(ann.stats().await.expect("figures").rows, 299);
    let late = ann.push([upsert("ann", at(399), "todos/7", &[("title", "late")])]).await;
    late.expect("answered");
    assert_eq!(
        Replica::by_checkpoint(&ann).await.expect("rows").live(),
        before,
        "it stays deleted"
    );
    ann.push([upsert("ann", at(500), "todos/7", &[("title", "anew")])]).await.expect("pushed");
    ann.flush().await.expect("flushed");
    assert_eq!(backend.joins.rows.load(Ordering::SeqCst), 0, "nothing was refilled");
    let held = backend.all("todos").await;
    let anew = held.iter().find(|(id, _)| id.as_str() == "7");
    assert!(anew.is_some_and(|(_, row)| row.is_live()), "it was flushed: {anew:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_is_repeated() {
    for database in Database::all().await {
        let place = tempfile::tempdir().expect("a directory");
        let (data, schema) = (place.path().join("data"), database.fresh());
        let file = place.path().join("lakesync.toml");
        let settings = database.settings("db", &schema, database.address());
        std::fs::write(&file, settings).expect("written");
        let served = killed::serve(&file, &data, None).await;
        let client = served.client("ann").await;
        set_up(&client).await;
        let long = "x".repeat(4 << 10);
        let row = |nth: u64| upsert("ann", hlc_now(), &format!("todos/{nth}"), &[("title", &long)]);
        client.push((0..600).map(row)).await.expect("pushed");
        client.flush().await.expect("flushed");
        served.signal("TERM").await;
        drop(client);
        served.ended().await;

        std::fs::remove_dir_all(&data).expect("gone");
        let proxy = Proxy::start(database.address()).await;
        proxy.set(Fault::Slow(std::time::Duration::from_millis(30)));
        let url = database.url(proxy.address());
        let from = ["--from", &url, "--from-schema", &schema, "--without-rules"];
        let data_text = data.to_str().expect("text");
        let arguments = ["restore", "--data", data_text, "--gateway", MAIN].into_iter();
        let mut child = lakesync(arguments.chain(from)).spawn().expect("a program that starts");
        // Half of it is there.
        crate::harness::until(|| 100_000 < bytes_below(&data.join("store/journal"))).await;
        proxy.set(Fault::Swallow);
        within(child.kill()).await.expect("killed");
        let served = killed::serve(&file, &data, None).await;
        let client = served.client("ann").await;
        assert_refused(client.checkpoint().await, Code::Unavailable, "STORE_UNAVAILABLE");
        drop(client);
        served.signal("TERM").await;
        served.ended().await;
        let from = ["--config", file.to_str().expect("text"), "--from", "db"];
        let ended = restore(&data, &from, &["--without-rules"]).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let served = killed::serve(&file, &data, None).await;
        let client = served.client("ann").await;
        assert_eq!(Replica::by_checkpoint(&client).await.expect("rows").live().len(), 600);
        client.flush().await.expect("flushed");
    }
}

/// What all files below a directory hold.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

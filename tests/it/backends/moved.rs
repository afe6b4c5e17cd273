//! A gateway moves to another backend: the operator's procedure, with real servers of ours and of
//! theirs, and what goes wrong on the way.

use std::path::Path;

use lakesync_adapters::testing::{Fault, PASSWORD, Proxy};
use tokio::process::Command;

use super::killed::{check, serve};
use super::servers::Database;
use crate::harness::changes::{delete, upsert};
use crate::harness::process::{Ended, Served, lakesync, run};
use crate::harness::{Client, skip};
use crate::processes::{hlc_now, set_up};

/// One of each kind, if this machine has both.
async fn both() -> Option<[Database; 2]> {
    let all = Database::all().await;
    let Ok(pair) = all.try_into() else {
        skip("two kinds of databases");
        return None;
    };
    Some(pair)
}

/// Rows of both tables, one of them deleted, as the `nth` of several rounds.
async fn push(client: &Client, nth: u64) {
    let text = nth.to_string();
    let mut changes: Vec<_> = (0..40)
        .map(|row| {
            upsert("ann", hlc_now(), &format!("todos/{}", nth * 30 + row), &[("title", &text)])
        })
        .collect();
    changes.push(delete("ann", hlc_now(), &format!("todos/{}", nth * 30)));
    changes.push(upsert("ann", hlc_now(), &format!("notes/{nth}"), &[("body", &text)]));
    client.push(changes).await.expect("pushed");
}

fn migrate(dir: &Path, more: &[&str]) -> Command {
    let mut command = lakesync(["migrate"].into_iter().chain(more.iter().copied()));
    command.current_dir(dir);
    command
}

#[track_caller]
fn assert_same(ended: &Ended) {
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("both hold the same\n"), "{ended:?}");
    for table in ["todos", "notes"] {
        let line = ended.stdout.lines().find(|line| line.trim_start().starts_with(table));
        assert!(line.is_some_and(|line| line.contains("sha256 ")), "{table}: {ended:?}");
    }
    assert!(!ended.stderr.contains("copying"), "no terminal, no bar: {ended:?}");
}

async fn stop(served: Served) {
    served.signal("TERM").await;
    assert!(served.ended().await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_moves_to_another_kind_of_database_and_back() {
    let Some([one, other]) = both().await else { return };
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let file = |name: &str, database: Database, schema: &str| {
        let path = place.path().join(format!("{name}.toml"));
        let settings = database.settings(name, schema, database.address());
        std::fs::write(&path, settings).expect("written");
        path
    };
    let [first, second, third] = [one.fresh(), other.fresh(), one.fresh()];
    let [old, new, last] =
        [file("old", one, &first), file("new", other, &second), file("last", one, &third)];

    // While the server runs on the old one, and goes on writing after the copy.
    let served = serve(&old, &data, None).await;
    let client = served.client("ann").await;
    set_up(&client).await;
    push(&client, 0).await;
    client.flush().await.expect("flushed");
    let [from, to] = [one, other].map(|database| database.url(database.address()));
    let copy = ["--from", &from, "--to", &to, "--from-schema", &first, "--to-schema", &second];
    assert_same(&run(migrate(place.path(), &copy)).await);
    assert!(!place.path().join("lakesync-migrate-main.state").exists(), "it is done");
    let again = run(migrate(place.path(), &copy)).await;
    assert_eq!(again.status.code(), Some(64), "{again:?}");
    assert!(again.stderr.contains("the target already holds rows of 1 log"), "{again:?}");
    push(&client, 1).await;
    client.flush().await.expect("flushed");
    drop(client);
    stop(served).await;

    let served = serve(&new, &data, None).await;
    let client = served.client("ann").await;
    push(&client, 2).await;
    drop(client);
    stop(served).await;
    check(other, &second, &new, &data).await;

    // Back, with the server stopped.
    let back = ["--from", &to, "--to", &from, "--from-schema", &second, "--to-schema", &third];
    assert_same(&run(migrate(place.path(), &back)).await);
    let served = serve(&last, &data, None).await;
    push(&served.client("ann").await, 3).await;
    stop(served).await;
    check(one, &third, &last, &data).await;
    // The one that was left can be gone back to without a copy: the log is all it lacks.
    check(one, &first, &old, &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_breaks_off_says_where_it_is_and_goes_on() {
    let Some([one, other]) = both().await else { return };
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let [first, second] = [one.fresh(), other.fresh()];
    let file = place.path().join("old.toml");
    std::fs::write(&file, one.settings("old", &first, one.address())).expect("written");
    let served = serve(&file, &data, None).await;
    let client = served.client("ann").await;
    set_up(&client).await;
    for nth in 0..40 {
        push(&client, nth).await;
    }
    client.flush().await.expect("flushed");
    drop(client);
    stop(served).await;

    let proxy = Proxy::start(other.address()).await;
    let (from, to) = (one.url(one.address()), other.url(proxy.address()));
    let state = place.path().join("my.state");
    let state_text = state.to_str().expect("text");
    let to_schema = |schema| {
        let copy = ["--from", &from, "--to", &to, "--from-schema", &first, "--state", state_text];
        migrate(place.path(), &[&copy[..], &["--to-schema", schema]].concat())
    };
    proxy.set(Fault::CutAfterBytes(60_000));
    let cut = run(to_schema(&second)).await;
    assert!(0 < proxy.fired(), "it was never cut");
    assert_eq!(cut.status.code(), Some(69), "{cut:?}");
    assert!(cut.stderr.contains("the target failed"), "{cut:?}");
    assert!(cut.stderr.contains(state_text) && cut.stderr.contains("same command"), "{cut:?}");
    let kept = std::fs::read_to_string(&state).expect("a state");
    for said in [&kept, &cut.stderr, &cut.stdout] {
        assert!(!said.contains(PASSWORD), "{said}");
    }
    assert!(kept.contains(" rows "), "somewhere in the middle: {kept}");

    let foreign = run(to_schema("elsewhere")).await;
    assert_eq!(foreign.status.code(), Some(64), "{foreign:?}");
    assert!(foreign.stderr.contains("another migration"), "{foreign:?}");
    assert_eq!(std::fs::read_to_string(&state).expect("a state"), kept);
    let stateless = ["--from", &from, "--to", &to, "--from-schema", &first];
    let stateless =
        run(migrate(place.path(), &[&stateless[..], &["--to-schema", &second]].concat())).await;
    assert_eq!(stateless.status.code(), Some(64), "whose rows are these? {stateless:?}");
    assert!(stateless.stderr.contains("the target already holds rows in table"), "{stateless:?}");

    assert_same(&run(to_schema(&second)).await);
    assert!(!state.exists(), "it is done");
    std::fs::write(&file, other.settings("new", &second, other.address())).expect("written");
    check(other, &second, &file, &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn combinations_move_by_their_names_in_the_settings() {
    let Some([one, other]) = both().await else { return };
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let (file, kept) = (place.path().join("lakesync.toml"), other.fresh());
    let mut backends = String::new();
    for (name, database, schema) in [
        ("a", one, one.fresh()),
        ("b", other, other.fresh()),
        ("c", other, kept.clone()),
        ("d", one, one.fresh()),
    ] {
        backends += &database.settings(name, &schema, database.address());
    }
    backends += "[backends.apart]\nkind = 'route'\ndefault = 'a'\ntables = { notes = 'b' }\n";
    backends += "[backends.both]\nkind = 'fan_out'\nprimary = 'c'\nfollowers = ['d']\n";
    let flush_to = |name: &str| {
        std::fs::write(&file, format!("flush_to = ['{name}']\n{backends}")).expect("written");
    };
    flush_to("apart");
    let served = serve(&file, &data, None).await;
    let client = served.client("ann").await;
    set_up(&client).await;
    push(&client, 0).await;
    client.flush().await.expect("flushed");
    let file_text = file.to_str().expect("text");
    let copy = ["--config", file_text, "--from", "apart", "--to", "both"];
    assert_same(&run(migrate(place.path(), &copy)).await);
    push(&client, 1).await;
    client.flush().await.expect("flushed");
    drop(client);
    stop(served).await;
    flush_to("both");
    check(other, &kept, &file, &data).await;
}

#[tokio::test]
async fn what_can_not_be_migrated_is_said() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("lakesync.toml");
    let text = "flush_to = ['a']\n[backends.a]\nkind = 'postgres'\nurl = 'postgres://h/a'\n\
                [backends.b]\nkind = 'mysql'\nurl = 'mysql://h'\n";
    std::fs::write(&file, text).expect("written");
    let file = file.to_str().expect("text");
    for (arguments, code, says) in [
        (vec!["--from", "a", "--to", "b"], 64, "--config FILE"),
        (vec!["--config", file, "--from", "a", "--to", "c"], 64, "there are a, b"),
        (vec!["--config", file, "--from", "a", "--to", "a"], 64, "--from and --to are both"),
        (vec!["--config", file, "--from", "a", "--to", "b", "--to-schema", "x"], 64, "with a URL"),
        (vec!["--from", "ftp://x", "--to", "mysql://h"], 64, "a postgres:// or mysql:// URL"),
        (vec!["--from", "mysql://h", "--to", "a", "--config", "nowhere"], 78, "nowhere"),
        (vec!["--from", "mysql://127.0.0.1:1", "--to", "postgres://h/a"], 69, "the source failed"),
    ] {
        let ended = run(migrate(place.path(), &arguments)).await;
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{arguments:?}: {ended:?}");
    }
    for database in Database::all().await {
        let url = database.url(database.address());
        let schema = database.fresh();
        let copy = ["--from", &url, "--from-schema", &schema, "--to", "mysql://127.0.0.1:1"];
        let ended = run(migrate(place.path(), &copy)).await;
        assert_eq!(ended.status.code(), Some(64), "{ended:?}");
        assert!(ended.stderr.contains("holds nothing of a gateway"), "{ended:?}");
        assert!(!ended.stderr.contains(PASSWORD), "{ended:?}");
    }
    assert_eq!(std::fs::read_dir(place.path()).expect("a directory").count(), 1, "nothing is left");
}

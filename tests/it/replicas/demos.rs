//! `lakesync demo` on files that have something against it: rows too large for any gateway, a life
//! as another gateway's replica, and what only their application can compute.

use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::commands::{Office, assert_done};
use super::site::{File, open, run};
use crate::harness::process::{self, Ended, lakesync};

const SAME: &str = "both replicas hold the same rows";

async fn demo(file: &Path) -> Ended {
    let ended = process::run(lakesync(["demo", file.to_str().expect("text")])).await;
    assert_done(&ended);
    assert!(ended.stdout.contains(SAME), "{ended:?}");
    ended
}

#[tokio::test]
async fn rows_that_are_refused_are_left_out_and_said_to_be() {
    let made = "CREATE TABLE att (id INTEGER PRIMARY KEY, name TEXT, data BLOB);
        INSERT INTO att (name, data) VALUES ('one', zeroblob(3000000)), ('two', zeroblob(3000000));
        CREATE TABLE loose (name TEXT, data BLOB);
        INSERT INTO loose VALUES ('one', zeroblob(3000000)), ('small', NULL);";
    let file = File::made_by(made).await;
    let ended = demo(&file.path).await;
    assert!(ended.stdout.contains("1 row in 2 tables"), "{ended:?}");
    assert!(ended.stdout.contains("left out: 3 rows that the gateway refused"), "{ended:?}");
    assert!(!ended.stdout.contains("everywhere"), "nobody won what nobody disagreed on: {ended:?}");

    // With a row that both sides have, they disagree about that one.
    let more = format!("{made} INSERT INTO att VALUES (3, 'three', x'00')");
    let ended = demo(&File::made_by(&more).await.path).await;
    assert!(ended.stdout.contains("WHERE \"id\" IS 3"), "{ended:?}");
    assert!(ended.stdout.contains("'edited on the right' everywhere"), "{ended:?}");
    assert!(ended.stdout.contains("2 rows in 2 tables"), "{ended:?}");
}

#[tokio::test]
async fn a_file_that_syncs_already_is_shown_as_its_tables_alone() {
    let office = Office::open().await;
    let file = office.file("app.db");
    let mut app = open(&file).await;
    run(&mut app, "CREATE TABLE notes (id TEXT PRIMARY KEY, v TEXT); CREATE TABLE log (line)")
        .await;
    run(&mut app, "INSERT INTO notes VALUES ('a', 'x'); INSERT INTO log VALUES (1), (1)").await;
    assert_done(&office.sync(&file, &["--adopt"]).await);
    run(&mut app, "INSERT INTO notes VALUES ('unsent', 'y')").await;
    let before = std::fs::read(&file).expect("a file");
    let ended = demo(&file).await;
    assert!(ended.stdout.contains("4 rows in 2 tables"), "{ended:?}");
    assert!(ended.stdout.contains("'edited on the right' everywhere"), "{ended:?}");
    assert_eq!(std::fs::read(&file).expect("a file"), before, "the original was changed");
}

#[tokio::test]
async fn what_only_the_application_has_is_named_and_left_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("app.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let options = options.collation("unicase", |a, b| a.to_lowercase().cmp(&b.to_lowercase()));
    // A log that nobody has moved into the file yet is part of it.
    let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let mut app = options.connect().await.expect("a database");
    let made = "CREATE TABLE notes (id TEXT PRIMARY KEY, name TEXT);
        CREATE INDEX by_name ON notes (name COLLATE unicase);
        CREATE TABLE books (id TEXT PRIMARY KEY, title TEXT);
        CREATE TRIGGER sort AFTER UPDATE ON books BEGIN SELECT title_sort(NEW.title); END;
        CREATE TABLE plain (id TEXT PRIMARY KEY, v TEXT);
        INSERT INTO notes VALUES ('n', 'N'); INSERT INTO books VALUES ('b', 'B');
        INSERT INTO plain VALUES ('p', 'P');";
    run(&mut app, made).await;
    let ended = demo(&path).await;
    assert!(ended.stdout.contains("no such collation sequence: unicase"), "{ended:?}");
    assert!(ended.stdout.contains("no such function: title_sort"), "{ended:?}");
    assert!(ended.stdout.contains("1 row in 1 table"), "{ended:?}");
}

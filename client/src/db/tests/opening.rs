//! What can't be opened is told so in one line, and is left as it was.

use std::fs;

use lakesync::error::{Classify, Reason};
use lakesync::name::Gateway as Name;

use super::super::sql::script;
use super::super::{Database, DbError, OpenError, open};
use super::model::{Device, Gateway, keyed};

#[tokio::test]
async fn a_file_is_synced_by_one_process_at_a_time() {
    let device = Device::new("").await;
    let error = Database::open(&device.path).await.expect_err("it is locked");
    assert!(matches!(error, OpenError::AlreadySynced { .. }), "{error}");
    let path = device.path.clone();
    // Another name of the same file.
    let link = path.with_file_name("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(Database::open(&link).await, Err(OpenError::AlreadySynced { .. })));
}

#[tokio::test]
async fn the_client_id_stays_and_the_gateway_is_bound_once() {
    let mut device = Device::new("").await;
    let id = device.db.client_id().clone();
    let (main, other) = (Name::parse("main").unwrap(), Name::parse("other").unwrap());
    device.db.bind(&main).await.unwrap();
    device.db.bind(&main).await.unwrap();
    device.reopen().await;
    assert_eq!(*device.db.client_id(), id);
    let error = device.db.bind(&other).await.expect_err("it is bound");
    assert!(matches!(error, DbError::OtherGateway { .. }), "{error}");
}

#[tokio::test]
async fn other_files_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("letter.txt");
    fs::write(&path, "Dear SQLite format 3, how are you?").unwrap();
    let error = Database::open(&path).await.expect_err("it is no database");
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["letter.txt"], "nothing was put beside it");
    assert!(matches!(Database::open(dir.path()).await, Err(OpenError::Io { .. })));
    let nowhere = dir.path().join("no/such/place.db");
    assert!(matches!(Database::open(&nowhere).await, Err(OpenError::Io { .. })));
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torn.db");
    let mut bytes = b"SQLite format 3\0".to_vec();
    bytes.extend([0xff; 4_000]);
    fs::write(&path, &bytes).unwrap();
    let error = Database::open(&path).await.expect_err("it is damaged");
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn an_encoding_that_can_not_be_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wide.db");
    let mut application = open::connect_application(&path).await.unwrap();
    script(&mut application, "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (a)").await.unwrap();
    let error = Database::open(&path).await.expect_err("it is UTF-16");
    assert!(error.to_string().contains("UTF-16le"), "{error}");
}

#[tokio::test]
async fn a_later_format_is_refused() {
    let mut device = Device::new("").await;
    device.run("UPDATE _lakesync_meta SET value = '99' WHERE key = 'format'").await;
    let path = device.path.clone();
    let copy = path.with_file_name("copy.db");
    fs::copy(&path, &copy).unwrap();
    let error = Database::open(&copy).await.expect_err("it is too new");
    assert!(matches!(error, OpenError::Newer { known: 1, .. }), "{error}");
}

#[tokio::test]
async fn the_journal_mode_is_the_application_s() {
    for mode in ["wal", "delete"] {
        let mut device = Device::new(&format!("PRAGMA journal_mode = {mode}")).await;
        assert_eq!(device.ask("PRAGMA journal_mode").await, mode);
    }
}

#[tokio::test]
async fn work_that_is_dropped_leaves_no_trace_and_no_lock() {
    let mut device = Device::with(&[keyed("notes", "a:text")]).await;
    for _ in 0..20 {
        let bind = Name::parse("main").unwrap();
        let work = device.db.bind(&bind);
        // Polled once or not at all, then dropped wherever it stands.
        let _ = futures_util::FutureExt::now_or_never(work);
        device.run("INSERT INTO notes (a) VALUES ('x')").await;
    }
    assert_eq!(device.db.counts().await.unwrap().pending, 20);
}

#[tokio::test]
async fn a_copy_of_a_replica_is_another_replica() {
    let mut ann = Device::with(&[keyed("notes", "a:text b:text")]).await;
    let mut gateway = Gateway::default();
    ann.run("INSERT INTO notes VALUES ('x', '1', '1')").await;
    ann.sync(&mut gateway).await;
    ann.run("UPDATE notes SET a = 'unsent'").await;
    let mut copy = ann.copy().await;
    assert_ne!(copy.db.client_id(), ann.db.client_id());
    ann.run("UPDATE notes SET b = 'ann'").await;
    copy.run("INSERT INTO notes VALUES ('y', 'copy', NULL)").await;
    for _ in 0..2 {
        ann.sync(&mut gateway).await;
        copy.sync(&mut gateway).await;
    }
    let all = "SELECT * FROM notes ORDER BY 1";
    assert_eq!(ann.ask(all).await, "x|unsent|ann\ny|copy|NULL");
    assert_eq!(copy.ask(all).await, ann.ask(all).await);
    let id = copy.db.client_id().clone();
    copy.reopen().await;
    assert_eq!(*copy.db.client_id(), id, "and stays the one it is");
}

#[tokio::test]
async fn a_file_with_the_same_inode_elsewhere_is_another_replica_and_loses_nothing() {
    let tables = [keyed("notes", "a:text b:text")];
    let (mut ann, mut bob) = (Device::with(&tables).await, Device::with(&tables).await);
    let mut gateway = Gateway::default();
    ann.run("INSERT INTO notes VALUES ('x', '1', '1')").await;
    ann.sync(&mut gateway).await;
    ann.run("UPDATE notes SET a = 'unsent'").await;
    // Its answer is lost.
    let batch = ann.db.pending_at_most(10).await.unwrap().unwrap();
    gateway.push(ann.db.client_id(), &batch.deltas);
    ann.run("INSERT INTO notes VALUES ('y', '2', '2')").await;
    let id = ann.db.client_id().clone();
    let mut ann = ann.moved().await;
    assert_ne!(*ann.db.client_id(), id);
    for _ in 0..2 {
        ann.sync(&mut gateway).await;
        bob.sync(&mut gateway).await;
    }
    let all = "SELECT * FROM notes ORDER BY 1";
    assert_eq!(ann.ask(all).await, "x|unsent|1\ny|2|2");
    assert_eq!(bob.ask(all).await, ann.ask(all).await);
    assert_eq!(ann.db.counts().await.unwrap().pending, 0);
    let id = ann.db.client_id().clone();
    ann.reopen().await;
    assert_eq!(*ann.db.client_id(), id, "and stays the one it is");
}

#[tokio::test]
async fn a_new_file_keeps_its_id_by_whatever_name_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let made = Database::open(&link.join("app.db")).await.unwrap().client_id().clone();
    let again = Database::open(&real.join("app.db")).await.unwrap().client_id().clone();
    assert_eq!(made, again);
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_recovered_from() {
    let (mut ann, mut bob) = {
        let tables = [keyed("notes", "a:text")];
        (Device::with(&tables).await, Device::with(&tables).await)
    };
    let mut gateway = Gateway::default();
    for _ in 0..50 {
        bob.run("INSERT INTO notes (a) VALUES (hex(zeroblob(5000)))").await;
    }
    bob.sync(&mut gateway).await;
    {
        let mut session = ann.db.0.session.lock().await;
        let pages = "PRAGMA max_page_count = 1";
        script(session.connection(), pages).await.unwrap();
    }
    let (arrivals, cursor) = gateway.pull(0);
    let error = ann.db.apply_page(arrivals, &cursor).await.expect_err("the disk is full");
    assert_eq!(error.reason(), Reason::DiskFull, "{error}");
    assert_eq!(ann.db.cursor().await.unwrap(), "");
    assert_eq!(ann.ask("SELECT count(*) FROM notes").await, "0");
    ann.run("INSERT INTO notes (a) VALUES ('mine')").await;
    {
        let mut session = ann.db.0.session.lock().await;
        script(session.connection(), "PRAGMA max_page_count = 1000000").await.unwrap();
    }
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT count(*) FROM notes").await, "51");
}

//! Schemas that grow, and tables that the application alters by itself.

use super::super::{DbError, Migration};
use super::model::{Device, Gateway, keyed};

#[tokio::test]
async fn a_table_of_lakesync_s_own_grows_with_the_schema() {
    let (v1, v2) = (keyed("notes", "a:text"), keyed("notes", "a:text b:int"));
    let (mut ann, mut bob) =
        (Device::with(&[v1]).await, Device::with(std::slice::from_ref(&v2)).await);
    let mut gateway = Gateway::default();
    bob.run("INSERT INTO notes VALUES ('x', 'a', 5)").await;
    bob.sync(&mut gateway).await;
    let (arrivals, cursor) = gateway.pull(0);
    let error = ann.db.apply_page(arrivals, &cursor).await.expect_err("b is unknown");
    assert!(matches!(error, DbError::SchemaStale { .. }), "{error}");
    assert_eq!(ann.db.cursor().await.unwrap(), "");
    let migration = ann.db.install_schema(std::slice::from_ref(&v2)).await.unwrap();
    assert_eq!(migration.added, [("notes".parse().unwrap(), "b".parse().unwrap())]);
    assert_eq!(ann.db.install_schema(&[v2]).await.unwrap(), Migration::default());
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT * FROM notes").await, "x|a|5");
    ann.run("UPDATE notes SET b = 6").await;
    assert_eq!(ann.outbox().await, "x 2=6");
}

#[tokio::test]
async fn cells_of_a_column_the_application_lacks_wait_for_it() {
    let mut ann = Device::new("CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, a TEXT)").await;
    let schema = [keyed("notes", "a:text b:int")];
    let mut bob = Device::with(&schema).await;
    let mut gateway = Gateway::default();
    let migration = ann.db.install_schema(&schema).await.unwrap();
    assert_eq!(migration.waiting, ["notes".parse().unwrap()]);
    ann.db.adopt(&"notes".parse().unwrap()).await.unwrap();
    bob.run("INSERT INTO notes VALUES ('x', 'a', 5), ('y', 'a', NULL), ('z', 'a', 7)").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    ann.run("UPDATE notes SET a = 'ann'").await;
    ann.sync(&mut gateway).await;
    bob.run("UPDATE notes SET b = 8 WHERE id = 'z'").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT * FROM notes ORDER BY 1").await, "x|ann\ny|ann\nz|ann");

    ann.run("ALTER TABLE notes ADD COLUMN b INTEGER").await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT * FROM notes ORDER BY 1").await, "x|ann|5\ny|ann|NULL\nz|ann|8");
    assert_eq!(ann.ask("SELECT count(*) FROM _lakesync_unknown").await, "0");
    ann.run("UPDATE notes SET b = 9 WHERE id = 'x'").await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    assert_eq!(
        bob.ask("SELECT * FROM notes ORDER BY 1").await,
        ann.ask("SELECT * FROM notes ORDER BY 1").await
    );
}

#[tokio::test]
async fn a_column_that_nobody_wrote_does_not_win_over_one_that_somebody_did() {
    let (v1, v2) = (keyed("notes", "a:text"), keyed("notes", "a:text b:int"));
    let (mut ann, mut bob) =
        (Device::with(&[v1]).await, Device::with(std::slice::from_ref(&v2)).await);
    let mut gateway = Gateway::default();
    // Bob writes b with an old stamp, and stays away; Ann's row is newer.
    bob.run("INSERT INTO notes VALUES ('x', 'bob', 5)").await;
    bob.run("UPDATE _lakesync_outbox SET hlc = hlc - (100000 << 16)").await;
    ann.run("INSERT INTO notes VALUES ('x', 'ann')").await;
    ann.sync(&mut gateway).await;
    ann.db.install_schema(&[v2]).await.unwrap();
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT * FROM notes").await, "x|ann|5");
    assert_eq!(bob.ask("SELECT * FROM notes").await, "x|ann|5");
}

#[tokio::test]
async fn a_table_that_does_not_fit_is_not_adopted_and_says_why() {
    let ann = Device::new(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, a TEXT); CREATE VIEW v AS SELECT 1 AS id",
    )
    .await;
    ann.db.install_schema(&[keyed("notes", "a:text"), keyed("v", "a:text")]).await.unwrap();
    // An INTEGER key can hold no text, and so no row id.
    let error = ann.db.adopt(&"v".parse().unwrap()).await.expect_err("it is a view");
    assert!(error.to_string().contains("view"), "{error}");
    let error = ann.db.adopt(&"other".parse().unwrap()).await.expect_err("it is unknown");
    assert!(error.to_string().contains("schema"), "{error}");
}

#[tokio::test]
async fn what_arrives_for_a_table_that_waits_is_fetched_when_it_is_adopted() {
    let schema = [keyed("notes", "a:text")];
    let mut ann = Device::new("CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, a TEXT)").await;
    let mut bob = Device::with(&schema).await;
    let mut gateway = Gateway::default();
    ann.db.install_schema(&schema).await.unwrap();
    bob.run("INSERT INTO notes VALUES ('x', 'bob')").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT * FROM notes").await, "");
    assert_eq!(ann.db.cursor().await.unwrap(), "1");
    ann.db.adopt(&"notes".parse().unwrap()).await.unwrap();
    assert_eq!(ann.db.cursor().await.unwrap(), "", "a checkpoint is due");
    ann.checkpoint(&gateway).await;
    assert_eq!(ann.ask("SELECT * FROM notes").await, "x|bob");
}

#[tokio::test]
async fn a_new_unique_index_of_the_application_is_watched() {
    let mut ann = Device::with(&[keyed("notes", "a:text")]).await;
    ann.run("INSERT INTO notes VALUES ('x', '1'); CREATE UNIQUE INDEX one ON notes (a)").await;
    ann.db.pending_at_most(1).await.unwrap();
    ann.run("REPLACE INTO notes VALUES ('y', '1')").await;
    let outbox = ann.outbox().await;
    assert!(outbox.contains("x delete"), "{outbox}");
}

#[tokio::test]
async fn a_table_that_a_migration_made_anew_is_watched_again() {
    let mut ann =
        Device::adopting("CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, a TEXT)").await;
    let mut bob = Device::with(&ann.proposals().await).await;
    let mut gateway = Gateway::default();
    ann.run("INSERT INTO notes VALUES ('x', '1'), ('y', '1')").await;
    ann.sync(&mut gateway).await;
    ann.run(
        "BEGIN; CREATE TABLE new (id TEXT PRIMARY KEY NOT NULL, a TEXT, extra INT);
         INSERT INTO new SELECT id, a, 0 FROM notes; INSERT INTO new VALUES ('z', 'unseen', 1);
         DROP TABLE notes; ALTER TABLE new RENAME TO notes; COMMIT",
    )
    .await;
    ann.push(&mut gateway).await;
    assert_eq!(ann.db.cursor().await.unwrap(), "", "the others are fetched anew");
    ann.checkpoint(&gateway).await;
    ann.run("UPDATE notes SET a = '2' WHERE id = 'y'").await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    assert_eq!(bob.ask("SELECT * FROM notes ORDER BY 1").await, "x|1\ny|2\nz|unseen");
    assert_eq!(ann.ask("SELECT id, a FROM notes ORDER BY 1").await, "x|1\ny|2\nz|unseen");
    assert_eq!(ann.db.counts().await.unwrap(), super::super::Counts::default());
}

#[tokio::test]
async fn what_fills_a_column_in_the_breath_that_adds_it_is_sent() {
    let mut ann = Device::new("CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, a TEXT)").await;
    let schema = [keyed("notes", "a:text b:int")];
    let mut bob = Device::with(&schema).await;
    let mut gateway = Gateway::default();
    ann.db.install_schema(&schema).await.unwrap();
    ann.db.adopt(&"notes".parse().unwrap()).await.unwrap();
    ann.run("INSERT INTO notes VALUES ('x', '1'), ('y', '1'), ('z', '1')").await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    bob.run("UPDATE notes SET b = 9 WHERE id = 'z'").await;
    bob.sync(&mut gateway).await;
    ann.pull(&gateway).await;
    ann.run(
        "ALTER TABLE notes ADD COLUMN b INTEGER DEFAULT 1; UPDATE notes SET b = 5 WHERE id = 'x'",
    )
    .await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT id, b FROM notes ORDER BY 1").await, "x|5\ny|1\nz|9");
    assert_eq!(bob.ask("SELECT id, b FROM notes ORDER BY 1").await, "x|5\ny|NULL\nz|9");
}

#[tokio::test]
async fn a_synced_column_is_dropped_by_making_the_table_anew() {
    let made = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, v TEXT, w INTEGER);
                INSERT INTO t VALUES ('a', 'x', 1), ('b', 'y', 2)";
    let mut ann = Device::adopting(made).await;
    let mut bob = Device::with(&ann.proposals().await).await;
    let mut gateway = Gateway::default();
    ann.sync(&mut gateway).await;
    let error = ann.try_run("ALTER TABLE t DROP COLUMN w").await.expect_err("triggers name it");
    assert!(error.to_string().contains("error in trigger _lakesync_"), "{error}");
    ann.run("UPDATE t SET v = 'unsent', w = 3 WHERE id = 'a'").await;
    ann.run(
        "BEGIN; CREATE TABLE anew (id TEXT PRIMARY KEY NOT NULL, v TEXT);
         INSERT INTO anew SELECT id, v FROM t; DROP TABLE t; ALTER TABLE anew RENAME TO t; COMMIT",
    )
    .await;
    ann.sync(&mut gateway).await;
    ann.run("UPDATE t SET v = 'z' WHERE id = 'b'").await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT * FROM t ORDER BY 1").await, "a|unsent\nb|z");
    assert_eq!(bob.ask("SELECT * FROM t ORDER BY 1").await, "a|unsent|3\nb|z|2");
    bob.run("UPDATE t SET v = 'bob', w = 9 WHERE id = 'a'").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT * FROM t ORDER BY 1").await, "a|bob\nb|z");
}

#[tokio::test]
async fn a_table_without_a_key_that_is_rebuilt_is_the_same_everywhere() {
    let made = "CREATE TABLE log (line TEXT, n); INSERT INTO log VALUES ('1', 1), ('2', 2), ('3', 3), ('4', 4);
                DELETE FROM log WHERE n = 1";
    let mut ann = Device::adopting(made).await;
    let mut bob = Device::with(&ann.proposals().await).await;
    let mut gateway = Gateway::default();
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    ann.run("UPDATE log SET line = 'unsent' WHERE n = 4").await;
    // The copy's rows are numbered from one on.
    ann.run(
        "BEGIN; CREATE TABLE copy (line TEXT, n, extra); INSERT INTO copy (line, n) SELECT * FROM log;
         DROP TABLE log; ALTER TABLE copy RENAME TO log; COMMIT",
    )
    .await;
    ann.push(&mut gateway).await;
    assert_eq!(ann.db.cursor().await.unwrap(), "", "it asks for a checkpoint");
    ann.checkpoint(&gateway).await;
    for _ in 0..2 {
        bob.sync(&mut gateway).await;
        ann.sync(&mut gateway).await;
        bob.run("UPDATE log SET line = line || '!'").await;
    }
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    let lines = "SELECT line FROM log ORDER BY n";
    assert_eq!(ann.ask(lines).await, "2!!\n3!!\nunsent!!");
    assert_eq!(bob.ask(lines).await, ann.ask(lines).await);
    assert_eq!(ann.ask("SELECT count(*) FROM _lakesync_rows WHERE hlc NOT NULL").await, "3");
}

#[tokio::test]
async fn rows_whose_keys_name_none_survive_a_rebuild_and_a_new_column() {
    let mut ann =
        Device::adopting("CREATE TABLE t (id TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1)")
            .await;
    let mut gateway = Gateway::default();
    ann.sync(&mut gateway).await;
    ann.run("INSERT INTO t VALUES (NULL, 5), (NULL, 6)").await;
    ann.sync(&mut gateway).await;
    ann.run(
        "BEGIN; CREATE TABLE copy (id TEXT PRIMARY KEY, v); INSERT INTO copy SELECT * FROM t;
         INSERT INTO copy VALUES ('b', 7); DROP TABLE t; ALTER TABLE copy RENAME TO t; COMMIT",
    )
    .await;
    let settled = ann.push(&mut gateway).await;
    assert_eq!((settled.accepted, settled.rejected.len()), (1, 2), "refused, and told");
    assert_eq!(gateway.show("t"), "a v=Int64(1)\nb v=Int64(7)");
    assert_eq!(ann.ask("SELECT v FROM t ORDER BY v").await, "1\n5\n6\n7");

    let schema = [keyed("t", "v:any w:int")];
    ann.run("ALTER TABLE t ADD COLUMN w DEFAULT 1; UPDATE t SET w = 2").await;
    ann.db.install_schema(&schema).await.unwrap();
    let settled = ann.push(&mut gateway).await;
    assert_eq!(settled.rejected.len(), 2, "{settled:?}");
    assert_eq!(gateway.show("t"), "a v=Int64(1) w=Int64(2)\nb v=Int64(7) w=Int64(2)");
}

//! Constraints of the application's tables stay. A row they refuse is parked, never blocks others,
//! and comes in as soon as it can.

use super::model::{Device, Gateway, keyed, schema};

const PEOPLE: &str = "CREATE TABLE people (id TEXT PRIMARY KEY NOT NULL, mail TEXT UNIQUE, \
                      age INTEGER NOT NULL DEFAULT 1 CHECK (age < 150));";

/// Ann's table has constraints; Bob's, made by LakeSync, has none.
async fn pair(sql: &str) -> (Device, Device, Gateway) {
    let ann = Device::adopting(sql).await;
    let bob = Device::with(&ann.proposals().await).await;
    (ann, bob, Gateway::default())
}

const ALL: &str = "SELECT id, mail, age FROM people ORDER BY 1";

#[tokio::test]
async fn a_row_that_a_constraint_refuses_is_parked_and_the_others_come_in() {
    let (mut ann, mut bob, mut gateway) = pair(PEOPLE).await;
    bob.run("INSERT INTO people VALUES ('a', 'a@x', 1), ('b', 'a@x', 2), ('c', 'c@x', 900), ('d', NULL, NULL), ('e', 'e@x', 5)").await;
    bob.sync(&mut gateway).await;
    let applied = ann.pull(&gateway).await;
    assert_eq!(ann.ask(ALL).await, "a|a@x|1\ne|e@x|5");
    let parked: Vec<_> = applied.parked.iter().map(|row| row.row_id.as_str()).collect();
    assert_eq!(parked, ["b", "c", "d"]);
    assert_eq!(ann.db.parked().await.unwrap().len(), 3);
    assert!(applied.parked[1].reason.contains("CHECK"), "{:?}", applied.parked);

    // Again and again without being reported anew, or recorded as an edit.
    let applied = ann.db.retry_parked().await.unwrap();
    assert!(applied.parked.is_empty() && applied.unparked.is_empty());
    assert_eq!(ann.outbox().await, "");

    bob.run(
        "UPDATE people SET age = 9 WHERE id = 'c'; UPDATE people SET mail = 'b@x' WHERE id = 'b'",
    )
    .await;
    bob.run("DELETE FROM people WHERE id = 'd'").await;
    bob.sync(&mut gateway).await;
    let applied = ann.pull(&gateway).await;
    assert_eq!(applied.unparked.len(), 3);
    assert_eq!(ann.ask(ALL).await, "a|a@x|1\nb|b@x|2\nc|c@x|9\ne|e@x|5");
    assert_eq!(ann.db.counts().await.unwrap().parked, 0);
}

#[tokio::test]
async fn unique_values_may_change_hands_in_any_order() {
    let (mut ann, mut bob, mut gateway) = pair(PEOPLE).await;
    bob.run("INSERT INTO people VALUES ('a', '1', 1), ('b', '2', 1), ('c', '3', 1)").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    bob.run("UPDATE people SET mail = CASE id WHEN 'a' THEN '2' WHEN 'b' THEN '3' ELSE '1' END")
        .await;
    bob.sync(&mut gateway).await;
    let applied = ann.pull(&gateway).await;
    assert!(applied.parked.is_empty(), "{:?}", applied.parked);
    assert_eq!(
        ann.ask("SELECT group_concat(id || mail) FROM (SELECT * FROM people ORDER BY id)").await,
        "a2,b3,c1"
    );
}

#[tokio::test]
async fn a_parked_row_comes_in_when_the_local_clash_goes() {
    let (mut ann, mut bob, mut gateway) = pair(PEOPLE).await;
    ann.run("INSERT INTO people VALUES ('mine', 'a@x', 1)").await;
    bob.run("INSERT INTO people VALUES ('yours', 'a@x', 2)").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT id FROM people").await, "mine");
    ann.run("DELETE FROM people WHERE id = 'mine'").await;
    let applied = ann.db.retry_parked().await.unwrap();
    assert_eq!(applied.unparked.len(), 1);
    assert_eq!(ann.ask("SELECT id FROM people").await, "yours");
}

#[tokio::test]
async fn a_local_edit_of_a_parked_row_is_kept_and_sent() {
    let (mut ann, mut bob, mut gateway) = pair(PEOPLE).await;
    bob.run("INSERT INTO people VALUES ('a', 'm', 900)").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    ann.run("INSERT INTO people VALUES ('a', 'mine', 7)").await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    assert_eq!(ann.ask(ALL).await, "a|mine|7");
    assert_eq!(bob.ask(ALL).await, "a|mine|7");
    assert_eq!(ann.db.counts().await.unwrap().parked, 0);
}

const FAMILY: &str =
    "CREATE TABLE child (id TEXT PRIMARY KEY NOT NULL, p TEXT REFERENCES parent (id));
                      CREATE TABLE parent (id TEXT PRIMARY KEY NOT NULL);";

#[tokio::test]
async fn children_wait_for_their_parents_in_any_order() {
    let (mut ann, mut bob, mut gateway) = pair(FAMILY).await;
    bob.run("INSERT INTO child VALUES ('c1', 'p1'), ('c2', NULL), ('c3', 'p1')").await;
    bob.sync(&mut gateway).await;
    let applied = ann.pull(&gateway).await;
    assert_eq!(applied.parked.len(), 2);
    assert!(applied.parked[0].reason.contains("FOREIGN KEY"));
    assert_eq!(ann.ask("SELECT id FROM child").await, "c2");
    bob.run("INSERT INTO parent VALUES ('p1')").await;
    bob.sync(&mut gateway).await;
    let applied = ann.pull(&gateway).await;
    assert_eq!(applied.unparked.len(), 2);
    assert_eq!(ann.ask("SELECT id FROM child ORDER BY 1").await, "c1\nc2\nc3");
    // And when the parent goes, they do.
    bob.run("DELETE FROM parent").await;
    bob.sync(&mut gateway).await;
    ann.pull(&gateway).await;
    assert_eq!(ann.ask("SELECT id FROM child").await, "c2");
    assert_eq!(ann.ask("PRAGMA foreign_key_check").await, "");
    assert_eq!(ann.db.counts().await.unwrap().parked, 2);
}

#[tokio::test]
async fn a_checkpoint_may_bring_children_before_their_parents() {
    let (mut ann, mut bob, mut gateway) = pair(FAMILY).await;
    bob.run("INSERT INTO parent VALUES ('p1'), ('p2')").await;
    bob.run("INSERT INTO child VALUES ('a', 'p1'), ('b', 'p2'), ('c', 'p1'), ('d', 'nobody')")
        .await;
    bob.sync(&mut gateway).await;
    ann.checkpoint(&gateway).await;
    assert_eq!(ann.ask("SELECT id FROM child ORDER BY 1").await, "a\nb\nc");
    assert_eq!(ann.db.counts().await.unwrap().parked, 1);
    assert_eq!(ann.ask("SELECT count(*) FROM _lakesync_unchecked").await, "0");
}

#[tokio::test]
async fn a_reference_that_dangled_before_is_left_alone() {
    let dangling =
        format!("PRAGMA foreign_keys = OFF; {FAMILY} INSERT INTO child VALUES ('c', 'nobody')");
    let (mut ann, mut bob, mut gateway) = pair(&dangling).await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    bob.run("UPDATE child SET id = id").await;
    ann.checkpoint(&gateway).await;
    assert_eq!(ann.ask("SELECT id, p FROM child").await, "c|nobody");
}

#[tokio::test]
async fn a_table_s_own_conflict_clause_removes_nothing() {
    let sql = "CREATE TABLE people (id TEXT PRIMARY KEY NOT NULL ON CONFLICT REPLACE, \
               mail TEXT UNIQUE ON CONFLICT REPLACE, age INTEGER)";
    let (mut ann, mut bob, mut gateway) = pair(sql).await;
    bob.run("INSERT INTO people VALUES ('a', 'same', 1), ('b', 'same', 2)").await;
    bob.sync(&mut gateway).await;
    ann.pull(&gateway).await;
    assert_eq!(ann.ask(ALL).await, "a|same|1");
    assert_eq!(ann.db.counts().await.unwrap().parked, 1);
}

#[tokio::test]
async fn triggers_of_the_application_may_refuse_or_ignore_what_arrives() {
    let sql = format!(
        "{PEOPLE} CREATE TRIGGER no BEFORE INSERT ON people WHEN NEW.id = 'no' BEGIN SELECT RAISE(ABORT, 'not this one'); END;
         CREATE TRIGGER hush BEFORE INSERT ON people WHEN NEW.id = 'hush' BEGIN SELECT RAISE(IGNORE); END;
         CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT);
         CREATE TRIGGER note AFTER INSERT ON people BEGIN INSERT INTO audit (what) VALUES (NEW.id); END;"
    );
    let (mut ann, mut bob, mut gateway) = pair(&sql).await;
    bob.run("INSERT INTO people VALUES ('no', '1', 1), ('hush', '2', 1), ('ok', '3', 1)").await;
    bob.sync(&mut gateway).await;
    let applied = ann.pull(&gateway).await;
    assert_eq!(ann.ask("SELECT id FROM people").await, "ok");
    let reasons: Vec<_> = applied.parked.iter().map(|row| row.reason.as_str()).collect();
    assert_eq!(reasons, ["a trigger of the application ignored the row", "not this one"]);
    assert_eq!(ann.ask("SELECT what FROM audit").await, "", "nobody sent that");
    assert_eq!(ann.outbox().await, "", "what an applied row's triggers do is no edit");
}

#[tokio::test]
async fn a_row_id_that_is_no_key_of_the_table_is_parked() {
    let tables = [schema("t", "row_id", "id:int v:text", &["id"])];
    let mut ann = Device::with(&tables).await;
    // Another client, of another language, made a strange id.
    let mut gateway = Gateway::default();
    let mut bob = Device::with(&[keyed("t", "v:text")]).await;
    bob.run("INSERT INTO t VALUES ('seven', 'x'), ('7', 'y'), ('007', 'z')").await;
    bob.sync(&mut gateway).await;
    let applied = ann.pull(&gateway).await;
    assert_eq!(ann.ask("SELECT * FROM t").await, "7|y");
    assert_eq!(applied.parked.len(), 2);
}

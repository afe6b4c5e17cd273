//! Whatever changes a synced table is in the outbox, and nothing else is.

use std::process::Command;

use super::model::{Device, keyed, schema};

/// Runs `setup` and clears the outbox, runs `sql`, and expects these unsent changes.
#[track_caller]
fn check(setup: &str, sql: &str, expected: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut device = Device::adopting(setup).await;
        device.run("DELETE FROM _lakesync_outbox; DELETE FROM _lakesync_outbox_cells").await;
        device.run(sql).await;
        let rows = device
            .ask(
                "SELECT count(*) FROM _lakesync_outbox_cells WHERE seq NOT IN \
                               (SELECT seq FROM _lakesync_outbox)",
            )
            .await;
        assert_eq!(rows, "0", "cells without a change, after {sql}");
        assert_eq!(device.outbox().await, expected, "after {sql}");
        let ordered = device
            .ask(
                "SELECT count(*) FROM _lakesync_outbox a, _lakesync_outbox b \
                                  WHERE a.seq < b.seq AND a.hlc >= b.hlc",
            )
            .await;
        assert_eq!(ordered, "0", "stamps grow with the order of changes, after {sql}");
    });
}

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, a, b TEXT);
                     INSERT INTO notes VALUES ('x', 1, 'old'), ('y', 2, 'old')";

#[test]
fn every_row_a_statement_changes_is_recorded_with_what_changed() {
    check(NOTES, "INSERT INTO notes VALUES ('z', NULL, 'new')", "z 1=NULL 2='new'");
    check(NOTES, "INSERT INTO notes (id) VALUES ('z')", "z 1=NULL 2=NULL");
    check(NOTES, "UPDATE notes SET b = 'new'", "x 2='new'\ny 2='new'");
    check(NOTES, "UPDATE notes SET b = 'old', a = 5 WHERE id = 'x'", "x 1=5");
    check(NOTES, "UPDATE notes SET b = b", "");
    check(NOTES, "DELETE FROM notes", "x delete\ny delete");
    check(NOTES, "UPDATE notes SET id = 'w' WHERE id = 'x'", "x delete\nw 1=1 2='old'");
}

#[test]
fn classes_and_cases_that_a_comparison_overlooks_are_changes() {
    check(NOTES, "UPDATE notes SET a = 1.0 WHERE id = 'x'", "x 1=1.0");
    check(NOTES, "UPDATE notes SET a = '1' WHERE id = 'x'", "x 1='1'");
    check(NOTES, "UPDATE notes SET a = x'31' WHERE id = 'x'", "x 1=X'31'");
    let nocase = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, a TEXT COLLATE NOCASE);
                  INSERT INTO t VALUES ('x', 'abc')";
    check(nocase, "UPDATE t SET a = 'ABC'", "x 1='ABC'");
    let key = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, a);
               INSERT INTO t VALUES ('x', 1)";
    check(key, "UPDATE t SET id = 'X'", "x delete\nX 1=1");
    check(key, "REPLACE INTO t VALUES ('X', 1)", "x delete\nX 1=1");
}

#[test]
fn statements_that_change_nothing_record_nothing() {
    check(NOTES, "INSERT OR IGNORE INTO notes VALUES ('x', 9, 'z')", "");
    check(NOTES, "UPDATE OR IGNORE notes SET id = 'y' WHERE id = 'x'", "");
    check(NOTES, "DELETE FROM notes WHERE id = 'nobody'", "");
    check(NOTES, "BEGIN; DELETE FROM notes; ROLLBACK", "");
    check(
        NOTES,
        "BEGIN; UPDATE notes SET a = 7; SAVEPOINT s; DELETE FROM notes; ROLLBACK TO s; COMMIT",
        "x 1=7\ny 1=7",
    );
}

#[test]
fn upserts_and_replacements_are_what_they_do() {
    let upsert = "INSERT INTO notes VALUES ('x', 9, 'old') \
                  ON CONFLICT (id) DO UPDATE SET a = excluded.a, b = excluded.b";
    check(NOTES, upsert, "x 1=9");
    check(NOTES, "INSERT INTO notes VALUES ('x', 9, 'z') ON CONFLICT DO NOTHING", "");
    check(NOTES, "INSERT OR REPLACE INTO notes VALUES ('x', 9, 'z')", "x 1=9 2='z'");
    check(NOTES, "UPDATE OR REPLACE notes SET id = 'y' WHERE id = 'x'", "x delete\ny 1=1 2='old'");
}

const UNIQUE: &str = "CREATE TABLE people (id INTEGER PRIMARY KEY, mail TEXT UNIQUE, name TEXT);
                      CREATE UNIQUE INDEX names ON people (name COLLATE NOCASE);
                      INSERT INTO people VALUES (1, 'a@x', 'Ann'), (2, 'b@x', 'Bob'), (3, 'c@x', 'Cy')";

#[test]
fn rows_replaced_through_a_unique_index_are_deleted() {
    // Columns: id, mail, name.
    for (sql, expected) in [
        (
            "INSERT OR REPLACE INTO people VALUES (9, 'b@x', 'Dan')",
            "2 delete|9 1=9 2='b@x' 3='Dan'",
        ),
        (
            "INSERT OR REPLACE INTO people VALUES (9, 'b@x', 'cy')",
            "2 delete|3 delete|9 1=9 2='b@x' 3='cy'",
        ),
        ("REPLACE INTO people VALUES (1, 'a@x', 'Ann2')", "1 1=1 2='a@x' 3='Ann2'"),
        ("UPDATE OR REPLACE people SET mail = 'c@x' WHERE id = 1", "1 2='c@x'|3 delete"),
        ("INSERT OR IGNORE INTO people VALUES (9, 'b@x', 'Dan')", ""),
        (
            "INSERT OR IGNORE INTO people VALUES (9, 'b@x', 'Dan'); DELETE FROM people WHERE id = 2",
            "2 delete",
        ),
    ] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut device = Device::adopting(UNIQUE).await;
            device.run("DELETE FROM _lakesync_outbox; DELETE FROM _lakesync_outbox_cells").await;
            device.run(sql).await;
            let outbox = device.outbox().await;
            let mut changes: Vec<&str> = outbox.lines().collect();
            changes.sort_unstable();
            assert_eq!(changes.join("|"), expected, "after {sql}");
        });
    }
}

#[test]
fn keys_of_every_kind_name_their_rows() {
    let composite = "CREATE TABLE t (a INTEGER, b TEXT, v, PRIMARY KEY (a, b)) WITHOUT ROWID;
                     INSERT INTO t VALUES (1, 'x', 0)";
    check(composite, "INSERT INTO t VALUES (2, 'q\"é', 5)", "[2,\"q\\\"é\"] 1=2 2='q\"é' 3=5");
    check(composite, "UPDATE t SET v = 1", "[1,\"x\"] 3=1");
    check(composite, "UPDATE t SET a = 7", "[1,\"x\"] delete\n[7,\"x\"] 1=7 2='x' 3=0");
    check(composite, "REPLACE INTO t VALUES (1, 'x', 8)", "[1,\"x\"] 1=1 2='x' 3=8");
    let blob = "CREATE TABLE t (k BLOB PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES (x'0aFF', 1)";
    check(blob, "UPDATE t SET v = 2", "[{\"b\":\"0aff\"}] 2=2");
    let serial =
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO t VALUES (5, 1)";
    check(serial, "UPDATE t SET v = 2", "5 2=2");
    let mixed = "CREATE TABLE t (id INT PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES (5, 1)";
    check(mixed, "INSERT INTO t VALUES ('five', 2)", " 1='five' 2=2");
}

#[tokio::test]
async fn rows_without_a_key_keep_the_id_they_are_given() {
    let mut device =
        Device::adopting("CREATE TABLE log (line TEXT); INSERT INTO log VALUES ('a')").await;
    device.run("INSERT INTO log VALUES ('b'), ('c')").await;
    let before = device.ask("SELECT rowid, row_id FROM _lakesync_ids_1 ORDER BY 1").await;
    device.run("DELETE FROM log WHERE line = 'a'; VACUUM").await;
    device.run("UPDATE log SET line = 'c2' WHERE line = 'c'; UPDATE log SET rowid = 77 WHERE line = 'b'").await;
    device.run("UPDATE log SET line = 'b2' WHERE line = 'b'; INSERT INTO log VALUES ('d')").await;
    let named = device
        .ask("SELECT l.line, i.row_id FROM log l JOIN _lakesync_ids_1 i ON i.rowid = l.rowid ORDER BY 1")
        .await;
    let id = |text: &str, first: &str| {
        let line = text.lines().find(|line| line.starts_with(first)).unwrap().to_owned();
        line.split('|').nth(1).unwrap().to_owned()
    };
    assert_eq!(id(&named, "b2"), id(&before, "2"));
    assert_eq!(id(&named, "c2"), id(&before, "3"));
    let outbox = device.outbox().await;
    let last: Vec<&str> = outbox.lines().rev().take(4).collect();
    assert_eq!(last[3], format!("{} delete", id(&before, "1")));
    assert_eq!(last[2], format!("{} 1='c2'", id(&before, "3")));
    assert_eq!(last[1], format!("{} 1='b2'", id(&before, "2")));
}

#[test]
fn what_the_applications_triggers_do_is_recorded_as_it_ends() {
    let stamped = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, n INTEGER DEFAULT 0);
        CREATE TABLE audit (id INTEGER PRIMARY KEY, what TEXT);
        CREATE TRIGGER touch AFTER UPDATE OF a ON t BEGIN
          UPDATE t SET a = upper(NEW.a), n = n + 1 WHERE id = NEW.id;
          INSERT INTO audit (what) VALUES (NEW.a); END;
        INSERT INTO t VALUES (1, 'x', 0)";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut device = Device::adopting(stamped).await;
        device.run("DELETE FROM _lakesync_outbox; DELETE FROM _lakesync_outbox_cells").await;
        device.run("UPDATE t SET a = 'abc'").await;
        // Whichever trigger ran first, the last word on each column is what the table shows.
        let last = device
            .ask("SELECT c.col, c.value FROM _lakesync_outbox o JOIN _lakesync_outbox_cells c USING (seq) \
                  WHERE o.row_id = '1' AND o.tbl = 2 GROUP BY c.col HAVING o.seq = max(o.seq) ORDER BY 1")
            .await;
        assert_eq!(last, "2|ABC\n3|1");
        assert_eq!(device.ask("SELECT a, n FROM t").await, "ABC|1");
        assert_eq!(device.ask("SELECT count(*) FROM _lakesync_outbox WHERE tbl = 1").await, "1");
    });
}

#[test]
fn cascades_are_recorded() {
    let family = "CREATE TABLE parent (id INTEGER PRIMARY KEY);
        CREATE TABLE child (id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent ON DELETE CASCADE);
        INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (10, 1), (11, 1), (12, 2)";
    check(family, "DELETE FROM parent WHERE id = 1", "10 delete\n11 delete\n1 delete");
}

#[tokio::test]
async fn a_table_of_a_thousand_columns_is_recorded_whole() {
    let columns: Vec<String> = (0..999).map(|at| format!("c{at}:int")).collect();
    let mut device = Device::with(&[keyed("wide", &columns.join(" "))]).await;
    device.run("INSERT INTO wide (id, c0, c998) VALUES ('x', 1, 2)").await;
    device.run("UPDATE wide SET c500 = 3").await;
    let counts = "SELECT count(*) FROM _lakesync_outbox_cells GROUP BY seq ORDER BY seq";
    assert_eq!(device.ask(counts).await, "999\n1");
}

#[tokio::test]
async fn another_program_s_writes_are_recorded() {
    let table = schema("t", "row_id", "a:int b:text v:any", &["a", "b"]);
    let mut device = Device::with(&[table, keyed("notes", "body:text")]).await;
    let sql = "INSERT INTO notes (body) VALUES ('from the shell'); INSERT INTO t VALUES (1, 'k', 2.5); \
               UPDATE t SET v = x'00' WHERE a = 1; DELETE FROM t;";
    let status = match Command::new("sqlite3").arg(&device.path).arg(sql).status() {
        Ok(status) => status,
        Err(error) => {
            assert!(std::env::var_os("LAKESYNC_TEST_REQUIRED").is_none(), "sqlite3: {error}");
            return;
        }
    };
    assert!(status.success());
    let outbox = device.outbox().await;
    let changes: Vec<&str> = outbox.lines().collect();
    assert!(changes[0].ends_with("1='from the shell'"), "{outbox}");
    assert_eq!(
        changes[1..],
        ["[1,\"k\"] 1=1 2='k' 3=2.5", "[1,\"k\"] 3=X'00'", "[1,\"k\"] delete"]
    );
}

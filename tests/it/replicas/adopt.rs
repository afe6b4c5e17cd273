//! Adopting: tables of every kind that SQLite files have become synced ones, and a second file that
//! began empty, or began with the same tables, comes to hold the same values.

use std::collections::BTreeSet;

use lakesync_client::Candidate;

use super::site::{File, Site, config, line, rows, serve, texts};
use crate::harness::Setup;

/// What a stranger's file holds: every kind of key, and values that are easily bent.
const STRANGE: &str = "
    CREATE TABLE keyless (a, b TEXT);
    INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), ('1', NULL), (NULL, NULL), (x'', '');
    CREATE TABLE composite (a INTEGER, b TEXT, c, PRIMARY KEY (a, b)) WITHOUT ROWID;
    INSERT INTO composite VALUES (1, 'x', 1.0), (1, '[\"y\"]', x'00'), (-9223372036854775808, '', '\u{1f980}');
    CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT);
    INSERT INTO counted VALUES (7, 'seven'), (9, NULL);
    CREATE TABLE named (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    INSERT INTO named VALUES ('\u{e9}', 1), ('e', '1'), ('E', 1.0), (' ', NULL), ('a/b', x'ff');
    CREATE TABLE odd (id INTEGER PRIMARY KEY, whole INTEGER, real REAL, text TEXT, bytes BLOB, any, num NUMERIC);
    INSERT INTO odd VALUES
      (1, 9223372036854775807, 1e300, 'emoji \u{1f469}\u{200d}\u{1f52c} and ''quotes''', x'0001ff', 'text', 10),
      (2, -9223372036854775808, -0.0, '', x'', 2, '0010'),
      (3, NULL, NULL, NULL, NULL, NULL, NULL),
      (4, 0, 5e-324, char(9, 10, 13), zeroblob(10), 2.5, 1.5),
      (5, 'no number', 'no real', 12, 'no blob', x'00', 'no number');
    CREATE TABLE strict_one (id TEXT PRIMARY KEY, n INT NOT NULL, r REAL, a ANY) STRICT;
    INSERT INTO strict_one VALUES ('x', 1, 2, '3'), ('y', 2, 0.1, 3);
    CREATE TABLE parent (code TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, CHECK (code <> name));
    CREATE TABLE child (id TEXT PRIMARY KEY, parent TEXT REFERENCES parent ON DELETE CASCADE,
      twice GENERATED ALWAYS AS (parent || parent) STORED);
    INSERT INTO parent VALUES ('p', 'one'), ('q', 'two');
    INSERT INTO child VALUES ('1', 'p'), ('2', NULL), ('3', 'q');
    CREATE TABLE \"with space\" (a);
    CREATE VIEW shown AS SELECT * FROM odd;
    CREATE TABLE history (what TEXT);
    CREATE TRIGGER noted AFTER INSERT ON named BEGIN INSERT INTO history VALUES (new.name); END;
    INSERT INTO named VALUES ('triggered', 0);";

const TABLES: [(&str, &str); 9] = [
    ("keyless", "a, b"),
    ("composite", "a, b, c"),
    ("counted", "id, body"),
    ("named", "name, value"),
    ("odd", "id, whole, real, text, bytes, any, num"),
    ("strict_one", "id, n, r, a"),
    ("parent", "code, name"),
    ("child", "id, parent"),
    ("history", "what"),
];

fn names() -> Vec<&'static str> {
    TABLES.iter().map(|(name, _)| *name).collect()
}

async fn assert_same(left: &mut Site, right: &mut Site) {
    for (table, columns) in TABLES {
        let (left, right) = (left.rows(table, columns).await, right.rows(table, columns).await);
        assert!(!left.is_empty(), "{table} is empty");
        assert_eq!(left, right, "{table}");
    }
    for site in [left, right] {
        let status = site.status();
        let rejected = site.replica.rejected().await.expect("a list");
        let parked = site.replica.parked().await.expect("a list");
        assert_eq!((status.pending, rejected, parked), (0, vec![], vec![]));
    }
}

#[tokio::test]
async fn a_strangers_file_comes_to_be_twice() {
    let server = serve(&Setup::new()).await;
    let mut before = File::made_by(STRANGE).await;
    let mut wanted = Vec::new();
    for (table, columns) in TABLES {
        wanted.push(rows(&mut before.app, table, columns).await);
    }
    let mut ann = before.adopt(&server, &names()).await;
    ann.sync().await;
    for ((table, columns), wanted) in TABLES.into_iter().zip(wanted) {
        assert_eq!(ann.rows(table, columns).await, wanted, "adopting changed {table}");
    }
    let mut bob = File::made_by("").await.open(config(line(&server))).await;
    assert!(bob.sync().await.checkpoint);
    assert_same(&mut ann, &mut bob).await;

    // Edits of every table travel back.
    for (table, set) in [
        ("keyless", "b = 'changed'"),
        ("composite", "c = -0.5"),
        ("counted", "body = 'changed'"),
        ("named", "value = x'00'"),
        ("odd", "any = 'changed', whole = 1"),
        ("strict_one", "r = 1e300"),
        ("parent", "name = name || code"),
        ("child", "parent = 'q'"),
        ("history", "what = what || '!'"),
    ] {
        bob.run(&format!("UPDATE {table} SET {set}")).await;
    }
    bob.run("DELETE FROM keyless WHERE a IS NULL; DELETE FROM composite WHERE b = ''").await;
    bob.run("UPDATE composite SET b = 'moved' WHERE b = 'x'").await;
    bob.sync().await;
    ann.sync().await;
    assert_same(&mut ann, &mut bob).await;
    assert_eq!(ann.rows("child", "twice").await, ["'qq'"; 3], "a generated column follows");
    let triggered = texts(&mut ann.app, "SELECT what FROM history").await;
    assert_eq!(triggered, ["triggered!"], "arriving rows woke a trigger of the application");
}

#[tokio::test]
async fn what_can_not_be_synced_is_named_with_its_reason() {
    let made = "CREATE VIRTUAL TABLE found USING fts5 (body); INSERT INTO found VALUES ('x');";
    let file = File::made_by(&format!("{STRANGE}{made}")).await;
    let server = serve(&Setup::new()).await;
    let site = file.open(config(line(&server))).await;
    let candidates = site.replica.inspect().await.expect("a look");
    let refused: Vec<_> = candidates.iter().filter_map(refusal).collect();
    for (table, why) in [
        ("with space", "with space"),
        ("shown", "view"),
        ("found", "virtual"),
        ("found_data", "storage of a virtual table"),
    ] {
        let said = refused.iter().find(|(name, _)| *name == table);
        assert!(said.is_some_and(|(_, words)| words.contains(why)), "{table}: {said:?}");
    }
    for (table, _) in TABLES {
        assert!(refused.iter().all(|(name, _)| *name != table), "{table}: {refused:?}");
    }
    let warnings = |table: &str| {
        let found = candidates.iter().find(|candidate| candidate.table == table);
        found.and_then(|found| found.verdict.as_ref().ok()).map(|found| found.warnings.join("; "))
    };
    let words = warnings("odd").expect("adoptable");
    assert!(words.contains("AUTOINCREMENT"), "the classic trap has no warning: {words}");
    assert!(!warnings("counted").expect("adoptable").contains("AUTOINCREMENT"));
    assert!(warnings("parent").expect("adoptable").contains("parked"));
}

fn refusal(candidate: &Candidate) -> Option<(&str, &str)> {
    let why = candidate.verdict.as_ref().err()?;
    Some((&candidate.table, why))
}

#[tokio::test]
async fn two_files_with_the_same_tables_are_joined() {
    let setup = Setup::new();
    let server = serve(&setup).await;
    let made = "CREATE TABLE todos (id TEXT PRIMARY KEY, title TEXT NOT NULL, rank INTEGER);";
    let own = |rows: &str| format!("{made} INSERT INTO todos VALUES {rows};");
    let mut ann =
        Site::with(&server, &own("('a', 'ann', 1), ('both', 'first', 1)"), &["todos"]).await;
    setup.clock.advance(60_000);
    let mut bob =
        Site::with(&server, &own("('b', 'bob', 2), ('both', 'later', 2)"), &["todos"]).await;
    ann.sync().await;
    let wanted = ["'a'|'ann'|1", "'b'|'bob'|2", "'both'|'later'|2"];
    assert_eq!(ann.rows("todos", "id, title, rank").await, wanted);
    assert_eq!(bob.rows("todos", "id, title, rank").await, wanted);
}

#[tokio::test]
async fn ids_that_offline_devices_hand_out_never_collide() {
    let server = serve(&Setup::new()).await;
    let made = "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, who TEXT);
                INSERT INTO log (who) VALUES ('old'), ('old');";
    let mut ann = Site::with(&server, made, &["log"]).await;
    let mut bob = Site::synced(&server).await;
    for _ in 0..3 {
        for (site, who) in [(&mut ann, "ann"), (&mut bob, "bob")] {
            for _ in 0..50 {
                site.run(&format!("INSERT INTO log (who) VALUES ('{who}')")).await;
            }
        }
        for site in [&ann, &bob, &ann] {
            site.sync().await;
        }
    }
    let sql = "SELECT who || ' ' || count(*) || ' ' || count(DISTINCT id) FROM log GROUP BY who";
    for site in [&mut ann, &mut bob] {
        let counted = texts(&mut site.app, sql).await;
        assert_eq!(counted, ["ann 150 150", "bob 150 150", "old 2 2"]);
    }
    let mut ids = BTreeSet::new();
    for id in ann.rows("log", "id").await {
        assert!(ids.insert(id));
    }
}

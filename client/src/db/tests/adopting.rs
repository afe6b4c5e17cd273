//! Tables of the application: which can be synced, as what, and what they hold.

use super::model::{Device, Gateway};

/// What inspecting a file with this SQL says: `table key(primary key) column:type …`, or why not.
async fn inspected(sql: &str) -> Vec<String> {
    let device = Device::new(sql).await;
    let found = device.db.inspect().await.unwrap();
    let line = |candidate: super::super::Candidate| match candidate.verdict {
        Err(reason) => format!("{} ✗ {reason}", candidate.table),
        Ok(adoptable) => {
            let proposal = adoptable.proposal;
            let keys: Vec<_> = proposal.primary_key.iter().map(|key| key.as_str()).collect();
            let columns = proposal.columns.iter().map(|(name, kind)| format!(" {name}:{kind}"));
            format!(
                "{} {}({}){}",
                candidate.table,
                proposal.key,
                keys.join(","),
                columns.collect::<String>()
            )
        }
    };
    found.into_iter().map(line).collect()
}

#[tokio::test]
async fn tables_are_proposed_as_what_they_are() {
    for (sql, expected) in [
        (
            "CREATE TABLE t (id TEXT PRIMARY KEY, a INT, b VARCHAR(9), c REAL, d BLOB, e, f DATETIME)",
            "t id() a:int64 b:string c:double d:bytes e:any f:any",
        ),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "t row_id(id) id:int64 a:any"),
        ("CREATE TABLE t (a INT, b TEXT, PRIMARY KEY (b, a))", "t row_id(b,a) a:int64 b:string"),
        ("CREATE TABLE t (a TEXT, row_id INT)", "t lakesync_id() a:string row_id:int64"),
        (
            "CREATE TABLE t (id TEXT PRIMARY KEY, a INT); INSERT INTO t VALUES ('x', 'word')",
            "t id() a:any",
        ),
        (
            "CREATE TABLE t (id TEXT PRIMARY KEY, a INT); INSERT INTO t VALUES (NULL, 1)",
            "t row_id() id:string a:int64",
        ),
        ("CREATE TABLE t (k REAL PRIMARY KEY); INSERT INTO t VALUES (0.5)", "t row_id(k) k:double"),
        ("CREATE TABLE t (k REAL PRIMARY KEY); INSERT INTO t VALUES (NULL)", "t row_id() k:double"),
        (
            "CREATE TABLE t (k BLOB PRIMARY KEY NOT NULL); INSERT INTO t VALUES (x'00')",
            "t row_id(k) k:bytes",
        ),
        ("CREATE TABLE t (a INT, b GENERATED ALWAYS AS (a + 1))", "t row_id() a:int64"),
    ] {
        let mut found = inspected(sql).await;
        found.retain(|line| !line.starts_with("sqlite_"));
        assert_eq!(found, [expected], "{sql}");
    }
}

#[tokio::test]
async fn what_can_not_be_synced_is_named_with_its_reason() {
    for (sql, table, reason) in [
        ("CREATE VIEW v AS SELECT 1", "v", "view"),
        ("CREATE VIRTUAL TABLE f USING fts5(body)", "f", "virtual"),
        ("CREATE VIRTUAL TABLE f USING fts5(body)", "f_data", "storage of a virtual table"),
        ("CREATE TABLE \"my table\" (a)", "my table", "not a legal table name"),
        ("CREATE TABLE t (\"a b\" TEXT NOT NULL)", "t", "\"a b\" must have a value"),
        (
            "CREATE TABLE t (k TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES ('')",
            "t",
            "primary keys",
        ),
        ("CREATE TABLE t (rowid TEXT, _rowid_ TEXT, oid TEXT)", "t", "hide its rowid"),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT)", "sqlite_sequence", "internal"),
    ] {
        let found = inspected(sql).await;
        let line = found.iter().find(|line| line.starts_with(&format!("{table} ✗"))).expect(sql);
        assert!(line.contains(reason), "{line}");
    }
}

#[tokio::test]
async fn warnings_name_the_traps() {
    for (sql, expected) in [
        ("CREATE TABLE t (id INTEGER PRIMARY KEY)", "AUTOINCREMENT"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a)", ""),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY /* no AUTOINCREMENT */)", "AUTOINCREMENT"),
        ("CREATE TABLE t (id TEXT PRIMARY KEY)", "may be NULL"),
        ("CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, a UNIQUE)", "unique"),
        ("CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, \"a-b\" TEXT)", "not legal"),
    ] {
        let device = Device::new(sql).await;
        let found =
            device.db.inspect().await.unwrap().into_iter().find(|c| c.table == "t").unwrap();
        let warnings = found.verdict.unwrap().warnings.join("; ");
        assert!(
            warnings.contains(expected) && warnings.is_empty() == expected.is_empty(),
            "{sql}: {warnings}"
        );
    }
}

#[tokio::test]
async fn everything_a_file_holds_reaches_a_fresh_replica() {
    let sql = "CREATE TABLE keyed (id TEXT PRIMARY KEY NOT NULL, n INT, x);
        INSERT INTO keyed VALUES ('a', 1, 2.5), ('b', NULL, x'00ff'), ('c', -9223372036854775808, 'té');
        CREATE TABLE serial (id INTEGER PRIMARY KEY, v REAL);
        INSERT INTO serial VALUES (1, 0.1), (-5, 1e300), (9223372036854775807, NULL);
        CREATE TABLE pairs (a INT, b TEXT, v BLOB, PRIMARY KEY (a, b)) WITHOUT ROWID;
        INSERT INTO pairs VALUES (1, 'x', x''), (1, '\"', NULL), (2, '', x'01');
        CREATE TABLE log (line TEXT, at DATETIME); INSERT INTO log VALUES ('one', 1), ('two', 'now'), ('one', 1);";
    let mut ann = Device::adopting(sql).await;
    let schemas = ann.proposals().await;
    let mut bob = Device::with(&schemas).await;
    let mut gateway = Gateway::default();
    let settled = ann.sync(&mut gateway).await;
    assert_eq!((settled.accepted, settled.rejected.len()), (12, 0));
    bob.checkpoint(&gateway).await;
    for (table, columns) in [("keyed", "*"), ("serial", "*"), ("pairs", "*"), ("log", "line, at")] {
        let all = format!("SELECT {columns} FROM {table} ORDER BY 1, 2");
        assert_eq!(bob.ask(&all).await, ann.ask(&all).await, "{table}");
    }
    // And edits travel both ways.
    bob.run("UPDATE log SET at = 'bob' WHERE line = 'two'; DELETE FROM pairs WHERE a = 2; INSERT INTO log (line) VALUES ('three')").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    for (table, columns) in [("pairs", "*"), ("log", "line, at")] {
        let all = format!("SELECT {columns} FROM {table} ORDER BY 1, 2");
        assert_eq!(bob.ask(&all).await, ann.ask(&all).await, "{table}");
    }
    assert_eq!(ann.ask("SELECT count(*) FROM _lakesync_ids_2").await, "4");
}

#[tokio::test]
async fn adopting_twice_changes_nothing() {
    let mut ann = Device::adopting(
        "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, a); INSERT INTO t VALUES ('x', 1)",
    )
    .await;
    let before = ann.outbox().await;
    ann.adopt_all().await;
    assert_eq!(ann.outbox().await, before);
}

#[tokio::test]
async fn an_adopted_row_that_is_refused_stays_where_it_was() {
    let mut ann = Device::adopting("CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, a TEXT); INSERT INTO t VALUES ('x', 'bad'), ('y', 'ok')").await;
    let mut gateway = Gateway { poison: Some("bad"), ..Gateway::default() };
    let settled = ann.sync(&mut gateway).await;
    assert_eq!(settled.rejected.len(), 1);
    assert_eq!(ann.ask("SELECT * FROM t ORDER BY 1").await, "x|bad\ny|ok");
    gateway.poison = None;
    assert!(ann.db.retry_rejected(settled.rejected[0].id).await.unwrap());
    ann.sync(&mut gateway).await;
    assert_eq!(gateway.show("t"), "x a=bad\ny a=ok");
}

#[tokio::test]
async fn offline_devices_hand_out_different_integer_keys() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, who TEXT);
               INSERT INTO t (who) VALUES ('old'), ('old')";
    let mut ann = Device::adopting(sql).await;
    let mut bob = Device::with(&ann.proposals().await).await;
    let mut gateway = Gateway::default();
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    for round in 0..3 {
        for (device, who) in [(&mut ann, "ann"), (&mut bob, "bob")] {
            device
                .run(&format!("INSERT INTO t (who) VALUES ('{who}{round}a'), ('{who}{round}b')"))
                .await;
        }
        ann.sync(&mut gateway).await;
        bob.sync(&mut gateway).await;
        ann.sync(&mut gateway).await;
    }
    let all = "SELECT id, who FROM t ORDER BY 1";
    assert_eq!(ann.ask(all).await, bob.ask(all).await);
    assert_eq!(ann.ask("SELECT count(*) FROM t").await, "14");
}

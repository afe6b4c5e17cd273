//! What a database can't show, in a log that is older than it: the rest arrives, and it is told.

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::name::Position;
use lakesync::schema::{ColumnType, Schema};
use lakesync::testing::id;
use lakesync::value::Value;
use lakesync_adapters::testing::{Durability, MariaDb, NULL};

use super::adapter;
use crate::fixtures::{LOG, delete, one_commit, schema, table, upsert};

const INT: ColumnType = ColumnType::Int64;
const TEXT: ColumnType = ColumnType::String;

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[tokio::test]
async fn columns_of_reserved_names_have_another() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    let mut wanted = table("t", 1, &[("DB_ROW_ID", INT), ("db_trx_id", TEXT), ("plain", INT)]);
    wanted.key = id("FTS_DOC_ID");
    adapter.prepare(&Schema::from_stored([wanted.clone()])).await.expect("prepare");
    let cells = |n| [("DB_ROW_ID", Value::Int64(n)), ("db_trx_id", text("x"))];
    let change = |hlc, n| upsert("t", "a", hlc, &cells(n));
    adapter.write(&one_commit(1, vec![change(1, 1)])).await.expect("as a new row");
    adapter.write(&one_commit(2, vec![change(2, 2)])).await.expect("as a known row");
    let sql = format!(
        "SELECT _lakesync_FTS_DOC_ID, _lakesync_DB_ROW_ID, _lakesync_db_trx_id, plain FROM {name}.t"
    );
    assert_eq!(server.mariadb(&sql).await, format!("a|2|x|{NULL}"));
    wanted.version = 2;
    wanted.columns[0].kind = ColumnType::Json;
    adapter.prepare(&Schema::from_stored([wanted])).await.expect("it widens");
    let change = upsert("t", "b", 3, &[("DB_ROW_ID", Value::Int64(3))]);
    adapter.write(&one_commit(3, vec![change])).await.expect("write");
    adapter.write(&one_commit(4, vec![delete("t", "a", 4)])).await.expect("deleted by its key");
    assert_eq!(server.mariadb(&sql).await, format!("b|3|{NULL}|{NULL}"));
    let troubles = adapter.troubles();
    assert_eq!(troubles.len(), 2, "{troubles:?}");
    assert!(troubles[0].contains("column DB_ROW_ID stands under the name"), "{troubles:?}");
}

#[tokio::test]
async fn every_word_of_sql_is_a_name() {
    let Some(server) = MariaDb::shared().await else { return };
    let words = "SELECT DISTINCT LOWER(word) FROM information_schema.KEYWORDS \
                 WHERE word REGEXP '^[A-Za-z_][A-Za-z0-9_]*$' AND word <> 'id' ORDER BY 1";
    let words = server.mariadb(words).await;
    let mut words: Vec<&str> = words.lines().collect();
    assert!(400 < words.len(), "{words:?}");
    words.extend(["db_row_id", "db_trx_id", "db_roll_ptr", "fts_doc_id", "db_row_hash_1", "con"]);
    let adapter = adapter(server, &server.fresh(), true);
    let columns: Vec<Vec<_>> =
        words.chunks(100).map(|part| part.iter().map(|word| (*word, INT)).collect()).collect();
    // All words are columns of some table, and some words are tables.
    let tables = words.iter().rev().zip(&columns).map(|(word, columns)| table(word, 1, columns));
    let more = words.iter().take(40).map(|word| table(word, 1, &[]));
    adapter.prepare(&Schema::from_stored(tables.chain(more))).await.expect("prepare");
    let rows = words.iter().rev().zip(&columns).map(|(word, columns)| {
        let cells: Vec<_> = columns.iter().map(|(name, _)| (*name, Value::Int64(1))).collect();
        upsert(word, "a", 1, &cells)
    });
    adapter.write(&one_commit(1, rows.collect())).await.expect("write");
}

#[tokio::test]
async fn columns_that_do_not_fit_stop_nothing() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    let names: Vec<_> = (0..183).map(|at| format!("c{at}")).collect();
    let columns: Vec<_> = names.iter().map(|name| (name.as_str(), TEXT)).collect();
    let cells: Vec<_> = names.iter().map(|name| (name.as_str(), text(&"x".repeat(40)))).collect();
    adapter.prepare(&schema("t", 1, &columns[..182])).await.expect("prepare");
    adapter.write(&one_commit(1, vec![upsert("t", "a", 1, &cells[..182])])).await.expect("write");
    adapter.prepare(&schema("t", 2, &columns)).await.expect("prepare");
    adapter.write(&one_commit(2, vec![upsert("t", "a", 2, &cells)])).await.expect("write");
    let rows = adapter.rows(&id("t"), None, 9).await.expect("rows");
    assert_eq!(rows[0].1.cells().len(), 183, "the exact state has them");
    let troubles = adapter.troubles();
    assert!(troubles[0].contains("its last 3 columns are not shown"), "{troubles:?}");
}

#[tokio::test]
async fn a_cell_that_is_refused_is_null_and_counted() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("a", TEXT), ("b", INT)])).await.expect("prepare");
    server.mariadb(&format!("ALTER TABLE {name}.t MODIFY a varchar(6), MODIFY b tinyint")).await;
    let rows = vec![
        upsert("t", "fits", 1, &[("a", text("short")), ("b", Value::Int64(1))]),
        upsert("t", "long", 1, &[("a", text("too-long-canary")), ("b", Value::Int64(2))]),
        upsert("t", "much", 1, &[("a", text("ok")), ("b", Value::Int64(70_707))]),
        upsert("t", "other", 1, &[("a", text("ok")), ("b", Value::Int64(3))]),
    ];
    adapter.write(&one_commit(1, rows)).await.expect("no commit is poison");
    let sql = format!("SELECT id, a, b FROM {name}.t ORDER BY id");
    let expected = format!("fits|short|1\nlong|{NULL}|2\nmuch|ok|{NULL}\nother|ok|3");
    assert_eq!(server.mariadb(&sql).await, expected);
    let held = adapter.find(&id("t"), &[id("long")]).await.expect("found");
    let cell = held[0].1.cell(&id("a")).expect("a cell").value.clone();
    assert_eq!(cell, text("too-long-canary"), "the exact state has it");
    assert_eq!(adapter.watermark(LOG).await, Ok(Position(1)));
    let troubles = adapter.troubles().join("\n");
    for told in ["table t, column a: 1 cells show NULL", "1406", "table t, column b: 1", "1264"] {
        assert!(troubles.contains(told), "{troubles}");
    }
    assert!(!troubles.contains("canary") && !troubles.contains("70707"), "{troubles}");

    // Whatever way rows come.
    let again = upsert("t", "fits", 2, &[("a", text("longer-now"))]);
    adapter.write(&one_commit(2, vec![again])).await.expect("as a known row");
    let joined = lakesync::testing::fold(&[upsert("t", "new", 3, &[("a", text("too-long-too"))])]);
    adapter.join(&id("t"), &[(id("new"), joined)]).await.expect("a fill goes on as well");
    let expected =
        format!("fits|{NULL}|1\nlong|{NULL}|2\nmuch|ok|{NULL}\nnew|{NULL}|{NULL}\nother|ok|3");
    assert_eq!(server.mariadb(&sql).await, expected);
}

/// A server whose own defaults are Latin 1, and a database that somebody made so.
#[tokio::test]
async fn text_is_held_whatever_the_server_s_character_set() {
    let settings = [
        "character-set-server=latin1",
        "collation-server=latin1_swedish_ci",
        "skip-character-set-client-handshake",
    ];
    let Some(server) = MariaDb::start_set(Durability::Process, &settings).await else { return };
    server.mariadb("CREATE DATABASE main CHARACTER SET latin1").await;
    let adapter = adapter(&server, "main", true);
    let kinds = [("a", TEXT), ("j", ColumnType::Json), ("u", ColumnType::Uuid)];
    adapter.prepare(&schema("t", 1, &kinds)).await.expect("prepare");
    let cells = [
        ("a", text("кот 🦀")),
        ("j", Value::Json("\"🦀\"".to_owned())),
        ("u", Value::Uuid([7; 16])),
    ];
    adapter.write(&one_commit(1, vec![upsert("t", "ключ 🦀", 1, &cells)])).await.expect("write");
    let sql = "SELECT HEX(id), HEX(a), HEX(j) FROM main.t";
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>();
    let expected = ["ключ 🦀", "кот 🦀", "\"🦀\""].map(hex).join("|");
    assert_eq!(server.mariadb(sql).await, expected);
    assert_eq!(adapter.rows(&id("t"), None, 9).await.expect("rows").len(), 1);
    assert_eq!(adapter.history(None, 9).await.expect("history").len(), 1);
}

#[tokio::test]
async fn servers_of_careful_people_are_written_to() {
    let settings = ["init-connect=SET sql_safe_updates=1", "sql-mode=ANSI", "autocommit=0"];
    let Some(server) = MariaDb::start_set(Durability::Process, &settings).await else { return };
    server.mariadb("SET GLOBAL sql_safe_updates = 1").await;
    let adapter = adapter(&server, "main", true);
    adapter.prepare(&schema("t", 1, &[("a", INT)])).await.expect("prepare");
    let change = upsert("t", "a", 1, &[("a", Value::Int64(1))]);
    adapter.write(&one_commit(1, vec![change])).await.expect("write");
    adapter.prepare(&schema("t", 2, &[("a", TEXT)])).await.expect("rows are shown anew");
    adapter.write(&one_commit(2, vec![delete("t", "a", 2)])).await.expect("write");
    assert_eq!(server.mariadb("SELECT COUNT(*) FROM main.t").await, "0");
}

#[tokio::test]
async fn a_log_of_statements_is_refused_at_once() {
    let settings = ["log-bin=log", "server-id=7", "binlog-format=STATEMENT"];
    let Some(server) = MariaDb::start_set(Durability::Process, &settings).await else { return };
    let adapter = adapter(&server, "main", true);
    let error = adapter.watermark(LOG).await.expect_err("no write would be taken");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
    let told = error.to_string();
    assert!(told.contains("SET GLOBAL binlog_format = 'MIXED'"), "{told}");
    server.mariadb("SET GLOBAL binlog_format = 'MIXED'").await;
    // Sessions keep what they began with.
    let adapter = super::adapter(&server, "main", true);
    adapter.prepare(&schema("t", 1, &[("a", INT)])).await.expect("prepare");
    let change = upsert("t", "a", 1, &[("a", Value::Int64(1))]);
    adapter.write(&one_commit(1, vec![change])).await.expect("write");
}

/// Errors go to logs and statistics, and values of rows do not.
#[tokio::test]
async fn no_error_tells_a_value() {
    let Some(server) = MariaDb::shared().await else { return };
    let signal = |how: &str| {
        format!(
            "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SIGNAL SQLSTATE '45000' SET {how}"
        )
    };
    for (harm, told) in [
        (signal("MESSAGE_TEXT = NEW.a"), "a trigger refuses a row, table t (45000, error 1644)"),
        (signal("MYSQL_ERRNO = 1146, MESSAGE_TEXT = NEW.a"), "error 1146"),
        (
            "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.b = CAST(NEW.a AS INT) + NEW.a"
                .to_owned(),
            "a value does not fit",
        ),
        ("ALTER TABLE t ADD CONSTRAINT small CHECK (a <> 'secret-canary')".to_owned(), "small"),
        ("ALTER TABLE t MODIFY a varchar(99); CREATE UNIQUE INDEX one ON t (a)".to_owned(), "unique index"),
        ("ALTER TABLE t MODIFY b bigint NOT NULL".to_owned(), "'b'"),
    ] {
        let name = server.fresh();
        let adapter = adapter(server, &name, true);
        adapter.prepare(&schema("t", 1, &[("a", TEXT), ("b", INT)])).await.expect("prepare");
        server.mariadb(&format!("USE {name}; {harm}")).await;
        let row = |row_id| upsert("t", row_id, 1, &[("a", text("secret-canary"))]);
        let written = adapter.write(&one_commit(1, vec![row("canary-1"), row("canary-2")])).await;
        let said = written.err().map(|error| error.to_string()).unwrap_or_default();
        let all = format!("{said}\n{}", adapter.troubles().join("\n"));
        assert!(!all.contains("canary"), "{harm}: {all}");
        if !told.starts_with("a value") {
            assert!(all.contains(told), "{harm}: {all}");
        }
    }
}

//! What people have and add beside synced tables: it stays, or it is told what is in the way.

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::name::Position;
use lakesync::schema::{ColumnType, Schema};
use lakesync::testing::id;
use lakesync::value::Value;
use lakesync_adapters::testing::MariaDb;

use super::adapter;
use crate::fixtures::{LOG, delete, one_commit, schema, upsert};

const INT: ColumnType = ColumnType::Int64;
const TEXT: ColumnType = ColumnType::String;
const KEY: &str = "id varchar(256) COLLATE utf8mb4_nopad_bin";

fn n(row_id: &str, hlc: u64, n: i64) -> lakesync::delta::Delta {
    upsert("t", row_id, hlc, &[("n", Value::Int64(n))])
}

#[tokio::test]
async fn what_does_not_fit_is_named_and_left_alone() {
    let Some(server) = MariaDb::shared().await else { return };
    for (made, said) in [
        (
            format!("TABLE t ({KEY} PRIMARY KEY, n text)"),
            "table t has the column n as text collate utf8mb4_general_ci, where bigint is wanted",
        ),
        (format!("TABLE t ({KEY} PRIMARY KEY, n int)"), "the column n as int(11), where bigint"),
        (format!("TABLE t ({KEY} PRIMARY KEY, n bigint unsigned)"), "n as bigint unsigned, where"),
        (
            "TABLE t (id varchar(256) PRIMARY KEY, n bigint)".to_owned(),
            "key column id as varchar(256) collate utf8mb4_general_ci, where varchar(256) collate",
        ),
        (format!("TABLE t ({KEY}, n bigint)"), "column id without a primary key on it alone"),
        (
            format!("TABLE t ({KEY}, n bigint, PRIMARY KEY (id, n))"),
            "column id without a primary key on it alone",
        ),
        ("TABLE t (k int PRIMARY KEY, n bigint)".to_owned(), "exists without its key column id"),
        (format!("TABLE t ({KEY} PRIMARY KEY, n bigint NOT NULL)"), "the column n as NOT NULL"),
        (
            format!("TABLE t ({KEY} PRIMARY KEY, n bigint, x int NOT NULL)"),
            "a column x that is NOT NULL",
        ),
        (
            format!("TABLE t ({KEY} PRIMARY KEY, n bigint GENERATED ALWAYS AS (7) STORED)"),
            "computes its column n",
        ),
        (format!("TABLE t ({KEY} PRIMARY KEY, n bigint) ENGINE = MEMORY"), "is kept by MEMORY"),
        ("VIEW t AS SELECT 'a' AS id, 7 AS n".to_owned(), "table t is a view"),
    ] {
        let name = server.fresh();
        server
            .mariadb(&format!(
                "CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci; \
                 USE {name}; CREATE {made}"
            ))
            .await;
        let dump = format!("SHOW CREATE TABLE {name}.t");
        let before = server.mariadb(&dump).await;
        let adapter = adapter(server, &name, true);
        let more = schema("a_new_one", 1, &[("x", INT)]);
        let wanted = schema("t", 1, &[("n", INT)]);
        let both = more.tables().chain(wanted.tables()).map(|table| (**table).clone());
        let error = adapter.prepare(&Schema::from_stored(both)).await.expect_err(&made);
        assert!(matches!(error, AdapterError::Mismatch(_)), "{made}: {error:?}");
        assert!(error.to_string().contains(said), "{made}: {error}");
        assert_eq!(server.mariadb(&dump).await, before, "{made}");
        let there = server.mariadb(&format!("SHOW TABLES IN {name} LIKE 'a_new_one'")).await;
        assert_eq!(there, "", "all of a schema or none of it");
    }
}

#[tokio::test]
async fn what_people_add_stays() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    adapter.write(&one_commit(1, vec![n("a", 1, 1), n("b", 1, 2)])).await.expect("write");
    server
        .mariadb(&format!(
            "USE {name}; CREATE ROLE {name}_reader; \
             ALTER TABLE t ADD COLUMN note varchar(9) NOT NULL DEFAULT 'new'; \
             UPDATE t SET note = 'seen'; ALTER TABLE t ADD COLUMN twice bigint AS (n * 2); \
             CREATE INDEX by_n ON t (n); CREATE VIEW big AS SELECT id FROM t WHERE n > 1; \
             GRANT SELECT ON t TO {name}_reader; CREATE TABLE theirs (x int)"
        ))
        .await;
    let more = [("n", INT), ("title", TEXT)];
    adapter.prepare(&schema("t", 2, &more)).await.expect("a column more");
    let title = |id, hlc| upsert("t", id, hlc, &[("title", Value::String("x".to_owned()))]);
    let changes = vec![title("a", 2), title("c", 2), n("c", 2, 7), delete("t", "b", 3)];
    adapter.write(&one_commit(2, changes)).await.expect("write");
    let wider = [("n", ColumnType::Double), ("title", TEXT)];
    adapter.prepare(&schema("t", 3, &wider)).await.expect("a wider type");
    let sql = format!("SELECT id, n, title, note, twice FROM {name}.t ORDER BY id");
    assert_eq!(server.mariadb(&sql).await, "a|1|x|seen|2\nc|7|x|new|14");
    assert_eq!(server.mariadb(&format!("SELECT id FROM {name}.big")).await, "c");
    let indexes = format!(
        "SELECT DISTINCT INDEX_NAME FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = '{name}' AND TABLE_NAME = 't' ORDER BY 1"
    );
    assert_eq!(server.mariadb(&indexes).await, "by_n\nPRIMARY");
    let grants = server.mariadb(&format!("SHOW GRANTS FOR {name}_reader")).await;
    assert!(grants.contains("GRANT SELECT ON"), "{grants}");
    // A row of theirs that is not ours stays, until one of ours has its key.
    server.mariadb(&format!("INSERT INTO {name}.t (id, note) VALUES ('z', 'mine')")).await;
    adapter.write(&one_commit(3, vec![n("y", 4, 1)])).await.expect("write");
    assert_eq!(server.mariadb(&format!("SELECT note FROM {name}.t WHERE id = 'z'")).await, "mine");
}

/// Values that the gateway does not have would pass for its own.
#[tokio::test]
async fn a_column_of_theirs_is_no_new_one_unless_it_is_empty() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    adapter.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    let theirs = "ALTER TABLE t ADD COLUMN m bigint; UPDATE t SET m = 7";
    server.mariadb(&format!("USE {name}; {theirs}")).await;
    let wanted = schema("t", 2, &[("n", INT), ("m", INT)]);
    let error = adapter.prepare(&wanted).await.expect_err("it is theirs");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
    server.mariadb(&format!("UPDATE {name}.t SET m = NULL")).await;
    adapter.prepare(&wanted).await.expect("it is empty");
}

#[tokio::test]
async fn an_index_that_stops_a_wider_type_is_told_before_anything_changes() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    adapter.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    server.mariadb(&format!("CREATE INDEX by_n ON {name}.t (n)")).await;
    let text = schema("t", 2, &[("n", TEXT)]);
    let error = adapter.prepare(&text).await.expect_err("an index");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
    assert!(error.to_string().contains("drop the index, prepare again"), "{error}");
    let sql = format!("SELECT id, n FROM {name}.t");
    assert_eq!(server.mariadb(&sql).await, "a|1");
    server.mariadb(&format!("DROP INDEX by_n ON {name}.t")).await;
    // A row of theirs is converted, since nobody else knows it.
    server.mariadb(&format!("INSERT INTO {name}.t VALUES ('z', 9)")).await;
    adapter.prepare(&text).await.expect("nothing in the way");
    assert_eq!(server.mariadb(&sql).await, "a|1\nz|9");
}

#[tokio::test]
async fn tables_that_fit_are_used() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    server
        .mariadb(&format!(
            "CREATE DATABASE {name}; \
             CREATE TABLE {name}.t (own int AUTO_INCREMENT PRIMARY KEY, \
             {KEY} NOT NULL UNIQUE, N bigint) CHARACTER SET utf8mb4"
        ))
        .await;
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT), ("m", INT)])).await.expect("it fits");
    adapter.write(&one_commit(1, vec![n("a", 1, 1), n("b", 1, 2)])).await.expect("write");
    adapter.write(&one_commit(2, vec![n("a", 2, 3), delete("t", "b", 2)])).await.expect("write");
    assert_eq!(server.mariadb(&format!("SELECT own, id, n FROM {name}.t")).await, "1|a|3");
}

#[tokio::test]
async fn what_is_put_in_the_way_later_says_what_to_do() {
    let Some(server) = MariaDb::shared().await else { return };
    for (harm, mend, said) in [
        (
            "ALTER TABLE t ADD CONSTRAINT small CHECK (n < 5)",
            "ALTER TABLE t DROP CONSTRAINT small",
            "small",
        ),
        (
            "ALTER TABLE t ADD COLUMN x int DEFAULT 1; CREATE UNIQUE INDEX one ON t (x)",
            "DROP INDEX one ON t",
            "lift the constraint",
        ),
        ("ALTER TABLE t RENAME TO u", "ALTER TABLE u RENAME TO t", "doesn't exist"),
        (
            "ALTER TABLE t RENAME COLUMN n TO m",
            "ALTER TABLE t RENAME COLUMN m TO n",
            "Unknown column",
        ),
        (
            "ALTER TABLE t MODIFY n bigint NOT NULL",
            "ALTER TABLE t MODIFY n bigint",
            "cannot be null",
        ),
        ("ALTER TABLE t ADD x int NOT NULL", "ALTER TABLE t DROP x", "default value"),
        (
            "CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not today'",
            "DROP TRIGGER no",
            "a trigger refuses a row",
        ),
    ] {
        let name = server.fresh();
        let adapter = adapter(server, &name, true);
        adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
        adapter.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
        server.mariadb(&format!("USE {name}; {harm}")).await;
        let batch = one_commit(2, vec![n("b", 2, 7), upsert("t", "c", 2, &[])]);
        let error = adapter.write(&batch).await.expect_err(harm);
        assert!(matches!(error, AdapterError::Mismatch(_)), "{harm}: {error:?}");
        assert!(error.to_string().contains(said), "{harm}: {error}");
        assert_eq!(adapter.watermark(LOG).await, Ok(Position(1)), "{harm}");
        let shown = server.mariadb(&format!("SELECT COUNT(*) FROM {name}._lakesync_rows")).await;
        assert_eq!(shown, "1", "{harm}");
        server.mariadb(&format!("USE {name}; {mend}")).await;
        adapter.write(&batch).await.expect(mend);
    }
}

#[tokio::test]
async fn rights_that_are_missing_are_named() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let owner = adapter(server, &name, true);
    owner.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    server.mariadb(&format!("CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'poor'")).await;
    let options =
        lakesync_adapters::mysql::Options::new(format!("mysql://{name}:poor@{}", server.address()));
    let server_of_poor = lakesync_adapters::mysql::Server::new(options).expect("a url");
    let poor = server_of_poor.adapter(&name, true).expect("a name");
    let error = poor.watermark(LOG).await.expect_err("no right");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
    assert!(error.to_string().contains("grant it"), "{error}");
    // Who may do all but create is enough, once somebody else has prepared.
    let rights = "SELECT, INSERT, UPDATE, DELETE";
    server.mariadb(&format!("GRANT {rights} ON {name}.* TO {name}@'127.0.0.1'")).await;
    poor.prepare(&schema("t", 1, &[("n", INT)])).await.expect("nothing to create");
    poor.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    let error = poor.prepare(&schema("u", 1, &[("n", INT)])).await.expect_err("no right");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
}

#[tokio::test]
async fn tables_of_another_version_are_refused_and_left_alone() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let before = adapter(server, &name, true);
    before.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    before.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    server.mariadb(&format!("UPDATE {name}._lakesync_meta SET format = 1")).await;
    let after = adapter(server, &name, true);
    let wider = schema("t", 2, &[("n", INT), ("more", INT)]);
    let batch = one_commit(2, vec![n("b", 2, 2)]);
    for error in [
        after.prepare(&wider).await.expect_err("another form"),
        after.write(&batch).await.expect_err("another form"),
        before.write(&batch).await.expect_err("another form by now"),
        after.watermark(LOG).await.expect_err("another form"),
        after.rows(&id("t"), None, 9).await.expect_err("another form"),
        after.find(&id("t"), &[id("a")]).await.expect_err("another form"),
        after.history(None, 9).await.expect_err("another form"),
        after.schema().await.expect_err("another form"),
        after.logs().await.expect_err("another form"),
    ] {
        assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
        assert!(error.to_string().contains("format 1, and this one knows"), "{error}");
    }
    assert_eq!(server.mariadb(&format!("SELECT * FROM {name}.t")).await, "a|1");
}

#[tokio::test]
async fn servers_that_take_short_statements_are_refused() {
    let Some(server) = MariaDb::start().await else { return };
    server.mariadb("SET GLOBAL max_allowed_packet = 4194304").await;
    let adapter = adapter(&server, "main", true);
    let error = adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect_err("too short");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
    assert!(error.to_string().contains("max_allowed_packet is 4194304 bytes"), "{error}");
}

/// Many large rows and some short ones behind them, touched by small changes: their states are read
/// and written in parts.
#[tokio::test]
async fn large_rows_are_merged_in_parts() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, false);
    adapter.prepare(&schema("t", 1, &[("n", INT), ("text", TEXT)])).await.expect("prepare");
    let ids: Vec<_> = (0..60).map(|at| format!("r{at:02}")).collect();
    for (position, some) in (1..).zip(ids.chunks(20)) {
        let text = |id: &String| match id.as_str() < "r45" {
            true => "x".repeat(1_800_000),
            false => "x".to_owned(),
        };
        let rows = some.iter().map(|id| upsert("t", id, 1, &[("text", Value::String(text(id)))]));
        adapter.write(&one_commit(position, rows.collect())).await.expect("write");
    }
    let small = ids.iter().map(|id| n(id, 2, 7));
    adapter.write(&one_commit(4, small.collect())).await.expect("write");
    let sql = format!("SELECT COUNT(*), SUM(n), SUM(LENGTH(text)) FROM {name}.t");
    assert_eq!(server.mariadb(&sql).await, "60|420|81000015");
    let wanted: Vec<_> = ids.iter().map(|row| id(row)).collect();
    let found = adapter.find(&id("t"), &wanted).await.expect("find");
    assert_eq!(found.len(), 60);
}

/// Batches of new rows alone are followed by others, whatever those hold.
#[tokio::test]
async fn filling_ends_where_rows_are_known_or_in_the_way() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    let fill = |from: i64| (from..from + 600).map(|at| n(&format!("r{at}"), 1, at));
    let gone = delete("t", "gone", 9);
    server.mariadb(&format!("INSERT INTO {name}.t VALUES ('gone', 7)")).await;
    adapter.write(&one_commit(1, fill(0).collect())).await.expect("new rows");
    adapter.write(&one_commit(2, fill(600).chain([gone]).collect())).await.expect("new rows");
    let known = [n("r0", 2, -1), delete("t", "r1", 2), n("gone", 5, 5)];
    adapter.write(&one_commit(3, fill(1_200).chain(known).collect())).await.expect("known rows");
    adapter.write(&one_commit(4, fill(1_800).collect())).await.expect("new rows");
    server.mariadb(&format!("INSERT INTO {name}.t VALUES ('r2400', 7)")).await;
    adapter.write(&one_commit(5, fill(2_400).collect())).await.expect("a row of people's");
    let sql = format!("SELECT COUNT(*), SUM(n), MIN(n) FROM {name}.t");
    let sum = (0..3_000).sum::<i64>() - 2;
    assert_eq!(server.mariadb(&sql).await, format!("2999|{sum}|-1"));
    assert_eq!(adapter.history(None, 9_999).await.expect("history").len(), 3_004);
    assert_eq!(adapter.rows(&id("t"), None, 9_999).await.expect("rows").len(), 3_001);
}

#[tokio::test]
async fn while_a_backend_is_filled_no_row_is_looked_up() {
    let Some(server) = MariaDb::start().await else { return };
    let adapter = adapter(&server, "main", true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    let mut selects = Vec::new();
    for position in 1..=3 {
        let fill = (0..600).map(|at| n(&format!("r{position}-{at}"), 1, at));
        adapter.write(&one_commit(position, fill.collect())).await.expect("new rows");
        let count = server.mariadb("SHOW GLOBAL STATUS LIKE 'Com_select'").await;
        let count = count.split('|').next_back().and_then(|count| count.parse::<u64>().ok());
        selects.push(count.expect("a count"));
    }
    assert_eq!(selects[2] - selects[1], 2, "the lock and the watermark: {selects:?}");
}

/// A unique index of theirs is no row that stands already: no way of writing gets past it, and none
/// writes over the row that it finds.
#[tokio::test]
async fn a_unique_index_of_theirs_stops_new_and_known_rows() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    let fill = |from: i64| (from..from + 600).map(|at| n(&format!("r{at}"), 1, at));
    adapter.write(&one_commit(1, fill(0).collect())).await.expect("new rows");
    server.mariadb(&format!("CREATE UNIQUE INDEX one ON {name}.t (n)")).await;
    for more in [n("new", 1, 5), n("r0", 2, 5)] {
        let batch = one_commit(2, fill(600).chain([more]).collect());
        let error = adapter.write(&batch).await.expect_err("two rows of one value");
        assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
        assert!(error.to_string().contains("lift the constraint"), "{error}");
        assert!(error.to_string().contains("unique index"), "{error}");
        assert_eq!(adapter.watermark(LOG).await, Ok(Position(1)));
        let sql = format!("SELECT COUNT(*), SUM(n) FROM {name}.t");
        assert_eq!(server.mariadb(&sql).await, "600|179700", "nothing of it stays");
    }
    adapter.write(&one_commit(2, fill(600).collect())).await.expect("values of their own");
    server.mariadb(&format!("DROP INDEX one ON {name}.t")).await;
    adapter.write(&one_commit(3, vec![n("r0", 3, 5)])).await.expect("nothing in the way");
    assert_eq!(server.mariadb(&format!("SELECT COUNT(*) FROM {name}.t WHERE n = 5")).await, "2");
}

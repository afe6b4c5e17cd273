//! What people have and add beside synced tables: it stays, or it is told what is in the way.

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::name::Position;
use lakesync::schema::ColumnType;
use lakesync::testing::id;
use lakesync::value::Value;
use lakesync_adapters::testing::{NULL, Postgres as Testing};

use super::adapter;
use crate::fixtures::{LOG, delete, one_commit, schema, table, upsert};

const INT: ColumnType = ColumnType::Int64;
const TEXT: ColumnType = ColumnType::String;

fn n(row_id: &str, hlc: u64, n: i64) -> lakesync::delta::Delta {
    upsert("t", row_id, hlc, &[("n", Value::Int64(n))])
}

#[tokio::test]
async fn what_does_not_fit_is_named_and_left_alone() {
    let Some(server) = Testing::shared().await else { return };
    for (made, said) in [
        ("TABLE t (id text PRIMARY KEY, n text)", "table t has the column n as text, where bigint"),
        ("TABLE t (id text PRIMARY KEY, n int)", "the column n as integer, where bigint is wanted"),
        ("TABLE t (id uuid PRIMARY KEY, n bigint)", "key column id as uuid, where text is wanted"),
        ("TABLE t (id text, n bigint)", "no unique index on its key column id alone"),
        ("TABLE t (id text, n bigint, UNIQUE (id, n))", "no unique index on its key column id"),
        ("TABLE t (key text PRIMARY KEY, n bigint)", "exists without its key column id"),
        ("TABLE t (id text PRIMARY KEY, n bigint NOT NULL)", "the column n as NOT NULL"),
        ("TABLE t (id text PRIMARY KEY, n bigint, x int NOT NULL)", "a column x that is NOT NULL"),
        (
            "TABLE t (id text PRIMARY KEY, n bigint GENERATED ALWAYS AS (7) STORED)",
            "computes its column n",
        ),
        ("VIEW t AS SELECT 'a'::text AS id, 7::bigint AS n", "table t is a view"),
    ] {
        let name = server.fresh();
        server
            .psql(&format!("CREATE SCHEMA {name}; SET search_path = {name}; CREATE {made}"))
            .await;
        let dump = format!(
            "SELECT attname, atttypid::regtype, attnotnull FROM pg_attribute \
             WHERE attrelid = '{name}.t'::regclass AND attnum > 0 ORDER BY attnum"
        );
        let before = server.psql(&dump).await;
        let adapter = adapter(server, &name, true);
        let more = schema("a_new_one", 1, &[("x", INT)]);
        let wanted = schema("t", 1, &[("n", INT)]);
        let both = more.tables().chain(wanted.tables()).map(|table| (**table).clone());
        let refused = adapter.prepare(&lakesync::schema::Schema::from_stored(both)).await;
        let error = refused.expect_err(made);
        assert!(matches!(error, AdapterError::Mismatch(_)), "{made}: {error:?}");
        assert!(error.to_string().contains(said), "{made}: {error}");
        assert_eq!(server.psql(&dump).await, before, "{made}");
        let there = server.psql(&format!("SELECT to_regclass('{name}.a_new_one')")).await;
        assert_eq!(there, NULL, "all of a schema or none of it");
    }
}

#[tokio::test]
async fn what_people_add_stays() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    adapter.write(&one_commit(1, vec![n("a", 1, 1), n("b", 1, 2)])).await.expect("write");
    server
        .psql(&format!(
            "SET search_path = {name}; CREATE ROLE {name}_reader; \
             ALTER TABLE t ADD COLUMN note text DEFAULT 'new'; UPDATE t SET note = 'seen'; \
             ALTER TABLE t ADD COLUMN twice bigint GENERATED ALWAYS AS (n * 2) STORED; \
             CREATE INDEX by_n ON t (n); CREATE VIEW big AS SELECT id FROM t WHERE n > 1; \
             GRANT SELECT ON t TO {name}_reader; CREATE TABLE theirs (x int)"
        ))
        .await;
    let more = [("n", INT), ("title", TEXT)];
    adapter.prepare(&schema("t", 2, &more)).await.expect("a column more");
    let title = |id, hlc| upsert("t", id, hlc, &[("title", Value::String("x".to_owned()))]);
    let second = vec![title("a", 2), title("c", 2), delete("t", "b", 2)];
    adapter.write(&one_commit(2, second)).await.expect("write");
    let sql = format!("SELECT id, n, note, twice, title FROM {name}.t ORDER BY id");
    assert_eq!(server.psql(&sql).await, format!("a|1|seen|2|x\nc|{NULL}|new|{NULL}|x"));
    let sql = format!(
        "SELECT (SELECT count(*) FROM {name}.big), to_regclass('{name}.by_n') IS NOT NULL, \
         has_table_privilege('{name}_reader', '{name}.t', 'SELECT'), \
         to_regclass('{name}.theirs') IS NOT NULL"
    );
    assert_eq!(server.psql(&sql).await, "0|t|t|t");
}

#[tokio::test]
async fn a_view_in_the_way_of_a_wider_type_is_named() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    adapter.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    let view = format!("CREATE VIEW {name}.big AS SELECT n FROM {name}.t");
    server.psql(&view).await;
    let wide = schema("t", 2, &[("n", TEXT)]);
    let error = adapter.prepare(&wide).await.expect_err("a view depends on it");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
    for said in ["view", "big", "column \"n\"", "drop it"] {
        assert!(error.to_string().contains(said), "{error}");
    }
    adapter.write(&one_commit(2, vec![n("a", 2, 2)])).await.expect("nothing was altered");
    server.psql(&format!("DROP VIEW {name}.big")).await;
    adapter.prepare(&wide).await.expect("nothing in the way");
    server.psql(&view).await;
    assert_eq!(server.psql(&format!("SELECT n FROM {name}.big")).await, "2");
}

#[tokio::test]
async fn tables_and_rows_of_people_are_adopted() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    server
        .psql(&format!(
            "CREATE SCHEMA {name}; CREATE TABLE {name}.t (n bigint, id text NOT NULL UNIQUE); \
             INSERT INTO {name}.t VALUES (70, 'a'), (80, 'b'), (90, 'c')"
        ))
        .await;
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT), ("title", TEXT)])).await.expect("it fits");
    let first = vec![n("a", 1, 1), n("d", 1, 4), n("c", 1, 3), delete("t", "c", 2)];
    adapter.write(&one_commit(1, first)).await.expect("rows stand in the way of a copy");
    let shown = format!("SELECT id, n FROM {name}.t ORDER BY id");
    assert_eq!(server.psql(&shown).await, "a|1\nb|80\nd|4");
    let rows = adapter.rows(&id("t"), None, 9).await.expect("rows");
    assert_eq!(rows.len(), 3, "rows of people are none of ours");
    assert_eq!(adapter.watermark(LOG).await, Ok(Position(1)));
    assert_eq!(adapter.history(None, 9).await.expect("history").len(), 4);

    // What people change of ours lasts until the row changes again; the state is not theirs.
    server.psql(&format!("UPDATE {name}.t SET n = 0; DELETE FROM {name}.t WHERE id = 'd'")).await;
    assert_eq!(adapter.rows(&id("t"), None, 9).await, Ok(rows));
    let title = |id, hlc| upsert("t", id, hlc, &[("title", Value::Null)]);
    adapter.write(&one_commit(2, vec![title("a", 2), title("d", 2)])).await.expect("write");
    assert_eq!(server.psql(&shown).await, "a|1\nb|0\nd|4");
}

/// Values that the gateway does not have would pass for its own.
#[tokio::test]
async fn a_column_of_theirs_is_no_new_one_unless_it_is_empty() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    adapter.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    server.psql(&format!("ALTER TABLE {name}.t ADD COLUMN m bigint DEFAULT 7")).await;
    let wanted = schema("t", 2, &[("n", INT), ("m", INT)]);
    let error = adapter.prepare(&wanted).await.expect_err("it is theirs");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
    server.psql(&format!("UPDATE {name}.t SET m = NULL")).await;
    adapter.prepare(&wanted).await.expect("it is empty");
}

#[tokio::test]
async fn constraints_and_losses_are_told_with_what_to_do() {
    let Some(server) = Testing::shared().await else { return };
    for (harm, mend, said) in [
        ("ALTER TABLE t ADD CHECK (n < 5)", "ALTER TABLE t DROP CONSTRAINT t_n_check", "t_n_check"),
        ("CREATE UNIQUE INDEX one ON t ((1))", "DROP INDEX one", "\"one\""),
        ("ALTER TABLE t RENAME TO u", "ALTER TABLE u RENAME TO t", "does not exist"),
        ("ALTER TABLE t RENAME n TO m", "ALTER TABLE t RENAME m TO n", "does not exist"),
        ("ALTER TABLE t ALTER n SET NOT NULL", "ALTER TABLE t ALTER n DROP NOT NULL", "not-null"),
    ] {
        let name = server.fresh();
        let adapter = adapter(server, &name, true);
        adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
        adapter.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
        let path = format!("SET search_path = {name};");
        server.psql(&format!("{path} {harm}")).await;
        let batch = one_commit(2, vec![n("b", 2, 7), upsert("t", "c", 2, &[])]);
        let error = adapter.write(&batch).await.expect_err(harm);
        assert!(matches!(error, AdapterError::Mismatch(_)), "{harm}: {error:?}");
        assert!(error.to_string().contains(said), "{harm}: {error}");
        assert_eq!(adapter.watermark(LOG).await, Ok(Position(1)), "{harm}");
        server.psql(&format!("{path} {mend}")).await;
        adapter.write(&batch).await.expect(mend);
    }
}

#[tokio::test]
async fn rights_that_are_missing_are_named() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let owner = adapter(server, &name, true);
    owner.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    server.psql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'poor'")).await;
    let url = format!("postgres://{name}:poor@{}/postgres", server.address());
    let options = lakesync_adapters::postgres::Options::new(url);
    let server_of_poor = lakesync_adapters::postgres::Server::new(options).expect("a url");
    let poor = server_of_poor.adapter(&name, true).expect("a schema");
    let error = poor.watermark(LOG).await.expect_err("no right");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
    assert!(error.to_string().contains("grant it"), "{error}");
    // Who may do all but create is enough, once somebody else has prepared.
    server
        .psql(&format!(
            "GRANT USAGE ON SCHEMA {name} TO {name}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {name}"
        ))
        .await;
    poor.prepare(&schema("t", 1, &[("n", INT)])).await.expect("nothing to create");
    poor.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    let error = poor.prepare(&schema("u", 1, &[("n", INT)])).await.expect_err("no right");
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
}

#[tokio::test]
async fn a_schema_that_was_dropped_is_made_anew() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let ours = adapter(server, &name, true);
    ours.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    ours.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    server.psql(&format!("DROP SCHEMA {name} CASCADE")).await;
    assert_eq!(ours.watermark(LOG).await, Ok(Position::START), "all is to be written again");
    let error = ours.write(&one_commit(2, vec![n("a", 2, 2)])).await.expect_err("all is gone");
    let (watermark, first) = (Position::START, Position(2));
    assert_eq!(error, AdapterError::Gap { watermark, first }, "its tables are there again, empty");

    // Another server is there first, and prepares less; what was known before is known no more.
    let theirs = adapter(server, &name, true);
    theirs.prepare(&schema("u", 1, &[("n", INT)])).await.expect("prepare");
    let error = ours.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect_err("no such table");
    assert_eq!(error, AdapterError::UnknownTable(id("t")));
    ours.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    ours.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    assert_eq!(server.psql(&format!("SELECT id, n FROM {name}.t")).await, "a|1");
}

#[tokio::test]
async fn tables_of_another_version_are_refused_and_left_alone() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let before = adapter(server, &name, true);
    before.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    before.write(&one_commit(1, vec![n("a", 1, 1)])).await.expect("write");
    server.psql(&format!("UPDATE {name}._lakesync_meta SET format = 1")).await;
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
    assert_eq!(server.psql(&format!("SELECT * FROM {name}.t")).await, "a|1");
}

#[tokio::test]
async fn a_tables_index_is_in_no_tables_way() {
    let Some(server) = Testing::shared().await else { return };
    let adapter = adapter(server, &server.fresh(), true);
    let tables = ["t", "t_pkey", "t_id_key", "_t"].map(|name| table(name, 1, &[("n", INT)]));
    adapter.prepare(&lakesync::schema::Schema::from_stored(tables)).await.expect("prepare");
    let deltas = vec![n("a", 1, 1), upsert("t_pkey", "a", 1, &[])];
    adapter.write(&one_commit(1, deltas)).await.expect("write");
}

/// Many large rows, touched by small changes: their states are read and written in parts.
#[tokio::test]
async fn large_rows_are_merged_in_parts() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, false);
    let columns = [("n", INT), ("text", TEXT)];
    adapter.prepare(&schema("t", 1, &columns)).await.expect("prepare");
    let text = Value::String("x".repeat(1_800_000));
    let ids: Vec<_> = (0..45).map(|at| format!("r{at:02}")).collect();
    let large = ids.iter().map(|id| upsert("t", id, 1, &[("text", text.clone())]));
    adapter.write(&one_commit(1, large.collect())).await.expect("write");
    let small = ids.iter().map(|id| n(id, 2, 7));
    adapter.write(&one_commit(2, small.collect())).await.expect("write");
    let sql = format!("SELECT count(*), sum(n), sum(length(text)) FROM {name}.t");
    assert_eq!(server.psql(&sql).await, "45|315|81000000");
    let wanted: Vec<_> = ids.iter().map(|row| id(row)).collect();
    let found = adapter.find(&id("t"), &wanted).await.expect("find");
    assert_eq!(found.len(), 45);
    adapter.join(&id("t"), &found).await.expect("join");
    adapter.forget(&id("t"), &found).await.expect("forget");
    assert_eq!(server.psql(&format!("SELECT count(*) FROM {name}.t")).await, "0");
}

/// Batches of new rows alone are followed by others, whatever those hold.
#[tokio::test]
async fn filling_ends_where_rows_are_known_or_in_the_way() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    let fill = |from: i64| (from..from + 600).map(|at| n(&format!("r{at}"), 1, at));
    let gone = delete("t", "gone", 9);
    server.psql(&format!("INSERT INTO {name}.t VALUES ('gone', 7)")).await;
    adapter.write(&one_commit(1, fill(0).collect())).await.expect("new rows");
    adapter.write(&one_commit(2, fill(600).chain([gone]).collect())).await.expect("new rows");
    let known = [n("r0", 2, -1), delete("t", "r1", 2), n("gone", 5, 5)];
    adapter.write(&one_commit(3, fill(1_200).chain(known).collect())).await.expect("known rows");
    adapter.write(&one_commit(4, fill(1_800).collect())).await.expect("new rows");
    server.psql(&format!("INSERT INTO {name}.t VALUES ('r2400', 7)")).await;
    adapter.write(&one_commit(5, fill(2_400).collect())).await.expect("a row of people's");
    let sql = format!("SELECT count(*), sum(n), min(n) FROM {name}.t");
    let sum = (0..3_000).sum::<i64>() - 2;
    assert_eq!(server.psql(&sql).await, format!("2999|{sum}|-1"));
    assert_eq!(adapter.history(None, 9_999).await.expect("history").len(), 3_004);
    assert_eq!(adapter.rows(&id("t"), None, 9_999).await.expect("rows").len(), 3_001);
}

/// The bytes of one number pass for another one in a column of another type.
#[tokio::test]
async fn a_column_of_another_type_by_now_is_never_given_false_values() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    let rows = |from: i64, to: i64| (from..to).map(|at| n(&format!("r{at}"), 1, at)).collect();
    server.psql(&format!("ALTER TABLE {name}.t ALTER n TYPE double precision")).await;
    adapter.write(&one_commit(1, rows(0, 9))).await.expect("few are converted");
    let many = one_commit(2, rows(9, 2_000));
    let error = adapter.write(&many).await.expect_err("another type");
    let said = "table t has the column n as double precision, where bigint is wanted";
    assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
    assert!(error.to_string().contains(said), "{error}");
    let sum = format!("SELECT count(*), sum(n) FROM {name}.t");
    assert_eq!(server.psql(&sum).await, "9|36", "nothing of it stays");
    server.psql(&format!("ALTER TABLE {name}.t ALTER n TYPE bigint")).await;
    adapter.write(&many).await.expect("it was put back");
    assert_eq!(server.psql(&sum).await, "2000|1999000");
}

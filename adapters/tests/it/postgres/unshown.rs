//! What a database can't show, in a log that is older than it: the rest arrives, and it is told.

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::name::Position;
use lakesync::schema::{ColumnType, Schema};
use lakesync::testing::id;
use lakesync::value::Value;
use lakesync_adapters::postgres::Server;
use lakesync_adapters::testing::{NULL, PASSWORD, Postgres as Testing, USER};

use super::{adapter, options};
use crate::fixtures::{LOG, delete, one_commit, schema, table, upsert};

const INT: ColumnType = ColumnType::Int64;
const TEXT: ColumnType = ColumnType::String;

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[tokio::test]
async fn columns_of_reserved_names_have_another() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    let mut wanted = table("t", 1, &[("xmin", INT), ("CTID", TEXT), ("plain", INT)]);
    wanted.key = id("tableoid");
    adapter.prepare(&Schema::from_stored([wanted.clone()])).await.expect("prepare");
    let change = |hlc, n| upsert("t", "a", hlc, &[("xmin", Value::Int64(n)), ("CTID", text("x"))]);
    adapter.write(&one_commit(1, vec![change(1, 1)])).await.expect("as a new row");
    adapter.write(&one_commit(2, vec![change(2, 2)])).await.expect("as a known row");
    let sql = format!(
        "SELECT _lakesync_tableoid, _lakesync_xmin, \"_lakesync_CTID\", plain FROM {name}.t"
    );
    assert_eq!(server.psql(&sql).await, format!("a|2|x|{NULL}"));
    wanted.version = 2;
    wanted.columns[0].kind = TEXT;
    adapter.prepare(&Schema::from_stored([wanted])).await.expect("it widens");
    adapter
        .write(&one_commit(3, vec![upsert("t", "b", 3, &[("xmin", text("y"))])]))
        .await
        .expect("write");
    adapter.write(&one_commit(4, vec![delete("t", "a", 4)])).await.expect("deleted by its key");
    assert_eq!(server.psql(&sql).await, format!("b|y|{NULL}|{NULL}"));
    let troubles = adapter.troubles();
    assert_eq!(troubles.len(), 2, "{troubles:?}");
    assert!(
        troubles[0].contains("column xmin stands under the name _lakesync_xmin"),
        "{troubles:?}"
    );
}

#[tokio::test]
async fn every_word_of_sql_is_a_name() {
    let Some(server) = Testing::shared().await else { return };
    let words = "SELECT word FROM pg_get_keywords() UNION SELECT DISTINCT attname::text \
                 FROM pg_attribute WHERE attnum < 0 ORDER BY 1";
    let words = server.psql(words).await;
    let words: Vec<&str> = words.lines().collect();
    assert!(400 < words.len(), "{words:?}");
    let adapter = adapter(server, &server.fresh(), true);
    let columns: Vec<Vec<_>> =
        words.chunks(200).map(|part| part.iter().map(|word| (*word, INT)).collect()).collect();
    let tables = words.iter().enumerate();
    // Each is a table, and some of them have all words as columns.
    let tables =
        tables.map(|(at, word)| table(word, 1, columns.get(at).map_or(&[], Vec::as_slice)));
    adapter.prepare(&Schema::from_stored(tables)).await.expect("prepare");
    let rows = words.iter().map(|word| upsert(word, "a", 1, &[])).collect();
    adapter.write(&one_commit(1, rows)).await.expect("write");
    for (word, columns) in words.iter().zip(&columns) {
        let cells: Vec<_> = columns.iter().map(|(name, _)| (*name, Value::Int64(1))).collect();
        let (position, adapter) =
            (adapter.watermark(LOG).await.expect("watermark").0 + 1, &adapter);
        let batch = one_commit(position, vec![upsert(word, "b", 2, &cells)]);
        adapter.write(&batch).await.expect("all columns");
    }
}

#[tokio::test]
async fn columns_that_do_not_fit_stop_nothing() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    let names: Vec<_> = (0..303).map(|at| format!("c{at}")).collect();
    let columns: Vec<_> = names.iter().map(|name| (name.as_str(), INT)).collect();
    let cells: Vec<_> = names.iter().map(|name| (name.as_str(), Value::Int64(7))).collect();
    adapter.prepare(&schema("t", 1, &columns[..302])).await.expect("prepare");
    adapter.write(&one_commit(1, vec![upsert("t", "a", 1, &cells[..302])])).await.expect("write");
    adapter.prepare(&schema("t", 2, &columns)).await.expect("prepare");
    adapter.write(&one_commit(2, vec![upsert("t", "a", 2, &cells)])).await.expect("write");
    let count = format!(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = '{name}' AND table_name = 't'"
    );
    assert_eq!(server.psql(&count).await, "301");
    let rows = adapter.rows(&id("t"), None, 9).await.expect("rows");
    assert_eq!(rows[0].1.cells().len(), 303, "the exact state has them");
    let troubles = adapter.troubles();
    assert!(troubles[0].contains("its last 3 columns are not shown"), "{troubles:?}");
}

#[tokio::test]
async fn a_cell_that_is_refused_is_null_and_counted() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("a", TEXT), ("b", TEXT)])).await.expect("prepare");
    server
        .psql(&format!(
            "SET search_path = {name}; ALTER TABLE t ALTER a TYPE varchar(6); CREATE INDEX ON t (b)"
        ))
        .await;
    // More than an index takes, however it is compressed.
    let mut x: u32 = 7;
    let noise: String = std::iter::repeat_with(|| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'0' + (x >> 24) as u8 % 75)
    })
    .take(9_000)
    .collect();
    let rows = vec![
        upsert("t", "fits", 1, &[("a", text("short")), ("b", text("x"))]),
        upsert("t", "key", 1, &[("a", text("too-long-canary")), ("b", text("x"))]),
        upsert("t", "noise", 1, &[("a", text("ok")), ("b", text(&noise))]),
        upsert("t", "other", 1, &[("a", text("ok")), ("b", text("y"))]),
    ];
    adapter.write(&one_commit(1, rows)).await.expect("no commit is poison");
    let sql = format!("SELECT id, a, left(b, 3) FROM {name}.t ORDER BY id");
    let expected = format!("fits|short|x\nkey|{NULL}|x\nnoise|ok|{NULL}\nother|ok|y");
    assert_eq!(server.psql(&sql).await, expected);
    let held = adapter.find(&id("t"), &[id("key")]).await.expect("found");
    let cell = held[0].1.cell(&id("a")).expect("a cell").value.clone();
    assert_eq!(cell, text("too-long-canary"), "the exact state has it");
    assert_eq!(adapter.watermark(LOG).await, Ok(Position(1)));
    let troubles = adapter.troubles().join("\n");
    for told in
        ["table t, column a: 1 cells show NULL", "(22001)", "table t, column b: 1", "(54000)"]
    {
        assert!(troubles.contains(told), "{troubles}");
    }
    assert!(!troubles.contains("canary"), "{troubles}");

    // Whatever way rows come.
    let again = upsert("t", "fits", 2, &[("a", text("longer-now"))]);
    adapter.write(&one_commit(2, vec![again.clone()])).await.expect("as a known row");
    let joined = lakesync::testing::fold(&[upsert("t", "new", 3, &[("a", text("too-long-too"))])]);
    adapter.join(&id("t"), &[(id("new"), joined)]).await.expect("a fill goes on as well");
    let expected =
        format!("fits|{NULL}|x\nkey|{NULL}|x\nnew|{NULL}|{NULL}\nnoise|ok|{NULL}\nother|ok|y");
    assert_eq!(server.psql(&sql).await, expected);
}

#[tokio::test]
async fn databases_that_can_t_hold_all_text_are_refused() {
    let Some(server) = Testing::shared().await else { return };
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = server.fresh();
        let made =
            format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
        server.psql(&made).await;
        let address = server.address();
        let url = format!("postgres://{USER}:{PASSWORD}@{address}/{name}");
        let options = lakesync_adapters::postgres::Options { url, ..options(address.port()) };
        let other = Server::new(options).expect("a url").adapter("main", true).expect("a schema");
        for error in [
            other.watermark(LOG).await.expect_err("the first that is asked"),
            other.prepare(&schema("t", 1, &[("a", TEXT)])).await.expect_err("prepared"),
        ] {
            assert!(matches!(error, AdapterError::Mismatch(_)), "{error:?}");
            let told = error.to_string();
            assert!(told.contains(encoding) && told.contains("ENCODING 'UTF8'"), "{told}");
        }
    }
}

/// Errors go to logs and statistics, and values of rows do not.
#[tokio::test]
async fn no_error_tells_a_value() {
    let Some(server) = Testing::shared().await else { return };
    let raise = |how: &str| {
        format!(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {how}; RETURN NEW; END $$; \
             CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
        )
    };
    for (harm, told) in [
        (raise("RAISE EXCEPTION 'got %', NEW.a"), "a trigger refuses a row, table t (P0001)"),
        (raise("RAISE EXCEPTION 'got %', NEW.a USING ERRCODE = '42501'"), "42501"),
        (raise("RAISE EXCEPTION 'got %', NEW.a USING ERRCODE = '08006'"), "08006"),
        (raise("PERFORM NEW.a::uuid"), ""),
        ("ALTER TABLE t ADD CHECK (a <> 'secret-canary')".to_owned(), "t_a_check"),
        ("CREATE UNIQUE INDEX one ON t (a)".to_owned(), "\"one\""),
        ("ALTER TABLE t ALTER b SET NOT NULL".to_owned(), "\"b\""),
    ] {
        let name = server.fresh();
        let adapter = adapter(server, &name, true);
        adapter.prepare(&schema("t", 1, &[("a", TEXT), ("b", TEXT)])).await.expect("prepare");
        server.psql(&format!("SET search_path = {name}; {harm}")).await;
        let row = |row_id| upsert("t", row_id, 1, &[("a", text("secret-canary"))]);
        let written = adapter.write(&one_commit(1, vec![row("canary-1"), row("canary-2")])).await;
        // A value that a trigger does not take is one that does not fit.
        let said = written.err().map(|error| error.to_string()).unwrap_or_default();
        let all = format!("{said}\n{}", adapter.troubles().join("\n"));
        assert!(all.contains(told) && 10 < all.len(), "{harm}: {all}");
        assert!(!all.contains("canary"), "{harm}: {all}");
    }
}

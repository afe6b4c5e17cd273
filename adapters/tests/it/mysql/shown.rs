//! What people see, as the mariadb client tells it: natural types, live rows only.

use lakesync::adapter::Adapter;
use lakesync::schema::{ColumnType, Schema};
use lakesync::value::Value;
use lakesync_adapters::testing::{MariaDb, NULL};

use super::adapter;
use crate::fixtures::{delete, one_commit, table, upsert};

const CENTS: ColumnType = ColumnType::Decimal { precision: 30, scale: 2 };
const FINE: ColumnType = ColumnType::Decimal { precision: 38, scale: 31 };

/// Types, values, and what the client prints of them.
fn cases() -> Vec<(ColumnType, Value, String)> {
    use ColumnType::{
        Any, Bool, Bytes, Date, Double, Int64, Json, String as Text, Timestamp, Uuid,
    };
    let text = |text: &str| Value::String(text.to_owned());
    let json = |text: &str| Value::Json(text.to_owned());
    let decimal = |text: &str| Value::Decimal(text.to_owned());
    let nested = |levels: usize| format!("{}7{}", "[".repeat(levels), "]".repeat(levels));
    let same = |kind, text: &str| (kind, Value::String(text.to_owned()), text.to_owned());
    let mut cases = vec![
        same(Text, "tab\there \\N \\. 'q' \"é\"🦀"),
        same(Text, "NULL"),
        same(Text, ""),
        same(Text, "trailing  "),
        (Json, json(&nested(31)), nested(31)),
        (Json, json(&nested(32)), NULL.to_owned()),
    ];
    let more = [
        (Bool, Value::Bool(true), "1"),
        (Bool, Value::Bool(false), "0"),
        (Int64, Value::Int64(i64::MIN), "-9223372036854775808"),
        (Double, Value::Double(5e-324), "5e-324"),
        (Double, Value::Double(-f64::MAX), "-1.7976931348623157e308"),
        (Double, Value::Double(f64::NAN), NULL),
        (Double, Value::Double(f64::NEG_INFINITY), NULL),
        (Double, Value::Int64(i64::MAX), "9.223372036854776e18"),
        (Any, Value::Bytes(b"\0\xff"[..].into()), "00ff"),
        (Any, Value::Double(f64::NAN), "NaN"),
        (Text, Value::Date(-719_163), "0001-12-31 BC"),
        (Text, Value::Timestamp(-1), "1969-12-31T23:59:59.999999Z"),
        (Bytes, Value::Bytes(b"bytes"[..].into()), "bytes"),
        (Bytes, Value::Bytes(b""[..].into()), ""),
        (
            Json,
            json("{\"b\":[1,2.50],\"a\":\"\\u00e9\\n\"}"),
            "{\"b\":[1,2.50],\"a\":\"\\u00e9\\n\"}",
        ),
        (Json, json("null"), "null"),
        (Json, json("[\"\\u0000\"]"), "[\"\\u0000\"]"),
        (Json, json("1e400"), NULL),
        (Json, Value::Double(f64::INFINITY), "\"Infinity\""),
        (Json, decimal("-007.50"), "-7.50"),
        (Json, text("\\N\"\t"), "\"\\\\N\\\"\\t\""),
        (CENTS, decimal("-12.3"), "-12.30"),
        (CENTS, decimal("0012.30"), "12.30"),
        (CENTS, Value::Int64(i64::MIN), "-9223372036854775808.00"),
        (FINE, decimal("-0.0000000000000000000000000000001"), "-0.0000000000000000000000000000001"),
        (Timestamp, Value::Timestamp(1_700_000_000_123_456), "2023-11-14 22:13:20.123456"),
        (Timestamp, Value::Timestamp(253_402_300_799_999_999), "9999-12-31 23:59:59.999999"),
        (Timestamp, Value::Timestamp(253_402_300_800_000_000), NULL),
        (Timestamp, Value::Timestamp(-62_135_596_800_000_000), "0001-01-01 00:00:00.000000"),
        (Timestamp, Value::Timestamp(-62_135_596_800_000_001), NULL),
        (Timestamp, Value::Date(-1), "1969-12-31 00:00:00.000000"),
        (Timestamp, Value::Date(i32::MAX), NULL),
        (Date, Value::Date(2_932_896), "9999-12-31"),
        (Date, Value::Date(2_932_897), NULL),
        (Date, Value::Date(-719_162), "0001-01-01"),
        (Date, Value::Date(-719_163), NULL),
        (Uuid, Value::Uuid([0xab; 16]), "abababab-abab-abab-abab-abababababab"),
        (Uuid, Value::Null, NULL),
    ];
    cases.extend(more.map(|(kind, value, shown)| (kind, value, shown.to_owned())));
    cases
}

/// What the client prints of a column, a line per row.
async fn printed(server: &MariaDb, database: &str, column: &str) -> Vec<String> {
    let sql =
        format!("SET time_zone = '+00:00'; SELECT '', {column} FROM {database}.t ORDER BY id");
    server.mariadb(&sql).await.lines().map(|line| line[1..].to_owned()).collect()
}

#[tokio::test]
async fn values_have_natural_types_whichever_way_they_came() {
    let Some(server) = MariaDb::shared().await else { return };
    let database = server.fresh();
    let adapter = adapter(server, &database, true);
    let cases = cases();
    let names: Vec<_> = (0..cases.len()).map(|at| format!("c{at}")).collect();
    let columns: Vec<_> =
        names.iter().map(String::as_str).zip(cases.iter().map(|(kind, ..)| *kind)).collect();
    adapter.prepare(&Schema::from_stored([table("t", 1, &columns)])).await.expect("prepare");
    let cells = |name| {
        let values = cases.iter().map(|(_, value, _)| value.clone());
        let cells: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
        upsert("t", name, 2, &cells)
    };
    let empty = |name, hlc| upsert("t", name, hlc, &[]);
    // One is new, one was there, and one comes back.
    let first = vec![empty("b", 1), empty("c", 0), delete("t", "c", 1)];
    adapter.write(&one_commit(1, first)).await.expect("write");
    let count = format!("SELECT id FROM {database}.t");
    assert_eq!(server.mariadb(&count).await, "b");
    let second = ["a", "b", "c"].map(cells).to_vec();
    adapter.write(&one_commit(2, second)).await.expect("write");
    for (name, (kind, value, shown)) in names.iter().zip(&cases) {
        let printed = printed(server, &database, name).await;
        assert_eq!(printed, [shown.as_str(); 3], "{value:?} in {kind}");
    }
    let types = "SELECT GROUP_CONCAT(DISTINCT DATA_TYPE ORDER BY DATA_TYPE) \
                 FROM information_schema.COLUMNS WHERE TABLE_NAME = 't' AND TABLE_SCHEMA";
    let kinds = server.mariadb(&format!("{types} = '{database}'")).await;
    let expected = "bigint,char,date,datetime,decimal,double,longblob,longtext,tinyint,varchar";
    assert_eq!(kinds, expected);
}

/// What the client can't print, and what sorts and compares.
#[tokio::test]
async fn texts_are_exact_to_the_last_byte() {
    let Some(server) = MariaDb::shared().await else { return };
    let database = server.fresh();
    let adapter = adapter(server, &database, true);
    let columns = [("s", ColumnType::String), ("b", ColumnType::Bytes), ("d", ColumnType::Double)];
    adapter.prepare(&Schema::from_stored([table("t", 1, &columns)])).await.expect("prepare");
    let cells = |id, text: &str, double| {
        let text = Value::String(text.to_owned());
        let bytes = Value::Bytes(b"\0\xff'\\\0"[..].into());
        upsert("t", id, 1, &[("s", text), ("b", bytes), ("d", Value::Double(double))])
    };
    let changes = vec![cells("a", "a\0b", -0.0), cells("a ", "x ", 0.1), cells("A", "x", 1e22)];
    adapter.write(&one_commit(1, changes)).await.expect("write");
    let sql = format!("SELECT id, HEX(s), HEX(b), d FROM {database}.t ORDER BY id");
    let shown = server.mariadb(&sql).await;
    assert_eq!(shown, "A|78|00FF275C00|1e22\na|610062|00FF275C00|0\na |7820|00FF275C00|0.1");
    let sql = format!("SELECT COUNT(*) FROM {database}.t WHERE s = 'x'");
    assert_eq!(server.mariadb(&sql).await, "1", "a space more is another text");
}

#[tokio::test]
async fn deleted_rows_are_gone() {
    let Some(server) = MariaDb::shared().await else { return };
    let database = server.fresh();
    let adapter = adapter(server, &database, true);
    let columns = [("n", ColumnType::Int64)];
    adapter.prepare(&Schema::from_stored([table("t", 1, &columns)])).await.expect("prepare");
    let n = |id, hlc, n| upsert("t", id, hlc, &[("n", Value::Int64(n))]);
    let first = vec![n("a", 1, 1), n("b", 1, 2), n("c", 1, 3), delete("t", "c", 2)];
    adapter.write(&one_commit(1, first)).await.expect("write");
    let sql = format!("SELECT id, n FROM {database}.t ORDER BY id");
    let shown = || server.mariadb(&sql);
    assert_eq!(shown().await, "a|1\nb|2");
    adapter.write(&one_commit(2, vec![delete("t", "a", 3), n("c", 1, 9)])).await.expect("write");
    assert_eq!(shown().await, "b|2");
    let rows = adapter.rows(&"t".parse().expect("legal"), None, 9).await.expect("rows");
    assert_eq!(rows.len(), 3, "deletes are remembered");
    adapter.forget(&"t".parse().expect("legal"), &rows).await.expect("forget");
    assert_eq!(shown().await, "");
    let sql = format!(
        "SELECT row_id, op, cells, client, hlc, happened_at FROM {database}._lakesync_history \
         WHERE position = 1 ORDER BY `index` LIMIT 1"
    );
    let told = "a|upsert|{\"n\":1}|ann|1|1970-01-01 00:00:00.000000";
    assert_eq!(server.mariadb(&sql).await, told);
}

#[tokio::test]
async fn widened_columns_show_what_they_would_have_shown() {
    let Some(server) = MariaDb::shared().await else { return };
    let database = server.fresh();
    let adapter = adapter(server, &database, true);
    use ColumnType::{Any, Date, Double, Int64, Json, String as Text, Timestamp};
    let wide = ColumnType::Decimal { precision: 38, scale: 8 };
    let mut widenings = vec![
        (Int64, Double, Value::Int64(i64::MAX)),
        (Int64, wide, Value::Int64(i64::MIN)),
        (CENTS, wide, Value::Decimal("-1.50".to_owned())),
        (Date, Timestamp, Value::Date(-719_162)),
        (Any, Json, Value::Int64(7)),
        (Any, Text, Value::String("x".to_owned())),
    ];
    for (kind, value, _) in cases() {
        // Values from before one widening don't live through another: a gateway may say so.
        if kind.fits(&value) && kind != Any {
            widenings.extend([Text, Json, Any].map(|to| (kind, to, value.clone())));
        }
    }
    let names: Vec<_> = (0..widenings.len()).map(|at| format!("c{at}")).collect();
    let columns = |of: fn(&(ColumnType, ColumnType, Value)) -> ColumnType| {
        names.iter().map(String::as_str).zip(widenings.iter().map(of)).collect::<Vec<_>>()
    };
    let (narrow, wide) = (columns(|(from, ..)| *from), columns(|(_, to, _)| *to));
    adapter.prepare(&Schema::from_stored([table("t", 1, &narrow)])).await.expect("prepare");
    let values = widenings.iter().map(|(.., value)| value.clone());
    let cells: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
    adapter.write(&one_commit(1, vec![upsert("t", "a", 1, &cells)])).await.expect("write");
    adapter.prepare(&Schema::from_stored([table("t", 2, &wide)])).await.expect("widen");
    adapter.write(&one_commit(2, vec![upsert("t", "b", 2, &cells)])).await.expect("write");
    for (name, (from, to, value)) in names.iter().zip(&widenings) {
        let lines = printed(server, &database, name).await;
        assert_eq!(lines[0], lines[1], "{value:?}, {from} to {to}");
    }
}

#[tokio::test]
async fn the_widest_rows_fit() {
    let Some(server) = MariaDb::shared().await else { return };
    let adapter = adapter(server, &server.fresh(), false);
    let width = adapter.capacity().columns_max;
    let names: Vec<_> = (0..width).map(|at| format!("c{at}")).collect();
    let nines = "9".repeat(38);
    let kinds = [
        (ColumnType::String, Value::String("x".repeat(40))),
        (ColumnType::String, Value::String("é".repeat(5_000))),
        (ColumnType::Bytes, Value::Bytes(vec![7; 40].into())),
        (ColumnType::Uuid, Value::Uuid([7; 16])),
        (ColumnType::Decimal { precision: 38, scale: 19 }, {
            Value::Decimal(format!("-{}.{}", &nines[..19], &nines[19..]))
        }),
        (ColumnType::Decimal { precision: 38, scale: 38 }, Value::Decimal(format!("-0.{nines}"))),
        (ColumnType::Json, Value::Json(format!("\"{}\"", "x".repeat(38)))),
        (ColumnType::Timestamp, Value::Timestamp(7)),
    ];
    let mut tables = Vec::new();
    let mut deltas = Vec::new();
    for (at, (kind, value)) in kinds.into_iter().enumerate() {
        let columns: Vec<_> = names.iter().map(|name| (name.as_str(), kind)).collect();
        let cells: Vec<_> = names.iter().map(|name| (name.as_str(), value.clone())).collect();
        let name = format!("t{at}");
        tables.push(table(&name, 1, &columns));
        deltas.push(upsert(&name, &"é".repeat(128), 1, &cells));
    }
    adapter.prepare(&Schema::from_stored(tables)).await.expect("prepare");
    adapter.write(&one_commit(1, deltas.clone())).await.expect("write");
    let again = deltas.into_iter().map(|delta| lakesync::delta::Delta {
        stamp: lakesync::stamp::Stamp { hlc: lakesync::hlc::Hlc(2), ..delta.stamp },
        ..delta
    });
    adapter.write(&one_commit(2, again.collect())).await.expect("write");
}

/// Escapes make a value many times as long as it is.
#[tokio::test]
async fn what_a_statement_can_t_carry_is_null() {
    let Some(server) = MariaDb::shared().await else { return };
    let database = server.fresh();
    let adapter = adapter(server, &database, true);
    let columns = [("a", ColumnType::Json), ("b", ColumnType::Json), ("c", ColumnType::Int64)];
    adapter.prepare(&Schema::from_stored([table("t", 1, &columns)])).await.expect("prepare");
    let long = || Value::String("\u{1}".repeat(900 << 10));
    let cells = [("a", long()), ("b", Value::Int64(7)), ("c", Value::Int64(8))];
    let change = upsert("t", "a", 1, &cells);
    adapter.write(&one_commit(1, vec![change.clone()])).await.expect("write");
    let sql = format!("SELECT a, b, c FROM {database}.t");
    assert_eq!(server.mariadb(&sql).await, format!("{NULL}|7|8"));
    let rows = adapter.rows(&"t".parse().expect("legal"), None, 9).await.expect("rows");
    assert_eq!(rows, [(change.row_id.clone(), lakesync::testing::fold(&[change]))]);
}

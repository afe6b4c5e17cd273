//! What people see, as psql tells it: natural types, live rows only.

use lakesync::adapter::Adapter;
use lakesync::schema::{ColumnType, Schema};

use lakesync::value::Value;
use lakesync_adapters::testing::{NULL, Postgres as Testing};

use super::adapter;
use crate::fixtures::{delete, one_commit, table, upsert};

const CENTS: ColumnType = ColumnType::Decimal { precision: 30, scale: 2 };

/// Types, values, and what psql prints of them.
fn cases() -> Vec<(ColumnType, Value, &'static str)> {
    use ColumnType::{
        Any, Bool, Bytes, Date, Double, Int64, Json, String as Text, Timestamp, Uuid,
    };
    let text = |text: &str| Value::String(text.to_owned());
    let json = |text: &str| Value::Json(text.to_owned());
    let decimal = |text: &str| Value::Decimal(text.to_owned());
    vec![
        (Bool, Value::Bool(true), "t"),
        (Bool, Value::Bool(false), "f"),
        (Int64, Value::Int64(i64::MIN), "-9223372036854775808"),
        (Double, Value::Double(5e-324), "5e-324"),
        (Double, Value::Double(-f64::MAX), "-1.7976931348623157e+308"),
        (Double, Value::Double(-0.0), "-0"),
        (Double, Value::Double(f64::NAN), "NaN"),
        (Double, Value::Double(f64::NEG_INFINITY), "-Infinity"),
        (Double, Value::Int64(i64::MAX), "9.223372036854776e+18"),
        (Text, text("tab\there \\N \\. 'q' é🦀"), "tab\there \\N \\. 'q' é🦀"),
        (Text, text("\\N"), "\\N"),
        (Text, text(""), ""),
        (Text, text("a\0b"), NULL),
        (Any, Value::Bytes(b"\0\xff"[..].into()), "00ff"),
        (Any, Value::Double(1e22), "1e+22"),
        (Any, Value::Double(f64::NAN), "NaN"),
        (Text, Value::Date(-719_163), "0001-12-31 BC"),
        (Text, Value::Timestamp(-1), "1969-12-31T23:59:59.999999Z"),
        (Bytes, Value::Bytes(b"\0\xff\\"[..].into()), "\\x00ff5c"),
        (Bytes, Value::Bytes(b""[..].into()), "\\x"),
        (
            Json,
            json("{\"b\":[1,2.50],\"a\":\"\\u00e9\\n\"}"),
            "{\"a\": \"é\\n\", \"b\": [1, 2.50]}",
        ),
        (Json, json("null"), "null"),
        (Json, json("[\"\\u0000\"]"), NULL),
        (Json, json("1e400"), NULL),
        (Json, json("1.5e-4"), "0.00015"),
        (Json, json("1e-16400"), NULL),
        (Json, json("1.0e-99999999999"), NULL),
        (Json, Value::Double(f64::INFINITY), "\"Infinity\""),
        (Json, decimal("-007.50"), "-7.50"),
        (Json, text("\\N\"\t"), "\"\\\\N\\\"\\t\""),
        (CENTS, decimal("-12.3"), "-12.30"),
        (CENTS, decimal("0012.30"), "12.30"),
        (CENTS, Value::Int64(i64::MIN), "-9223372036854775808.00"),
        (Timestamp, Value::Timestamp(1_700_000_000_123_456), "2023-11-14 22:13:20.123456+00"),
        (Timestamp, Value::Timestamp(i64::MAX), "294247-01-10 04:00:54.775807+00"),
        (Timestamp, Value::Timestamp(-210_866_803_200_000_000), "4714-11-24 00:00:00+00 BC"),
        (Timestamp, Value::Timestamp(-210_866_803_200_000_001), NULL),
        (Timestamp, Value::Date(-1), "1969-12-31 00:00:00+00"),
        (Timestamp, Value::Date(i32::MAX), NULL),
        (Date, Value::Date(2_145_042_905), "5874897-12-31"),
        (Date, Value::Date(2_145_042_906), NULL),
        (Date, Value::Date(-2_440_588), "4714-11-24 BC"),
        (Date, Value::Date(-2_440_589), NULL),
        (Date, Value::Date(-719_163), "0001-12-31 BC"),
        (Uuid, Value::Uuid([0xab; 16]), "abababab-abab-abab-abab-abababababab"),
        (Uuid, Value::Null, NULL),
    ]
}

/// What psql prints of a column, a line per row.
async fn printed(server: &Testing, schema: &str, column: &str) -> Vec<String> {
    let sql = format!("SET timezone = 'UTC'; SELECT '', {column} FROM {schema}.t ORDER BY id");
    server.psql(&sql).await.lines().map(|line| line[1..].to_owned()).collect()
}

#[tokio::test]
async fn values_have_natural_types_whichever_way_they_came() {
    let Some(server) = Testing::shared().await else { return };
    let schema = server.fresh();
    let adapter = adapter(server, &schema, true);
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
    let count = format!("SELECT id FROM {schema}.t");
    assert_eq!(server.psql(&count).await, "b");
    let second = ["a", "b", "c"].map(cells).to_vec();
    adapter.write(&one_commit(2, second)).await.expect("write");
    for (name, (kind, value, shown)) in names.iter().zip(&cases) {
        let printed = printed(server, &schema, name).await;
        assert_eq!(printed, [*shown; 3], "{value:?} in {kind}");
    }
    let types = "SELECT string_agg(DISTINCT data_type, ',' ORDER BY data_type) \
                 FROM information_schema.columns WHERE table_name = 't' AND table_schema";
    let kinds = server.psql(&format!("{types} = '{schema}'")).await;
    let expected = "bigint,boolean,bytea,date,double precision,jsonb,numeric,text,\
                    timestamp with time zone,uuid";
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn deleted_rows_are_gone() {
    let Some(server) = Testing::shared().await else { return };
    let schema = server.fresh();
    let adapter = adapter(server, &schema, true);
    let columns = [("n", ColumnType::Int64)];
    adapter.prepare(&Schema::from_stored([table("t", 1, &columns)])).await.expect("prepare");
    let n = |id, hlc, n| upsert("t", id, hlc, &[("n", Value::Int64(n))]);
    let first = vec![n("a", 1, 1), n("b", 1, 2), n("c", 1, 3), delete("t", "c", 2)];
    adapter.write(&one_commit(1, first)).await.expect("write");
    let shown =
        || async { server.psql(&format!("SELECT id, n FROM {schema}.t ORDER BY id")).await };
    assert_eq!(shown().await, "a|1\nb|2");
    adapter.write(&one_commit(2, vec![delete("t", "a", 3), n("c", 1, 9)])).await.expect("write");
    assert_eq!(shown().await, "b|2");
    let rows = adapter.rows(&"t".parse().expect("legal"), None, 9).await.expect("rows");
    assert_eq!(rows.len(), 3, "deletes are remembered");
    adapter.forget(&"t".parse().expect("legal"), &rows).await.expect("forget");
    assert_eq!(shown().await, "");
    let sql = format!(
        "SELECT row_id, op, cells, client, hlc, extract(epoch FROM happened_at) \
         FROM {schema}._lakesync_history WHERE position = 1 ORDER BY index LIMIT 1"
    );
    assert_eq!(server.psql(&sql).await, "a|upsert|{\"n\":1}|ann|1|0.000000");
}

#[tokio::test]
async fn widened_columns_show_what_they_would_have_shown() {
    let Some(server) = Testing::shared().await else { return };
    let schema = server.fresh();
    let adapter = adapter(server, &schema, true);
    use ColumnType::{Any, Date, Double, Int64, Json, String as Text, Timestamp};
    let wide = ColumnType::Decimal { precision: 38, scale: 8 };
    let mut widenings = vec![
        (Int64, Double, Value::Int64(i64::MAX)),
        (Int64, wide, Value::Int64(i64::MIN)),
        (CENTS, wide, Value::Decimal("-1.50".to_owned())),
        (Date, Timestamp, Value::Date(-719_163)),
        (Date, Timestamp, Value::Date(2_145_042_905)),
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
    // What people put there is converted by Postgres alone.
    let every = names.join(", ");
    let copied = format!("INSERT INTO {schema}.t SELECT 'z', {every} FROM {schema}.t");
    server.psql(&copied).await;
    adapter.prepare(&Schema::from_stored([table("t", 2, &wide)])).await.expect("widen");
    adapter.write(&one_commit(2, vec![upsert("t", "b", 2, &cells)])).await.expect("write");

    let mut differ = Vec::new();
    for (name, (from, to, value)) in names.iter().zip(&widenings) {
        let lines = printed(server, &schema, name).await;
        assert_eq!(lines[0], lines[1], "{value:?}, {from} to {to}");
        if lines[0] != lines[2] {
            differ.push((*from, *to, lines[0].to_owned(), lines[2].to_owned()));
        }
    }
    // What Postgres itself converts looks the same, but for forms that it had lost before.
    for (from, to, ours, converted) in differ {
        let lost = converted == NULL || matches!(from, Json | Any | ColumnType::Decimal { .. });
        assert!(lost, "{from} to {to}: {ours:?} is converted to {converted:?}");
    }
}

#[tokio::test]
async fn the_widest_rows_fit() {
    let Some(server) = Testing::shared().await else { return };
    let adapter = adapter(server, &server.fresh(), false);
    let width = adapter.capacity().columns_max;
    let names: Vec<_> = (0..width).map(|at| format!("c{at}")).collect();
    let nines = "9".repeat(38);
    let kinds = [
        (ColumnType::String, Value::String("x".repeat(23))),
        (ColumnType::String, Value::String("é".repeat(5_000))),
        (ColumnType::Bytes, Value::Bytes(vec![7; 23].into())),
        (ColumnType::Uuid, Value::Uuid([7; 16])),
        (ColumnType::Decimal { precision: 38, scale: 19 }, {
            Value::Decimal(format!("-{}.{}", &nines[..19], &nines[19..]))
        }),
        (ColumnType::Json, Value::Json(format!("\"{}\"", "x".repeat(15)))),
        (ColumnType::Timestamp, Value::Timestamp(7)),
    ];
    let mut tables = Vec::new();
    let mut deltas = Vec::new();
    for (at, (kind, value)) in kinds.into_iter().enumerate() {
        let columns: Vec<_> = names.iter().map(|name| (name.as_str(), kind)).collect();
        let cells: Vec<_> = names.iter().map(|name| (name.as_str(), value.clone())).collect();
        let name = format!("t{at}");
        tables.push(table(&name, 1, &columns));
        deltas.push(upsert(&name, &"k".repeat(23), 1, &cells));
    }
    adapter.prepare(&Schema::from_stored(tables)).await.expect("prepare");
    adapter.write(&one_commit(1, deltas.clone())).await.expect("write");
    let again = deltas.into_iter().map(|delta| lakesync::delta::Delta {
        stamp: lakesync::stamp::Stamp { hlc: lakesync::hlc::Hlc(2), ..delta.stamp },
        ..delta
    });
    adapter.write(&one_commit(2, again.collect())).await.expect("write");
}

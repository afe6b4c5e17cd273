//! The vectors in `tests/vectors`: whatever the language, the same deltas have the same ids and make
//! the same rows, the same clock readings follow each other, and the same keys have the same row ids.

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use lakesync::delta::{Cell, Delta, Op};
use lakesync::hlc::{Clock, Hlc};
use lakesync::limits::CLOCK_DRIFT_MAX;
use lakesync::row::Row;
use lakesync::row_id;
use lakesync::schema::ColumnType;
use lakesync::stamp::Stamp;
use lakesync::value::Value;
use proptest::prelude::*;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

#[test]
fn deltas_have_the_ids_of_the_model() {
    for (at, case) in load("merge.json").iter().enumerate() {
        for wanted in items(&case["deltas"]) {
            assert_eq!(delta(wanted).id().to_string(), text(&wanted["id"]), "case {at}: {wanted}");
        }
    }
}

#[test]
fn values_and_deltas_have_the_canonical_bytes_of_the_model() {
    let vectors = read("delta_id.json");
    let (values, deltas) = (items(&vectors["values"]), items(&vectors["deltas"]));
    assert!(20 <= values.len() && 5 <= deltas.len(), "vectors are missing");
    for wanted in values {
        let mut canonical = Vec::new();
        value(wanted).encode(&mut canonical);
        assert_eq!(hex(&canonical), text(&wanted["canonical"]), "{wanted}");
    }
    for wanted in deltas {
        let id = delta(wanted).id();
        assert_eq!(id.to_string(), text(&wanted["id"]), "{wanted}");
        assert_eq!(Sha256::digest(unhex(text(&wanted["canonical"])))[..], id.0, "{wanted}");
    }
}

#[test]
fn deltas_make_the_rows_of_the_model() {
    for (at, case) in load("merge.json").iter().enumerate() {
        let deltas: Vec<_> = items(&case["deltas"]).iter().map(delta).collect();
        let wanted: Vec<_> = items(&case["rows"]).to_vec();
        let reversed = deltas.iter().rev();
        let twice = deltas.iter().chain(&deltas);
        assert_eq!(rows(&deltas), wanted, "case {at}, in order");
        assert_eq!(rows(reversed.clone()), wanted, "case {at}, reversed");
        assert_eq!(rows(twice), wanted, "case {at}, twice");
        assert_eq!(rows(reversed.chain(&deltas)), wanted, "case {at}, there and back");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn deltas_make_the_rows_of_the_model_in_any_order((deltas, wanted) in shuffled_case()) {
        prop_assert_eq!(rows(&deltas), wanted);
    }
}

#[test]
fn clocks_read_as_the_model_does() {
    for (at, steps) in load("clock.json").iter().enumerate() {
        let mut clock = Clock::new(CLOCK_DRIFT_MAX);
        for step in items(steps) {
            let read = match step.get("now") {
                Some(now) => Some(clock.now(number(&now["wall"]))),
                None => {
                    let seen = &step["observe"];
                    clock.observe(Hlc(number(&seen["remote"])), number(&seen["wall"])).ok()
                }
            };
            let wanted = step["is"].as_str().map(|_| Hlc(number(&step["is"])));
            assert_eq!(read, wanted, "case {at}: {step}");
        }
    }
}

#[test]
fn keys_have_the_row_ids_of_the_rule() {
    let (mut made, mut named) = (0, 0);
    for case in load("row_id.json") {
        let Some(key) = case["key"].as_array() else { continue };
        let key: Vec<_> = key.iter().map(key_part).collect();
        let typed: Vec<_> = key.iter().map(|(kind, value)| (*kind, value)).collect();
        let row_id = row_id::of(&typed).ok();
        assert_eq!(row_id.as_ref().map(AsRef::as_ref), case["row_id"].as_str(), "{case}");
        made += 1;
        let Some(row_id) = row_id.filter(|_| key.iter().all(|(kind, value)| kind.fits(value)))
        else {
            continue;
        };
        let kinds: Vec<_> = key.iter().map(|(kind, _)| *kind).collect();
        let back = row_id::values(&kinds, &row_id).unwrap_or_else(|| panic!("no key: {case}"));
        let back: Vec<_> = kinds.iter().copied().zip(&back).collect();
        assert_eq!(row_id::of(&back), Ok(row_id), "{case}");
        named += 1;
    }
    assert!(150 < made && 130 < named, "{made} keys, {named} of them read back");
}

#[test]
fn texts_that_no_key_makes_are_no_row_ids() {
    let cases = load("row_id.json");
    let cases: Vec<_> = cases.iter().filter(|case| case["key"].is_null()).collect();
    assert!(40 < cases.len(), "{} cases only", cases.len());
    for case in cases {
        let kinds: Vec<_> = items(&case["types"]).iter().map(|kind| key_type(text(kind))).collect();
        assert_eq!(row_id::values(&kinds, &parsed(&case["row_id"])), None, "{case}");
    }
}

/// A column of a key, and what it holds.
fn key_part(json: &Json) -> (ColumnType, Value) {
    let mut fields = json.as_object().expect("a part").clone();
    let kind = fields.remove("type").expect("a type");
    fields.insert("name".to_owned(), Json::from("k"));
    (key_type(text(&kind)), cell(&Json::Object(fields)).value)
}

fn key_type(name: &str) -> ColumnType {
    match name {
        "bool" => ColumnType::Bool,
        "int64" => ColumnType::Int64,
        "double" => ColumnType::Double,
        "string" => ColumnType::String,
        "bytes" => ColumnType::Bytes,
        "json" => ColumnType::Json,
        "decimal" => ColumnType::Decimal { precision: 38, scale: 10 },
        "timestamp" => ColumnType::Timestamp,
        "date" => ColumnType::Date,
        "uuid" => ColumnType::Uuid,
        "any" => ColumnType::Any,
        other => panic!("an unknown type: {other}"),
    }
}

/// One of the cases, its deltas in any order and some of them repeated.
fn shuffled_case() -> impl Strategy<Value = (Vec<Delta>, Vec<Json>)> {
    let cases = load("merge.json");
    (0..cases.len(), any::<prop::sample::Index>()).prop_flat_map(move |(at, repeated)| {
        let mut deltas: Vec<_> = items(&cases[at]["deltas"]).iter().map(delta).collect();
        deltas.extend_from_within(..repeated.index(deltas.len()));
        (Just(deltas).prop_shuffle(), Just(items(&cases[at]["rows"]).to_vec()))
    })
}

/// The rows that `deltas` make, in the model's form and order.
fn rows<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> Vec<Json> {
    let mut rows = BTreeMap::<_, Row>::new();
    for delta in deltas {
        rows.entry((&delta.table, &delta.row_id)).or_default().merge(delta);
    }
    let shown = rows.into_iter().map(|((table, row_id), row)| {
        let cells = row.cells().iter().map(|cell| {
            let mut shown = value_json(&cell.value);
            shown.insert("stamp".to_owned(), stamp_json(Some(&cell.stamp)));
            (cell.column.to_string(), Json::Object(shown))
        });
        serde_json::json!({
            "table": table.as_str(),
            "row_id": row_id.as_str(),
            "live": row.is_live(),
            "written": stamp_json(row.written()),
            "deleted": stamp_json(row.deleted()),
            "columns": cells.collect::<serde_json::Map<_, _>>(),
        })
    });
    shown.collect()
}

fn stamp_json(stamp: Option<&Stamp>) -> Json {
    stamp.map_or(Json::Null, |stamp| {
        Json::from(vec![stamp.hlc.to_string(), stamp.client.to_string()])
    })
}

/// A value under the name of its kind: integers as text, doubles and bytes as hexadecimal digits.
fn value_json(value: &Value) -> serde_json::Map<String, Json> {
    let data = match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Int64(value) | Value::Timestamp(value) => Json::from(value.to_string()),
        Value::Date(value) => Json::from(value.to_string()),
        Value::Double(value) if value.is_nan() => Json::from("7ff8000000000000"),
        Value::Double(value) => Json::from(format!("{:016x}", value.to_bits())),
        Value::String(text) | Value::Json(text) | Value::Decimal(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::from(hex(bytes)),
        Value::Uuid(bytes) => Json::from(hex(bytes)),
    };
    [(value.kind().to_owned(), data)].into_iter().collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn delta(json: &Json) -> Delta {
    let op = match text(&json["op"]) {
        "delete" => Op::Delete,
        "upsert" => Op::Upsert(items(&json["columns"]).iter().map(cell).collect()),
        other => panic!("an unknown operation: {other}"),
    };
    let stamp = Stamp { hlc: Hlc(number(&json["hlc"])), client: parsed(&json["client_id"]) };
    Delta { table: parsed(&json["table"]), row_id: parsed(&json["row_id"]), stamp, op }
}

fn cell(json: &Json) -> Cell {
    Cell { column: parsed(&json["name"]), value: value(json) }
}

/// The value that stands under the name of its kind, whatever stands beside it.
fn value(json: &Json) -> Value {
    let fields = json.as_object().expect("a cell");
    let beside = ["name", "canonical"];
    let mut found = fields.iter().filter(|(kind, _)| !beside.contains(&kind.as_str()));
    let (kind, data) = found.next().expect("a value");
    match kind.as_str() {
        "null" => Value::Null,
        "bool" => Value::Bool(data.as_bool().expect("a truth value")),
        "int64" => Value::Int64(parsed(data)),
        "double" => Value::Double(f64::from_bits(
            u64::from_str_radix(text(data), 16).expect("hexadecimal digits"),
        )),
        "string" => Value::String(text(data).to_owned()),
        "bytes" => Value::Bytes(Bytes::from(unhex(text(data)))),
        "json" => Value::Json(text(data).to_owned()),
        "decimal" => Value::Decimal(text(data).to_owned()),
        "timestamp" => Value::Timestamp(parsed(data)),
        "date" => Value::Date(parsed(data)),
        "uuid" => Value::Uuid(unhex(text(data)).try_into().expect("16 bytes")),
        other => panic!("an unknown kind: {other}"),
    }
}

fn read(name: &str) -> Json {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let vectors = fs::read(path).expect("a file of vectors");
    serde_json::from_slice(&vectors).expect("JSON")
}

fn load(name: &str) -> Vec<Json> {
    let Json::Array(cases) = read(name) else { panic!("{name} holds no list of cases") };
    assert!(100 <= cases.len(), "{name} holds {} cases only", cases.len());
    cases
}

fn items(json: &Json) -> &[Json] {
    json.as_array().expect("a list")
}

fn text(json: &Json) -> &str {
    json.as_str().expect("a text")
}

fn number(json: &Json) -> u64 {
    parsed(json)
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(json: &Json) -> T {
    text(json).parse().expect("the text of one")
}

//! A row id names one key, and what triggers make in SQL is what the rule says.

use lakesync::testing;
use lakesync::value::Value;
use proptest::collection::vec;
use proptest::prelude::*;
use sqlx::{Connection, SqliteConnection};

use super::super::layout;
use super::super::sql::{Statement, text};
use super::*;
use ColumnType::{Any, Bool, Bytes, Date, Double, Int64, Json, String as Text, Timestamp, Uuid};

const DECIMAL: ColumnType = ColumnType::Decimal { precision: 38, scale: 10 };

/// A column of a key, and a value that it holds.
fn part() -> impl Strategy<Value = (ColumnType, Value)> {
    let integer = prop_oneof![any::<i64>(), -3..3_i64, (0..63_u32).prop_map(|bit| 1 << bit)];
    let number = integer.prop_flat_map(|number| {
        prop_oneof![
            Just((Int64, Value::Int64(number))),
            Just((Any, Value::Int64(number))),
            Just((Any, Value::Double(number as f64))),
            Just((Double, Value::Double(number as f64))),
            Just((Any, Value::String(number.to_string()))),
            Just((DECIMAL, Value::Decimal(number.to_string()))),
            Just((DECIMAL, Value::Decimal(format!("{number}00000000.50")))),
        ]
    });
    let real = prop_oneof![
        any::<f64>(),
        (-60..60_i32, 1..9_u32).prop_map(|(power, odd)| f64::from(odd) * 2_f64.powi(power)),
        Just(f64::MIN_POSITIVE / 8.0),
        Just(f64::from_bits(1)),
        Just(f64::MAX),
        Just(1e300),
        Just(0.1),
        Just(-0.0),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
    ];
    let real = (real, any::<bool>())
        .prop_map(|(real, is_any)| (if is_any { Any } else { Double }, Value::Double(real)));
    let words = "[ -~éß\u{1}\u{8}\t\n\u{1f}\u{7f}🦀]{0,8}";
    let words = (words, any::<bool>())
        .prop_map(|(word, is_any)| (if is_any { Any } else { Text }, Value::String(word)));
    let others = testing::value().prop_flat_map(|value| {
        let kind = match &value {
            Value::Null | Value::Int64(_) => Int64,
            Value::Bool(_) => Bool,
            Value::Double(_) => Double,
            Value::String(_) => Text,
            Value::Bytes(_) => Bytes,
            Value::Json(_) => Json,
            Value::Decimal(_) => DECIMAL,
            Value::Timestamp(_) => Timestamp,
            Value::Date(_) => Date,
            Value::Uuid(_) => Uuid,
        };
        prop_oneof![Just((kind, value.clone())), Just((Any, value))]
    });
    prop_oneof![number, real, words, others]
}

fn columns(kinds: &[ColumnType]) -> Key {
    let named = kinds.iter().enumerate().map(|(at, kind)| (format!("k{at}"), *kind));
    Key::Columns(named.collect())
}

/// What the SQL expression makes of `values` in columns k0, k1 …
async fn by_sql(key: &Key, values: &[Stored]) -> String {
    let mut connection = SqliteConnection::connect(":memory:").await.unwrap();
    layout::complete(&mut connection).await.unwrap();
    let columns: Vec<String> = (0..values.len()).map(|at| format!("? AS k{at}")).collect();
    let sql = format!("SELECT {} FROM (SELECT {}) AS r", key.row_id_sql("r"), columns.join(", "));
    let mut statement = Statement::new(sql);
    values.iter().for_each(|value| statement.push(value));
    text(&statement.row(&mut connection).await.unwrap().unwrap(), 0).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn sql_makes_the_ids_of_the_rule(parts in vec(part(), 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (kinds, values): (Vec<_>, Vec<_>) = parts.iter().cloned().unzip();
        let key = columns(&kinds);
        let typed: Vec<_> = parts.iter().map(|(kind, value)| (*kind, value)).collect();
        let Ok(row_id) = row_id::of(&typed) else { return Ok(()) };
        // As it stands in a table that the id was applied to.
        let found = key.parse(&row_id).expect("an id that the rule made");
        prop_assert_eq!(runtime.block_on(by_sql(&key, &found)), row_id.as_str());
        // As an application writes it. A decimal has many texts, of which one is the key.
        if !values.iter().any(|value| matches!(value, Value::Decimal(_))) {
            let written: Vec<_> = values.iter().map(to_stored).collect();
            prop_assert_eq!(runtime.block_on(by_sql(&key, &written)), row_id.as_str());
        }
    }
}

#[tokio::test]
async fn values_that_are_no_key_have_no_row_id() {
    let (number, words) = (Key::Integer("k0".into()), Key::Text("k0".into()));
    for (key, value, expected) in [
        (&number, Stored::Integer(-5), "-5"),
        (&number, Stored::Text("5".into()), ""),
        (&number, Stored::Null, ""),
        (&words, Stored::Text("5".into()), "5"),
        (&words, Stored::Blob(b"5".to_vec()), ""),
        (&columns(&[Any]), Stored::Null, ""),
        (&columns(&[Uuid]), Stored::Null, ""),
        (&columns(&[Text, Text]), Stored::Null, ""),
        (&columns(&[DECIMAL]), Stored::Real(0.5), ""),
    ] {
        let mut values = vec![value.clone()];
        values.resize(key.columns().len(), Stored::Text("x".into()));
        assert_eq!(by_sql(key, &values).await, expected, "{value:?} in {key:?}");
    }
}

/// In a column without a type, SQLite tells 1 from '1', and 1.0 from neither of the integers beside it.
#[tokio::test]
async fn keys_that_sqlite_holds_apart_have_other_ids() {
    let mut connection = SqliteConnection::connect(":memory:").await.unwrap();
    let all = [
        Stored::Integer(1),
        Stored::Real(1.0),
        Stored::Text("1".into()),
        Stored::Text("[1]".into()),
        Stored::Text("1.0".into()),
        Stored::Real(1.5),
        Stored::Blob(b"1".to_vec()),
        Stored::Text(String::new()),
        Stored::Text("A".into()),
        Stored::Text("a".into()),
        Stored::Integer(1 << 60),
        Stored::Real((1_i64 << 60) as f64),
        Stored::Integer(i64::MAX),
        Stored::Real(i64::MAX as f64),
        Stored::Real(1e300),
    ];
    let key = columns(&[Any]);
    for one in &all {
        for other in &all {
            let mut same = Statement::new("SELECT ? = ?");
            same.push(one);
            same.push(other);
            let same = same.row(&mut connection).await.unwrap().unwrap();
            let same = text(&same, 0).unwrap() == "1";
            let (a, b) = (std::slice::from_ref(one), std::slice::from_ref(other));
            let ids = (by_sql(&key, a).await, by_sql(&key, b).await);
            assert_eq!(ids.0 == ids.1, same, "{one:?} {other:?} {ids:?}");
        }
    }
}

#[test]
fn a_row_id_that_no_key_makes_names_none() {
    for (key, text, legal) in [
        (Key::Integer("k".into()), "7", true),
        (Key::Integer("k".into()), "07", false),
        (Key::Integer("k".into()), "+7", false),
        (Key::Integer("k".into()), "x", false),
        (columns(&[Int64, Text]), "[1,\"a\"]", true),
        (columns(&[Int64, Text]), "[1, \"a\"]", false),
        (columns(&[Any]), "[1]", false),
        (columns(&[Any]), "1", true),
    ] {
        assert_eq!(key.parse(&text.parse().unwrap()).is_some(), legal, "{text}");
    }
}

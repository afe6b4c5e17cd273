//! A row id names one key, and SQL and Rust agree on it.

use proptest::collection::vec;
use proptest::prelude::*;
use sqlx::{Connection, SqliteConnection};

use super::super::sql::{Statement, text};
use super::*;

fn part() -> impl Strategy<Value = Stored> {
    prop_oneof![
        any::<i64>().prop_map(Stored::Integer),
        "[ -~éß\u{1}\u{8}\t\n\u{1f}\u{7f}🦀]{0,8}".prop_map(Stored::Text),
        vec(any::<u8>(), 0..5).prop_map(Stored::Blob),
    ]
}

fn key(width: usize) -> Key {
    Key::Array((0..width).map(|at| format!("k{at}")).collect())
}

/// What the SQL expression makes of `values` in columns k0, k1 …
async fn by_sql(key: &Key, values: &[Stored]) -> String {
    let mut connection = SqliteConnection::connect(":memory:").await.unwrap();
    let columns: Vec<String> = (0..values.len()).map(|at| format!("? AS k{at}")).collect();
    let sql = format!("SELECT {} FROM (SELECT {}) AS r", key.row_id_sql("r"), columns.join(", "));
    let mut statement = Statement::new(sql);
    values.iter().for_each(|value| statement.push(value));
    text(&statement.row(&mut connection).await.unwrap().unwrap(), 0).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arrays_name_one_key_and_sql_agrees(values in vec(part(), 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let key = key(values.len());
        let made = runtime.block_on(by_sql(&key, &values));
        prop_assert_eq!(&made, &array_text(&values));
        let row_id: RowId = made.parse().unwrap();
        prop_assert_eq!(key.parse(&row_id), Some(values));
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
        (&key(1), Stored::Null, ""),
        (&key(1), Stored::Real(0.5), ""),
    ] {
        assert_eq!(by_sql(key, std::slice::from_ref(&value)).await, expected, "{value:?}");
    }
}

#[test]
fn only_the_one_spelling_of_a_key_is_its_row_id() {
    for (key, text, legal) in [
        (Key::Integer("k".into()), "7", true),
        (Key::Integer("k".into()), "07", false),
        (Key::Integer("k".into()), "+7", false),
        (Key::Integer("k".into()), "x", false),
        (key(2), "[1,\"a\"]", true),
        (key(2), "[1, \"a\"]", false),
        (key(2), "[1]", false),
        (key(1), "[1.0]", false),
        (key(1), "[null]", false),
        (key(1), "[[\"AB\"]]", false),
        (key(1), "[[\"ab\"]]", true),
    ] {
        assert_eq!(key.parse(&text.parse().unwrap()).is_some(), legal, "{text}");
    }
}

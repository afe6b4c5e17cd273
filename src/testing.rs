//! Generators and fixtures shared by the tests of every crate. Enabled by the `testing` feature.

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::delta::{Cell, Delta, Op};
use crate::hlc::Hlc;
use crate::name::ColumnName;
use crate::row::Row;
use crate::stamp::Stamp;
use crate::value::Value;

/// Any value, extremes included.
pub fn value() -> impl Strategy<Value = Value> {
    let doubles = prop_oneof![
        any::<f64>(),
        Just(-0.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX)].prop_map(Value::Int64),
        doubles.prop_map(Value::Double),
        "[a-zé🦀 ]{0,9}".prop_map(Value::String),
        vec(any::<u8>(), 0..9).prop_map(|raw| Value::Bytes(Bytes::from(raw))),
        prop_oneof!["\\[\\]", "\\{\"a\":[0-9]\\}", "null"].prop_map(Value::Json),
        "-?[0-9]{1,9}\\.[0-9]{1,4}".prop_map(Value::Decimal),
        any::<i64>().prop_map(Value::Timestamp),
        any::<i32>().prop_map(Value::Date),
        any::<[u8; 16]>().prop_map(Value::Uuid),
    ]
}

/// One of a few columns, so that edits collide.
pub fn column() -> impl Strategy<Value = ColumnName> {
    "[ab]|Z|_d".prop_map(|text| text.parse().expect("a legal name"))
}

/// One of a few stamps, so that ties occur.
pub fn stamp() -> impl Strategy<Value = Stamp> {
    (0..6_u64, "ann|bob|zoë").prop_map(|(hlc, client)| Stamp {
        hlc: Hlc(hlc),
        client: client.parse().expect("a legal id"),
    })
}

/// A row as an application sees it, or none.
pub fn image() -> impl Strategy<Value = Option<std::collections::BTreeMap<ColumnName, Value>>> {
    proptest::option::of(btree_map(column(), value(), 0..4))
}

/// A change of the one row `todos/r`.
pub fn any_delta() -> impl Strategy<Value = Delta> {
    let cells = btree_map(column(), value(), 0..4).prop_map(|cells| {
        Op::Upsert(cells.into_iter().map(|(column, value)| Cell { column, value }).collect())
    });
    let op = prop_oneof![4 => cells, 1 => Just(Op::Delete)];
    (stamp(), op).prop_map(|(stamp, op)| of_todo(stamp, op))
}

/// Some changes of the one row `todos/r`.
pub fn deltas() -> impl Strategy<Value = Vec<Delta>> {
    vec(any_delta(), 0..9)
}

/// The row that `deltas` make.
pub fn fold(deltas: &[Delta]) -> Row {
    let mut row = Row::default();
    for delta in deltas {
        row.merge(delta);
    }
    row
}

/// Reads `client@time column=text …` or `client@time delete` as a change of the row `todos/r`.
pub fn delta(text: &str) -> Delta {
    let mut words = text.split(' ');
    let (client, time) = words.next().and_then(|word| word.split_once('@')).expect("client@time");
    let stamp = Stamp {
        hlc: Hlc(time.parse().expect("a time")),
        client: client.parse().expect("a client"),
    };
    let cells = words.map(|word| {
        let (column, text) = word.split_once('=')?;
        let column = column.parse().expect("a column");
        Some(Cell { column, value: Value::String(text.to_owned()) })
    });
    let op = cells.collect::<Option<Vec<_>>>().map_or(Op::Delete, Op::Upsert);
    of_todo(stamp, op)
}

/// The name or id that `text` is.
pub fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

fn of_todo(stamp: Stamp, op: Op) -> Delta {
    let (table, row_id) = ("todos".parse().expect("a name"), "r".parse().expect("an id"));
    Delta { table, row_id, stamp, op }
}

/// What an application sees of a row: `column=text …`, or `gone`.
pub fn shown(row: &Row) -> String {
    if !row.is_live() {
        return "gone".to_owned();
    }
    let cell = |cell: &crate::row::StampedCell| match &cell.value {
        Value::String(text) => format!("{}={text}", cell.column),
        other => format!("{}={other:?}", cell.column),
    };
    row.cells().iter().map(cell).collect::<Vec<_>>().join(" ")
}

/// Every order of `items`.
pub fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let Some((first, rest)) = items.split_first() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for tail in permutations(rest) {
        for at in 0..=tail.len() {
            let mut order = tail.clone();
            order.insert(at, first.clone());
            all.push(order);
        }
    }
    all
}

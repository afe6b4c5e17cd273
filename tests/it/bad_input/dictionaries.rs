//! What names a thing twice, or can be read in two ways: refused with its place, or harmless.

use lakesync::proto::v1::{Cell, Column, ColumnType, Outcome, TableChanges, TableSchema, outcome};
use lakesync::wire::encode_push;
use tonic::Code;

use super::{Target, assert_told};
use crate::harness::changes::{at, table, upsert};

fn todos() -> Vec<TableChanges> {
    encode_push([upsert("ann", at(5), "todos/n", &[("title", "t"), ("extra", "e")])])
}

/// A change of another row of that table.
fn more() -> Vec<TableChanges> {
    encode_push([upsert("ann", at(5), "todos/m", &[("extra", "m")])])
}

/// What becomes of a push.
enum Expected {
    /// Every change is refused for itself, and its message has these words.
    Refused(&'static str),
    /// The request is refused, and its message has these words.
    Malformed(&'static str),
    /// It takes effect as if what is odd were not there.
    Harmless,
}

use Expected::{Harmless, Malformed, Refused};

type Spoil = fn(&mut Vec<TableChanges>);

const PUSHES: [(&str, Spoil, Expected); 11] = [
    (
        "a column twice in a dictionary",
        |tables| tables[0].columns.push("title".to_owned()),
        Refused("tables[0].columns[2] is the same as columns[0]"),
    ),
    (
        "a column twice in other letters",
        |tables| tables[0].columns.push("TITLE".to_owned()),
        Refused("tables[0].columns[2] is the same as columns[0]"),
    ),
    (
        "both entries of one column used in one row",
        |tables| {
            tables[0].columns.push("title".to_owned());
            let again = tables[0].rows[0].cells[0].clone();
            tables[0].rows[0].cells.push(Cell { column: 2, ..again });
        },
        Refused("tables[0].columns[2] is the same as columns[0]"),
    ),
    (
        "a column twice in the dictionary of the second group",
        |tables| {
            tables.insert(0, TableChanges { table: "notes".to_owned(), ..TableChanges::default() });
            tables[1].columns.push("extra".to_owned());
        },
        Refused("tables[1].columns[2] is the same as columns[1]"),
    ),
    (
        "an index of the dictionary twice in a row",
        |tables| {
            let again = tables[0].rows[0].cells[0].clone();
            tables[0].rows[0].cells.push(again);
        },
        Refused("written twice"),
    ),
    (
        "an index beyond the dictionary",
        |tables| tables[0].columns.truncate(1),
        Refused("column 1 of a dictionary of 1"),
    ),
    (
        "a table in other letters",
        |tables| tables[0].table = "TODOS".to_owned(),
        Refused("unknown table TODOS"),
    ),
    (
        "a dictionary of clients",
        |tables| tables[0].clients.push("ann".to_owned()),
        Malformed("tables[0] lists 1 clients"),
    ),
    (
        "a stamp of another client",
        |tables| tables[0].rows[0].stamp.as_mut().expect("a stamp").client = 1,
        Refused("stamped by the client that pushes it"),
    ),
    ("an entry that no cell uses", |tables| tables[0].columns.push("rank".to_owned()), Harmless),
    ("a table in two groups", |tables| tables.extend(more()), Harmless),
];

#[tokio::test]
async fn what_a_push_names_twice_is_refused_with_its_place() {
    for (what, spoil, expected) in PUSHES {
        let target = Target::new().await;
        let mut tables = todos();
        spoil(&mut tables);
        let answer = target.ann.send(target.ann.request(tables)).await;
        match expected {
            Refused(words) => {
                let refused = answer.expect("answered").outcomes;
                let is_refused = |outcome: &Outcome| {
                    outcome.kind() == outcome::Kind::Rejected && outcome.message.contains(words)
                };
                let all = !refused.is_empty() && refused.iter().all(is_refused);
                assert!(all, "{what}: {refused:?}");
                target.assert_untouched().await;
            }
            Malformed(words) => {
                let answer = answer.map(drop);
                let status = assert_told(what, answer, Code::InvalidArgument, "INVALID_REQUEST");
                assert!(status.message().contains(words), "{what}: {status:?}");
                target.assert_untouched().await;
            }
            Harmless => {
                let answer = answer.expect("answered");
                assert_eq!((answer.position, answer.outcomes), (2, Vec::new()), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_schema_names_twice_is_refused() {
    let target = Target::new().await;
    let text = ColumnType::String;
    let primary = |columns: &[&str]| TableSchema {
        primary_key: columns.iter().map(|&name| name.to_owned()).collect(),
        ..table("t", &[("a", text), ("b", text)])
    };
    let one = || table("t", &[("a", text)]);
    let mut twice = one();
    twice.columns.push(Column { name: "A".to_owned(), ..twice.columns[0].clone() });
    for (what, tables, words) in [
        ("a table twice", vec![one(), table("t", &[("a", text), ("b", text)])], "stands twice"),
        ("a table twice, alike", vec![one(), one()], "stands twice"),
        ("a table twice in other letters", vec![one(), table("T", &[("a", text)])], "stands twice"),
        ("a column twice", vec![twice], "declared twice"),
        ("a key column twice", vec![primary(&["a", "a"])], "primary key can't be (a, a)"),
        ("a key column in other letters", vec![primary(&["A"])], "primary key can't be (A)"),
    ] {
        let answer = target.ann.clone().put_schema(tables).await;
        let status = assert_told(what, answer, Code::InvalidArgument, "INVALID_REQUEST");
        assert!(status.message().contains(words), "{what}: {status:?}");
    }
    target.assert_untouched().await;
}

//! What is lacking, and the stamps it is given back under.

use lakesync::delta::{Cell, Op};
use lakesync::stamp::Stamp;
use lakesync::value::Value;

use super::*;

fn row(changes: &[(u64, &str, Option<&str>)]) -> Row {
    let mut row = Row::default();
    for (hlc, client, value) in changes {
        let cell = |value: &&str| Cell {
            column: value[..1].parse().unwrap(),
            value: Value::String(value[1..].to_owned()),
        };
        let op = value.as_ref().map_or(Op::Delete, |value| Op::Upsert(vec![cell(value)]));
        let stamp = Stamp { hlc: Hlc(*hlc), client: client.parse().unwrap() };
        let (table, row_id) = ("t".parse().unwrap(), "r".parse().unwrap());
        row.merge(&Delta { table, row_id, stamp, op });
    }
    row
}

/// What is given back of `before` to a gateway that has `now`: `hlc columns`, or `hlc delete`.
fn given(before: &Row, now: &Row, horizon: u64) -> Vec<String> {
    let changes = changes(lack(before, now), Horizon(Hlc(horizon)));
    let line = |change: &Change<'_>| match change.kind {
        OP_RESTORED_DELETE => format!("{} delete", change.hlc.0),
        _ => {
            let columns = change.cells.iter().map(|cell| cell.column.as_str());
            format!("{} {}", change.hlc.0, columns.collect::<String>())
        }
    };
    changes.iter().map(line).collect()
}

#[test]
fn what_the_gateway_lacks_is_given_back_and_nothing_else() {
    let nothing = Row::default();
    let full = row(&[(3, "x", Some("a1")), (5, "y", Some("b2")), (5, "y", Some("c2"))]);
    assert_eq!(given(&full, &nothing, 0), ["3 a", "5 bc"]);
    assert_eq!(given(&full, &full, 0), [""; 0]);
    assert_eq!(given(&full, &row(&[(4, "z", Some("a9"))]), 0), ["5 bc"], "a newer cell stays");
    assert_eq!(given(&full, &row(&[(4, "z", None)]), 0), ["5 bc"], "and so does a delete");
    assert_eq!(given(&nothing, &full, 0), [""; 0]);
    let by_another = row(&[(3, "a", Some("a1")), (5, "a", Some("b2")), (5, "a", Some("c2"))]);
    assert_eq!(given(&full, &by_another, 0), [""; 0], "another replica was faster");
}

#[test]
fn deletes_are_given_back_and_never_hide_what_came_after_them() {
    let gone = row(&[(3, "x", Some("a1")), (5, "y", None)]);
    assert_eq!(given(&gone, &row(&[(3, "x", Some("a1"))]), 0), ["5 delete"]);
    let back = row(&[(5, "x", None), (5, "y", Some("a1"))]);
    assert_eq!(given(&back, &Row::default(), 0), ["5 delete", "6 a"]);
}

#[test]
fn a_row_without_cells_of_its_time_is_said_to_exist() {
    let mut bare = row(&[(3, "x", Some("a1"))]);
    let stamp = Stamp { hlc: Hlc(9), client: "x".parse().unwrap() };
    let (table, row_id) = ("t".parse().unwrap(), "r".parse().unwrap());
    bare.merge(&Delta { table, row_id, stamp, op: Op::Upsert(Vec::new()) });
    assert_eq!(given(&bare, &Row::default(), 0), ["3 a", "9 "]);
}

#[test]
fn old_readings_come_to_lie_behind_the_horizon_in_their_order() {
    let day = |days: u64| Hlc::from_ms(days * 24 * 60 * 60 * 1_000);
    let horizon = Horizon::at(i64::try_from(day(20_000).ms()).unwrap(), day(90).ms());
    let mut last = Hlc::default();
    for days in [1, 100, 19_000, 19_910, 19_911, 19_912, 19_913, 20_000] {
        let admitted = horizon.admit(day(days));
        assert!(day(19_911) <= admitted && last < admitted, "{days}: {admitted:?}");
        if 19_912 <= days {
            assert_eq!(admitted, day(days), "recent ones are left as they are");
        }
        last = admitted;
    }
}

//! Evolution as a table of what is allowed, and which values fit which types.

use super::*;
use ColumnType::{
    Any, Bool, Bytes, Date, Decimal, Double, Int64, Json, String as Text, Timestamp, Uuid,
};

fn name(text: &str) -> ColumnName {
    text.parse().expect("a legal name")
}

fn proposal(table: &str, columns: &[(&str, ColumnType)]) -> Proposal {
    Proposal {
        table: table.parse().expect("a legal name"),
        key: name("id"),
        columns: columns.iter().map(|(column, kind)| (name(column), *kind)).collect(),
        primary_key: Vec::new(),
    }
}

fn decimal(precision: u32, scale: u32) -> ColumnType {
    Decimal { precision, scale }
}

#[test]
fn types_widen_and_never_narrow() {
    for (from, to, allowed) in [
        (Int64, Int64, true),
        (Int64, Double, true),
        (Int64, decimal(38, 2), true),
        (Int64, decimal(20, 2), false),
        (Date, Timestamp, true),
        (Bool, Json, true),
        (Bytes, Text, true),
        (decimal(10, 2), decimal(12, 4), true),
        (decimal(10, 2), decimal(10, 4), false),
        (Double, Int64, false),
        (Text, Int64, false),
        (Timestamp, Date, false),
        (Text, Uuid, false),
    ] {
        let old = Schema::default().evolve(&[proposal("t", &[("a", from)])]).expect("new table");
        let got = old.evolve(&[proposal("t", &[("a", to)])]);
        assert_eq!(got.is_ok(), allowed, "{from} to {to}: {got:?}");
    }
}

#[test]
fn a_column_of_the_primary_key_widens_only_where_every_row_id_stays() {
    for (from, to, alone, beside) in [
        (Int64, decimal(38, 2), true, true),
        (decimal(12, 2), decimal(38, 10), true, true),
        (Int64, Any, true, true),
        (Bytes, Any, true, true),
        (Date, Any, true, true),
        (Text, Any, false, true),
        (decimal(12, 2), Any, false, true),
        (Uuid, Any, false, true),
        (Uuid, Text, true, true),
        // Not every integer is a double, and `05` is a text but no integer.
        (Int64, Double, false, false),
        (Int64, Text, false, false),
        (Date, Timestamp, false, false),
        (Text, Json, false, false),
        (Bytes, Text, false, false),
    ] {
        for (key, allowed) in [(&["a"][..], alone), (&["a", "b"], beside)] {
            let keyed = |kind| Proposal {
                primary_key: key.iter().map(|text| name(text)).collect(),
                ..proposal("t", &[("a", kind), ("b", Int64)])
            };
            let old = Schema::default().evolve(&[keyed(from)]).expect("new table");
            let got = old.evolve(&[keyed(to)]);
            assert_eq!(got.is_ok(), allowed, "{from} to {to} in a key of {key:?}: {got:?}");
            if let Err(error) = got {
                assert!(error.to_string().contains("part of the primary key"), "{error}");
            }
        }
    }
}

#[test]
fn ids_are_permanent_and_versions_grow_with_change_only() {
    let first =
        Schema::default().evolve(&[proposal("t", &[("a", Int64), ("b", Text)])]).expect("new");
    let same = first.evolve(&[proposal("t", &[("b", Text), ("a", Int64)])]).expect("same");
    assert_eq!(first, same);
    let third =
        same.evolve(&[proposal("t", &[("c", Bool), ("b", Text), ("a", Int64)])]).expect("wider");
    let table = third.tables().next().expect("one table");
    let ids: Vec<_> = table.columns.iter().map(|c| (c.name.as_str(), c.field_id)).collect();
    assert_eq!(ids, [("a", 1), ("b", 2), ("c", 3)]);
    assert_eq!(table.version, 2);
}

#[test]
fn what_would_break_is_refused() {
    let old = Schema::default().evolve(&[proposal("t", &[("a", Int64)])]).expect("new table");
    for twice in ["u", "U"] {
        let twice = [proposal("u", &[("x", Int64)]), proposal(twice, &[("y", Int64)])];
        let error = old.evolve(&twice).expect_err("ambiguous").to_string();
        assert!(error.contains("stands twice"), "{error}");
    }
    for (refused, says) in [
        (proposal("t", &[]), "column a is missing"),
        (proposal("T", &[("a", Int64)]), "exists as t"),
        (proposal("t", &[("a", Int64), ("A", Text)]), "declared twice"),
        (proposal("u", &[("ID", Int64)]), "declared twice"),
        (proposal("u", &[("x", decimal(39, 0))]), "(39, 0)"),
        (proposal("u", &[("x", decimal(5, 6))]), "(5, 6)"),
        (
            Proposal { primary_key: vec![name("z")], ..proposal("u", &[("x", Int64)]) },
            "can't be (z)",
        ),
        (
            Proposal { primary_key: vec![name("a")], ..proposal("t", &[("a", Int64)]) },
            "can't be (a)",
        ),
        (
            Proposal {
                primary_key: vec![name("x"), name("x")],
                ..proposal("u", &[("x", Int64), ("y", Int64)])
            },
            "can't be (x, x)",
        ),
        (
            Proposal { primary_key: vec![name("x"); 1_000], ..proposal("u", &[("x", Int64)]) },
            "and 992 more",
        ),
        (Proposal { key: name("pk"), ..proposal("t", &[("a", Int64)]) }, "the key is id"),
    ] {
        let error = old.evolve(&[refused]).expect_err(says).to_string();
        assert!(error.contains(says), "{error:?} should say {says:?}");
    }
}

#[test]
fn values_fit_their_own_type_only() {
    for (kind, value, fits) in [
        (Int64, Value::Int64(1), true),
        (Int64, Value::Null, true),
        (Int64, Value::Double(1.0), false),
        (Text, Value::Json("1".into()), false),
        (Json, Value::Json("{\"a\":[1,null]}".into()), true),
        (Json, Value::Json("{a:1}".into()), false),
        (Json, Value::Json(String::new()), false),
        (decimal(4, 2), Value::Decimal("-12.34".into()), true),
        (decimal(4, 2), Value::Decimal("0012.3".into()), true),
        (decimal(4, 2), Value::Decimal("123.4".into()), false),
        (decimal(4, 2), Value::Decimal("1.234".into()), false),
        (decimal(4, 2), Value::Decimal("1e1".into()), false),
        (decimal(4, 2), Value::Decimal("1.".into()), false),
        (decimal(4, 2), Value::Decimal("-".into()), false),
        (decimal(2, 2), Value::Decimal("0.12".into()), true),
    ] {
        assert_eq!(kind.fits(&value), fits, "{value:?} in {kind}");
    }
}

#[test]
fn all_tables_fit_in_one_message() {
    let columns: Vec<_> = (0..1_000).map(|nth| (name(&format!("c{nth}")), Int64)).collect();
    let wide =
        |nth: usize| Proposal { columns: columns.clone(), ..proposal(&format!("t{nth}"), &[]) };
    let mut schema = Schema::default();
    let error = (0..1_000)
        .step_by(20)
        .find_map(|nth| match schema.evolve(&(nth..nth + 20).map(wide).collect::<Vec<_>>()) {
            Ok(evolved) => {
                schema = evolved;
                None
            }
            Err(error) => Some(error.to_string()),
        })
        .expect("a thousand tables of a thousand columns are too much");
    assert!(error.contains("bytes of tables in one gateway; the limit is 3670016"), "{error}");
    assert!(100 < schema.tables().len(), "{} tables", schema.tables().len());
    assert!(schema.evolve(&[wide(0)]).is_ok(), "what is there may be proposed again");
}

#[test]
fn tables_are_counted_before_they_are_looked_at() {
    let many: Vec<_> = (0..1_001).map(|nth| proposal(&format!("t{nth}"), &[])).collect();
    let error = Schema::default().evolve(&many).expect_err("too many").to_string();
    assert_eq!(error, "1001 tables in one gateway; the limit is 1000");
    let full = Schema::default().evolve(&many[..1_000]).expect("just fits");
    assert!(full.evolve(&many[..1_000]).is_ok());
    assert!(full.evolve(&many[1_000..]).is_err());
    let twice = [proposal("t", &[("a", Int64)]), proposal("T", &[("a", Int64)])];
    assert!(Schema::default().evolve(&twice).is_err());
}

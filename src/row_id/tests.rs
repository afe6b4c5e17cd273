//! Ids are equal for equal keys, different for others, and read back as what they name.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing;
use ColumnType::{Any, Bool, Bytes, Date, Double, Int64, Json as Document, Timestamp, Uuid};

const TEXT: ColumnType = ColumnType::String;
const DECIMAL: ColumnType = ColumnType::Decimal { precision: 38, scale: 10 };

/// A column, and a value that it holds.
fn cell() -> impl Strategy<Value = (ColumnType, Value)> {
    let number = prop_oneof![
        any::<i64>(),
        -3..3_i64,
        (0..63_u32).prop_map(|bit| 1 << bit),
        (0..63_u32).prop_map(|bit| (1 << bit) - 1),
    ];
    let numbers = number.prop_flat_map(|number| {
        prop_oneof![
            Just((Int64, Value::Int64(number))),
            Just((Any, Value::Int64(number))),
            Just((Double, Value::Double(number as f64))),
            Just((Any, Value::Double(number as f64))),
            Just((Any, Value::String(number.to_string()))),
            Just((TEXT, Value::String(number.to_string()))),
            Just((Timestamp, Value::Timestamp(number))),
        ]
    });
    let values = testing::value().prop_flat_map(|value| {
        let kind = match &value {
            Value::Null | Value::Int64(_) => Int64,
            Value::Bool(_) => Bool,
            Value::Double(_) => Double,
            Value::String(_) => TEXT,
            Value::Bytes(_) => Bytes,
            Value::Json(_) => Document,
            Value::Decimal(_) => DECIMAL,
            Value::Timestamp(_) => Timestamp,
            Value::Date(_) => Date,
            Value::Uuid(_) => Uuid,
        };
        prop_oneof![Just((kind, value.clone())), Just((Any, value))]
    });
    prop_oneof![numbers, values]
}

fn id(key: &[(ColumnType, Value)]) -> Result<RowId, NoRowId> {
    of(&key.iter().map(|(kind, value)| (*kind, value)).collect::<Vec<_>>())
}

/// What SQLite compares: a number, or a text, or bytes.
#[derive(Debug, PartialEq)]
enum Compared {
    Integer(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

fn compared(value: &Value) -> Option<Compared> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => Compared::Integer((*truth).into()),
        Value::Int64(number) | Value::Timestamp(number) => Compared::Integer(*number),
        Value::Date(days) => Compared::Integer((*days).into()),
        Value::Double(number) if number.is_nan() => return None,
        Value::Double(number) if (*number as i64) as i128 == *number as i128 => {
            match number.fract() == 0.0 {
                true => Compared::Integer(*number as i64),
                false => Compared::Real(*number),
            }
        }
        Value::Double(number) => Compared::Real(*number),
        Value::Decimal(text) => {
            let digits = shortest_decimal(text);
            digits.parse().map_or(Compared::Text(digits), Compared::Integer)
        }
        Value::String(text) | Value::Json(text) => Compared::Text(text.clone()),
        Value::Uuid(uuid) => Compared::Text(hyphenated(uuid)),
        Value::Bytes(bytes) => Compared::Bytes(bytes.to_vec()),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The types of the two keys are the same, since they are of one table.
    #[test]
    fn two_keys_have_one_id_exactly_if_they_are_the_same(
        pairs in vec((cell(), cell()), 1..4), same in any::<[bool; 4]>(),
    ) {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for (((kind, a), (second, b)), same) in pairs.into_iter().zip(same) {
            let kind = if same || kind == second { kind } else { Any };
            one.push((kind, a.clone()));
            other.push((kind, if same { a } else { b }));
        }
        let equal = one.iter().zip(&other).all(|(a, b)| compared(&a.1) == compared(&b.1));
        if let (Ok(a), Ok(b)) = (id(&one), id(&other)) {
            prop_assert_eq!(a == b, equal, "{:?} and {:?}", one, other);
        }
    }

    #[test]
    fn an_id_reads_back_as_a_key_that_has_it(key in vec(cell(), 1..4)) {
        let kinds: Vec<_> = key.iter().map(|(kind, _)| *kind).collect();
        match id(&key) {
            Ok(id) => {
                let back = values(&kinds, &id);
                let back: Vec<_> = back.into_iter().flatten().collect();
                prop_assert_eq!(back.len(), key.len(), "{} of {:?}", id, key);
                for ((kind, value), back) in key.iter().zip(&back) {
                    prop_assert_eq!(compared(value), compared(back));
                    prop_assert!(kind.fits(back));
                }
            }
            Err(NoRowId::Illegal(_)) => {}
            Err(_) => prop_assert!(key.iter().any(|(_, value)| compared(value).is_none())),
        }
    }

    #[test]
    fn reals_are_taken_apart_and_put_together(number in any::<f64>()) {
        prop_assume!(number.is_finite() && number != 0.0);
        let (mantissa, exponent) = scaled(number);
        let json = serde_json::json!([mantissa, exponent]);
        prop_assert_eq!(parse_real(&json).map(f64::to_bits), Some(number.to_bits()));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-\\[\\]{}\"br:,.0-9einf a\u{0}]{1,20}") {
        let Ok(id) = text.parse::<RowId>() else { return Ok(()) };
        for kind in [Any, Int64, Double, TEXT, DECIMAL, Uuid, Bytes, Date] {
            for kinds in [vec![kind], vec![kind; 2]] {
                if let Some(values) = values(&kinds, &id) {
                    let key: Vec<_> = kinds.iter().copied().zip(&values).collect();
                    prop_assert_eq!(of(&key), Ok(id.clone()));
                }
            }
        }
    }
}

#[test]
fn only_the_one_spelling_of_a_key_is_its_row_id() {
    for (kinds, text, legal) in [
        (&[Int64][..], "7", true),
        (&[Int64], "07", false),
        (&[Int64], "+7", false),
        (&[Int64], "-0", false),
        (&[Int64], "7.0", false),
        (&[Int64], "[7]", false),
        (&[Int64], "five", false),
        (&[Int64, TEXT], "[1,\"a\"]", true),
        (&[Int64, TEXT], "[1, \"a\"]", false),
        (&[Int64, TEXT], "[1]", false),
        (&[Int64, TEXT], "[\"1\",\"a\"]", false),
        (&[Int64, TEXT], "[1,\"\\u0061\"]", false),
        (&[Int64, TEXT], "[1,\"a\\u0000\"]", false),
        (&[Any], "1", true),
        (&[Any], "[1]", false),
        (&[Any], "[\"1\"]", true),
        (&[Any], "x", false),
        (&[Any], "[null]", false),
        (&[Any], "[1.5]", false),
        (&[Any], "[{\"r\":[4503599627370496,-53]}]", true),
        (&[Any], "[{\"r\":[1,-1]}]", false),
        (&[Any], "[{\"r\":[4503599627370496,-52]}]", false),
        (&[Bytes], "[{\"b\":\"AB\"}]", false),
        (&[Bytes], "[{\"b\":\"ab\"}]", true),
        (&[Uuid], "30313233-3435-3637-3839-616263646566", true),
        (&[Uuid], "30313233-3435-3637-3839-61626364656F", false),
        (&[Uuid], "30313233343536373839616263646566", false),
        (&[DECIMAL], "1.5", true),
        (&[DECIMAL], "1.50", false),
        (&[Date], "3000000000", false),
    ] {
        assert_eq!(values(kinds, &testing::id(text)).is_some(), legal, "{text} as {kinds:?}");
    }
}

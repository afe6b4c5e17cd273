//! LakeSync's values ⇄ SQLite's storage classes, by the column's type.
//!
//! | type | stored as |
//! |---|---|
//! | bool | 0 or 1 |
//! | int64, timestamp (µs), date (days) | INTEGER |
//! | double | REAL; NaN as the text `NaN`, because SQLite turns NaN into NULL |
//! | string, json, decimal | TEXT |
//! | uuid | TEXT, lower-case with hyphens |
//! | bytes | BLOB |
//! | any | whatever it is |
//!
//! A stored value that its column's type does not allow is converted as what it is: the gateway
//! refuses it with its reasons, and nothing is guessed.

use bytes::Bytes;
use lakesync::schema::ColumnType;
use lakesync::value::Value;

use super::sql::Stored;

const NAN: &str = "NaN";

/// How SQLite keeps `value`.
pub(super) fn to_stored(value: &Value) -> Stored {
    match value {
        Value::Null => Stored::Null,
        Value::Bool(value) => Stored::Integer(i64::from(*value)),
        Value::Int64(value) | Value::Timestamp(value) => Stored::Integer(*value),
        Value::Date(days) => Stored::Integer(i64::from(*days)),
        Value::Double(value) if value.is_nan() => Stored::Text(NAN.to_owned()),
        Value::Double(value) => Stored::Real(*value),
        Value::String(text) | Value::Json(text) | Value::Decimal(text) => {
            Stored::Text(text.clone())
        }
        Value::Bytes(bytes) => Stored::Blob(bytes.to_vec()),
        Value::Uuid(uuid) => Stored::Text(uuid_text(uuid)),
    }
}

/// What a stored value means in a column of type `kind`. `None` for text that is not UTF-8.
pub(super) fn from_stored(kind: ColumnType, stored: &Stored) -> Option<Value> {
    let typed = match (kind, stored) {
        (_, Stored::Null) => Some(Value::Null),
        (ColumnType::Bool, Stored::Integer(value @ (0 | 1))) => Some(Value::Bool(*value == 1)),
        (ColumnType::Timestamp, Stored::Integer(value)) => Some(Value::Timestamp(*value)),
        (ColumnType::Date, Stored::Integer(value)) => i32::try_from(*value).ok().map(Value::Date),
        (ColumnType::Double, Stored::Integer(value)) => exact_double(*value).map(Value::Double),
        (ColumnType::Double, Stored::Text(text)) if text == NAN => Some(Value::Double(f64::NAN)),
        (ColumnType::Json, Stored::Text(text)) => Some(Value::Json(text.clone())),
        (ColumnType::Decimal { .. }, Stored::Text(text)) => Some(Value::Decimal(text.clone())),
        (ColumnType::Decimal { .. }, Stored::Integer(value)) => {
            Some(Value::Decimal(value.to_string()))
        }
        (ColumnType::Uuid, Stored::Text(text)) => parse_uuid(text).map(Value::Uuid),
        _ => None,
    };
    typed.filter(|value| kind.fits(value)).or_else(|| untyped(stored))
}

fn untyped(stored: &Stored) -> Option<Value> {
    Some(match stored {
        Stored::Null => Value::Null,
        Stored::Integer(value) => Value::Int64(*value),
        Stored::Real(value) => Value::Double(*value),
        Stored::Text(text) => Value::String(text.clone()),
        Stored::Blob(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes)),
        Stored::Garbled(_) => return None,
    })
}

/// The double that equals `value`, if one does.
fn exact_double(value: i64) -> Option<f64> {
    const EXACT_MAX: i64 = 1 << 53;
    (-EXACT_MAX..=EXACT_MAX).contains(&value).then_some(value as f64)
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex = hex(uuid);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    // Another spelling would come back from the gateway as this one, and be another text.
    if lengths != [8, 4, 4, 4, 12] || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    parse_hex(&text.replace('-', ""))?.try_into().ok()
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) || !text.len().is_multiple_of(2) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use lakesync::testing;

    /// The type that a value of this kind is declared with.
    fn type_of(value: &Value) -> ColumnType {
        match value {
            Value::Null => ColumnType::Any,
            Value::Bool(_) => ColumnType::Bool,
            Value::Int64(_) => ColumnType::Int64,
            Value::Double(_) => ColumnType::Double,
            Value::String(_) => ColumnType::String,
            Value::Bytes(_) => ColumnType::Bytes,
            Value::Json(_) => ColumnType::Json,
            Value::Decimal(_) => ColumnType::Decimal { precision: 38, scale: 10 },
            Value::Timestamp(_) => ColumnType::Timestamp,
            Value::Date(_) => ColumnType::Date,
            Value::Uuid(_) => ColumnType::Uuid,
        }
    }

    proptest! {
        #[test]
        fn values_that_fit_their_column_round_trip(value in testing::value()) {
            let back = from_stored(type_of(&value), &to_stored(&value));
            prop_assert_eq!(back, Some(value));
        }
    }

    const UPPER: &str = "0190A7F0-0000-7000-8000-00000000000A";

    #[test]
    fn what_does_not_fit_is_sent_as_what_it_is() {
        for (kind, stored, expected) in [
            (ColumnType::Bool, Stored::Integer(7), Value::Int64(7)),
            (ColumnType::Int64, Stored::Text("x".into()), Value::String("x".into())),
            (ColumnType::Date, Stored::Integer(1 << 40), Value::Int64(1 << 40)),
            (ColumnType::Double, Stored::Integer(i64::MAX), Value::Int64(i64::MAX)),
            (ColumnType::Double, Stored::Integer(3), Value::Double(3.0)),
            (ColumnType::Json, Stored::Text("{".into()), Value::String("{".into())),
            (ColumnType::Uuid, Stored::Text("x-y".into()), Value::String("x-y".into())),
            (ColumnType::Uuid, Stored::Text(UPPER.into()), Value::String(UPPER.into())),
            (ColumnType::Any, Stored::Real(0.5), Value::Double(0.5)),
        ] {
            assert_eq!(from_stored(kind, &stored), Some(expected), "{stored:?} as {kind}");
        }
        assert_eq!(from_stored(ColumnType::String, &Stored::Garbled(vec![0xff])), None);
    }
}

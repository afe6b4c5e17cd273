//! Values ⇄ protobuf.

use bytes::Bytes;

use crate::proto::v1::value::Kind;
use crate::proto::v1::{self as proto};
use crate::value::{Decimal, Value, is_json};

/// The value a message holds, or what is wrong with it. A column of any type holds well-formed
/// values only: what no backend could take must not get that far.
pub fn decode_value(value: Option<proto::Value>) -> Result<Value, &'static str> {
    let kind = value.ok_or("the value is missing")?.kind.ok_or("the value has no known kind")?;
    Ok(match kind {
        Kind::NullValue(_) => Value::Null,
        Kind::BoolValue(value) => Value::Bool(value),
        Kind::Int64Value(value) => Value::Int64(value),
        Kind::DoubleValue(value) => Value::Double(value),
        Kind::StringValue(text) => Value::String(no_nul(text)?),
        Kind::BytesValue(bytes) => Value::Bytes(bytes),
        Kind::JsonValue(text) => Value::Json(json(text)?),
        Kind::DecimalValue(text) => {
            Decimal::parse(&text)?;
            Value::Decimal(text)
        }
        Kind::TimestampValue(value) => Value::Timestamp(value),
        Kind::DateValue(value) => Value::Date(value),
        Kind::UuidValue(bytes) => {
            Value::Uuid(bytes.as_ref().try_into().map_err(|_| "a UUID has 16 bytes")?)
        }
    })
}

/// The message that holds `value`.
pub fn encode_value(value: Value) -> proto::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Int64(value) => Kind::Int64Value(value),
        Value::Double(value) => Kind::DoubleValue(value),
        Value::String(text) => Kind::StringValue(text),
        Value::Bytes(bytes) => Kind::BytesValue(bytes),
        Value::Json(text) => Kind::JsonValue(text),
        Value::Decimal(text) => Kind::DecimalValue(text),
        Value::Timestamp(value) => Kind::TimestampValue(value),
        Value::Date(value) => Kind::DateValue(value),
        Value::Uuid(uuid) => Kind::UuidValue(Bytes::copy_from_slice(&uuid)),
    };
    proto::Value { kind: Some(kind) }
}

/// Postgres can't hold U+0000 in text, so nobody may send it.
fn no_nul(text: String) -> Result<String, &'static str> {
    if text.contains('\0') { Err("text can't hold U+0000") } else { Ok(text) }
}

fn json(text: String) -> Result<String, &'static str> {
    if is_json(&text) { Ok(text) } else { Err("the text is no JSON document") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    proptest! {
        #[test]
        fn values_round_trip(value in testing::value()) {
            prop_assert_eq!(decode_value(Some(encode_value(value.clone()))), Ok(value));
        }
    }

    #[test]
    fn malformed_values_are_refused() {
        let of = |kind| Some(proto::Value { kind: Some(kind) });
        assert!(decode_value(None).is_err());
        assert!(decode_value(Some(proto::Value { kind: None })).is_err());
        assert!(decode_value(of(Kind::StringValue("a\0b".into()))).is_err());
        assert!(decode_value(of(Kind::UuidValue(Bytes::from_static(b"short")))).is_err());
        for text in ["", "{a:1}", "[1", "\"a\0b\"", "1 2"] {
            assert!(decode_value(of(Kind::JsonValue(text.into()))).is_err(), "{text:?}");
        }
        for text in ["", "1e1", "abc", "1\0", &"9".repeat(39)] {
            assert!(decode_value(of(Kind::DecimalValue(text.into()))).is_err(), "{text:?}");
        }
    }
}

//! Row ids by value: the one rule that the gateway, replicas, imports and other languages follow.
//!
//! A table whose schema has a `primary_key` names each row by the values of those columns. The id
//! depends on the values alone, not on which kind of value or column holds them: 1 has the id `1` as
//! int64, as decimal `1.00` and as double. Two keys have the same id exactly if SQLite holds them
//! to be the same key. docs/PROTOCOL.md states the rule, `tests/vectors/row_id.json` has cases.
//!
//! Each value becomes a part: an integer, a text, bytes or a real. Parts are written as JSON.

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::name::{InvalidName, RowId};
use crate::schema::{ColumnType, hex, hyphenated, shortest_decimal, unhex};
use crate::value::Value;

/// Why a key has no row id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRowId {
    /// A column of the key is NULL.
    #[error("NULL can't be part of a key")]
    Null,
    /// A column of the key is NaN, which equals nothing.
    #[error("NaN can't be part of a key")]
    NotANumber,
    /// The id would be empty or too long.
    #[error(transparent)]
    Illegal(#[from] InvalidName),
}

/// What a value is in a key, whatever kind of value it is.
#[derive(Clone, Debug, PartialEq)]
enum Part<'a> {
    Integer(i64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// Neither NaN nor equal to an `i64`.
    Real(f64),
}

/// The id of the row whose key holds these values, each beside the type of its column.
///
/// ```
/// use lakesync::row_id;
/// use lakesync::schema::ColumnType::{Any, Int64, String as Text};
/// use lakesync::value::Value;
///
/// let (seven, word) = (Value::Int64(7), Value::String("a".to_owned()));
/// assert_eq!(row_id::of(&[(Int64, &seven)])?.as_str(), "7");
/// assert_eq!(row_id::of(&[(Text, &word)])?.as_str(), "a");
/// assert_eq!(row_id::of(&[(Any, &word)])?.as_str(), r#"["a"]"#);
/// assert_eq!(row_id::of(&[(Int64, &seven), (Text, &word)])?.as_str(), r#"[7,"a"]"#);
/// # Ok::<(), row_id::NoRowId>(())
/// ```
pub fn of(key: &[(ColumnType, &Value)]) -> Result<RowId, NoRowId> {
    let text = match key {
        [(kind, value)] => match Part::of(value)? {
            Part::Integer(number) => number.to_string(),
            Part::Text(text) if is_text_alone(*kind) => text.into_owned(),
            part => format!("[{}]", part.json()),
        },
        several => {
            let part = |(_, value): &(ColumnType, &Value)| Ok(Part::of(value)?.json());
            let parts: Vec<_> = several.iter().map(part).collect::<Result<_, NoRowId>>()?;
            format!("[{}]", parts.join(","))
        }
    };
    Ok(RowId::parse(&text)?)
}

/// The key that a row id names in columns of these types, in the plainest kind of value that each
/// column holds. `None` if the id is not the one that these values have: no row has it then.
pub fn values(kinds: &[ColumnType], id: &RowId) -> Option<Vec<Value>> {
    let text = id.as_str();
    let parts = match kinds {
        [kind] if is_text_alone(*kind) => vec![Part::Text(text.into())],
        [_] => match text.parse() {
            Ok(number) => vec![Part::Integer(number)],
            Err(_) => parts(text)?,
        },
        _ => parts(text)?,
    };
    if parts.len() != kinds.len() {
        return None;
    }
    let values = kinds.iter().zip(parts).map(|(kind, part)| part.value(*kind));
    let values: Vec<Value> = values.collect::<Option<_>>()?;
    let key: Vec<_> = kinds.iter().copied().zip(&values).collect();
    (of(&key).as_ref() == Ok(id)).then_some(values)
}

/// Whether a text alone in a key of this type is the row id by itself. A decimal is a text if it is
/// no 64-bit integer, and its digits can't be taken for those of one.
fn is_text_alone(kind: ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::String | ColumnType::Json | ColumnType::Uuid | ColumnType::Decimal { .. }
    )
}

/// The parts of a JSON array.
fn parts(text: &str) -> Option<Vec<Part<'static>>> {
    let Json::Array(items) = serde_json::from_str(text).ok()? else { return None };
    items.into_iter().map(part).collect()
}

fn part(json: Json) -> Option<Part<'static>> {
    match json {
        Json::Number(number) => number.as_i64().map(Part::Integer),
        Json::String(text) => Some(Part::Text(text.into())),
        Json::Object(tagged) if tagged.len() == 1 => match tagged.into_iter().next()? {
            (tag, Json::String(digits)) if tag == "b" => Some(Part::Bytes(unhex(&digits)?.into())),
            (tag, of) if tag == "r" => parse_real(&of).map(Part::Real),
            _ => None,
        },
        _ => None,
    }
}

impl<'a> Part<'a> {
    fn of(value: &'a Value) -> Result<Self, NoRowId> {
        Ok(match value {
            Value::Null => return Err(NoRowId::Null),
            Value::Bool(truth) => Self::Integer(i64::from(*truth)),
            Value::Int64(number) | Value::Timestamp(number) => Self::Integer(*number),
            Value::Date(days) => Self::Integer(i64::from(*days)),
            Value::Double(number) if number.is_nan() => return Err(NoRowId::NotANumber),
            Value::Double(number) => {
                exact_integer(*number).map_or(Self::Real(*number), Self::Integer)
            }
            Value::Decimal(text) => {
                let digits = shortest_decimal(text);
                digits.parse().map_or(Self::Text(digits.into()), Self::Integer)
            }
            Value::String(text) | Value::Json(text) => Self::Text(text.into()),
            Value::Uuid(uuid) => Self::Text(hyphenated(uuid).into()),
            Value::Bytes(bytes) => Self::Bytes(bytes.as_ref().into()),
        })
    }

    fn json(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Text(text) => Json::from(text.as_ref()).to_string(),
            Self::Bytes(bytes) => format!("{{\"b\":\"{}\"}}", hex(bytes)),
            Self::Real(number) if *number == f64::INFINITY => "{\"r\":\"inf\"}".to_owned(),
            Self::Real(number) if *number == f64::NEG_INFINITY => "{\"r\":\"-inf\"}".to_owned(),
            Self::Real(number) => {
                let (mantissa, exponent) = scaled(*number);
                format!("{{\"r\":[{mantissa},{exponent}]}}")
            }
        }
    }

    /// The value that this is in a column of type `kind`, if such a column holds one.
    fn value(self, kind: ColumnType) -> Option<Value> {
        let value = match (kind, self) {
            (ColumnType::Bool, Self::Integer(truth @ (0 | 1))) => Value::Bool(truth == 1),
            (ColumnType::Int64 | ColumnType::Any, Self::Integer(number)) => Value::Int64(number),
            (ColumnType::Timestamp, Self::Integer(micros)) => Value::Timestamp(micros),
            (ColumnType::Date, Self::Integer(days)) => Value::Date(i32::try_from(days).ok()?),
            (ColumnType::Double, Self::Integer(number)) => Value::Double(number as f64),
            (ColumnType::Double | ColumnType::Any, Self::Real(number)) => Value::Double(number),
            (ColumnType::Decimal { .. }, Self::Integer(number)) => {
                Value::Decimal(number.to_string())
            }
            (ColumnType::Decimal { .. }, Self::Text(text)) => Value::Decimal(text.into_owned()),
            // No value has this character in a text.
            (_, Self::Text(text)) if text.contains('\0') => return None,
            (ColumnType::String | ColumnType::Any, Self::Text(text)) => {
                Value::String(text.into_owned())
            }
            (ColumnType::Json, Self::Text(text)) => Value::Json(text.into_owned()),
            (ColumnType::Uuid, Self::Text(text)) => {
                Value::Uuid(unhex(&text.replace('-', ""))?.try_into().ok()?)
            }
            (ColumnType::Bytes | ColumnType::Any, Self::Bytes(bytes)) => {
                Value::Bytes(bytes.into_owned().into())
            }
            _ => return None,
        };
        kind.fits(&value).then_some(value)
    }
}

/// The integer that equals `number`, if one of 64 bits does. −0 is 0.
fn exact_integer(number: f64) -> Option<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    let is_one = number.fract() == 0.0 && (-BEYOND..BEYOND).contains(&number);
    is_one.then_some(number as i64)
}

const MANTISSA_BITS: u32 = 52;

/// A finite number other than zero as `m` and `e` where it is m · 2^e and 2^52 ≤ |m| < 2^53.
fn scaled(number: f64) -> (i64, i32) {
    let bits = number.to_bits();
    let fraction = (bits & ((1 << MANTISSA_BITS) - 1)).cast_signed();
    let biased = i32::try_from((bits >> MANTISSA_BITS) & 0x7ff).expect("BUG: eleven bits");
    let (magnitude, exponent) = match biased {
        0 => {
            let shift = fraction.leading_zeros() - (63 - MANTISSA_BITS);
            (fraction << shift, -1_074 - shift.cast_signed())
        }
        _ => (fraction | 1 << MANTISSA_BITS, biased - 1_075),
    };
    (if number < 0.0 { -magnitude } else { magnitude }, exponent)
}

/// The number that [`scaled`] takes apart. Pairs that it never makes yield some other number, or none.
fn parse_real(json: &Json) -> Option<f64> {
    match json {
        Json::String(text) if text == "inf" => Some(f64::INFINITY),
        Json::String(text) if text == "-inf" => Some(f64::NEG_INFINITY),
        Json::Array(pair) => {
            let [mantissa, exponent] = pair.as_slice() else { return None };
            let (mantissa, exponent) = (mantissa.as_i64()?, exponent.as_i64()?);
            let whole = 1 << MANTISSA_BITS..1 << (MANTISSA_BITS + 1);
            let magnitude = mantissa.unsigned_abs();
            if !whole.contains(&magnitude) || !(-1_126..=971).contains(&exponent) {
                return None;
            }
            let below = u32::try_from((-1_074 - exponent).max(0)).ok()?;
            let biased = u64::try_from(exponent + 1_075).unwrap_or(0);
            let bits = match below {
                0 => biased << MANTISSA_BITS | magnitude & ((1 << MANTISSA_BITS) - 1),
                below => magnitude >> below,
            };
            let number = f64::from_bits(bits);
            Some(if mantissa < 0 { -number } else { number })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;

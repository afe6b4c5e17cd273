//! One typed cell and its canonical bytes, which decide ties and feed the delta id.
//!
//! Canonical bytes are a tag and a payload: fixed-width integers big-endian, text and bytes behind
//! a 32-bit length. Equal values have equal bytes; every NaN is the one quiet NaN, and −0.0 differs
//! from 0.0.

use std::cmp::Ordering;

use bytes::Bytes;

mod decimal;

pub(crate) use decimal::Decimal;

/// A typed cell.
///
/// Equality and order are those of the canonical bytes. The order has no meaning beyond settling
/// ties between equal stamps.
#[derive(Clone, Debug)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer of up to 64 bits.
    Int64(i64),
    /// An IEEE 754 binary64.
    Double(f64),
    /// UTF-8 text.
    String(String),
    /// Raw bytes.
    Bytes(Bytes),
    /// A JSON document as text, in RFC 8785 form.
    Json(String),
    /// A base-10 number in plain notation, such as `-12.3400`. The scale counts.
    Decimal(String),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// Days since 1970-01-01.
    Date(i32),
    /// A UUID in network order.
    Uuid([u8; 16]),
}

/// Canonical bytes that end early, name an unknown kind or hold an impossible payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

const QUIET_NAN: u64 = 0x7ff8_0000_0000_0000;

impl Value {
    /// The kind's number, as on the wire.
    pub fn tag(&self) -> u8 {
        match self {
            Self::Null => 1,
            Self::Bool(_) => 2,
            Self::Int64(_) => 3,
            Self::Double(_) => 4,
            Self::String(_) => 5,
            Self::Bytes(_) => 6,
            Self::Json(_) => 7,
            Self::Decimal(_) => 8,
            Self::Timestamp(_) => 9,
            Self::Date(_) => 10,
            Self::Uuid(_) => 11,
        }
    }

    /// The kind's name, as in errors.
    pub fn kind(&self) -> &'static str {
        const NAMES: [&str; 11] = [
            "null",
            "bool",
            "int64",
            "double",
            "string",
            "bytes",
            "json",
            "decimal",
            "timestamp",
            "date",
            "uuid",
        ];
        NAMES[usize::from(self.tag()) - 1]
    }

    /// Appends the canonical bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.tag());
        match self {
            Self::Null => {}
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::Int64(value) | Self::Timestamp(value) => out.extend(value.to_be_bytes()),
            Self::Date(value) => out.extend(i64::from(*value).to_be_bytes()),
            Self::Double(value) => out.extend(canonical_bits(*value).to_be_bytes()),
            Self::String(text) | Self::Json(text) | Self::Decimal(text) => {
                prefixed(text.as_bytes(), out);
            }
            Self::Bytes(bytes) => prefixed(bytes, out),
            Self::Uuid(uuid) => prefixed(uuid, out),
        }
    }

    /// Reads a value back from the front of `bytes` and moves past it.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let [tag] = take_array(bytes)?;
        Ok(match tag {
            1 => Self::Null,
            2 => Self::Bool(take_array::<1>(bytes)? != [0]),
            3 => Self::Int64(i64::from_be_bytes(take_array(bytes)?)),
            4 => Self::Double(f64::from_bits(u64::from_be_bytes(take_array(bytes)?))),
            5 => Self::String(take_text(bytes)?),
            6 => Self::Bytes(Bytes::copy_from_slice(take_prefixed(bytes)?)),
            7 => Self::Json(take_text(bytes)?),
            8 => Self::Decimal(take_text(bytes)?),
            9 => Self::Timestamp(i64::from_be_bytes(take_array(bytes)?)),
            10 => {
                let days = i64::from_be_bytes(take_array(bytes)?);
                Self::Date(i32::try_from(days).map_err(|_| Malformed("date"))?)
            }
            11 => {
                let uuid = take_prefixed(bytes)?;
                Self::Uuid(uuid.try_into().map_err(|_| Malformed("uuid"))?)
            }
            _ => return Err(Malformed("value kind")),
        })
    }

    /// An upper bound of the canonical bytes, for limits.
    pub fn size(&self) -> usize {
        match self {
            Self::String(text) | Self::Json(text) | Self::Decimal(text) => 5 + text.len(),
            Self::Bytes(bytes) => 5 + bytes.len(),
            Self::Uuid(uuid) => 5 + uuid.len(),
            _ => 9,
        }
    }
}

/// Whether `text` is a JSON document.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        use Value::{
            Bool, Bytes, Date, Decimal, Double, Int64, Json, Null, String, Timestamp, Uuid,
        };
        match (self, other) {
            (Null, Null) => Ordering::Equal,
            (Bool(a), Bool(b)) => a.cmp(b),
            // Two's complement compares bytewise as an unsigned number.
            (Int64(a), Int64(b)) | (Timestamp(a), Timestamp(b)) => {
                a.cast_unsigned().cmp(&b.cast_unsigned())
            }
            (Date(a), Date(b)) => i64::from(*a).cast_unsigned().cmp(&i64::from(*b).cast_unsigned()),
            (Double(a), Double(b)) => canonical_bits(*a).cmp(&canonical_bits(*b)),
            (String(a), String(b)) | (Json(a), Json(b)) | (Decimal(a), Decimal(b)) => {
                cmp_prefixed(a.as_bytes(), b.as_bytes())
            }
            (Bytes(a), Bytes(b)) => cmp_prefixed(a, b),
            (Uuid(a), Uuid(b)) => a.cmp(b),
            _ => self.tag().cmp(&other.tag()),
        }
    }
}

fn canonical_bits(value: f64) -> u64 {
    if value.is_nan() { QUIET_NAN } else { value.to_bits() }
}

/// The length comes first in canonical bytes, so the shorter of two is the lesser.
fn cmp_prefixed(a: &[u8], b: &[u8]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Appends `bytes` behind their length.
pub(crate) fn prefixed(bytes: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(bytes.len()).expect("BUG: a value of 4 GiB passed the limits");
    out.extend(len.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Takes `N` bytes off the front.
pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed("length"))?;
    *bytes = rest;
    Ok(*head)
}

/// Takes bytes behind their length off the front.
pub(crate) fn take_prefixed<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = u32::from_be_bytes(take_array(bytes)?) as usize;
    let (head, rest) = bytes.split_at_checked(len).ok_or(Malformed("length"))?;
    *bytes = rest;
    Ok(head)
}

fn take_text(bytes: &mut &[u8]) -> Result<String, Malformed> {
    let raw = take_prefixed(bytes)?;
    Ok(str::from_utf8(raw).map_err(|_| Malformed("text"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn bytes(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn canonical_bytes_round_trip(value in testing::value()) {
            let encoded = bytes(&value);
            let mut rest = encoded.as_slice();
            prop_assert_eq!(Value::decode(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_value_is_larger_than_its_size(value in testing::value()) {
            prop_assert!(bytes(&value).len() <= value.size(), "{value:?}");
        }

        #[test]
        fn values_are_ordered_as_their_bytes(a in testing::value(), b in testing::value()) {
            prop_assert_eq!(a.cmp(&b), bytes(&a).cmp(&bytes(&b)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Value::decode(&mut raw.as_slice());
        }
    }

    #[test]
    fn nan_is_one_value_and_zero_is_two() {
        assert_eq!(Value::Double(f64::NAN), Value::Double(-f64::NAN));
        assert_ne!(Value::Double(0.0), Value::Double(-0.0));
    }
}

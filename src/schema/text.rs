//! Values as the text that sync rules compare: one text per value that is equal in SQL.
//!
//! Only texts of one column's type are ever compared, so `5` of an integer and `5` of a text never
//! meet. NULL and NaN equal nothing and have no text.

use std::borrow::Cow;

use crate::schema::ColumnType;
use crate::value::{Decimal, Value, is_json};

impl ColumnType {
    /// The comparable text of a literal that somebody wrote, or `None` if it is none of this type.
    pub fn literal(self, text: &str) -> Option<String> {
        match self {
            Self::Bool => text.parse::<bool>().ok().map(|value| value.to_string()),
            Self::Int64 => text.parse::<i64>().ok().map(|value| value.to_string()),
            Self::Double => text.parse::<f64>().ok().and_then(double),
            Self::String | Self::Any => Some(text.to_owned()),
            Self::Bytes => hex_literal(text),
            Self::Json => is_json(text).then(|| text.to_owned()),
            Self::Decimal { precision, scale } => {
                Decimal::parse(text).ok().filter(|decimal| decimal.fits(precision, scale))?;
                Some(shortest_decimal(text))
            }
            Self::Timestamp => timestamp(text).map(|micros| micros.to_string()),
            Self::Date => date(text).map(|days| days.to_string()),
            Self::Uuid => uuid_literal(text),
        }
    }

    /// What a literal of this type looks like, for errors.
    pub fn literal_form(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int64 => "an integer of up to 64 bits",
            Self::Double => "a number",
            Self::String | Self::Any => "a text",
            Self::Bytes => "hexadecimal digits, two a byte",
            Self::Json => "a JSON document",
            Self::Decimal { .. } => "a decimal within the column's precision and scale",
            Self::Timestamp => "a time as RFC 3339 has it, such as 2026-01-31T12:00:00Z",
            Self::Date => "a date, such as 2026-01-31",
            Self::Uuid => "a UUID",
        }
    }
}

impl Value {
    /// The comparable text, or `None` if this equals nothing.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(value) => value.to_string().into(),
            Self::Int64(value) => value.to_string().into(),
            Self::Double(value) => double(*value)?.into(),
            Self::String(text) | Self::Json(text) => text.into(),
            Self::Bytes(bytes) => hex(bytes).into(),
            Self::Decimal(text) => shortest_decimal(text).into(),
            Self::Timestamp(micros) => micros.to_string().into(),
            Self::Date(days) => days.to_string().into(),
            Self::Uuid(uuid) => hyphenated(uuid).into(),
        })
    }
}

/// Both zeros are one number, and NaN is none.
fn double(value: f64) -> Option<String> {
    (!value.is_nan()).then(|| if value == 0.0 { "0".to_owned() } else { value.to_string() })
}

/// The shortest text of a decimal: `-012.3400` and `-12.34` are one number, and so are `0.0` and `-0`.
pub(crate) fn shortest_decimal(text: &str) -> String {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", text),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        (whole, "") => format!("{sign}{whole}"),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// Microseconds since the Unix epoch. A finer literal equals no value that a column can hold.
fn timestamp(text: &str) -> Option<i64> {
    let time: prost_types::Timestamp = text.parse().ok()?;
    let micros = i64::from(time.nanos) / 1_000;
    let exact = i64::from(time.nanos) == micros * 1_000;
    let seconds = time.seconds.checked_mul(1_000_000)?;
    exact.then(|| seconds.checked_add(micros))?
}

/// Days since the Unix epoch.
fn date(text: &str) -> Option<i32> {
    const MICROS: i64 = 24 * 60 * 60 * 1_000_000;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let micros = timestamp(text).filter(|_| plain)?;
    i32::try_from(micros.div_euclid(MICROS)).ok()
}

fn uuid_literal(text: &str) -> Option<String> {
    let digits: String = match text.len() {
        36 => {
            let parts: Vec<&str> = text.split('-').collect();
            let widths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
            (widths == [8, 4, 4, 4, 12]).then(|| parts.concat())?
        }
        _ => text.to_owned(),
    };
    let bytes = unhex(&digits)?;
    Some(hyphenated(&bytes.try_into().ok()?))
}

/// The one text of a UUID.
pub(crate) fn hyphenated(uuid: &[u8; 16]) -> String {
    let digits = hex(uuid);
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

fn hex_literal(text: &str) -> Option<String> {
    unhex(text).map(|_| text.to_ascii_lowercase())
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// The bytes that hexadecimal digits stand for.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECIMAL: ColumnType = ColumnType::Decimal { precision: 6, scale: 3 };
    const ID: &str = "0190a7f0-0000-7000-8000-00000000000a";

    fn uuid() -> Value {
        let bytes = [0x01, 0x90, 0xa7, 0xf0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x0a];
        Value::Uuid(bytes)
    }

    #[test]
    fn a_literal_equals_the_values_that_sql_says_it_does() {
        let text = |text: &str| Value::String(text.to_owned());
        let number = |text: &str| Value::Decimal(text.to_owned());
        for (kind, literal, value) in [
            (ColumnType::Bool, "true", Value::Bool(true)),
            (ColumnType::Int64, "-0042", Value::Int64(-42)),
            (ColumnType::Double, "1.50", Value::Double(1.5)),
            (ColumnType::Double, "0", Value::Double(-0.0)),
            (ColumnType::Double, "1e3", Value::Double(1_000.0)),
            (ColumnType::String, " A ", text(" A ")),
            (ColumnType::String, "", text("")),
            (ColumnType::Bytes, "00fF", Value::Bytes(vec![0, 255].into())),
            (ColumnType::Json, r#"{"a":1}"#, Value::Json(r#"{"a":1}"#.to_owned())),
            (DECIMAL, "-012.340", number("-12.34")),
            (DECIMAL, "-0", number("0.000")),
            (DECIMAL, "0.5", number("00.50")),
            (ColumnType::Timestamp, "1970-01-01T00:00:01.5Z", Value::Timestamp(1_500_000)),
            (ColumnType::Timestamp, "1969-12-31T23:59:59.25Z", Value::Timestamp(-750_000)),
            (ColumnType::Timestamp, "1970-01-01T01:00:00+01:00", Value::Timestamp(0)),
            (ColumnType::Date, "1969-12-31", Value::Date(-1)),
            (ColumnType::Date, "2026-01-31", Value::Date(20_484)),
            (ColumnType::Uuid, &ID.to_uppercase(), uuid()),
            (ColumnType::Uuid, &ID.replace('-', ""), uuid()),
            (ColumnType::Any, "5", Value::Int64(5)),
            (ColumnType::Any, "5", Value::Double(5.0)),
            (ColumnType::Any, "5", text("5")),
        ] {
            let compared = kind.literal(literal);
            assert_eq!(compared.as_deref(), value.text().as_deref(), "{kind} {literal:?}");
            assert!(compared.is_some(), "{kind} {literal:?}");
        }
    }

    #[test]
    fn what_is_no_literal_of_the_type_is_told_apart() {
        for (kind, literal) in [
            (ColumnType::Bool, "yes"),
            (ColumnType::Int64, "1.0"),
            (ColumnType::Int64, "9223372036854775808"),
            (ColumnType::Double, "NaN"),
            (ColumnType::Double, ""),
            (ColumnType::Bytes, "abc"),
            (ColumnType::Bytes, "0g"),
            (ColumnType::Json, "{"),
            (DECIMAL, "1234"),
            (DECIMAL, "1e1"),
            (ColumnType::Timestamp, "yesterday"),
            (ColumnType::Timestamp, "1970-01-01T00:00:00.0000001Z"),
            (ColumnType::Date, "2026-02-30"),
            (ColumnType::Date, "2026-01-31T00:00:00Z"),
            (ColumnType::Uuid, "0190a7f0"),
            (ColumnType::Uuid, "0190a7f00000-7000-8000-00000000000a-"),
        ] {
            assert_eq!(kind.literal(literal), None, "{kind} {literal:?}");
        }
    }

    #[test]
    fn null_and_nan_equal_nothing() {
        assert_eq!(Value::Null.text(), None);
        assert_eq!(Value::Double(f64::NAN).text(), None);
    }
}

//! Values as they look in columns of natural types: for people, never read back.
//!
//! Total: what a column can't hold is NULL there. Values from before a type was widened take the
//! form that the wider type gives them.

use std::borrow::Cow;

use lakesync::adapter::{Capacity, has_small_numbers};
use lakesync::calendar::{self, DAY_MICROS};
use lakesync::schema::ColumnType;
use lakesync::value::Value;

/// How a database writes what not all of them write alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    /// What its types can hold.
    pub(crate) capacity: Capacity,
    /// False and true.
    pub(crate) truths: [&'static str; 2],
    /// A timestamp that its type can hold, from its microseconds since the Unix epoch.
    pub(crate) timestamp: fn(i64) -> String,
}

/// A value as a database takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rendered<'v> {
    /// Text that the column's type reads.
    Text(Cow<'v, str>),
    /// Bytes, for a column of bytes.
    Bytes(&'v [u8]),
}

/// `value` in a column of type `kind`; `None` is NULL.
pub(crate) fn render<'v>(
    dialect: &Dialect,
    kind: ColumnType,
    value: &'v Value,
) -> Option<Rendered<'v>> {
    use ColumnType::{
        Any, Bool, Bytes, Date, Decimal, Double, Int64, Json, String, Timestamp, Uuid,
    };
    dialect.capacity.check(kind, value).ok()?;
    let text: Cow<'v, str> = match (kind, value) {
        (_, Value::Null) => return None,
        (Bytes, Value::Bytes(bytes)) => return Some(Rendered::Bytes(bytes)),
        (Json, value) => json(value)?,
        (String | Any, value) => plain(value)?,
        (Bool, Value::Bool(truth)) => dialect.truths[usize::from(*truth)].into(),
        (Double, Value::Int64(number)) => double(*number as f64).into(),
        (Timestamp, Value::Timestamp(micros)) => (dialect.timestamp)(*micros).into(),
        (Timestamp, Value::Date(days)) => {
            let micros = i64::from(*days).checked_mul(DAY_MICROS)?;
            return render(dialect, kind, &Value::Timestamp(micros)).map(owned);
        }
        (Int64 | Decimal { .. }, Value::Int64(_))
        | (Double, Value::Double(_))
        | (Decimal { .. }, Value::Decimal(_))
        | (Date, Value::Date(_))
        | (Uuid, Value::Uuid(_)) => plain(value)?,
        // No column is ever given such a value: the schema refuses it.
        _ => return None,
    };
    let holds = dialect.capacity.nul || !text.contains('\0');
    holds.then_some(Rendered::Text(text))
}

/// A value of any kind as JSON, unless it is JSON with numbers that no database takes.
pub fn json(value: &Value) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::Json(text) if has_small_numbers(text) => text.into(),
        Value::Json(_) => return None,
        Value::Bool(_) | Value::Int64(_) => plain(value)?,
        Value::Double(number) if number.is_finite() => plain(value)?,
        Value::Decimal(text) => number(text).into(),
        other => serde_json::to_string(&plain(other)?).ok()?.into(),
    })
}

/// A value of any kind as text; NULL has none.
pub fn plain(value: &Value) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => if *truth { "true" } else { "false" }.into(),
        Value::Int64(number) => number.to_string().into(),
        Value::Double(number) => double(*number).into(),
        Value::String(text) | Value::Json(text) | Value::Decimal(text) => text.into(),
        Value::Timestamp(micros) => timestamp(*micros).into(),
        Value::Date(days) => date(i64::from(*days)).into(),
        // The comparable text is the hyphenated and the hexadecimal form.
        Value::Bytes(_) | Value::Uuid(_) => value.text()?,
    })
}

/// The shortest digits that read back as `number`, in the form that Postgres gives them.
fn double(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number < 0.0 { "-Infinity" } else { "Infinity" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..15).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => number.to_string(),
    }
}

/// A decimal's text as a JSON number, which has no leading zeros.
fn number(text: &str) -> String {
    let (sign, unsigned) = text.strip_prefix('-').map_or(("", text), |unsigned| ("-", unsigned));
    let trimmed = unsigned.trim_start_matches('0');
    let zero = if trimmed.is_empty() || trimmed.starts_with('.') { "0" } else { "" };
    format!("{sign}{zero}{trimmed}")
}

/// `1970-01-01T00:00:00.000000Z`; years before the first end in ` BC`.
pub(crate) fn timestamp(micros: i64) -> String {
    let (date, era) = civil(micros.div_euclid(DAY_MICROS));
    let (hour, minute, second, micro) = calendar::time(micros);
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z{era}")
}

/// `1970-01-01`; years before the first end in ` BC`.
fn date(days: i64) -> String {
    let (date, era) = civil(days);
    format!("{date}{era}")
}

/// A date, and its era for years before the first: people know no year 0.
fn civil(days: i64) -> (String, &'static str) {
    let (year, month, day) = calendar::date(days);
    let (year, era) = if year < 1 { (1 - year, " BC") } else { (year, "") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

fn owned(rendered: Rendered<'_>) -> Rendered<'static> {
    match rendered {
        Rendered::Text(text) => Rendered::Text(text.into_owned().into()),
        Rendered::Bytes(_) => unreachable!("BUG: a timestamp is text"),
    }
}

#[cfg(test)]
mod tests;

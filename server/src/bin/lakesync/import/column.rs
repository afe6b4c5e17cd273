//! One column of a table that is imported: how it is selected, and what its values become.

use lakesync::calendar::DAY_MICROS;
use lakesync::name::ColumnName;
use lakesync::schema::ColumnType;
use lakesync::value::Value;

use super::{calendar, json};

/// A column of a table there is.
#[derive(Clone, Debug)]
pub(super) struct SourceColumn {
    pub(super) name: ColumnName,
    pub(super) kind: ColumnType,
    pub(super) form: Form,
    /// The expression that selects it in this form.
    pub(super) sql: String,
    /// What the database calls its type, where it becomes text for want of a better.
    pub(super) as_text: Option<String>,
}

/// What becomes of a column by its type.
pub(super) struct Typed {
    pub(super) kind: ColumnType,
    pub(super) form: Form,
    /// See [`SourceColumn`].
    pub(super) sql: String,
    pub(super) as_text: Option<String>,
}

/// How a value arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An integer that is 0 or 1.
    Truth,
    Integer,
    Double,
    Text,
    Decimal,
    Json,
    Bytes,
    /// 16 bytes.
    Uuid,
    /// Microseconds since 2000-01-01, 8 bytes, as Postgres sends them.
    Micros2000,
    /// Days since 2000-01-01, 4 bytes, as Postgres sends them.
    Days2000,
    /// `2000-01-01 00:00:00.000000`.
    WrittenTimestamp,
    /// `2000-01-01`.
    WrittenDate,
}

/// What was received of a cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Null,
    Integer(i64),
    Double(f64),
    Bytes(Vec<u8>),
}

const EPOCH_2000_DAYS: i64 = 10_957;

impl Form {
    /// The value that was received, or why there is none.
    pub(super) fn value(self, raw: Raw) -> Result<Value, String> {
        match (self, raw) {
            (_, Raw::Null) => Ok(Value::Null),
            (Self::Truth, Raw::Integer(truth @ (0 | 1))) => Ok(Value::Bool(truth == 1)),
            (Self::Truth, Raw::Integer(other)) => Err(format!("{other} is neither true nor false")),
            (Self::Integer, Raw::Integer(number)) => Ok(Value::Int64(number)),
            (Self::Double, Raw::Double(number)) => Ok(Value::Double(number)),
            (Self::Bytes, Raw::Bytes(bytes)) => Ok(Value::Bytes(bytes.into())),
            (Self::Uuid, Raw::Bytes(bytes)) => {
                bytes.try_into().map(Value::Uuid).map_err(|_| "a uuid has 16 bytes".to_owned())
            }
            (Self::Micros2000, Raw::Bytes(bytes)) => micros_2000(&bytes),
            (Self::Days2000, Raw::Bytes(bytes)) => days_2000(&bytes),
            (form, Raw::Bytes(bytes)) => {
                form.written(String::from_utf8(bytes).map_err(|_| "it is no UTF-8")?)
            }
            // Not the value: what a table holds is nobody's to read in a log.
            _ => Err("it arrived in another form than its type has".to_owned()),
        }
    }

    /// The value of a text.
    fn written(self, text: String) -> Result<Value, String> {
        match self {
            Self::Json => json::canonical(&text).map(Value::Json),
            Self::WrittenTimestamp => calendar::timestamp(&text).map(Value::Timestamp),
            Self::WrittenDate => calendar::date(&text).map(Value::Date),
            Self::Decimal if !text.ends_with(|c: char| c.is_ascii_digit()) => {
                Err(format!("{text} is no decimal"))
            }
            Self::Decimal => Ok(Value::Decimal(text)),
            _ => Ok(Value::String(text)),
        }
    }
}

fn micros_2000(bytes: &[u8]) -> Result<Value, String> {
    let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| "a timestamp has 8 bytes")?);
    let since_1970 = match micros {
        i64::MAX | i64::MIN => return Err("infinity is no timestamp".to_owned()),
        micros => micros.checked_add(EPOCH_2000_DAYS * DAY_MICROS),
    };
    since_1970.map(Value::Timestamp).ok_or_else(|| "it is later than timestamps go".to_owned())
}

fn days_2000(bytes: &[u8]) -> Result<Value, String> {
    let days = i32::from_be_bytes(bytes.try_into().map_err(|_| "a date has 4 bytes")?);
    if matches!(days, i32::MAX | i32::MIN) {
        return Err("infinity is no date".to_owned());
    }
    let since_1970 = i32::try_from(i64::from(days) + EPOCH_2000_DAYS);
    since_1970.map(Value::Date).map_err(|_| "it is later than dates go".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_exactly_or_not_at_all() {
        let text = |text: &str| Raw::Bytes(text.as_bytes().to_vec());
        let micros = |micros: i64| Raw::Bytes(micros.to_be_bytes().to_vec());
        let days = |days: i32| Raw::Bytes(days.to_be_bytes().to_vec());
        for (form, raw, expected) in [
            (Form::Truth, Raw::Null, Some(Value::Null)),
            (Form::Truth, Raw::Integer(1), Some(Value::Bool(true))),
            (Form::Truth, Raw::Integer(2), None),
            (Form::Decimal, text("-12.30"), Some(Value::Decimal("-12.30".to_owned()))),
            (Form::Decimal, text("NaN"), None),
            (Form::Decimal, text("Infinity"), None),
            (Form::Text, Raw::Bytes(vec![0xff]), None),
            (Form::Json, text("{ }"), Some(Value::Json("{}".to_owned()))),
            (Form::Micros2000, micros(-946_684_800_000_000), Some(Value::Timestamp(0))),
            (Form::Micros2000, micros(i64::MAX), None),
            (Form::Micros2000, micros(i64::MIN), None),
            (Form::Days2000, days(-10_957), Some(Value::Date(0))),
            (Form::Days2000, days(i32::MIN), None),
            (Form::WrittenDate, text("0000-00-00"), None),
        ] {
            assert_eq!(form.value(raw.clone()).ok(), expected, "{form:?} of {raw:?}");
        }
    }
}

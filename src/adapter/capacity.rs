//! What a backend's own types can hold. Pure: a push is refused for what a configured backend can't
//! hold, before it is in any log.

use crate::limits::COLUMNS_MAX;
use crate::schema::{ColumnType, TableSchema};
use crate::value::Value;

/// What a backend's own types can hold. What is not bounded here, every backend holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Whether text may hold U+0000.
    pub nul: bool,
    /// Whether NaN and the infinities are doubles.
    pub nan: bool,
    /// The first and the last timestamp, in microseconds since the Unix epoch.
    pub timestamps: (i64, i64),
    /// The first and the last date, in days since the Unix epoch.
    pub dates: (i32, i32),
    /// How JSON is looked at; `None` takes every text that is JSON by its grammar.
    pub json: Option<JsonCapacity>,
    /// How many columns a table may have beside its key, for every row to fit.
    pub columns_max: usize,
}

/// What a backend that looks into JSON documents can hold: numbers that a double holds, strings of
/// Unicode scalar values, and so many arrays and objects in each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonCapacity {
    /// Whether strings may hold U+0000.
    pub nul: bool,
    /// How many arrays and objects may stand in each other.
    pub depth_max: usize,
}

/// What a backend can't hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// U+0000.
    #[error("U+0000 in text")]
    Nul,
    /// NaN or an infinity.
    #[error("NaN or an infinity")]
    Nan,
    /// A timestamp out of range.
    #[error("a timestamp so far away")]
    Timestamp,
    /// A date out of range.
    #[error("a date so far away")]
    Date,
    /// A document that is JSON by its grammar only.
    #[error("JSON with numbers beyond a double's, or with escapes that are half a character")]
    Json,
    /// A document of too many levels.
    #[error("JSON of more than {0} levels")]
    Depth(usize),
    /// A table of too many columns.
    #[error("more than {0} columns in a table")]
    Columns(usize),
}

impl Capacity {
    /// All that the protocol allows.
    pub const ALL: Self = Self {
        nul: true,
        nan: true,
        timestamps: (i64::MIN, i64::MAX),
        dates: (i32::MIN, i32::MAX),
        json: None,
        columns_max: COLUMNS_MAX,
    };

    /// What both of two backends can hold.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        let json = match (self.json, other.json) {
            (Some(one), Some(two)) => Some(JsonCapacity {
                nul: one.nul && two.nul,
                depth_max: one.depth_max.min(two.depth_max),
            }),
            (one, two) => one.or(two),
        };
        Self {
            nul: self.nul && other.nul,
            nan: self.nan && other.nan,
            timestamps: (
                self.timestamps.0.max(other.timestamps.0),
                self.timestamps.1.min(other.timestamps.1),
            ),
            dates: (self.dates.0.max(other.dates.0), self.dates.1.min(other.dates.1)),
            json,
            columns_max: self.columns_max.min(other.columns_max),
        }
    }

    /// Whether a column of type `kind` can hold `value`, which fits the type.
    pub fn check(&self, kind: ColumnType, value: &Value) -> Result<(), Shortage> {
        let within = |holds: bool, shortage| if holds { Ok(()) } else { Err(shortage) };
        match (kind, value) {
            (_, Value::String(text)) => within(self.nul || !text.contains('\0'), Shortage::Nul),
            (ColumnType::Double, Value::Double(number)) => {
                within(self.nan || number.is_finite(), Shortage::Nan)
            }
            (ColumnType::Timestamp, Value::Timestamp(micros)) => {
                let (first, last) = self.timestamps;
                within((first..=last).contains(micros), Shortage::Timestamp)
            }
            (ColumnType::Date, Value::Date(days)) => {
                let (first, last) = self.dates;
                within((first..=last).contains(days), Shortage::Date)
            }
            (ColumnType::Json, Value::Json(text)) => match self.json {
                Some(json) => json.check(text),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether every row of a table fits.
    pub fn check_table(&self, table: &TableSchema) -> Result<(), Shortage> {
        match table.columns.len() <= self.columns_max {
            true => Ok(()),
            false => Err(Shortage::Columns(self.columns_max)),
        }
    }
}

impl JsonCapacity {
    fn check(self, text: &str) -> Result<(), Shortage> {
        let document = serde_json::from_str(text).map_err(|_| Shortage::Json)?;
        if !has_small_numbers(text) {
            return Err(Shortage::Json);
        }
        self.walk(&document, 0)
    }

    fn walk(self, value: &serde_json::Value, depth: usize) -> Result<(), Shortage> {
        use serde_json::Value::{Array, Object, String};
        let text = |text: &str| match self.nul || !text.contains('\0') {
            true => Ok(()),
            false => Err(Shortage::Nul),
        };
        if matches!(value, Array(_) | Object(_)) && self.depth_max <= depth {
            return Err(Shortage::Depth(self.depth_max));
        }
        match value {
            String(held) => text(held),
            Array(items) => items.iter().try_for_each(|item| self.walk(item, depth + 1)),
            Object(members) => members.iter().try_for_each(|(name, member)| {
                text(name)?;
                self.walk(member, depth + 1)
            }),
            _ => Ok(()),
        }
    }
}

/// Whether the numbers of a JSON document are within what exact decimals have in Postgres: some
/// 16,000 digits behind the point. A double takes what is smaller for zero.
pub fn has_small_numbers(text: &str) -> bool {
    const DIGITS_MAX: usize = 4_000;
    const EXPONENT_MAX: u32 = 4_000;
    let is_small = |number: &str| {
        let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let exponent = exponent.trim_start_matches(['+', '-']).parse::<u32>();
        digits.len() <= DIGITS_MAX && exponent.is_ok_and(|exponent| exponent <= EXPONENT_MAX)
    };
    let mut rest = text;
    while let Some(at) = rest.find(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        rest = &rest[at..];
        let token = match rest.starts_with('"') {
            true => string_len(rest),
            false => rest.find([',', ']', '}', ' ', '\n', '\r', '\t']).unwrap_or(rest.len()),
        };
        if !rest.starts_with('"') && !is_small(&rest[..token]) {
            return false;
        }
        rest = &rest[token..];
    }
    true
}

/// The length of the JSON string that `text` begins with, quotes included.
fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROW: Capacity = Capacity {
        nul: false,
        nan: false,
        timestamps: (-5, 5),
        dates: (-7, 7),
        json: Some(JsonCapacity { nul: false, depth_max: 2 }),
        columns_max: 1,
    };

    #[test]
    fn what_does_not_fit_is_named() {
        let text = |text: &str| Value::String(text.to_owned());
        let json = |text: &str| Value::Json(text.to_owned());
        for (kind, value, told) in [
            (ColumnType::String, text("a\0b"), Some(Shortage::Nul)),
            (ColumnType::Any, text("\0"), Some(Shortage::Nul)),
            (ColumnType::String, text("ab"), None),
            (ColumnType::Double, Value::Double(f64::NAN), Some(Shortage::Nan)),
            (ColumnType::Double, Value::Double(f64::NEG_INFINITY), Some(Shortage::Nan)),
            (ColumnType::Double, Value::Double(f64::MAX), None),
            (ColumnType::Any, Value::Double(f64::NAN), None),
            (ColumnType::Timestamp, Value::Timestamp(6), Some(Shortage::Timestamp)),
            (ColumnType::Timestamp, Value::Timestamp(-5), None),
            (ColumnType::Date, Value::Date(-8), Some(Shortage::Date)),
            (ColumnType::Date, Value::Date(7), None),
            (ColumnType::Json, json(r#"{"a":[1]}"#), None),
            (ColumnType::Json, json(r#"{"a":[[1]]}"#), Some(Shortage::Depth(2))),
            (ColumnType::Json, json(r#"["\u0000"]"#), Some(Shortage::Nul)),
            (ColumnType::Json, json(r#"{"\u0000":1}"#), Some(Shortage::Nul)),
            (ColumnType::Json, json(r#""\ud800""#), Some(Shortage::Json)),
            (ColumnType::Json, json("1e400"), Some(Shortage::Json)),
            (ColumnType::Json, json(r#"["1e-9999", 1e-9999]"#), Some(Shortage::Json)),
            (ColumnType::Json, json(r#"["1e-9999", "\\", 1e-99]"#), None),
            (ColumnType::Json, Value::Null, None),
        ] {
            assert_eq!(NARROW.check(kind, &value).err(), told, "{value:?} in {kind}");
            assert_eq!(Capacity::ALL.check(kind, &value), Ok(()), "{value:?} in {kind}");
            for both in [NARROW.meet(Capacity::ALL), Capacity::ALL.meet(NARROW)] {
                assert_eq!(both, NARROW);
            }
        }
    }
}

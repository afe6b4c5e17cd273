//! What a backend's own types can hold. Pure: a push is refused for what a configured backend can't
//! hold, before it is in any log.

use crate::limits::COLUMNS_MAX;
use crate::name::ColumnName;
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
    /// The names that no column may have there.
    pub reserved: Reserved,
}

/// Names of columns that kinds of databases keep for themselves, in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    postgres: bool,
    mysql: bool,
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
    /// A column's name that a database keeps for itself.
    #[error("a column of the name {0}, which the database keeps for itself; choose another name")]
    Reserved(&'static str),
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
        reserved: Reserved::NONE,
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
            reserved: self.reserved.with(other.reserved),
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

    /// Whether every row of a table can be shown whole. What was there `before` the backend was
    /// configured is refused no more.
    pub fn check_table(
        &self,
        table: &TableSchema,
        before: Option<&TableSchema>,
    ) -> Result<(), Shortage> {
        let count = before.map_or(0, |before| before.columns.len());
        if self.columns_max.max(count) < table.columns.len() {
            return Err(Shortage::Columns(self.columns_max));
        }
        let is_new = |name: &&ColumnName| {
            before.is_none_or(|before| before.key != **name && before.column(name).is_none())
        };
        let names = table.columns.iter().map(|column| &column.name).chain([&table.key]);
        match names.filter(is_new).find_map(|name| self.reserved.find(name.as_str())) {
            Some(name) => Err(Shortage::Reserved(name)),
            None => Ok(()),
        }
    }
}

impl Reserved {
    /// No name.
    pub const NONE: Self = Self { postgres: false, mysql: false };
    /// The system columns of every table in Postgres.
    pub const POSTGRES: Self = Self { postgres: true, mysql: false };
    /// The hidden columns of InnoDB, which are those of tables in MySQL and MariaDB. The last one is
    /// of older servers.
    pub const MYSQL: Self = Self { postgres: false, mysql: true };

    const NAMES_OF_POSTGRES: [&str; 6] = ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];
    const NAMES_OF_MYSQL: [&str; 5] =
        ["db_row_id", "db_trx_id", "db_roll_ptr", "fts_doc_id", "db_mix_id"];

    /// The names of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { postgres: self.postgres || other.postgres, mysql: self.mysql || other.mysql }
    }

    /// The name as it is reserved, if it is.
    pub fn find(self, name: &str) -> Option<&'static str> {
        let of = |is_kept: bool, names: &'static [&'static str]| if is_kept { names } else { &[] };
        let postgres = of(self.postgres, &Self::NAMES_OF_POSTGRES);
        let mut names = postgres.iter().chain(of(self.mysql, &Self::NAMES_OF_MYSQL));
        names.find(|reserved| reserved.eq_ignore_ascii_case(name)).copied()
    }
}

impl JsonCapacity {
    fn check(self, text: &str) -> Result<(), Shortage> {
        // Before it is parsed, which ends at a depth of its own.
        if self.depth_max < depth(text) {
            return Err(Shortage::Depth(self.depth_max));
        }
        let document = serde_json::from_str(text).map_err(|_| Shortage::Json)?;
        if !has_small_numbers(text) {
            return Err(Shortage::Json);
        }
        self.walk(&document)
    }

    fn walk(self, value: &serde_json::Value) -> Result<(), Shortage> {
        use serde_json::Value::{Array, Object, String};
        let text = |text: &str| match self.nul || !text.contains('\0') {
            true => Ok(()),
            false => Err(Shortage::Nul),
        };
        match value {
            String(held) => text(held),
            Array(items) => items.iter().try_for_each(|item| self.walk(item)),
            Object(members) => members.iter().try_for_each(|(name, member)| {
                text(name)?;
                self.walk(member)
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

/// How many arrays and objects stand in each other in a JSON document.
fn depth(text: &str) -> usize {
    let (mut now, mut most, mut rest) = (0_usize, 0, text);
    while let Some(at) = rest.find(['"', '[', ']', '{', '}']) {
        rest = &rest[at..];
        let token = match rest.as_bytes()[0] {
            b'"' => string_len(rest),
            b'[' | b'{' => {
                now += 1;
                most = most.max(now);
                1
            }
            _ => {
                now = now.saturating_sub(1);
                1
            }
        };
        rest = &rest[token..];
    }
    most
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
        reserved: Reserved::POSTGRES,
    };

    fn table(key: &str, columns: &[&str]) -> TableSchema {
        let proposal = crate::schema::Proposal {
            table: "t".parse().expect("legal"),
            key: key.parse().expect("legal"),
            columns: columns
                .iter()
                .map(|name| (name.parse().expect("legal"), ColumnType::Int64))
                .collect(),
            primary_key: Vec::new(),
        };
        let schema = crate::schema::Schema::default().evolve(&[proposal]).expect("a table");
        schema.tables().next().map(|table| (**table).clone()).expect("a table")
    }

    #[test]
    fn tables_that_can_t_be_shown_whole_are_refused_when_they_are_declared() {
        let (legal, wide) = (table("id", &["a"]), table("id", &["a", "b"]));
        let (named, keyed) = (table("id", &["XMin"]), table("ctid", &["a"]));
        let three = table("id", &["a", "b", "c"]);
        for (wanted, before, told) in [
            (&legal, None, None),
            (&wide, None, Some(Shortage::Columns(1))),
            (&named, None, Some(Shortage::Reserved("xmin"))),
            (&keyed, None, Some(Shortage::Reserved("ctid"))),
            (&named, Some(&legal), Some(Shortage::Reserved("xmin"))),
            (&three, Some(&wide), Some(Shortage::Columns(1))),
            // What was there before the backend was.
            (&wide, Some(&wide), None),
            (&named, Some(&named), None),
            (&keyed, Some(&keyed), None),
        ] {
            assert_eq!(NARROW.check_table(wanted, before).err(), told, "{wanted:?}");
            assert_eq!(Capacity::ALL.check_table(wanted, before), Ok(()), "{wanted:?}");
        }
        let both = Reserved::MYSQL.with(Reserved::POSTGRES);
        assert_eq!(both.find("DB_Row_Id"), Some("db_row_id"));
        assert_eq!((Reserved::MYSQL.find("xmin"), both.find("oid")), (None, None));
    }

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
            (ColumnType::Json, json(r#"["[[[", {"{": "]\"["}]"#), None),
            (
                ColumnType::Json,
                json(&("[".repeat(500) + &"]".repeat(500))),
                Some(Shortage::Depth(2)),
            ),
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

//! The tables of a gateway: which columns there are and which values fit them.
//!
//! Table and column names are unique ignoring case, because the backends disagree about case.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::name::{ColumnName, TableName};
use crate::value::{Decimal, Value, is_json};

mod evolve;
mod text;

pub use evolve::{EvolveError, Proposal};
pub(crate) use text::{hex, hyphenated, shortest_decimal, unhex};

#[cfg(test)]
pub(crate) use evolve::size;

/// The logical type of a column. NULL fits every type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// A truth value.
    Bool,
    /// A signed 64-bit integer.
    Int64,
    /// An IEEE 754 binary64.
    Double,
    /// UTF-8 text.
    String,
    /// Raw bytes.
    Bytes,
    /// A JSON document.
    Json,
    /// An exact decimal.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u32,
        /// Digits behind the point, at most `precision`.
        scale: u32,
    },
    /// Microseconds since the Unix epoch.
    Timestamp,
    /// Days since the Unix epoch.
    Date,
    /// A UUID.
    Uuid,
    /// A value of any kind, as SQLite's columns without a type hold.
    Any,
}

impl ColumnType {
    /// Whether `value` may stand in a column of this type, or might have before the type was widened
    /// to this one: a log tells of both.
    pub fn held(self, value: &Value) -> bool {
        self.fits(value) || Self::of(value).is_some_and(|kind| evolve::widens(kind, self))
    }

    /// The narrowest type of a column that holds `value`, which NULL does not have.
    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => return None,
            Value::Bool(_) => Self::Bool,
            Value::Int64(_) => Self::Int64,
            Value::Double(_) => Self::Double,
            Value::String(_) => Self::String,
            Value::Bytes(_) => Self::Bytes,
            Value::Json(_) => Self::Json,
            Value::Decimal(text) => {
                let (precision, scale) = Decimal::parse(text).ok()?.digits();
                Self::Decimal { precision, scale }
            }
            Value::Timestamp(_) => Self::Timestamp,
            Value::Date(_) => Self::Date,
            Value::Uuid(_) => Self::Uuid,
        })
    }

    /// Whether every value of this type is, or has an exact form as, a value of `wider`.
    pub fn widens_to(self, wider: Self) -> bool {
        evolve::widens(self, wider)
    }

    /// Whether `value` may stand in a column of this type.
    pub fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null)
            | (Self::Any, _)
            | (Self::Bool, Value::Bool(_))
            | (Self::Int64, Value::Int64(_))
            | (Self::Double, Value::Double(_))
            | (Self::String, Value::String(_))
            | (Self::Bytes, Value::Bytes(_))
            | (Self::Timestamp, Value::Timestamp(_))
            | (Self::Date, Value::Date(_))
            | (Self::Uuid, Value::Uuid(_)) => true,
            (Self::Json, Value::Json(text)) => is_json(text),
            (Self::Decimal { precision, scale }, Value::Decimal(text)) => {
                Decimal::parse(text).is_ok_and(|decimal| decimal.fits(precision, scale))
            }
            _ => false,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int64 => f.write_str("int64"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Json => f.write_str("json"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
            Self::Uuid => f.write_str("uuid"),
            Self::Any => f.write_str("any"),
        }
    }
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: ColumnName,
    /// Its type.
    pub kind: ColumnType,
    /// Its permanent id, never reused: the lake's field id.
    pub field_id: u32,
}

/// One table. Every row also has its row id, kept under `key` in SQL tables and in the lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Its name.
    pub table: TableName,
    /// Grows with every change of the table; the first is 1.
    pub version: u32,
    /// The name of the key column.
    pub key: ColumnName,
    /// The columns beside the key, in the order they were declared.
    pub columns: Vec<Column>,
    /// Which of the columns make up the row id, in order; none where the row id is a value of its
    /// own. See [`row_id`](crate::row_id).
    pub primary_key: Vec<ColumnName>,
}

impl TableSchema {
    /// The column of exactly this name.
    pub fn column(&self, name: &ColumnName) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == *name)
    }

    /// The columns that make up the row id, in order; none where the row id is a value of its own.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.primary_key.iter().filter_map(|name| self.column(name))
    }
}

/// All tables of a gateway, by name.
///
/// Grows by [`evolve`](Schema::evolve) only, which keeps field ids permanent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    tables: BTreeMap<TableName, Arc<TableSchema>>,
}

impl Schema {
    /// The schema that stored tables make up.
    pub fn from_stored(tables: impl IntoIterator<Item = TableSchema>) -> Self {
        let keyed = tables.into_iter().map(|table| (table.table.clone(), Arc::new(table)));
        Self { tables: keyed.collect() }
    }

    /// The table of exactly this name.
    pub fn table(&self, name: &TableName) -> Option<&Arc<TableSchema>> {
        self.tables.get(name)
    }

    /// All tables, in the order of their names.
    pub fn tables(&self) -> impl ExactSizeIterator<Item = &Arc<TableSchema>> {
        self.tables.values()
    }
}

#[cfg(test)]
mod tests;

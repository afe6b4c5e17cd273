//! Row ids ⇄ the keys of an application's table.
//!
//! Each kind of key maps one row id to one key and back, in Rust and in the SQL that triggers run.
//! A key that has no row id (a NULL, a value of another class) yields an empty text in SQL, which
//! is no legal row id: the change is refused before it leaves, visibly.

use lakesync::name::RowId;
use serde_json::Value as Json;

use super::convert::{hex, parse_hex};
use super::sql::{Stored, quoted};

/// How a table's rows are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A TEXT column that is the row id.
    Text(String),
    /// An INTEGER column whose digits are the row id.
    Integer(String),
    /// Columns that make up a JSON array. Blobs stand as an array of their hexadecimal digits.
    Array(Vec<String>),
    /// No usable key: random ids in a table that maps them to rowids.
    Mapped {
        /// The mapping table.
        ids: String,
        /// The name under which the rowid can be reached.
        rowid: String,
    },
}

impl Key {
    /// The columns that find a row, quoted.
    pub(super) fn columns(&self) -> Vec<String> {
        match self {
            Self::Text(column) | Self::Integer(column) => vec![quoted(column)],
            Self::Array(columns) => columns.iter().map(|column| quoted(column)).collect(),
            Self::Mapped { rowid, .. } => vec![rowid.clone()],
        }
    }

    /// An SQL expression for the row id of the row that `prefix` names, such as `NEW`.
    pub(super) fn row_id_sql(&self, prefix: &str) -> String {
        let of = |column: &str| format!("{prefix}.{}", quoted(column));
        match self {
            Self::Text(column) => {
                let value = of(column);
                format!("CASE typeof({value}) WHEN 'text' THEN {value} ELSE '' END")
            }
            Self::Integer(column) => {
                let value = of(column);
                format!(
                    "CASE typeof({value}) WHEN 'integer' THEN CAST({value} AS TEXT) ELSE '' END"
                )
            }
            Self::Array(columns) => {
                let parts: Vec<String> =
                    columns.iter().map(|column| element(&of(column))).collect();
                format!("coalesce('[' || {} || ']', '')", parts.join(" || ',' || "))
            }
            Self::Mapped { ids, rowid } => {
                format!("(SELECT row_id FROM {} WHERE rowid = {prefix}.{rowid})", quoted(ids))
            }
        }
    }

    /// The key that `row_id` names; `None` if no row of this table can have it. Mapped keys are
    /// looked up instead.
    pub(super) fn parse(&self, row_id: &RowId) -> Option<Vec<Stored>> {
        let text = row_id.as_str();
        match self {
            Self::Text(_) => Some(vec![Stored::Text(text.to_owned())]),
            Self::Integer(_) => {
                let value: i64 = text.parse().ok()?;
                (value.to_string() == text).then(|| vec![Stored::Integer(value)])
            }
            Self::Array(columns) => {
                let values: Vec<Json> = serde_json::from_str(text).ok()?;
                let values: Vec<Stored> =
                    values.iter().map(parse_element).collect::<Option<_>>()?;
                let canonical = values.len() == columns.len() && array_text(&values) == text;
                canonical.then_some(values)
            }
            Self::Mapped { .. } => None,
        }
    }
}

/// One element of a key array in SQL; NULL if the value can't be part of a key.
fn element(value: &str) -> String {
    format!(
        "CASE typeof({value}) WHEN 'integer' THEN CAST({value} AS TEXT) \
         WHEN 'text' THEN json_quote({value}) \
         WHEN 'blob' THEN '[\"' || lower(hex({value})) || '\"]' END"
    )
}

fn parse_element(json: &Json) -> Option<Stored> {
    match json {
        Json::Number(number) => number.as_i64().map(Stored::Integer),
        Json::String(text) => Some(Stored::Text(text.clone())),
        Json::Array(inner) => match inner.as_slice() {
            [Json::String(digits)] => parse_hex(digits).map(Stored::Blob),
            _ => None,
        },
        _ => None,
    }
}

/// The row id that key values make: what the SQL expression yields for them.
fn array_text(values: &[Stored]) -> String {
    let part = |value: &Stored| match value {
        Stored::Integer(value) => value.to_string(),
        Stored::Text(text) => Json::String(text.clone()).to_string(),
        Stored::Blob(bytes) => format!("[\"{}\"]", hex(bytes)),
        _ => String::new(),
    };
    format!("[{}]", values.iter().map(part).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests;

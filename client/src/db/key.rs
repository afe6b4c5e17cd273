//! Row ids ⇄ the keys of an application's table: the rule of [`row_id`] in the SQL that triggers run.
//!
//! A key that has no row id (a NULL, a value of another class) yields an empty text in SQL, which
//! is no legal row id: the change is refused before it leaves, visibly.

use lakesync::name::RowId;
use lakesync::row_id;
use lakesync::schema::ColumnType;

use super::convert::to_stored;
use super::sql::{Stored, quoted};

/// How a table's rows are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A TEXT column that is the row id.
    Text(String),
    /// An INTEGER column whose digits are the row id.
    Integer(String),
    /// Columns of other types, or several, and their types at the gateway.
    Columns(Vec<(String, ColumnType)>),
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
            Self::Columns(columns) => columns.iter().map(|(column, _)| quoted(column)).collect(),
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
            Self::Columns(columns) => match columns.as_slice() {
                [(column, kind)] => alone(&of(column), *kind),
                several => {
                    let parts = several.iter().map(|(column, kind)| element(&of(column), *kind));
                    let parts = parts.collect::<Vec<_>>().join(" || ',' || ");
                    format!("coalesce('[' || {parts} || ']', '')")
                }
            },
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
            Self::Columns(columns) => {
                let kinds: Vec<_> = columns.iter().map(|(_, kind)| *kind).collect();
                let values = row_id::values(&kinds, row_id)?;
                Some(values.iter().map(to_stored).collect())
            }
            Self::Mapped { .. } => None,
        }
    }
}

/// The row id that a value makes alone, as SQL.
fn alone(value: &str, kind: ColumnType) -> String {
    let (is_integer, digits) = integer(value);
    let by_itself = match kind {
        ColumnType::String | ColumnType::Json | ColumnType::Uuid | ColumnType::Decimal { .. } => {
            format!("WHEN typeof({value}) = 'text' THEN {value} ")
        }
        _ => String::new(),
    };
    format!(
        "CASE WHEN {is_integer} THEN {digits} {by_itself}ELSE coalesce('[' || {} || ']', '') END",
        element(value, kind)
    )
}

/// One element of a key array in SQL; NULL if the value can't be part of a key.
fn element(value: &str, kind: ColumnType) -> String {
    let text = match kind {
        // A decimal is kept as text, and is a number if it is an integer of 64 bits.
        ColumnType::Decimal { .. } => format!(
            "CASE WHEN CAST(CAST({value} AS INTEGER) AS TEXT) = {value} THEN {value} \
             ELSE json_quote({value}) END"
        ),
        _ => format!("json_quote({value})"),
    };
    let real = match kind {
        ColumnType::Double | ColumnType::Any => {
            let (_, digits) = integer(value);
            // Dividing by a power of two is exact, and so is every step after it.
            format!(
                " WHEN 'real' THEN CASE WHEN CAST({value} AS INTEGER) = {value} THEN {digits} \
                 WHEN {value} = 9e999 THEN '{{\"r\":\"inf\"}}' \
                 WHEN {value} = -9e999 THEN '{{\"r\":\"-inf\"}}' \
                 ELSE (SELECT '{{\"r\":[' || CAST({value} / _p.power * 4503599627370496 AS INTEGER) \
                 || ',' || (_p.exponent - 52) || ']}}' FROM _lakesync_powers _p \
                 WHERE _p.power <= abs({value}) ORDER BY _p.power DESC LIMIT 1) END"
            )
        }
        _ => String::new(),
    };
    format!(
        "CASE typeof({value}) WHEN 'integer' THEN CAST({value} AS TEXT) WHEN 'text' THEN {text} \
         WHEN 'blob' THEN '{{\"b\":\"' || lower(hex({value})) || '\"}}'{real} END"
    )
}

/// Whether a value equals an integer of 64 bits, and the digits of that one, as SQL.
fn integer(value: &str) -> (String, String) {
    let whole = format!("CAST({value} AS INTEGER)");
    let is_one =
        format!("typeof({value}) = 'integer' OR (typeof({value}) = 'real' AND {whole} = {value})");
    (is_one, format!("CAST({whole} AS TEXT)"))
}

#[cfg(test)]
mod tests;

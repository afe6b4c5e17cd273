//! Row ids: the ones that a replica gives the same rows when it adopts the table.
//!
//! A single column of text names its row by itself, and so does a uuid's text; an integer does by
//! its digits. Whatever else there is makes a JSON array: integers, texts, and bytes as an array of
//! their hexadecimal digits. Truth values, times and dates stand as the integers that SQLite keeps.

use lakesync::name::{ColumnName, RowId};
use lakesync::schema::{ColumnType, Proposal, TableSchema};
use lakesync::value::Value;
use serde_json::Value as Json;

use super::source::Table;

/// Names for the key of a table whose row ids are made of columns, as a replica chooses them.
const KEY_NAMES: [&str; 4] = ["row_id", "lakesync_id", "row_id_2", "row_id_3"];

/// How the rows of a table are named. Columns are counted as in its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The text of a column, which is no column of the synced table.
    Own(usize),
    /// The text of a column.
    Single(usize),
    /// An array of several, or of one.
    Array(Vec<usize>),
}

/// The table to be declared, or why it can't be.
pub(super) fn proposal(table: &Table) -> Result<Proposal, String> {
    let key_columns = table.key.iter().map(|at| &table.columns[*at]);
    if let Some(bad) = key_columns
        .clone()
        .find(|column| matches!(column.kind, ColumnType::Double | ColumnType::Json))
    {
        return Err(format!(
            "its primary key has the {} column {}, which can't name a row; give the table another \
             primary key",
            bad.kind, bad.name
        ));
    }
    let own = match table.key.as_slice() {
        [only] if is_own(table.columns[*only].kind) => Some(*only),
        _ => None,
    };
    let all = table.columns.iter().enumerate().filter(|(at, _)| Some(*at) != own);
    let columns: Vec<_> = all.map(|(_, column)| (column.name.clone(), column.kind)).collect();
    let name = match own {
        Some(at) => table.columns[at].name.clone(),
        None => {
            let is_free =
                |name: &&&str| columns.iter().all(|(c, _)| !c.as_str().eq_ignore_ascii_case(name));
            let free = KEY_NAMES.iter().find(is_free).ok_or("no name is left for its key")?;
            free.parse().expect("BUG: an illegal name")
        }
    };
    let primary_key = match own {
        Some(_) => Vec::new(),
        None => key_columns.map(|column| column.name.clone()).collect(),
    };
    Ok(Proposal { table: table.target.clone(), key: name, columns, primary_key })
}

/// Whether a column of this type is the row id where it is the only one of its key.
fn is_own(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::String | ColumnType::Uuid)
}

/// The proposal as the gateway can take it, which has the table perhaps: its columns stay, and so
/// do the names it has given. A type stays that is wider than the source's.
pub(super) fn beside(known: Option<&TableSchema>, own: Proposal) -> Result<Proposal, String> {
    let Some(known) = known else { return Ok(own) };
    let words = |key: &ColumnName, columns: &[ColumnName]| {
        let columns = if columns.is_empty() { std::slice::from_ref(key) } else { columns };
        columns.iter().map(ColumnName::as_str).collect::<Vec<_>>().join(", ")
    };
    let (theirs, ours) = (words(&known.key, &known.primary_key), words(&own.key, &own.primary_key));
    let same_form = known.primary_key.is_empty() == own.primary_key.is_empty();
    if !theirs.eq_ignore_ascii_case(&ours) || !same_form {
        return Err(format!(
            "the gateway has a table {} whose rows are named by ({theirs}), here by ({ours}); \
             rename one of them",
            known.table
        ));
    }
    let mut columns: Vec<_> =
        known.columns.iter().map(|column| (column.name.clone(), column.kind)).collect();
    for (name, kind) in own.columns {
        let same = |(known, _): &&mut (ColumnName, ColumnType)| {
            known.as_str().eq_ignore_ascii_case(name.as_str())
        };
        match columns.iter_mut().find(same) {
            Some((_, known)) if kind.widens_to(*known) => {}
            Some((_, known)) => *known = kind,
            None => columns.push((name, kind)),
        }
    }
    let (key, primary_key) = (known.key.clone(), known.primary_key.clone());
    Ok(Proposal { table: known.table.clone(), key, columns, primary_key })
}

impl Key {
    /// How a table that is declared so names the rows of its source.
    pub(super) fn of(schema: &TableSchema, table: &Table) -> Self {
        let kind = |at: usize| {
            let same = |name: &ColumnName| {
                name.as_str().eq_ignore_ascii_case(table.columns[at].name.as_str())
            };
            schema.columns.iter().find(|column| same(&column.name)).map(|column| column.kind)
        };
        match table.key.as_slice() {
            [only] if schema.primary_key.is_empty() => Self::Own(*only),
            [only] if matches!(kind(*only), Some(ColumnType::Int64 | ColumnType::String)) => {
                Self::Single(*only)
            }
            columns => Self::Array(columns.to_vec()),
        }
    }

    /// The id of the row that holds `values`, or why it has none.
    pub(super) fn row_id(&self, values: &[Value]) -> Result<RowId, String> {
        let text = match self {
            Self::Own(at) | Self::Single(at) => match element(&values[*at])? {
                Json::String(text) => text,
                other => other.to_string(),
            },
            Self::Array(columns) => {
                let parts = columns.iter().map(|at| element(&values[*at]));
                Json::Array(parts.collect::<Result<_, _>>()?).to_string()
            }
        };
        text.parse().map_err(|error: lakesync::name::InvalidName| error.to_string())
    }
}

/// A value in a key, as SQLite would keep it.
fn element(value: &Value) -> Result<Json, String> {
    Ok(match value {
        Value::Bool(truth) => Json::from(i64::from(*truth)),
        Value::Int64(number) | Value::Timestamp(number) => Json::from(*number),
        Value::Date(days) => Json::from(*days),
        Value::String(text) | Value::Json(text) | Value::Decimal(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::Array(vec![Json::from(hex(bytes))]),
        Value::Uuid(uuid) => {
            let hex = hex(uuid);
            let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
            Json::from(groups.join("-"))
        }
        Value::Null | Value::Double(_) => return Err(format!("a {} names no row", value.kind())),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_ids_are_those_of_a_replica() {
        let uuid = Value::Uuid(*b"0123456789abcdef");
        for (key, values, expected) in [
            (Key::Single(0), vec![Value::Int64(-7)], Some("-7")),
            (Key::Own(1), vec![Value::Null, Value::String("é\"".to_owned())], Some("é\"")),
            (Key::Own(0), vec![uuid], Some("30313233-3435-3637-3839-616263646566")),
            (Key::Array(vec![0]), vec![Value::Bytes(vec![0, 0xff].into())], Some(r#"[["00ff"]]"#)),
            (
                Key::Array(vec![1, 0]),
                vec![Value::Int64(1), Value::String("a\"\n\u{1}".to_owned())],
                Some("[\"a\\\"\\n\\u0001\",1]"),
            ),
            (Key::Array(vec![0, 1]), vec![Value::Bool(true), Value::Date(-3)], Some("[1,-3]")),
            (Key::Own(0), vec![Value::String(String::new())], None),
            (Key::Own(0), vec![Value::String("x".repeat(257))], None),
            (Key::Array(vec![0]), vec![Value::Double(1.0)], None),
        ] {
            let id = key.row_id(&values).ok();
            assert_eq!(id.as_ref().map(RowId::as_str), expected, "{values:?}");
        }
    }
}

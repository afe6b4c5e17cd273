//! Row ids of imported rows: by the one rule of [`row_id`], so that a replica which adopts the table
//! gives the same rows the same ids.
//!
//! A single key column of text or UUIDs becomes the table's key, in place of a column.

use lakesync::name::{ColumnName, RowId};
use lakesync::row_id::{self, NoRowId};
use lakesync::schema::{ColumnType, Proposal, TableSchema};
use lakesync::value::Value;

use super::source::Table;

/// Names for the key of a table whose row ids are made of columns, as a replica chooses them.
const KEY_NAMES: [&str; 4] = ["row_id", "lakesync_id", "row_id_2", "row_id_3"];

/// How the rows of a table are named. Columns are counted as in its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The text of a column, which is no column of the synced table.
    Own(usize),
    /// Columns, and their types at the gateway.
    Columns(Vec<(usize, ColumnType)>),
}

/// The table to be declared, or why it can't be.
pub(super) fn proposal(table: &Table) -> Result<Proposal, String> {
    let key_columns = table.key.iter().map(|at| &table.columns[*at]);
    if let Some(bad) = key_columns.clone().find(|column| column.kind == ColumnType::Json) {
        return Err(format!(
            "its primary key has the json column {}: one document has many texts, so it can't name \
             a row; give the table another primary key",
            bad.name
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
            let column = &table.columns[at];
            let same = |name: &ColumnName| name.as_str().eq_ignore_ascii_case(column.name.as_str());
            let known = schema.columns.iter().find(|known| same(&known.name));
            known.map_or(column.kind, |known| known.kind)
        };
        match table.key.as_slice() {
            [only] if schema.primary_key.is_empty() => Self::Own(*only),
            columns => Self::Columns(columns.iter().map(|at| (*at, kind(*at))).collect()),
        }
    }

    /// The id of the row that holds `values`, or why it has none.
    pub(super) fn row_id(&self, values: &[Value]) -> Result<RowId, NoRowId> {
        match self {
            Self::Own(at) => row_id::of(&[(ColumnType::String, &values[*at])]),
            Self::Columns(columns) => {
                let key = columns.iter().map(|(at, kind)| (*kind, &values[*at]));
                row_id::of(&key.collect::<Vec<_>>())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_ids_are_those_of_a_replica() {
        use ColumnType::{Bytes, Int64, String as Text, Uuid};
        let number = ColumnType::Decimal { precision: 20, scale: 0 };
        let uuid = || Value::Uuid(*b"0123456789abcdef");
        let text = |text: &str| Value::String(text.to_owned());
        for (key, values, expected) in [
            (Key::Columns(vec![(0, Int64)]), vec![Value::Int64(-7)], Some("-7")),
            (Key::Columns(vec![(0, number)]), vec![Value::Int64(7)], Some("7")),
            (Key::Columns(vec![(0, number)]), vec![Value::Decimal("7".to_owned())], Some("7")),
            (Key::Own(1), vec![Value::Null, text("é\"")], Some("é\"")),
            (Key::Own(0), vec![uuid()], Some("30313233-3435-3637-3839-616263646566")),
            (
                Key::Columns(vec![(0, Uuid), (1, Int64)]),
                vec![uuid(), Value::Int64(1)],
                Some("[\"30313233-3435-3637-3839-616263646566\",1]"),
            ),
            (
                Key::Columns(vec![(0, Bytes)]),
                vec![Value::Bytes(vec![0, 0xff].into())],
                Some(r#"[{"b":"00ff"}]"#),
            ),
            (
                Key::Columns(vec![(1, Text), (0, Int64)]),
                vec![Value::Int64(1), text("a\"\n\u{1}")],
                Some("[\"a\\\"\\n\\u0001\",1]"),
            ),
            (Key::Own(0), vec![text("")], None),
            (Key::Own(0), vec![text(&"x".repeat(257))], None),
            (Key::Columns(vec![(0, Int64)]), vec![Value::Null], None),
        ] {
            let id = key.row_id(&values).ok();
            assert_eq!(id.as_ref().map(RowId::as_str), expected, "{values:?}");
        }
    }
}

//! The schema as our own tables hold it.

use std::collections::{BTreeMap, HashMap};

use lakesync::adapter::AdapterError;
use lakesync::name::{ColumnName, TableName};
use lakesync::schema::{Column, ColumnType, Schema, TableSchema};

use super::error::corrupt;

/// One row of `_lakesync_tables`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRecord {
    /// A small number that stands for the table wherever its rows are kept.
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) version: i64,
    pub(crate) key: String,
    /// The columns that make up the row id, between commas.
    pub(crate) primary_key: String,
}

/// One row of `_lakesync_columns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnRecord {
    pub(crate) table_id: i32,
    pub(crate) ordinal: i32,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) field_id: i64,
}

/// The tables that a backend was prepared for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    pub(crate) schema: Schema,
    ids: HashMap<TableName, i32>,
}

impl Catalogue {
    /// The catalogue that these rows are, in any order.
    pub(crate) fn read(
        tables: &[TableRecord],
        columns: &[ColumnRecord],
    ) -> Result<Self, AdapterError> {
        let mut of_tables = BTreeMap::<i32, BTreeMap<i32, Column>>::new();
        for record in columns {
            let column = Column {
                name: record.name.parse().map_err(corrupt)?,
                kind: read_kind(&record.kind)?,
                field_id: record.field_id.try_into().map_err(corrupt)?,
            };
            of_tables.entry(record.table_id).or_default().insert(record.ordinal, column);
        }
        let (mut ids, mut stored) = (HashMap::new(), Vec::new());
        for record in tables {
            let columns = of_tables.remove(&record.id).unwrap_or_default();
            let primary_key = record.primary_key.split(',').filter(|name| !name.is_empty());
            let primary_key: Result<Vec<ColumnName>, _> = primary_key.map(str::parse).collect();
            let table: TableName = record.name.parse().map_err(corrupt)?;
            ids.insert(table.clone(), record.id);
            stored.push(TableSchema {
                table,
                version: record.version.try_into().map_err(corrupt)?,
                key: record.key.parse().map_err(corrupt)?,
                columns: columns.into_values().collect(),
                primary_key: primary_key.map_err(corrupt)?,
            });
        }
        Ok(Self { schema: Schema::from_stored(stored), ids })
    }

    /// The table's number.
    pub(crate) fn id(&self, table: &TableName) -> Result<i32, AdapterError> {
        let known = self.ids.get(table).copied();
        known.ok_or_else(|| AdapterError::UnknownTable(table.clone()))
    }

    /// The rows that hold `newer`: each table by its own number if it has one, by the next if it is
    /// new.
    pub(crate) fn records(&self, newer: &[&TableSchema]) -> (Vec<TableRecord>, Vec<ColumnRecord>) {
        let mut next = self.next_id();
        let (mut tables, mut columns) = (Vec::new(), Vec::new());
        for table in newer {
            let id = self.ids.get(&table.table).copied().unwrap_or(next);
            next = next.max(id + 1);
            let primary_key: Vec<_> = table.primary_key.iter().map(ColumnName::as_str).collect();
            tables.push(TableRecord {
                id,
                name: table.table.to_string(),
                version: table.version.into(),
                key: table.key.to_string(),
                primary_key: primary_key.join(","),
            });
            columns.extend((0..).zip(&table.columns).map(|(ordinal, column)| ColumnRecord {
                table_id: id,
                ordinal,
                name: column.name.to_string(),
                kind: column.kind.to_string(),
                field_id: column.field_id.into(),
            }));
        }
        (tables, columns)
    }

    /// A number that no table has, and none after it.
    fn next_id(&self) -> i32 {
        self.ids.values().max().map_or(1, |last| last + 1)
    }
}

/// The type that `ColumnType`'s own text names.
fn read_kind(text: &str) -> Result<ColumnType, AdapterError> {
    use ColumnType::{Any, Bool, Bytes, Date, Double, Int64, Json, String, Timestamp, Uuid};
    let simple = [Bool, Int64, Double, String, Bytes, Json, Timestamp, Date, Uuid, Any];
    if let Some(kind) = simple.into_iter().find(|kind| kind.to_string() == text) {
        return Ok(kind);
    }
    let digits = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')'));
    let digits = digits.and_then(|digits| digits.split_once(", "));
    let decimal = digits.and_then(|(precision, scale)| {
        Some(ColumnType::Decimal { precision: precision.parse().ok()?, scale: scale.parse().ok()? })
    });
    decimal.ok_or_else(|| corrupt(format!("{text:?} is no type of a column")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_read_as_it_was_kept() {
        use ColumnType::{Any, Bool, Bytes, Date, Double, Int64, Json, String, Timestamp, Uuid};
        let decimal = ColumnType::Decimal { precision: 38, scale: 4 };
        let kinds = [Bool, Int64, Double, String, Bytes, Json, Timestamp, Date, Uuid, Any, decimal];
        let columns = (1..).zip(kinds).map(|(field_id, kind)| Column {
            name: format!("c{field_id}").parse().expect("a legal name"),
            kind,
            field_id,
        });
        let table = |name: &str, key: &[&str]| TableSchema {
            table: name.parse().expect("a legal name"),
            version: 3,
            key: "id".parse().expect("a legal name"),
            columns: columns.clone().collect(),
            primary_key: key.iter().map(|name| name.parse().expect("a legal name")).collect(),
        };
        let mut catalogue = Catalogue::default();
        let (mut tables, mut columns) = (Vec::new(), Vec::new());
        for table in [table("b", &[]), table("a", &["c2"]), table("c", &["c3", "c1"])] {
            let (of_table, its_columns) = catalogue.records(&[&table]);
            tables.extend(of_table);
            columns.extend(its_columns.into_iter().rev());
            catalogue = Catalogue::read(&tables, &columns).expect("readable");
            assert_eq!(catalogue.schema.table(&table.table).map(AsRef::as_ref), Some(&table));
        }
        assert_eq!(catalogue.schema.tables().len(), 3);
        assert_eq!(catalogue.id(&tables[1].name.parse().expect("legal")), Ok(2));
        assert_eq!(catalogue.next_id(), 4);

        columns[0].kind = "float".to_owned();
        let error = Catalogue::read(&tables, &columns).expect_err("no type");
        assert!(matches!(error, AdapterError::Corrupt(_)), "{error}");
    }
}

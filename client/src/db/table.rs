//! A synced table as this replica sees it: the gateway's schema laid over the file's own shape.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use lakesync::name::{ColumnName, TableName};
use lakesync::schema::{ColumnType, TableSchema};

use super::foreign::Reference;
use super::key::Key;
use super::shape::Shape;
use super::sql::quoted;

/// A table that records its changes.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Its number in `_lakesync_tables`.
    pub(super) id: i64,
    /// What the gateway says of it.
    pub(super) schema: TableSchema,
    /// What the file says of it.
    pub(super) shape: Shape,
    /// How its rows are named.
    pub(super) key: Key,
    /// The gateway's columns that the file's table has, in the gateway's order.
    pub(super) columns: Vec<LocalColumn>,
    /// Why nothing that arrives may be written to it, if that is so.
    pub(super) closed: Option<&'static str>,
    places: HashMap<ColumnName, Place>,
}

/// A synced column that the local table has.
#[derive(Clone, Debug)]
pub(super) struct LocalColumn {
    /// Its permanent number.
    pub(super) field_id: u32,
    /// Its name, as the gateway has it.
    pub(super) name: ColumnName,
    /// Its name, as SQL for this file.
    pub(super) sql: String,
    /// Its type.
    pub(super) kind: ColumnType,
    /// Whether it is part of the key, and so written once and never updated.
    pub(super) in_key: bool,
    /// What the table shows where nothing was written: its default as SQL.
    pub(super) default: Option<String>,
}

/// Where a column's cells are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the table: index into [`Table::columns`].
    Local(usize),
    /// Aside, under this number, because the table lacks the column.
    Aside(u32),
}

impl Table {
    /// Lays `schema` over `shape`, or says why they do not match.
    pub(super) fn new(id: i64, schema: TableSchema, shape: Shape) -> Result<Self, String> {
        let key = key_of(id, &schema, &shape)?;
        let in_key: Vec<String> = key.columns();
        let mut columns = Vec::new();
        let mut places = HashMap::new();
        for column in &schema.columns {
            let local = shape.column(column.name.as_str()).filter(|local| !local.generated);
            let place = match local {
                None => Place::Aside(column.field_id),
                Some(local) => {
                    let sql = quoted(&local.name);
                    columns.push(LocalColumn {
                        field_id: column.field_id,
                        name: column.name.clone(),
                        in_key: in_key.contains(&sql),
                        sql,
                        kind: column.kind,
                        default: local.default.clone(),
                    });
                    Place::Local(columns.len() - 1)
                }
            };
            places.insert(column.name.clone(), place);
        }
        Ok(Self { id, schema, shape, key, columns, closed: None, places })
    }

    /// Its name.
    pub(super) fn name(&self) -> &TableName {
        &self.schema.table
    }

    /// Its name as SQL for this file.
    pub(super) fn sql(&self) -> String {
        quoted(&self.shape.name)
    }

    /// Where the cells of a column are kept; `None` if this schema has no such column.
    pub(super) fn place(&self, column: &ColumnName) -> Option<Place> {
        self.places.get(column).copied()
    }

    /// The local column of this number.
    pub(super) fn column(&self, field_id: i64) -> Option<&LocalColumn> {
        self.columns.iter().find(|column| i64::from(column.field_id) == field_id)
    }

    /// The number of the newest column: columns are only ever added.
    pub(super) fn width(&self) -> u32 {
        self.schema.columns.iter().map(|column| column.field_id).max().unwrap_or(0)
    }

    /// The names of the gateway's columns that the table lacks.
    pub(super) fn aside(&self) -> impl Iterator<Item = &ColumnName> {
        let aside = |(name, place)| matches!(place, &Place::Aside(_)).then_some(name);
        self.places.iter().filter_map(aside)
    }
}

/// All synced tables of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    captured: Vec<Arc<Table>>,
    /// Tables the gateway has that are not captured here, and their numbers.
    waiting: HashMap<TableName, i64>,
    /// The numbers of tables that the gateway does not declare.
    undeclared: BTreeSet<i64>,
    /// Whether the application has triggers: what is written while applying is noted then.
    pub(super) noting: bool,
    /// Which synced tables refer to which tables.
    references: Vec<Reference>,
}

/// What the registry knows of a table.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// It is synced.
    Captured(Arc<Table>),
    /// The application's table is there but was not adopted: what arrives for it is passed over.
    Waiting(i64),
    /// The installed schema does not have it.
    Unknown,
}

impl Registry {
    pub(super) fn insert(&mut self, table: Table) {
        self.captured.push(Arc::new(table));
    }

    pub(super) fn wait(&mut self, table: TableName, id: i64) {
        self.waiting.insert(table, id);
    }

    pub(super) fn refer(&mut self, references: Vec<Reference>) {
        self.references = references;
    }

    pub(super) fn references(&self) -> &[Reference] {
        &self.references
    }

    pub(super) fn captured(&self) -> &[Arc<Table>] {
        &self.captured
    }

    /// The tables that wait, and their numbers, in the order of their names.
    pub(super) fn waiting(&self) -> Vec<(TableName, i64)> {
        let mut waiting: Vec<_> =
            self.waiting.iter().map(|(name, id)| (name.clone(), *id)).collect();
        waiting.sort();
        waiting
    }

    /// Notes which tables the gateway does not declare.
    pub(super) fn lack(&mut self, undeclared: BTreeSet<i64>) {
        self.undeclared = undeclared;
    }

    /// Whether the gateway declares the table of this number.
    pub(super) fn is_declared(&self, id: i64) -> bool {
        !self.undeclared.contains(&id)
    }

    /// The tables whose changes can be sent: captured here, and declared by the gateway.
    pub(super) fn sent(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.captured.iter().filter(|table| self.is_declared(table.id))
    }

    /// The captured tables that the gateway does not declare.
    pub(super) fn undeclared(&self) -> Vec<TableName> {
        let captured = self.captured.iter().filter(|table| !self.is_declared(table.id));
        let mut names: Vec<_> = captured.map(|table| table.name().clone()).collect();
        names.sort();
        names
    }

    pub(super) fn find(&self, name: &TableName) -> Entry {
        match self.captured.iter().find(|table| table.name() == name) {
            Some(table) => Entry::Captured(Arc::clone(table)),
            None => self.waiting.get(name).map_or(Entry::Unknown, |id| Entry::Waiting(*id)),
        }
    }

    pub(super) fn by_id(&self, id: i64) -> Option<&Arc<Table>> {
        self.captured.iter().find(|table| table.id == id)
    }
}

/// How the rows of this table are named, or why they can't be.
fn key_of(id: i64, schema: &TableSchema, shape: &Shape) -> Result<Key, String> {
    if shape.kind != "table" {
        return Err(format!("it is a {}, not a table", shape.kind));
    }
    let same = |a: &String, b: &ColumnName| a.eq_ignore_ascii_case(b.as_str());
    let keys = &shape.primary_key;
    if schema.primary_key.is_empty() {
        return match keys.as_slice() {
            [only] if same(only, &schema.key) => Ok(Key::Text(only.clone())),
            _ if shape.column(schema.key.as_str()).is_some() => {
                Err(format!("its column {} is not its primary key", schema.key))
            }
            _ => {
                let rowid = shape.rowid().ok_or("its rowid can't be reached")?.to_owned();
                Ok(Key::Mapped { ids: format!("_lakesync_ids_{id}"), rowid })
            }
        };
    }
    let declared = &schema.primary_key;
    let matches =
        keys.len() == declared.len() && keys.iter().zip(declared).all(|(a, b)| same(a, b));
    if !matches {
        let declared: Vec<&str> = declared.iter().map(ColumnName::as_str).collect();
        return Err(format!(
            "its primary key is ({}), and the gateway's is ({})",
            keys.join(", "),
            declared.join(", ")
        ));
    }
    let kind = |name: &ColumnName| schema.column(name).map(|column| column.kind);
    Ok(match (keys.as_slice(), kind(&declared[0])) {
        ([only], Some(ColumnType::Int64)) => Key::Integer(only.clone()),
        ([only], Some(ColumnType::String)) => Key::Text(only.clone()),
        _ => {
            let kinds = schema.key_columns().map(|column| column.kind);
            Key::Columns(keys.iter().cloned().zip(kinds).collect())
        }
    })
}

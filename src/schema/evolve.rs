//! Which changes of a schema are allowed: adding tables and columns, and widening types. Anything
//! else is refused with what would break.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Column, ColumnType, Schema, TableSchema};
use crate::error::{Classify, FieldViolation, Reason};
use crate::limits::{COLUMNS_MAX, DECIMAL_PRECISION_MAX, SCHEMA_BYTES_MAX, TABLES_MAX};
use crate::name::{ColumnName, TableName};

/// A table as an operator wishes it, before ids and versions are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its name.
    pub table: TableName,
    /// The name of its key column.
    pub key: ColumnName,
    /// All of its columns, old ones included.
    pub columns: Vec<(ColumnName, ColumnType)>,
    /// Which of the columns make up the row id, if any do.
    pub primary_key: Vec<ColumnName>,
}

/// Why a schema was refused. A refused change has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvolveError {
    /// Two columns, or the key and a column, that only case tells apart.
    #[error("table {table}: column {column} is declared twice (names are compared ignoring case)")]
    DuplicateColumn {
        /// The table.
        table: TableName,
        /// The second of the two.
        column: ColumnName,
    },
    /// One table twice in one request: which of the two is meant can't be told.
    #[error("table {table} stands twice in the request (names are compared ignoring case)")]
    Repeated {
        /// The second of the two.
        table: TableName,
    },
    /// Two tables that only case tells apart.
    #[error("table {table} exists as {existing} (names are compared ignoring case)")]
    DuplicateTable {
        /// The one refused.
        table: TableName,
        /// The one before it.
        existing: TableName,
    },
    /// A decimal that no backend can hold.
    #[error(
        "table {table}, column {column}: a decimal has a precision of 1 to {DECIMAL_PRECISION_MAX} \
         and a scale of 0 to its precision, not ({precision}, {scale})"
    )]
    BadDecimal {
        /// The table.
        table: TableName,
        /// The column.
        column: ColumnName,
        /// What was asked for.
        precision: u32,
        /// What was asked for.
        scale: u32,
    },
    /// A column was left out. Replicas and backends still hold its cells.
    #[error("table {table}: column {column} is missing; columns can be added but not removed")]
    ColumnRemoved {
        /// The table.
        table: TableName,
        /// The column.
        column: ColumnName,
    },
    /// A type that does not hold every value of the old one.
    #[error(
        "table {table}, column {column}: {from} can't become {to}, which can't hold all of its values"
    )]
    Narrowed {
        /// The table.
        table: TableName,
        /// The column.
        column: ColumnName,
        /// The type it has.
        from: ColumnType,
        /// The type that was asked for.
        to: ColumnType,
    },
    /// A column of the primary key that would take another type. Row ids are made of its values.
    #[error(
        "table {table}, column {column}: it is part of the primary key, and as {to} instead of {from} \
         some of its values would name other rows"
    )]
    IdsChanged {
        /// The table.
        table: TableName,
        /// The column.
        column: ColumnName,
        /// The type it has.
        from: ColumnType,
        /// The type that was asked for.
        to: ColumnType,
    },
    /// Another key. Every row id would change its meaning.
    #[error("table {table}: the key is {from} and can't become {to}")]
    KeyChanged {
        /// The table.
        table: TableName,
        /// The key it has.
        from: ColumnName,
        /// The key that was asked for.
        to: ColumnName,
    },
    /// A primary key of other columns than before, or of columns that are not there.
    #[error("table {table}: the primary key can't be ({})", join(.columns))]
    BadPrimaryKey {
        /// The table.
        table: TableName,
        /// The columns that were asked for.
        columns: Vec<ColumnName>,
    },
    /// More than the protocol allows.
    #[error("{count} {what}; the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
}

impl Classify for EvolveError {
    fn reason(&self) -> Reason {
        Reason::InvalidRequest
    }

    fn violations(&self) -> Vec<FieldViolation> {
        vec![FieldViolation { field: "tables".to_owned(), description: self.to_string() }]
    }
}

impl Schema {
    /// This schema with `proposals` installed: new tables added, known ones evolved. Tables that
    /// are not proposed stay. Proposing what is already there changes nothing, versions included.
    pub fn evolve(&self, proposals: &[Proposal]) -> Result<Self, EvolveError> {
        let mut evolved = self.clone();
        let mut known: HashMap<String, TableName> =
            self.tables.keys().map(|name| (lower(name), name.clone())).collect();
        let mut proposed = HashSet::new();
        for proposal in proposals {
            let name = &proposal.table;
            if !proposed.insert(lower(name)) {
                return Err(EvolveError::Repeated { table: name.clone() });
            }
            match known.get(&lower(name)) {
                Some(existing) if existing != name => {
                    let (table, existing) = (name.clone(), existing.clone());
                    return Err(EvolveError::DuplicateTable { table, existing });
                }
                Some(_) => {}
                None => {
                    at_most("tables in one gateway", known.len() + 1, TABLES_MAX)?;
                    known.insert(lower(name), name.clone());
                }
            }
            let table = evolve_table(evolved.tables.get(name).map(Arc::as_ref), proposal)?;
            evolved.tables.insert(table.table.clone(), Arc::new(table));
        }
        let bytes = evolved.tables().map(|table| size(table)).sum();
        at_most("bytes of tables in one gateway", bytes, SCHEMA_BYTES_MAX)?;
        Ok(evolved)
    }
}

/// An upper bound of the bytes a table takes in a message that carries all of them.
pub(crate) fn size(table: &TableSchema) -> usize {
    // Tags, lengths, the version; tags, lengths, type, precision, scale and field id.
    const TABLE_BYTES: usize = 24;
    const COLUMN_BYTES: usize = 16;
    let columns = table.columns.iter().map(|column| &column.name);
    let names = columns.chain(&table.primary_key).map(|name| COLUMN_BYTES + name.as_str().len());
    TABLE_BYTES + table.table.as_str().len() + table.key.as_str().len() + names.sum::<usize>()
}

fn evolve_table(old: Option<&TableSchema>, new: &Proposal) -> Result<TableSchema, EvolveError> {
    check_columns(new)?;
    let empty = TableSchema {
        table: new.table.clone(),
        version: 0,
        key: new.key.clone(),
        columns: Vec::new(),
        primary_key: new.primary_key.clone(),
    };
    let old = old.unwrap_or(&empty);
    if old.primary_key != new.primary_key {
        let columns = new.primary_key.clone();
        return Err(EvolveError::BadPrimaryKey { table: new.table.clone(), columns });
    }
    if old.key != new.key {
        let (from, to) = (old.key.clone(), new.key.clone());
        return Err(EvolveError::KeyChanged { table: new.table.clone(), from, to });
    }
    let mut columns = old.columns.clone();
    let mut wished: HashMap<&ColumnName, ColumnType> =
        new.columns.iter().map(|(name, kind)| (name, *kind)).collect();
    for column in &mut columns {
        let Some(kind) = wished.remove(&column.name) else {
            let column = column.name.clone();
            return Err(EvolveError::ColumnRemoved { table: new.table.clone(), column });
        };
        if !widens(column.kind, kind) {
            let (from, to) = (column.kind, kind);
            let column = column.name.clone();
            return Err(EvolveError::Narrowed { table: new.table.clone(), column, from, to });
        }
        let is_key = old.primary_key.contains(&column.name);
        if is_key && !keeps_ids(column.kind, kind, old.primary_key.len() == 1) {
            let (table, from, to) = (new.table.clone(), column.kind, kind);
            return Err(EvolveError::IdsChanged { table, column: column.name.clone(), from, to });
        }
        column.kind = kind;
    }
    // Columns are never dropped, so the count is the last id that was given.
    for (name, kind) in &new.columns {
        if wished.contains_key(name) {
            let field_id = u32::try_from(columns.len() + 1).expect("BUG: columns are bounded");
            columns.push(Column { name: name.clone(), kind: *kind, field_id });
        }
    }
    let unchanged = columns == old.columns && old.version != 0;
    let version = if unchanged { old.version } else { old.version + 1 };
    Ok(TableSchema { version, columns, ..old.clone() })
}

fn check_columns(new: &Proposal) -> Result<(), EvolveError> {
    at_most("columns in one table", new.columns.len(), COLUMNS_MAX)?;
    let mut seen = HashSet::from([lower(&new.key)]);
    for (column, kind) in &new.columns {
        let (table, column) = (new.table.clone(), column.clone());
        if !seen.insert(lower(&column)) {
            return Err(EvolveError::DuplicateColumn { table, column });
        }
        if let ColumnType::Decimal { precision, scale } = *kind
            && !((1..=DECIMAL_PRECISION_MAX).contains(&precision) && scale <= precision)
        {
            return Err(EvolveError::BadDecimal { table, column, precision, scale });
        }
    }
    let mut unused: HashSet<&ColumnName> = new.columns.iter().map(|(column, _)| column).collect();
    // Once each: so there are never more of them than columns.
    if !new.primary_key.iter().all(|key| unused.remove(key)) {
        let columns = new.primary_key.clone();
        return Err(EvolveError::BadPrimaryKey { table: new.table.clone(), columns });
    }
    Ok(())
}

/// A name as it is compared: the backends disagree about case.
fn lower(name: &impl AsRef<str>) -> String {
    name.as_ref().to_ascii_lowercase()
}

/// The columns for people: the first of them, if they are many.
fn join(columns: &[ColumnName]) -> String {
    const SHOWN_MAX: usize = 8;
    let shown = columns.iter().take(SHOWN_MAX).map(ColumnName::as_str).collect::<Vec<_>>();
    let more = columns.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{}, and {more} more", shown.join(", ")) }
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), EvolveError> {
    if limit < count {
        return Err(EvolveError::TooMany { what, count, limit });
    }
    Ok(())
}

/// Whether every value of `from` is, or has an exact form as, a value of `to`.
pub(super) fn widens(from: ColumnType, to: ColumnType) -> bool {
    use ColumnType::{Any, Date, Decimal, Double, Int64, Json, String, Timestamp};
    match (from, to) {
        _ if from == to => true,
        (Int64, Double) | (Date, Timestamp) | (_, Any | Json | String) => true,
        // 19 digits hold every 64-bit integer.
        (Int64, Decimal { precision, scale }) => 19 <= precision - scale.min(precision),
        (Decimal { precision: p, scale: s }, Decimal { precision, scale }) => {
            s <= scale && p - s <= precision - scale.min(precision)
        }
        _ => false,
    }
}

/// Whether a column of a primary key may become `to`: every row id stays what it is, and names a
/// value that the column can hold. `alone` if the column is the whole key.
fn keeps_ids(from: ColumnType, to: ColumnType, alone: bool) -> bool {
    use ColumnType::{Any, Decimal, Int64, Json, String, Uuid};
    match (from, to) {
        _ if from == to => true,
        // Alone, a text is the row id by itself; in a column of any type it stands in an array.
        (String | Json | Uuid | Decimal { .. }, Any) => !alone,
        (_, Any) | (Int64 | Decimal { .. }, Decimal { .. }) | (Uuid, String) => true,
        _ => false,
    }
}

//! What is to be made and altered so that a table's rows fit: a pure comparison of what is wished,
//! what was prepared before, and what there is. What can't be made to fit is told.

use lakesync::adapter::AdapterError;
use lakesync::name::ColumnName;
use lakesync::schema::{Column, ColumnType, TableSchema};

use super::inspect::{Found, Relation};
use super::names::{Names, quoted};
use super::types;

/// Statements that make a table fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Alteration {
    pub(super) statements: Vec<String>,
    /// Whether its rows must be shown anew: a widened column may look otherwise than Postgres
    /// converts it.
    pub(super) reshapes: bool,
    /// Columns that somebody added, under names and with types that are wanted now. They must hold
    /// nothing: what they show would pass for ours.
    pub(super) adopted: Vec<ColumnName>,
}

/// What makes `wanted` fit, of which `held` was prepared before and `found` is there.
pub(super) fn alteration(
    names: &Names,
    wanted: &TableSchema,
    held: Option<&TableSchema>,
    found: Option<&Relation>,
) -> Result<Alteration, AdapterError> {
    let Some(found) = found else {
        return match held {
            None => {
                Ok(Alteration { statements: vec![create(names, wanted)], ..Alteration::default() })
            }
            Some(_) => Err(mismatch(wanted, "is gone; put it back, or restore the backend")),
        };
    };
    if !matches!(found.kind.as_str(), "r" | "p") {
        let what = match found.kind.as_str() {
            "v" | "m" => "a view",
            "i" | "I" => "an index",
            "S" => "a sequence",
            "f" => "a foreign table",
            _ => "something else",
        };
        return Err(mismatch(wanted, &format!("is {what}; give it another name")));
    }
    check_key(wanted, found)?;
    check_strangers(wanted, found)?;
    let mut alteration = Alteration::default();
    let mut actions = Vec::new();
    for column in &wanted.columns {
        let before = held.and_then(|held| held.column(&column.name)).map(|held| held.kind);
        let there = found.columns.iter().find(|found| found.name == column.name.as_str());
        let name = quoted(column.name.as_str());
        match (there, before) {
            (Some(there), _) if there.kind == types::name(column.kind) => {
                check_writable(wanted, there)?;
                alteration.reshapes |=
                    before.is_some_and(|from| types::reshapes(from, column.kind));
                if held.is_some() && before.is_none() {
                    alteration.adopted.push(column.name.clone());
                }
            }
            (Some(there), Some(from)) if there.kind == types::name(from) => {
                check_writable(wanted, there)?;
                actions.push(widen(&name, from, column.kind));
                alteration.reshapes |= types::reshapes(from, column.kind);
            }
            (Some(there), _) => return Err(other_type(wanted, column, there)),
            (None, Some(_)) => {
                let text = format!("has no column {name} any more; put it back");
                return Err(mismatch(wanted, &text));
            }
            (None, None) => {
                actions.push(format!("ADD COLUMN {name} {}", types::name(column.kind)));
            }
        }
    }
    if !actions.is_empty() {
        // One statement writes the table anew once at most.
        let table = names.synced(&wanted.table);
        alteration.statements.push(format!("ALTER TABLE {table} {}", actions.join(", ")));
    }
    Ok(alteration)
}

fn create(names: &Names, wanted: &TableSchema) -> String {
    // An index has a name among those of tables: one of ours, so that it is in no table's way.
    let constraint = quoted(&format!("_lakesync_key_{:016x}", fnv(wanted.table.as_str())));
    let key = quoted(wanted.key.as_str());
    let key = format!("{key} text COLLATE \"C\" CONSTRAINT {constraint} PRIMARY KEY");
    let column = |column: &Column| {
        format!(", {} {}", quoted(column.name.as_str()), types::name(column.kind))
    };
    let columns: String = wanted.columns.iter().map(column).collect();
    format!("CREATE TABLE {} ({key}{columns})", names.synced(&wanted.table))
}

/// FNV-1a: a short name for a long one.
fn fnv(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

fn widen(name: &str, from: ColumnType, to: ColumnType) -> String {
    let using = types::widened(name, from, to);
    format!("ALTER COLUMN {name} TYPE {} USING {using}", types::name(to))
}

fn check_key(wanted: &TableSchema, found: &Relation) -> Result<(), AdapterError> {
    let key = &wanted.key;
    let Some(there) = found.columns.iter().find(|found| found.name == key.as_str()) else {
        return Err(mismatch(wanted, &format!("exists without its key column {key}")));
    };
    if there.kind != "text" || !there.deterministic {
        let loose = if there.deterministic { "" } else { " of a nondeterministic collation" };
        let found = &there.kind;
        let text = format!("has the key column {key} as {found}{loose}, where text is wanted");
        return Err(mismatch(wanted, &text));
    }
    check_writable_type(wanted, there)?;
    if !there.unique {
        let text = format!("has no unique index on its key column {key} alone; create one");
        return Err(mismatch(wanted, &text));
    }
    Ok(())
}

/// Columns that people added are theirs, as long as rows can be inserted without them.
fn check_strangers(wanted: &TableSchema, found: &Relation) -> Result<(), AdapterError> {
    let ours = |name: &str| {
        name == wanted.key.as_str() || wanted.columns.iter().any(|c| c.name.as_str() == name)
    };
    let stranger =
        |found: &&Found| found.not_null && !found.filled && !found.generated && !ours(&found.name);
    match found.columns.iter().find(stranger) {
        None => Ok(()),
        Some(Found { name, .. }) => {
            let text =
                format!("has a column {name} that is NOT NULL and not synced; give it a default");
            Err(mismatch(wanted, &text))
        }
    }
}

fn check_writable(wanted: &TableSchema, there: &Found) -> Result<(), AdapterError> {
    if there.not_null {
        let name = &there.name;
        let text =
            format!("has the column {name} as NOT NULL, but any value may be NULL; drop that");
        return Err(mismatch(wanted, &text));
    }
    check_writable_type(wanted, there)
}

fn check_writable_type(wanted: &TableSchema, there: &Found) -> Result<(), AdapterError> {
    if there.generated {
        let text = format!("computes its column {}, which must be written", there.name);
        return Err(mismatch(wanted, &text));
    }
    Ok(())
}

fn other_type(wanted: &TableSchema, column: &Column, there: &Found) -> AdapterError {
    let (name, found) = (&column.name, &there.kind);
    let kind = types::name(column.kind);
    mismatch(wanted, &format!("has the column {name} as {found}, where {kind} is wanted"))
}

fn mismatch(table: &TableSchema, text: &str) -> AdapterError {
    AdapterError::Mismatch(format!("table {} {text}", table.table))
}

//! What is to be made and altered so that a table's rows fit: a pure comparison of what is wished,
//! what was prepared before, and what there is. What can't be made to fit is told.
//!
//! A crash may leave any of it done and nothing written down. So what has the wished form already is
//! left alone, whoever made it.

use lakesync::adapter::AdapterError;
use lakesync::name::ColumnName;
use lakesync::schema::{Column, ColumnType, TableSchema};

use super::inspect::{Found, Relation};
use super::names::{Names, quoted};
use super::types::Flavour;

/// Statements that make a table fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Alteration {
    pub(super) statements: Vec<String>,
    /// Whether its rows must be shown anew: the server shows some values otherwise than we do.
    pub(super) reshapes: bool,
    /// Columns that somebody added, under names and with types that are wanted now. They must hold
    /// nothing: what they show would pass for ours.
    pub(super) adopted: Vec<ColumnName>,
}

/// What columns are called until they stand in the place of those that they are filled from.
const FILLED: &str = "_lakesync_filled_";

/// What makes `wanted` fit, of which `held` was prepared before and `found` is there.
pub(super) fn alteration(
    names: &Names,
    flavour: Flavour,
    wanted: &TableSchema,
    held: Option<&TableSchema>,
    found: Option<&Relation>,
) -> Result<Alteration, AdapterError> {
    let Some(found) = found else {
        return match held {
            None => Ok(Alteration {
                statements: vec![create(names, flavour, wanted)],
                ..Alteration::default()
            }),
            Some(_) => Err(mismatch(wanted, "is gone; put it back, or restore the backend")),
        };
    };
    if found.kind != "BASE TABLE" {
        let text = format!("is a {}; give it another name", found.kind.to_lowercase());
        return Err(mismatch(wanted, &text));
    }
    if !found.engine.eq_ignore_ascii_case("InnoDB") {
        let text = format!("is kept by {}, where InnoDB is wanted", found.engine);
        return Err(mismatch(wanted, &text));
    }
    check_key(flavour, wanted, found)?;
    check_strangers(wanted, found)?;
    let mut alteration = Alteration::default();
    let (mut actions, mut added, mut filled) = (Vec::new(), Vec::new(), Vec::new());
    for (nth, column) in wanted.columns.iter().enumerate() {
        let before = held.and_then(|held| held.column(&column.name)).map(|held| held.kind);
        let there = find(found, column.name.as_str());
        let name = quoted(column.name.as_str());
        let kind = flavour.sql(column.kind);
        match (there, before) {
            (Some(there), _) if there.kind == flavour.name(column.kind) => {
                check_writable(wanted, there)?;
                alteration.reshapes |= before.is_some_and(|from| reshapes(from, column.kind));
                if held.is_some() && before.is_none() {
                    alteration.adopted.push(column.name.clone());
                }
            }
            (Some(there), Some(from)) if there.kind == flavour.name(from) => {
                check_writable(wanted, there)?;
                check_widening(flavour, wanted, column, there)?;
                alteration.reshapes = true;
                let Some(converted) = converted(&name, from, column.kind) else {
                    actions.push(format!("MODIFY COLUMN {name} {kind} NULL"));
                    continue;
                };
                let new = quoted(&format!("{FILLED}{nth}"));
                added.push(format!("ADD COLUMN {new} {kind} NULL AFTER {name}"));
                filled.push(format!("{new} = {converted}"));
                actions.push(format!("DROP COLUMN {name}"));
                actions.push(format!("CHANGE COLUMN {new} {name} {kind} NULL"));
            }
            (Some(there), _) => return Err(other_type(flavour, wanted, column, there)),
            (None, Some(_)) => {
                let text = format!("has no column {name} any more; put it back");
                return Err(mismatch(wanted, &text));
            }
            (None, None) => actions.push(format!("ADD COLUMN {name} {kind} NULL")),
        }
    }
    let table = names.synced(&wanted.table);
    // Left by one that failed.
    let stale = found.columns.iter().filter(|found| found.name.starts_with(FILLED));
    let stale = stale.map(|found| format!("DROP COLUMN {}", quoted(&found.name))).collect();
    let update = format!("UPDATE {table} SET");
    let alter = format!("ALTER TABLE {table}");
    // The last one is one statement: all is as wanted, or all as it was. What people see is never
    // empty in between.
    let steps = [(&alter, stale), (&alter, added), (&update, filled), (&alter, actions)];
    let steps = steps.into_iter().filter(|(_, parts): &(_, Vec<String>)| !parts.is_empty());
    alteration.statements =
        steps.map(|(head, parts)| format!("{head} {}", parts.join(", "))).collect();
    Ok(alteration)
}

/// The SQL of what a quoted column shows in a wider type, where the server does not convert it, or
/// not all of it. About what we show: rows are shown anew afterwards.
fn converted(column: &str, from: ColumnType, to: ColumnType) -> Option<String> {
    use ColumnType::{Any, Bool, Bytes, Decimal, Double, Int64, Json, String};
    let text = match from {
        Bytes => format!("LOWER(HEX({column}))"),
        _ => format!("CONVERT({column} USING utf8mb4)"),
    };
    match (from, to) {
        (Bytes, String | Any) => Some(text),
        (Bool, Json) => {
            Some(format!("CASE WHEN {column} THEN 'true' WHEN NOT {column} THEN 'false' END"))
        }
        (Int64 | Double | Decimal { .. }, Json) => Some(text),
        (_, Json) => Some(format!("JSON_QUOTE({text})")),
        _ => None,
    }
}

fn create(names: &Names, flavour: Flavour, wanted: &TableSchema) -> String {
    let key = format!("{} {} NOT NULL PRIMARY KEY", quoted(wanted.key.as_str()), flavour.key());
    let column = |column: &Column| {
        format!(", {} {} NULL", quoted(column.name.as_str()), flavour.sql(column.kind))
    };
    let columns: String = wanted.columns.iter().map(column).collect();
    let table = names.synced(&wanted.table);
    let collation = flavour.collation();
    format!(
        "CREATE TABLE {table} ({key}{columns}) ENGINE = InnoDB ROW_FORMAT = DYNAMIC COLLATE {collation}"
    )
}

/// Whether values look otherwise in the wider type.
fn reshapes(from: ColumnType, to: ColumnType) -> bool {
    let texts = [ColumnType::String, ColumnType::Any];
    from != to && !(texts.contains(&from) && texts.contains(&to))
}

fn check_key(flavour: Flavour, wanted: &TableSchema, found: &Relation) -> Result<(), AdapterError> {
    let key = &wanted.key;
    let Some(there) = find(found, key.as_str()) else {
        return Err(mismatch(wanted, &format!("exists without its key column {key}")));
    };
    let (found, kind) = (&there.kind, flavour.key());
    if *found != kind {
        let text = format!("has the key column {key} as {found}, where {kind} is wanted");
        return Err(mismatch(wanted, &text));
    }
    check_writable_type(wanted, there)?;
    if !there.unique || !there.not_null {
        let text = format!("has the key column {key} without a primary key on it alone; add one");
        return Err(mismatch(wanted, &text));
    }
    Ok(())
}

/// Columns that people added are theirs, as long as rows can be inserted without them.
fn check_strangers(wanted: &TableSchema, found: &Relation) -> Result<(), AdapterError> {
    let names = || wanted.columns.iter().map(|column| &column.name).chain([&wanted.key]);
    let ours = |name: &str| names().any(|ours| ours.as_str().eq_ignore_ascii_case(name));
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

/// An index of texts needs a length, which is not ours to choose.
fn check_widening(
    flavour: Flavour,
    wanted: &TableSchema,
    column: &Column,
    there: &Found,
) -> Result<(), AdapterError> {
    let kind = flavour.name(column.kind);
    if there.indexed && (kind.starts_with("longtext") || kind == "json") {
        let name = &there.name;
        let text = format!(
            "has an index of the column {name}, which becomes {kind}; drop the index, prepare \
             again, and create it anew"
        );
        return Err(mismatch(wanted, &text));
    }
    Ok(())
}

fn check_writable_type(wanted: &TableSchema, there: &Found) -> Result<(), AdapterError> {
    if there.generated {
        let text = format!("computes its column {}, which must be written", there.name);
        return Err(mismatch(wanted, &text));
    }
    Ok(())
}

fn other_type(
    flavour: Flavour,
    wanted: &TableSchema,
    column: &Column,
    there: &Found,
) -> AdapterError {
    let (name, found, kind) = (&column.name, &there.kind, flavour.name(column.kind));
    mismatch(wanted, &format!("has the column {name} as {found}, where {kind} is wanted"))
}

/// The column of this name, which the server takes in any case.
fn find<'f>(found: &'f Relation, name: &str) -> Option<&'f Found> {
    found.columns.iter().find(|found| found.name.eq_ignore_ascii_case(name))
}

fn mismatch(table: &TableSchema, text: &str) -> AdapterError {
    AdapterError::Mismatch(format!("table {} {text}", table.table))
}

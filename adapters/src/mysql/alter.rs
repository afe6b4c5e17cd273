//! What is to be made and altered so that a table's rows fit: a pure comparison of what is wished,
//! what was prepared before, and what there is. What can't be made to fit is told.
//!
//! A crash may leave any of it done and nothing written down. So what has the wished form already is
//! left alone, whoever made it.

use lakesync::adapter::AdapterError;
use lakesync::schema::{Column, ColumnType, TableSchema};

use super::inspect::{Found, Relation};
use super::names::{Names, ROWS, quoted};
use super::types::Flavour;

/// Statements that make a table fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Alteration {
    pub(super) statements: Vec<String>,
    /// Whether its rows must be shown anew: a widened column is emptied before, because the server
    /// would refuse some values, and show others otherwise than we do.
    pub(super) reshapes: bool,
}

/// What makes `wanted` fit, of which `held` was prepared before, by its number, and `found` is there.
pub(super) fn alteration(
    names: &Names,
    flavour: Flavour,
    wanted: &TableSchema,
    held: Option<(i32, &TableSchema)>,
    found: Option<&Relation>,
) -> Result<Alteration, AdapterError> {
    let Some(found) = found else {
        return match held {
            None => {
                Ok(Alteration { statements: vec![create(names, flavour, wanted)], reshapes: false })
            }
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
    let (mut emptied, mut actions) = (Vec::new(), Vec::new());
    for column in &wanted.columns {
        let before = held.and_then(|(_, held)| held.column(&column.name)).map(|held| held.kind);
        let there = find(found, column.name.as_str());
        let name = quoted(column.name.as_str());
        let kind = flavour.sql(column.kind);
        match (there, before) {
            (Some(there), _) if there.kind == flavour.name(column.kind) => {
                check_writable(wanted, there)?;
                alteration.reshapes |= before.is_some_and(|from| reshapes(from, column.kind));
            }
            (Some(there), Some(from)) if there.kind == flavour.name(from) => {
                check_writable(wanted, there)?;
                check_widening(flavour, wanted, column, there)?;
                emptied.push(format!("t.{name} = NULL"));
                actions.push(format!("MODIFY COLUMN {name} {kind} NULL"));
                alteration.reshapes = true;
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
    if let Some((id, _)) = held.filter(|_| !emptied.is_empty()) {
        // Only what we wrote can be written again. The server converts the rest, or says why not.
        let (rows, key) = (names.own(ROWS), quoted(wanted.key.as_str()));
        let ours = format!("{rows} AS r ON r.table_id = {id} AND r.row_id = t.{key}");
        let sets = emptied.join(", ");
        alteration.statements.push(format!("UPDATE {table} AS t JOIN {ours} SET {sets}"));
    }
    if !actions.is_empty() {
        // One statement writes the table anew once at most.
        alteration.statements.push(format!("ALTER TABLE {table} {}", actions.join(", ")));
    }
    Ok(alteration)
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

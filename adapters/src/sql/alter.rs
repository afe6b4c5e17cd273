//! What is to be made and altered so that a table's rows fit: a pure comparison of what is wished,
//! what was prepared before, and what there is. What can't be made to fit is told.
//!
//! A crash may leave any of it done and nothing written down. So what has the wished form already is
//! left alone, whoever made it.

use lakesync::adapter::AdapterError;
use lakesync::name::ColumnName;
use lakesync::schema::{ColumnType, TableSchema};

use super::shown::{Shown, ShownColumn};

/// How a database makes tables, and tells them.
pub(crate) trait Tables {
    /// The type's name, as the database itself tells it.
    fn kind(&self, kind: ColumnType) -> String;

    /// Whether two names are one column's.
    fn is_same(&self, one: &str, other: &str) -> bool;

    /// Whether values look otherwise in the wider type than the database converts them.
    fn reshapes(&self, from: ColumnType, to: ColumnType) -> bool;

    /// Whether this column can be the key.
    fn check_key(&self, key: &Found) -> Result<(), String>;

    /// Whether this column can become one of `kind`.
    fn check_widening(&self, there: &Found, kind: &str) -> Result<(), String>;

    /// The statement that makes the table.
    fn create(&self, wanted: &Shown<'_>) -> String;

    /// The statements that alter the table so.
    fn alter(&self, wanted: &Shown<'_>, found: &Relation, steps: &[Step<'_>]) -> Vec<String>;
}

/// Statements that make a table fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Alteration {
    pub(crate) statements: Vec<String>,
    /// Whether its rows must be shown anew.
    pub(crate) reshapes: bool,
    /// Columns that somebody added, under names and with types that are wanted now. They must hold
    /// nothing: what they show would pass for ours.
    pub(crate) adopted: Vec<ColumnName>,
}

/// What is done to one column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'c> {
    Add(&'c ShownColumn<'c>),
    /// From this type.
    Widen(&'c ShownColumn<'c>, ColumnType),
}

/// A table, or whatever else has its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relation {
    /// Why it holds no rows of ours, if it can't.
    pub(crate) obstacle: Option<String>,
    pub(crate) columns: Vec<Found>,
}

/// A column of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// The type's name, as the database tells it.
    pub(crate) kind: String,
    pub(crate) not_null: bool,
    /// Whether a row that says nothing of it gets a value.
    pub(crate) filled: bool,
    /// Whether its value is computed, so that nobody may write it.
    pub(crate) generated: bool,
    /// Whether texts may be equal whose bytes are not, where the type does not say it.
    pub(crate) loose: bool,
    /// Whether it alone is unique in its table.
    pub(crate) unique: bool,
    /// Whether it is in an index whose form depends on its type.
    pub(crate) indexed: bool,
}

/// What makes `wanted` fit, of which `held` was prepared before and `found` is there.
pub(crate) fn alteration(
    tables: &impl Tables,
    wanted: &Shown<'_>,
    held: Option<&TableSchema>,
    found: Option<&Relation>,
) -> Result<Alteration, AdapterError> {
    let plan = plan(tables, wanted, held, found);
    plan.map_err(|text| AdapterError::Mismatch(format!("table {} {text}", wanted.table)))
}

fn plan(
    tables: &impl Tables,
    wanted: &Shown<'_>,
    held: Option<&TableSchema>,
    found: Option<&Relation>,
) -> Result<Alteration, String> {
    let mut alteration = Alteration::default();
    let Some(found) = found else {
        if held.is_some() {
            return Err("is gone; put it back, or restore the backend".to_owned());
        }
        alteration.statements.push(tables.create(wanted));
        return Ok(alteration);
    };
    found.obstacle.clone().map_or(Ok(()), Err)?;
    check_key(tables, wanted, found)?;
    check_strangers(tables, wanted, found)?;
    let mut steps = Vec::new();
    for column in &wanted.columns {
        let before = held.and_then(|held| held.column(column.column)).map(|held| held.kind);
        let there = find(tables, found, &column.name);
        let (name, kind) = (&column.name, tables.kind(column.kind));
        match (there, before) {
            (Some(there), _) if there.kind == kind => {
                check_writable(there)?;
                if held.is_some() && before.is_none() {
                    alteration.adopted.push(column.column.clone());
                }
            }
            (Some(there), Some(from)) if there.kind == tables.kind(from) => {
                check_writable(there)?;
                tables.check_widening(there, &kind)?;
                steps.push(Step::Widen(column, from));
            }
            (Some(Found { kind: found, .. }), _) => {
                return Err(format!("has the column {name} as {found}, where {kind} is wanted"));
            }
            (None, Some(_)) => return Err(format!("has no column {name} any more; put it back")),
            (None, None) => steps.push(Step::Add(column)),
        }
        alteration.reshapes |= before.is_some_and(|from| tables.reshapes(from, column.kind));
    }
    alteration.statements = tables.alter(wanted, found, &steps);
    Ok(alteration)
}

fn check_key(tables: &impl Tables, wanted: &Shown<'_>, found: &Relation) -> Result<(), String> {
    let key = &wanted.key;
    let there = find(tables, found, key);
    let there = there.ok_or_else(|| format!("exists without its key column {key}"))?;
    tables.check_key(there)?;
    check_not_computed(there)
}

/// Columns that people added are theirs, as long as rows can be inserted without them.
fn check_strangers(
    tables: &impl Tables,
    wanted: &Shown<'_>,
    found: &Relation,
) -> Result<(), String> {
    let names = || wanted.columns.iter().map(|column| &column.name).chain([&wanted.key]);
    let is_ours = |name: &str| names().any(|ours| tables.is_same(ours, name));
    let is_needed = |found: &&Found| found.not_null && !found.filled && !found.generated;
    let mut needed = found.columns.iter().filter(is_needed);
    match needed.find(|found| !is_ours(&found.name)) {
        None => Ok(()),
        Some(Found { name, .. }) => {
            Err(format!("has a column {name} that is NOT NULL and not synced; give it a default"))
        }
    }
}

fn check_writable(there: &Found) -> Result<(), String> {
    if there.not_null {
        let name = &there.name;
        return Err(format!(
            "has the column {name} as NOT NULL, but any value may be NULL; drop that"
        ));
    }
    check_not_computed(there)
}

fn check_not_computed(there: &Found) -> Result<(), String> {
    match there.generated {
        true => Err(format!("computes its column {}, which must be written", there.name)),
        false => Ok(()),
    }
}

fn find<'f>(tables: &impl Tables, found: &'f Relation, name: &str) -> Option<&'f Found> {
    found.columns.iter().find(|found| tables.is_same(&found.name, name))
}

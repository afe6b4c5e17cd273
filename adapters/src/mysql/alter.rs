//! How MySQL and MariaDB make and alter tables.

use lakesync::schema::ColumnType;

use super::names::quoted;
use super::types::Flavour;
use crate::sql::alter::{Found, Relation, Step, Tables};
use crate::sql::names::Names;
use crate::sql::shown::{Shown, ShownColumn};

/// The tables of one database.
pub(super) struct MySqlTables<'n> {
    pub(super) names: &'n Names,
    pub(super) flavour: Flavour,
}

/// What columns are called until they stand in the place of those that they are filled from.
const FILLED: &str = "_lakesync_filled_";

impl Tables for MySqlTables<'_> {
    fn kind(&self, kind: ColumnType) -> String {
        self.flavour.name(kind)
    }

    /// The server takes a column's name in any case.
    fn is_same(&self, one: &str, other: &str) -> bool {
        one.eq_ignore_ascii_case(other)
    }

    fn reshapes(&self, from: ColumnType, to: ColumnType) -> bool {
        let texts = [ColumnType::String, ColumnType::Any];
        from != to && !(texts.contains(&from) && texts.contains(&to))
    }

    fn check_key(&self, key: &Found) -> Result<(), String> {
        let (Found { name, kind, .. }, wanted) = (key, self.flavour.key());
        if *kind != wanted {
            return Err(format!("has the key column {name} as {kind}, where {wanted} is wanted"));
        }
        match key.unique && key.not_null {
            true => Ok(()),
            false => {
                Err(format!("has the key column {name} without a primary key on it alone; add one"))
            }
        }
    }

    /// An index of texts needs a length, which is not ours to choose.
    fn check_widening(&self, there: &Found, kind: &str) -> Result<(), String> {
        if there.indexed && (kind.starts_with("longtext") || kind == "json") {
            let name = &there.name;
            return Err(format!(
                "has an index of the column {name}, which becomes {kind}; drop the index, prepare \
                 again, and create it anew"
            ));
        }
        Ok(())
    }

    fn create(&self, wanted: &Shown<'_>) -> String {
        let key = format!("{} {} NOT NULL PRIMARY KEY", quoted(&wanted.key), self.flavour.key());
        let column = |column: &ShownColumn<'_>| {
            format!(", {} {} NULL", quoted(&column.name), self.flavour.sql(column.kind))
        };
        let columns: String = wanted.columns.iter().map(column).collect();
        let table = self.names.synced(wanted.table);
        let collation = self.flavour.collation();
        format!(
            "CREATE TABLE {table} ({key}{columns}) ENGINE = InnoDB ROW_FORMAT = DYNAMIC COLLATE {collation}"
        )
    }

    fn alter(&self, wanted: &Shown<'_>, found: &Relation, steps: &[Step<'_>]) -> Vec<String> {
        let (mut actions, mut added, mut filled) = (Vec::new(), Vec::new(), Vec::new());
        for (nth, step) in steps.iter().enumerate() {
            let (Step::Add(column) | Step::Widen(column, _)) = step;
            let (name, kind) = (quoted(&column.name), self.flavour.sql(column.kind));
            let converted = match step {
                Step::Add(_) => {
                    actions.push(format!("ADD COLUMN {name} {kind} NULL"));
                    continue;
                }
                Step::Widen(_, from) => converted(&name, *from, column.kind),
            };
            let Some(converted) = converted else {
                actions.push(format!("MODIFY COLUMN {name} {kind} NULL"));
                continue;
            };
            let new = quoted(&format!("{FILLED}{nth}"));
            added.push(format!("ADD COLUMN {new} {kind} NULL AFTER {name}"));
            filled.push(format!("{new} = {converted}"));
            actions.push(format!("DROP COLUMN {name}"));
            actions.push(format!("CHANGE COLUMN {new} {name} {kind} NULL"));
        }
        let table = self.names.synced(wanted.table);
        // Left by one that failed.
        let stale = found.columns.iter().filter(|found| found.name.starts_with(FILLED));
        let stale = stale.map(|found| format!("DROP COLUMN {}", quoted(&found.name))).collect();
        let update = format!("UPDATE {table} SET");
        let alter = format!("ALTER TABLE {table}");
        // The last one is one statement: all is as wanted, or all as it was. What people see is
        // never empty in between.
        let steps = [(&alter, stale), (&alter, added), (&update, filled), (&alter, actions)];
        let steps = steps.into_iter().filter(|(_, parts): &(_, Vec<String>)| !parts.is_empty());
        steps.map(|(head, parts)| format!("{head} {}", parts.join(", "))).collect()
    }
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

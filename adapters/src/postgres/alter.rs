//! How Postgres makes and alters tables.

use lakesync::schema::ColumnType;

use super::names::quoted;
use super::types;
use crate::sql::alter::{Found, Relation, Step, Tables};
use crate::sql::names::Names;
use crate::sql::shown::{Shown, ShownColumn};

/// The tables of one schema.
pub(super) struct PostgresTables<'n> {
    pub(super) names: &'n Names,
}

impl Tables for PostgresTables<'_> {
    fn kind(&self, kind: ColumnType) -> String {
        types::name(kind)
    }

    fn is_same(&self, one: &str, other: &str) -> bool {
        one == other
    }

    fn reshapes(&self, from: ColumnType, to: ColumnType) -> bool {
        types::reshapes(from, to)
    }

    fn check_key(&self, key: &Found) -> Result<(), String> {
        let Found { name, kind, .. } = key;
        if kind != "text" || key.loose {
            let loose = if key.loose { " of a nondeterministic collation" } else { "" };
            return Err(format!(
                "has the key column {name} as {kind}{loose}, where text is wanted"
            ));
        }
        match key.unique {
            true => Ok(()),
            false => Err(format!("has no unique index on its key column {name} alone; create one")),
        }
    }

    fn check_widening(&self, _: &Found, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn create(&self, wanted: &Shown<'_>) -> String {
        // An index has a name among those of tables: one of ours, so that it is in no table's way.
        let constraint = quoted(&format!("_lakesync_key_{:016x}", fnv(wanted.table.as_str())));
        let key = quoted(&wanted.key);
        let key = format!("{key} text COLLATE \"C\" CONSTRAINT {constraint} PRIMARY KEY");
        let column = |column: &ShownColumn<'_>| {
            format!(", {} {}", quoted(&column.name), types::name(column.kind))
        };
        let columns: String = wanted.columns.iter().map(column).collect();
        format!("CREATE TABLE {} ({key}{columns})", self.names.synced(wanted.table))
    }

    fn alter(&self, wanted: &Shown<'_>, _: &Relation, steps: &[Step<'_>]) -> Vec<String> {
        let actions: Vec<_> = steps.iter().map(action).collect();
        if actions.is_empty() {
            return Vec::new();
        }
        // One statement writes the table anew once at most.
        let table = self.names.synced(wanted.table);
        vec![format!("ALTER TABLE {table} {}", actions.join(", "))]
    }
}

fn action(step: &Step<'_>) -> String {
    let (Step::Add(column) | Step::Widen(column, _)) = step;
    let (name, kind) = (quoted(&column.name), types::name(column.kind));
    match step {
        Step::Add(_) => format!("ADD COLUMN {name} {kind}"),
        Step::Widen(_, from) => {
            let using = types::widened(&name, *from, column.kind);
            format!("ALTER COLUMN {name} TYPE {kind} USING {using}")
        }
    }
}

/// FNV-1a: a short name for a long one.
fn fnv(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

//! What stands in the database under the names of synced tables, whoever made it.

use std::collections::HashMap;

use lakesync::name::TableName;
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::engine::MySqlEngine;
use super::read::text;
use super::statement::Statement;
use super::types::tidied;
use crate::sql::alter::{Found, Relation};
use crate::sql::error::Failure;

/// What there is in the database, by name.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    relations: HashMap<String, Relation>,
    /// Whether the server tells tables apart by the case of their names.
    is_sensitive: bool,
}

impl Inventory {
    /// What has the name of `table`.
    pub(super) fn of(&self, table: &TableName) -> Option<&Relation> {
        self.relations.get(&self.folded(table.as_str()))
    }

    fn folded(&self, name: &str) -> String {
        if self.is_sensitive { name.to_owned() } else { name.to_ascii_lowercase() }
    }
}

impl MySqlEngine {
    /// What there is in the database.
    pub(super) async fn inspect(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<Inventory, Failure> {
        const TABLES: &str = "
SELECT CAST(TABLE_SCHEMA AS CHAR), CAST(TABLE_NAME AS CHAR), CAST(TABLE_TYPE AS CHAR),
    CAST(COALESCE(ENGINE, '') AS CHAR)
FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?";
        const COLUMNS: &str = "
SELECT CAST(TABLE_SCHEMA AS CHAR), CAST(TABLE_NAME AS CHAR), CAST(COLUMN_NAME AS CHAR),
    CAST(COLUMN_TYPE AS CHAR), CAST(COLLATION_NAME AS CHAR), CAST(IS_NULLABLE = 'NO' AS SIGNED),
    CAST(COLUMN_DEFAULT IS NOT NULL OR EXTRA LIKE '%auto_increment%'
        OR EXTRA LIKE '%DEFAULT_GENERATED%' AS SIGNED),
    CAST(COALESCE(GENERATION_EXPRESSION, '') <> '' AS SIGNED)
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? ORDER BY TABLE_NAME, ORDINAL_POSITION";
        const INDEXED: &str = "
SELECT CAST(TABLE_SCHEMA AS CHAR), CAST(TABLE_NAME AS CHAR),
    CAST(GROUP_CONCAT(COLUMN_NAME) AS CHAR),
    CAST(MAX(NON_UNIQUE) = 0 AND COUNT(*) = 1 AND MAX(SUB_PART) IS NULL AS SIGNED)
FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ?
GROUP BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME";
        let sql = "SELECT CAST(@@lower_case_table_names AS SIGNED)";
        let row = Statement::new(sql).row(connection).await?.ok_or(sqlx::Error::RowNotFound)?;
        let mut inventory = Inventory {
            is_sensitive: row.try_get_unchecked::<i64, _>(0)? == 0,
            ..Inventory::default()
        };
        for row in self.look_up(connection, TABLES, &inventory).await? {
            let relation = inventory.relations.entry(inventory_key(&inventory, &row)?).or_default();
            relation.obstacle = obstacle(text(&row, 2)?, text(&row, 3)?);
        }
        for row in self.look_up(connection, COLUMNS, &inventory).await? {
            let key = inventory_key(&inventory, &row)?;
            let Some(relation) = inventory.relations.get_mut(&key) else { continue };
            relation.columns.push(Found {
                name: text(&row, 2)?.to_owned(),
                kind: tidied(text(&row, 3)?, row.try_get_unchecked(4)?),
                not_null: truth(&row, 5)?,
                filled: truth(&row, 6)?,
                generated: truth(&row, 7)?,
                ..Found::default()
            });
        }
        for row in self.look_up(connection, INDEXED, &inventory).await? {
            let key = inventory_key(&inventory, &row)?;
            let Some(relation) = inventory.relations.get_mut(&key) else { continue };
            // An index of an expression has no name of a column.
            let names: Option<&str> = row.try_get_unchecked(2)?;
            let is_of = |found: &Found| {
                names.is_some_and(|names| {
                    names.split(',').any(|n| n.eq_ignore_ascii_case(&found.name))
                })
            };
            let is_unique = truth(&row, 3)?;
            for found in relation.columns.iter_mut().filter(|found| is_of(found)) {
                found.indexed = true;
                found.unique |= is_unique;
            }
        }
        Ok(inventory)
    }

    /// Rows that are about our database. The server compares the names of databases regardless of
    /// case, even where they differ by it.
    async fn look_up(
        &self,
        connection: &mut MySqlConnection,
        sql: &str,
        inventory: &Inventory,
    ) -> Result<Vec<MySqlRow>, Failure> {
        let mut rows = Statement::new(sql).bind(self.names.space()).rows(connection).await?;
        let ours = inventory.folded(self.names.space());
        rows.retain(|row| text(row, 0).is_ok_and(|name| inventory.folded(name) == ours));
        Ok(rows)
    }
}

/// Why what is of this kind, and kept by this engine, holds no rows of ours. Only InnoDB takes rows
/// back when a transaction fails.
fn obstacle(kind: &str, engine: &str) -> Option<String> {
    if kind != "BASE TABLE" {
        return Some(format!("is a {}; give it another name", kind.to_lowercase()));
    }
    let is_fit = engine.eq_ignore_ascii_case("InnoDB");
    (!is_fit).then(|| format!("is kept by {engine}, where InnoDB is wanted"))
}

fn inventory_key(inventory: &Inventory, row: &MySqlRow) -> Result<String, sqlx::Error> {
    Ok(inventory.folded(text(row, 1)?))
}

fn truth(row: &MySqlRow, at: usize) -> Result<bool, sqlx::Error> {
    Ok(row.try_get_unchecked::<i64, _>(at)? != 0)
}

//! What stands in the schema under the names of synced tables, whoever made it.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::engine::PostgresEngine;
use super::statement::Statement;
use crate::sql::alter::{Found, Relation};
use crate::sql::error::Failure;

impl PostgresEngine {
    /// What there is of `tables`, by name.
    pub(super) async fn inspect(
        &self,
        connection: &mut PgConnection,
        tables: &[&str],
    ) -> Result<HashMap<String, Relation>, Failure> {
        const SQL: &str = "
SELECT c.relname::text, c.relkind::text, a.attname::text,
    pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
    a.atthasdef OR a.attidentity <> '', a.attgenerated <> '',
    NOT coalesce(o.collisdeterministic, true),
    EXISTS (
        SELECT 1 FROM pg_catalog.pg_index i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
            AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
    )
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a
    ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
WHERE n.nspname = $1 AND c.relname = ANY($2)
ORDER BY c.relname, a.attnum";
        let statement = Statement::new(SQL).bind(self.names.space()).bind(tables);
        let mut relations = HashMap::<String, Relation>::new();
        for row in statement.rows(connection).await? {
            let relation = relations.entry(row.try_get(0)?).or_default();
            relation.obstacle = obstacle(row.try_get(1)?);
            let Some(name) = row.try_get(2)? else { continue };
            relation.columns.push(Found {
                name,
                kind: row.try_get(3)?,
                not_null: row.try_get(4)?,
                filled: row.try_get(5)?,
                generated: row.try_get(6)?,
                loose: row.try_get(7)?,
                unique: row.try_get(8)?,
                indexed: false,
            });
        }
        Ok(relations)
    }
}

/// Why what has this letter of Postgres' holds no rows of ours.
fn obstacle(kind: &str) -> Option<String> {
    let what = match kind {
        "r" | "p" => return None,
        "v" | "m" => "a view",
        "i" | "I" => "an index",
        "S" => "a sequence",
        "f" => "a foreign table",
        _ => "something else",
    };
    Some(format!("is {what}; give it another name"))
}

//! Laying the gateway's schema over the file: tables that are missing are created, those LakeSync
//! created grow with the schema, and the application's own are left as they are.
//!
//! The same code runs whenever anybody has altered the file's tables, so that a column which the
//! application adds joins the synced ones and shows what was kept aside for it.

use lakesync::name::TableName;
use lakesync::proto::v1 as proto;
use lakesync::schema::{ColumnType, TableSchema};
use lakesync::wire;
use prost::Message;
use sqlx::SqliteConnection;

use super::Migration;
use super::error::DbError;
use super::key::Key;
use super::session::Work;
use super::shape::Shape;
use super::sql::{RANDOM_UUID, Statement, Stored, integer, quoted, script, stored, text};
use super::table::{Registry, Table};
use super::triggers::{prefix, triggers};
use super::{aside, echo, foreign, layout, probe, renumber, requeue, undeclared};

/// Takes over the gateway's tables.
pub(super) async fn install(
    work: &mut Work<'_>,
    tables: &[TableSchema],
) -> Result<Migration, DbError> {
    let mut changed = false;
    for schema in tables {
        let bytes = encode(schema);
        let sql = "SELECT schema, id, local FROM _lakesync_tables WHERE name = ?";
        let known = Statement::new(sql).bind(schema.table.as_str());
        if let Some(row) = known.row(work.connection()).await? {
            let before = stored(&row, 0)?;
            if before == Stored::Blob(bytes.clone()) {
                continue;
            }
            let (id, local) = (integer(&row, 1)?, text(&row, 2)?);
            replace(work.connection(), id, before, schema, &local).await?;
        }
        changed = true;
        let sql = "INSERT INTO _lakesync_tables (name, schema, created, captured, local) \
                   VALUES (?, ?, 0, 0, '') ON CONFLICT (name) DO UPDATE SET schema = excluded.schema";
        let statement = Statement::new(sql).bind(schema.table.as_str()).bind(bytes);
        statement.run(work.connection()).await?;
    }
    undeclared::note(work.connection(), tables).await?;
    if changed {
        return reconcile(work).await;
    }
    let undeclared = undeclared::read(work.connection()).await?;
    work.registry.lack(undeclared);
    Ok(summary(&work.registry, Migration::default()))
}

/// Makes what is recorded of a table fit another schema.
async fn replace(
    connection: &mut SqliteConnection,
    id: i64,
    before: Stored,
    after: &TableSchema,
    local: &str,
) -> Result<(), DbError> {
    let Stored::Blob(before) = before else { return Err(damaged("a schema is no blob")) };
    let before = decode(&before)?;
    if let Some(local) = renumber::renumber(connection, id, &before, after, local).await? {
        let sql = "UPDATE _lakesync_tables SET local = ? WHERE id = ?";
        Statement::new(sql).bind(local).bind(id).run(connection).await?;
    }
    Ok(())
}

/// Brings tables, triggers and registry in line with schema and file.
pub(super) async fn reconcile(work: &mut Work<'_>) -> Result<Migration, DbError> {
    let mut migration = Migration::default();
    work.registry = Registry::default();
    let mut moved_in = Vec::new();
    let noting = echo::has_sources(work.connection()).await?;
    let sql = "SELECT id, schema, created, captured, local FROM _lakesync_tables ORDER BY id";
    for row in Statement::new(sql).rows(work.connection()).await? {
        let Stored::Blob(bytes) = stored(&row, 1)? else {
            return Err(damaged("a schema is no blob"));
        };
        let mut installed = Installed {
            id: integer(&row, 0)?,
            schema: decode(&bytes)?,
            created: integer(&row, 2)? != 0,
            captured: integer(&row, 3)? != 0,
            local: text(&row, 4)?,
            unwatched: false,
        };
        if let Some(mut table) = installed.settle(work.connection(), noting, &mut migration).await?
        {
            table.closed = probe::ruin(work.connection(), &table.shape).await?;
            let added = installed.note_columns(work.connection(), &table, &mut migration).await?;
            moved_in.push((table.id, added, installed.unwatched));
            work.registry.insert(table);
        } else {
            work.registry.wait(installed.schema.table.clone(), installed.id);
        }
    }
    let tables = work.registry.captured().to_vec();
    let references = foreign::references(work.connection(), &tables).await?;
    work.registry.refer(references);
    let undeclared = undeclared::read(work.connection()).await?;
    work.registry.lack(undeclared);
    work.registry.noting = noting;
    for (id, columns, unwatched) in moved_in {
        let Some(table) = work.registry.by_id(id).cloned() else { continue };
        if unwatched {
            requeue::unwatched_rows(work, &table).await?;
        }
        aside::move_in(work, &table, &columns).await?;
    }
    Ok(summary(&work.registry, migration))
}

/// A row of `_lakesync_tables`.
struct Installed {
    id: i64,
    schema: TableSchema,
    created: bool,
    captured: bool,
    local: String,
    /// Whether its triggers were gone, and with them what happened meanwhile.
    unwatched: bool,
}

impl Installed {
    /// Makes the table as it should be. `None` if it waits for being adopted.
    async fn settle(
        &mut self,
        connection: &mut SqliteConnection,
        noting: bool,
        migration: &mut Migration,
    ) -> Result<Option<Table>, DbError> {
        let name = self.schema.table.as_str();
        let mut shape = Shape::read(connection, name).await?;
        if shape.is_none() {
            script(connection, create_table(&self.schema)).await?;
            if self.captured {
                forget_table(connection, self.id).await?;
            }
            (self.created, self.captured) = (true, true);
            self.local.clear();
            migration.created.push(self.schema.table.clone());
            shape = Shape::read(connection, name).await?;
        }
        let mut shape = shape.ok_or_else(|| damaged("a table just created is missing"))?;
        if self.created {
            self.add_columns(connection, &mut shape).await?;
        }
        let table = match Table::new(self.id, self.schema.clone(), shape) {
            Ok(table) if self.captured => table,
            Ok(_) => return Ok(None),
            Err(_) => {
                // The application altered the table so that it no longer fits: it has to be adopted
                // anew, and until then what arrives for it is passed over.
                drop_triggers(connection, self.id).await?;
                self.captured = false;
                self.save(connection).await?;
                return Ok(None);
            }
        };
        let known = !self.local.is_empty();
        self.unwatched = known && existing_triggers(connection, self.id).await?.is_empty();
        capture(connection, &table, noting).await?;
        Ok(Some(table))
    }

    async fn add_columns(
        &self,
        connection: &mut SqliteConnection,
        shape: &mut Shape,
    ) -> Result<(), DbError> {
        let missing: Vec<_> = self
            .schema
            .columns
            .iter()
            .filter(|c| shape.column(c.name.as_str()).is_none())
            .collect();
        for column in &missing {
            let sql = format!(
                "ALTER TABLE {} ADD COLUMN {} {}",
                quoted(&shape.name),
                quoted(column.name.as_str()),
                declared(column.kind)
            );
            script(connection, sql).await?;
        }
        if !missing.is_empty() {
            let altered = Shape::read(connection, &shape.name).await?;
            *shape = altered.ok_or_else(|| damaged("a table just altered is missing"))?;
        }
        Ok(())
    }

    /// Remembers which columns the table has. Returns those it did not have before.
    async fn note_columns(
        &mut self,
        connection: &mut SqliteConnection,
        table: &Table,
        migration: &mut Migration,
    ) -> Result<Vec<u32>, DbError> {
        let now: Vec<u32> = table.columns.iter().map(|column| column.field_id).collect();
        // The comma at the end tells a table without columns from one never looked at.
        let local: String = now.iter().map(|id| format!("{id},")).collect();
        let local = if local.is_empty() { ",".to_owned() } else { local };
        let before: Vec<&str> = self.local.split(',').collect();
        let fresh = self.local.is_empty();
        let added: Vec<u32> = now
            .into_iter()
            .filter(|id| !fresh && !before.contains(&id.to_string().as_str()))
            .collect();
        let named = table.columns.iter().filter(|column| added.contains(&column.field_id));
        migration.added.extend(named.map(|column| (table.name().clone(), column.name.clone())));
        if local != self.local {
            self.local = local;
            self.save(connection).await?;
        }
        Ok(added)
    }

    async fn save(&self, connection: &mut SqliteConnection) -> Result<(), DbError> {
        let sql = "UPDATE _lakesync_tables SET created = ?, captured = ?, local = ? WHERE id = ?";
        let flags = Statement::new(sql).bind(self.created).bind(self.captured);
        flags.bind(self.local.as_str()).bind(self.id).run(connection).await?;
        Ok(())
    }
}

/// Makes sure that the table has its triggers, as this version writes them, and its id mapping.
pub(super) async fn capture(
    connection: &mut SqliteConnection,
    table: &Table,
    noting: bool,
) -> Result<(), DbError> {
    let mut wanted = triggers(table, noting);
    wanted.sort();
    if existing_triggers(connection, table.id).await? == wanted {
        return Ok(());
    }
    if let Key::Mapped { ids, rowid } = &table.key {
        // VACUUM renumbers the rows of a table that has neither an integer key nor an index. This
        // index holds no entries.
        let column = table.shape.columns.first().map_or("", |column| column.name.as_str());
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {0} (rowid INTEGER PRIMARY KEY, row_id TEXT NOT NULL UNIQUE);
             INSERT INTO {0} (rowid, row_id) SELECT _t.{rowid}, {RANDOM_UUID}
               FROM {1} _t WHERE NOT EXISTS (SELECT 1 FROM {0} _i WHERE _i.rowid = _t.{rowid});
             CREATE INDEX IF NOT EXISTS _lakesync_keep_{2} ON {1} ({3}) WHERE 0;",
            quoted(ids),
            table.sql(),
            table.id,
            quoted(column)
        );
        script(connection, sql).await?;
    }
    drop_triggers(connection, table.id).await?;
    for (_, sql) in wanted {
        script(connection, sql).await?;
    }
    Ok(())
}

async fn existing_triggers(
    connection: &mut SqliteConnection,
    id: i64,
) -> Result<Vec<(String, String)>, DbError> {
    let sql = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' \
               AND substr(name, 1, length(?1)) = ?1 ORDER BY name";
    let rows = Statement::new(sql).bind(prefix(id)).rows(connection).await?;
    let pairs = rows.iter().map(|row| Ok((text(row, 0)?, text(row, 1)?)));
    Ok(pairs.collect::<Result<_, sqlx::Error>>()?)
}

async fn drop_triggers(connection: &mut SqliteConnection, id: i64) -> Result<(), DbError> {
    for (name, _) in existing_triggers(connection, id).await? {
        script(connection, format!("DROP TRIGGER {}", quoted(&name))).await?;
    }
    Ok(())
}

/// Whether a waiting table of the file fits its schema, or why not.
pub(super) async fn fit(
    connection: &mut SqliteConnection,
    id: i64,
    name: &TableName,
) -> Result<Result<Table, String>, DbError> {
    let sql = "SELECT schema FROM _lakesync_tables WHERE id = ?";
    let row = Statement::new(sql).bind(id).row(connection).await?;
    let Some(Stored::Blob(bytes)) = row.map(|row| stored(&row, 0)).transpose()? else {
        return Err(damaged("a schema is missing"));
    };
    let Some(shape) = Shape::read(connection, name.as_str()).await? else {
        return Ok(Err("it is not there".to_owned()));
    };
    let obstacle = probe::obstacle(connection, &shape).await?;
    Ok(Table::new(id, decode(&bytes)?, shape).and_then(|table| match obstacle {
        Some(why) => Err(why),
        None => Ok(table),
    }))
}

/// Forgets what is known of a table's rows. Unsent changes stay.
pub(super) async fn forget_known(
    connection: &mut SqliteConnection,
    id: i64,
) -> Result<(), DbError> {
    for table in ["rows", "cells", "base", "unknown", "parked", "candidates", "unchecked"] {
        let sql = format!("DELETE FROM _lakesync_{table} WHERE tbl = ?");
        Statement::new(sql).bind(id).run(connection).await?;
    }
    Ok(())
}

/// Starts over with a table that somebody dropped: a checkpoint will bring its rows back.
async fn forget_table(connection: &mut SqliteConnection, id: i64) -> Result<(), DbError> {
    forget_known(connection, id).await?;
    script(connection, format!("DROP TABLE IF EXISTS _lakesync_ids_{id}")).await?;
    Ok(layout::forget_cursor(connection).await?)
}

fn create_table(schema: &TableSchema) -> String {
    let single = schema.primary_key.len() == 1;
    let mut parts = Vec::new();
    if schema.primary_key.is_empty() {
        let key = quoted(schema.key.as_str());
        parts.push(format!("{key} TEXT PRIMARY KEY NOT NULL DEFAULT ({RANDOM_UUID})"));
    }
    for column in &schema.columns {
        let name = quoted(column.name.as_str());
        let in_key = schema.primary_key.contains(&column.name);
        parts.push(match column.kind {
            ColumnType::Int64 if in_key && single => {
                format!("{name} INTEGER PRIMARY KEY AUTOINCREMENT")
            }
            ColumnType::Uuid if in_key && single => {
                format!("{name} TEXT NOT NULL DEFAULT ({RANDOM_UUID})")
            }
            kind if in_key => format!("{name} {} NOT NULL", declared(kind)),
            kind => format!("{name} {}", declared(kind)),
        });
    }
    let kind = |name| schema.column(name).map(|column| column.kind);
    let integer = single && kind(&schema.primary_key[0]) == Some(ColumnType::Int64);
    if !schema.primary_key.is_empty() && !integer {
        let keys: Vec<_> = schema.primary_key.iter().map(|key| quoted(key.as_str())).collect();
        parts.push(format!("PRIMARY KEY ({})", keys.join(", ")));
    }
    format!("CREATE TABLE {} ({})", quoted(schema.table.as_str()), parts.join(", "))
}

fn declared(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Bool => "BOOLEAN",
        ColumnType::Int64 | ColumnType::Timestamp | ColumnType::Date => "INTEGER",
        ColumnType::Double => "REAL",
        ColumnType::String | ColumnType::Json | ColumnType::Decimal { .. } | ColumnType::Uuid => {
            "TEXT"
        }
        ColumnType::Bytes => "BLOB",
        ColumnType::Any => "",
    }
}

fn summary(registry: &Registry, mut migration: Migration) -> Migration {
    for table in registry.captured() {
        let mut aside: Vec<_> = table.aside().cloned().collect();
        aside.sort();
        migration.aside.extend(aside.into_iter().map(|column| (table.name().clone(), column)));
    }
    migration.waiting = registry.waiting().into_iter().map(|(table, _)| table).collect();
    migration.undeclared = registry.undeclared();
    migration
}

fn encode(schema: &TableSchema) -> Vec<u8> {
    wire::encode_schema(schema).encode_to_vec()
}

fn decode(bytes: &[u8]) -> Result<TableSchema, DbError> {
    let message = proto::TableSchema::decode(bytes).map_err(|error| damaged(&error.to_string()))?;
    let mut tables =
        wire::decode_schema(&[message]).map_err(|error| damaged(&error.to_string()))?;
    tables.pop().ok_or_else(|| damaged("a schema is empty"))
}

fn damaged(what: &str) -> DbError {
    DbError::Damaged { table: "_lakesync_tables", what: what.to_owned() }
}

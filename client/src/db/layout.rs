//! The tables in which LakeSync keeps its own knowledge, in the application's file.
//!
//! | table | holds |
//! |---|---|
//! | `_lakesync_meta` | format, client id, gateway, cursor, the checkpoint under way and the like |
//! | `_lakesync_clock` | one row: the clock that triggers advance, and the flag that silences them |
//! | `_lakesync_tables` | the synced tables: schema, and what of it the local table has |
//! | `_lakesync_rows`, `_lakesync_cells` | the stamps of what the gateway is known to hold |
//! | `_lakesync_base` | the gateway's value of each cell that an unsent write hides |
//! | `_lakesync_unknown` | cells of columns that the application's table lacks |
//! | `_lakesync_outbox`, `_lakesync_outbox_cells` | unsent changes, in the order they were made |
//! | `_lakesync_marks` | where transactions ended, for cutting large pushes |
//! | `_lakesync_touched`, `_lakesync_touched_cells` | rows written while applying, as they were |
//! | `_lakesync_candidates` | rows that an INSERT OR REPLACE may be removing right now |
//! | `_lakesync_unchecked` | rows of a checkpoint under way whose references are checked at its end |
//! | `_lakesync_parked` | rows that a local constraint refuses |
//! | `_lakesync_rejected`, `_lakesync_rejected_cells` | changes that the gateway refused |
//! | `_lakesync_powers` | every power of two that is a double: triggers take reals in keys apart by them |

use sqlx::SqliteConnection;

use super::sql::{Statement, Stored, insert_rows, script, text};

/// The version of this layout. A file of a later one is not opened.
pub(super) const FORMAT: i64 = 1;

/// Kinds of unsent changes, as `_lakesync_outbox.op`.
pub(super) const OP_UPSERT: i64 = 1;
/// See [`OP_UPSERT`].
pub(super) const OP_DELETE: i64 = 2;
/// An upsert of a row that was there when its table was adopted. Refusing it leaves the row alone.
pub(super) const OP_ADOPTED: i64 = 3;
/// An upsert that gives back to the gateway what it has lost, under the stamp it had. Refusing it
/// leaves the row alone.
pub(super) const OP_RESTORED: i64 = 4;
/// A delete of that kind.
pub(super) const OP_RESTORED_DELETE: i64 = 5;

/// Whether an unsent change of this kind is a delete.
pub(super) fn is_delete(op: i64) -> bool {
    matches!(op, OP_DELETE | OP_RESTORED_DELETE)
}

/// Whether an unsent change of this kind gives something back.
pub(super) fn is_restored(op: i64) -> bool {
    matches!(op, OP_RESTORED | OP_RESTORED_DELETE)
}

/// The id of this replica in `_lakesync_clients`.
pub(super) const OWN_CLIENT: i64 = 1;

/// Values of `_lakesync_clock.applying`: while nothing is applied, edits are recorded.
pub(super) const SILENT: i64 = 1;
/// Nothing is recorded; what is written is noted, because triggers of the application write too.
pub(super) const NOTING: i64 = 2;

/// Tables that files of earlier versions lack.
const LATER_TABLES: &str = "
CREATE TABLE IF NOT EXISTS _lakesync_touched (
  tbl INTEGER NOT NULL, row_id TEXT NOT NULL, born INTEGER NOT NULL,
  PRIMARY KEY (tbl, row_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _lakesync_touched_cells (
  tbl INTEGER NOT NULL, row_id TEXT NOT NULL, col INTEGER NOT NULL, value,
  PRIMARY KEY (tbl, row_id, col)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _lakesync_powers (
  power REAL PRIMARY KEY, exponent INTEGER NOT NULL) WITHOUT ROWID;
";

/// The exponents of the powers of two that are doubles.
const EXPONENTS: std::ops::RangeInclusive<i32> = -1_074..=1_023;

const TABLES: &str = "
CREATE TABLE _lakesync_meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE _lakesync_clock (
  id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, hlc INTEGER NOT NULL,
  offset_ms INTEGER NOT NULL, applying INTEGER NOT NULL);
INSERT INTO _lakesync_clock VALUES (1, 0, 0, 0, 0);
CREATE TABLE _lakesync_clients (id INTEGER PRIMARY KEY, client TEXT NOT NULL UNIQUE);
CREATE TABLE _lakesync_tables (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, schema BLOB NOT NULL,
  created INTEGER NOT NULL, captured INTEGER NOT NULL, local TEXT NOT NULL,
  skipped INTEGER NOT NULL DEFAULT 0);
CREATE TABLE _lakesync_rows (
  tbl INTEGER NOT NULL, row_id TEXT NOT NULL, width INTEGER NOT NULL,
  hlc INTEGER, client INTEGER, written_hlc INTEGER, written_client INTEGER,
  deleted_hlc INTEGER, deleted_client INTEGER, seen INTEGER NOT NULL,
  PRIMARY KEY (tbl, row_id)) WITHOUT ROWID;
CREATE TABLE _lakesync_cells (
  tbl INTEGER NOT NULL, row_id TEXT NOT NULL, col INTEGER NOT NULL, hlc INTEGER, client INTEGER,
  PRIMARY KEY (tbl, row_id, col)) WITHOUT ROWID;
CREATE TABLE _lakesync_base (
  tbl INTEGER NOT NULL, row_id TEXT NOT NULL, col INTEGER NOT NULL, value,
  PRIMARY KEY (tbl, row_id, col)) WITHOUT ROWID;
CREATE TABLE _lakesync_unknown (
  tbl INTEGER NOT NULL, row_id TEXT NOT NULL, col INTEGER NOT NULL,
  hlc INTEGER NOT NULL, client INTEGER NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (tbl, row_id, col)) WITHOUT ROWID;
CREATE TABLE _lakesync_outbox (
  seq INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, row_id TEXT NOT NULL,
  hlc INTEGER NOT NULL, op INTEGER NOT NULL);
CREATE INDEX _lakesync_outbox_row ON _lakesync_outbox (tbl, row_id);
CREATE TABLE _lakesync_outbox_cells (
  seq INTEGER NOT NULL, col INTEGER NOT NULL, value, PRIMARY KEY (seq, col)) WITHOUT ROWID;
CREATE TABLE _lakesync_marks (seq INTEGER PRIMARY KEY);
CREATE TABLE _lakesync_candidates (
  tbl INTEGER NOT NULL, row_id TEXT NOT NULL, PRIMARY KEY (tbl, row_id)) WITHOUT ROWID;
CREATE TABLE _lakesync_unchecked (
  tbl INTEGER NOT NULL, row_id TEXT NOT NULL, PRIMARY KEY (tbl, row_id)) WITHOUT ROWID;
CREATE TABLE _lakesync_parked (
  tbl INTEGER NOT NULL, row_id TEXT NOT NULL, row BLOB NOT NULL, reason TEXT NOT NULL,
  since INTEGER NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (tbl, row_id)) WITHOUT ROWID;
CREATE TABLE _lakesync_rejected (
  id INTEGER PRIMARY KEY AUTOINCREMENT, tbl INTEGER NOT NULL, table_name TEXT NOT NULL,
  row_id TEXT NOT NULL, kind TEXT NOT NULL, cells TEXT NOT NULL, reason TEXT NOT NULL,
  message TEXT NOT NULL, at_ms INTEGER NOT NULL);
CREATE TABLE _lakesync_rejected_cells (
  id INTEGER NOT NULL, col INTEGER NOT NULL, value, PRIMARY KEY (id, col)) WITHOUT ROWID;
";

/// Now by SQLite's clock, in milliseconds since the Unix epoch: the clock that triggers read.
pub(super) const NOW_MS: &str = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)";

/// SQL: the stamp of a change that is made now to a row. It is the clock's `reading`, or one tick above
/// the newest stamp that the row has here, sent or not: whoever edits a row has seen what it holds. A
/// row that was stamped by a clock far ahead can be edited so, and the clock does not follow it.
pub(super) fn stamp_above(table: i64, row_id: &str, reading: &str) -> String {
    format!(
        "max({reading}, \
         coalesce((SELECT 1 + max(coalesce(_k.written_hlc, 0), coalesce(_k.deleted_hlc, 0)) \
         FROM _lakesync_rows _k WHERE _k.tbl = {table} AND _k.row_id = {row_id}), 0), \
         coalesce((SELECT 1 + max(_o.hlc) \
         FROM _lakesync_outbox _o WHERE _o.tbl = {table} AND _o.row_id = {row_id}), 0))"
    )
}

/// Whether the file has these tables.
pub(super) async fn exists(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_lakesync_meta'";
    Ok(Statement::new(sql).row(connection).await?.is_some())
}

/// Creates the tables that a file of an earlier version lacks.
pub(super) async fn complete(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    script(connection, LATER_TABLES).await?;
    let filled = Statement::new("SELECT 1 FROM _lakesync_powers LIMIT 1").row(connection).await?;
    if filled.is_some() {
        return Ok(());
    }
    // Bound, not written: how exactly SQLite reads a number depends on its version.
    let row = |exponent| vec![Stored::Real(power(exponent)), Stored::Integer(exponent.into())];
    let rows: Vec<Vec<Stored>> = EXPONENTS.map(row).collect();
    insert_rows(connection, "INSERT INTO _lakesync_powers (power, exponent)", &rows).await?;
    Ok(())
}

/// 2 to the power of an exponent that is one of [`EXPONENTS`].
fn power(exponent: i32) -> f64 {
    let bits = match u64::try_from(exponent + 1_023) {
        Ok(biased @ 1..) => biased << 52,
        _ => 1 << (exponent + 1_074),
    };
    f64::from_bits(bits)
}

/// Creates the tables and this replica's identity.
pub(super) async fn create(
    connection: &mut SqliteConnection,
    client_id: &str,
) -> Result<(), sqlx::Error> {
    script(connection, TABLES).await?;
    complete(connection).await?;
    let own = "INSERT INTO _lakesync_clients (id, client) VALUES (?, ?)";
    Statement::new(own).bind(OWN_CLIENT).bind(client_id).run(connection).await?;
    put(connection, "format", &FORMAT.to_string()).await?;
    put(connection, "client_id", client_id).await?;
    put(connection, "slot", &super::ranges::random_slot().to_string()).await?;
    put(connection, "generation", "0").await
}

/// A text in `_lakesync_meta`.
pub(super) async fn get(
    connection: &mut SqliteConnection,
    key: &str,
) -> Result<Option<String>, sqlx::Error> {
    let statement = Statement::new("SELECT value FROM _lakesync_meta WHERE key = ?").bind(key);
    statement.row(connection).await?.map(|row| text(&row, 0)).transpose()
}

/// Writes a text to `_lakesync_meta`.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    key: &str,
    value: &str,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT OR REPLACE INTO _lakesync_meta (key, value) VALUES (?, ?)";
    Statement::new(sql).bind(key).bind(value).run(connection).await?;
    Ok(())
}

/// Asks for a checkpoint: from where to pull is forgotten, and kept only to tell whether the log is
/// still the one that was read.
pub(super) async fn forget_cursor(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    if let Some(cursor) = get(connection, "cursor").await? {
        put(connection, "last_cursor", &cursor).await?;
    }
    forget(connection, "checkpoint").await?;
    forget(connection, "cursor").await
}

/// Removes a text from `_lakesync_meta`.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    key: &str,
) -> Result<(), sqlx::Error> {
    Statement::new("DELETE FROM _lakesync_meta WHERE key = ?").bind(key).run(connection).await?;
    Ok(())
}

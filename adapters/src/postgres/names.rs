//! Names as SQL: always quoted, always qualified. The one place that quotes.

use lakesync::limits::NAME_BYTES_MAX;
use lakesync::name::TableName;

/// One row: the version of our tables' form, and the generation of what was prepared. Whoever writes
/// locks it.
pub(super) const META: &str = "_lakesync_meta";
/// The tables that were prepared.
pub(super) const TABLES: &str = "_lakesync_tables";
/// Their columns.
pub(super) const COLUMNS: &str = "_lakesync_columns";
/// The exact state of every row, tombstones included.
pub(super) const ROWS: &str = "_lakesync_rows";
/// How far each log has come.
pub(super) const WATERMARKS: &str = "_lakesync_watermarks";
/// Every change that took effect.
pub(super) const HISTORY: &str = "_lakesync_history";

/// The names in one Postgres schema.
#[derive(Clone, Debug)]
pub(super) struct Names {
    schema: String,
    quoted: String,
}

impl Names {
    /// Names in `schema`, unless Postgres would cut its own short or refuse it.
    pub(super) fn new(schema: &str) -> Option<Self> {
        let sized = (1..=NAME_BYTES_MAX).contains(&schema.len());
        let legal = sized && !schema.contains('\0') && !schema.starts_with("pg_");
        legal.then(|| Self { schema: schema.to_owned(), quoted: quoted(schema) })
    }

    /// The schema's name as it is.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// The schema's name as SQL.
    pub(super) fn quoted_schema(&self) -> &str {
        &self.quoted
    }

    /// One of our own tables as SQL.
    pub(super) fn own(&self, table: &'static str) -> String {
        format!("{}.{}", self.quoted, quoted(table))
    }

    /// A synced table as SQL.
    pub(super) fn synced(&self, table: &TableName) -> String {
        format!("{}.{}", self.quoted, quoted(table.as_str()))
    }
}

/// A name as SQL, whatever characters it has.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

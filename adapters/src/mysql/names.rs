//! Names as SQL: always quoted, always qualified. The one place that quotes.

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

/// How many characters a name has at most.
const NAME_CHARS_MAX: usize = 64;
/// Databases that belong to the server.
const TAKEN: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// The names in one database.
#[derive(Clone, Debug)]
pub(super) struct Names {
    database: String,
    quoted: String,
}

impl Names {
    /// Names in `database`, unless the server would refuse it.
    pub(super) fn new(database: &str) -> Option<Self> {
        let sized = (1..=NAME_CHARS_MAX).contains(&database.chars().count());
        let signs = database.chars().all(|sign| sign != '\0' && u32::from(sign) < 0x1_0000);
        let taken = TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(database));
        let legal = sized && signs && !taken && !database.ends_with(' ');
        legal.then(|| Self { database: database.to_owned(), quoted: quoted(database) })
    }

    /// The database's name as it is.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// The database's name as SQL.
    pub(super) fn quoted_database(&self) -> &str {
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
    format!("`{}`", name.replace('`', "``"))
}

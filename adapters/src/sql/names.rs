//! Names as SQL: always quoted, always qualified. The one place that quotes.

use lakesync::name::TableName;

/// One row: the version of our tables' form, and the generation of what was prepared. Whoever writes
/// locks it.
pub(crate) const META: &str = "_lakesync_meta";
/// The tables that were prepared.
pub(crate) const TABLES: &str = "_lakesync_tables";
/// Their columns.
pub(crate) const COLUMNS: &str = "_lakesync_columns";
/// The exact state of every row, tombstones included.
pub(crate) const ROWS: &str = "_lakesync_rows";
/// How far each log has come.
pub(crate) const WATERMARKS: &str = "_lakesync_watermarks";
/// Every change that took effect.
pub(crate) const HISTORY: &str = "_lakesync_history";

/// The names in what holds one gateway: a schema, or a database.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    space: String,
    mark: char,
}

impl Names {
    /// Names in `space`, between such quotation marks. Whether the database takes it is checked
    /// before.
    pub(crate) fn new(space: &str, mark: char) -> Self {
        Self { space: space.to_owned(), mark }
    }

    /// The name of what holds the others, as it is.
    pub(crate) fn space(&self) -> &str {
        &self.space
    }

    /// The name of what holds the others, as SQL.
    pub(crate) fn quoted_space(&self) -> String {
        self.quoted(&self.space)
    }

    /// One of our own tables as SQL.
    pub(crate) fn own(&self, table: &'static str) -> String {
        format!("{}.{}", self.quoted_space(), self.quoted(table))
    }

    /// A synced table as SQL.
    pub(crate) fn synced(&self, table: &TableName) -> String {
        format!("{}.{}", self.quoted_space(), self.quoted(table.as_str()))
    }

    /// A name as SQL, without what holds it.
    pub(crate) fn quoted(&self, name: &str) -> String {
        quoted(name, self.mark)
    }
}

/// A name as SQL, whatever characters it has.
pub(crate) fn quoted(name: &str, mark: char) -> String {
    let doubled = String::from_iter([mark, mark]);
    format!("{mark}{}{mark}", name.replace(mark, &doubled))
}

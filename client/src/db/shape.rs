//! What SQLite says of a table: its columns, keys, unique indexes and references. Reads only.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use super::sql::{Statement, integer, text};

mod words;

/// A table as the file declares it.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Its name.
    pub(super) name: String,
    /// `table`, `view`, `virtual` or `shadow`.
    pub(super) kind: String,
    /// Whether it was declared WITHOUT ROWID.
    pub(super) without_rowid: bool,
    /// Whether its integer key is given by AUTOINCREMENT.
    pub(super) autoincrement: bool,
    /// Its columns in order, generated ones included.
    pub(super) columns: Vec<ShapeColumn>,
    /// The names of the primary key's columns, in order.
    pub(super) primary_key: Vec<String>,
    /// Its unique indexes, the primary key's included.
    pub(super) unique: Vec<UniqueIndex>,
    /// What it refers to.
    pub(super) foreign_keys: Vec<ForeignKey>,
}

/// A column as the file declares it.
#[derive(Clone, Debug)]
pub(super) struct ShapeColumn {
    /// Its name.
    pub(super) name: String,
    /// Its declared type, perhaps empty.
    pub(super) declared: String,
    /// Whether it refuses NULL.
    pub(super) not_null: bool,
    /// Its default as SQL.
    pub(super) default: Option<String>,
    /// Whether it is computed from others.
    pub(super) generated: bool,
}

/// A unique index.
#[derive(Clone, Debug)]
pub(super) struct UniqueIndex {
    /// Whether it is the primary key's.
    pub(super) primary: bool,
    /// Its columns and their collations; `None` if it indexes an expression.
    pub(super) columns: Option<Vec<(String, String)>>,
}

/// A reference to another table.
#[derive(Clone, Debug)]
pub(super) struct ForeignKey {
    /// The table referred to.
    pub(super) parent: String,
    /// The referring columns and the columns they refer to.
    pub(super) columns: Vec<(String, String)>,
}

impl Shape {
    /// The shapes of all tables and views of the file.
    pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<Self>, sqlx::Error> {
        let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' ORDER BY name";
        let mut shapes = Vec::new();
        for row in Statement::new(sql).rows(connection).await? {
            shapes.extend(Self::read(connection, &text(&row, 0)?).await?);
        }
        Ok(shapes)
    }

    /// The shape of the table of this name, ignoring case.
    pub(super) async fn read(
        connection: &mut SqliteConnection,
        name: &str,
    ) -> Result<Option<Self>, sqlx::Error> {
        let sql = "SELECT t.name, t.type, t.wr, coalesce((SELECT sql FROM sqlite_master m \
                   WHERE m.type = 'table' AND m.name = t.name), '') \
                   FROM pragma_table_list t WHERE t.schema = 'main' AND lower(t.name) = lower(?)";
        let Some(row) = Statement::new(sql).bind(name).row(connection).await? else {
            return Ok(None);
        };
        let mut shape = Self {
            name: text(&row, 0)?,
            kind: text(&row, 1)?,
            without_rowid: integer(&row, 2)? != 0,
            autoincrement: words::has_keyword(&text(&row, 3)?, "AUTOINCREMENT"),
            columns: Vec::new(),
            primary_key: Vec::new(),
            unique: Vec::new(),
            foreign_keys: Vec::new(),
        };
        if shape.kind == "table" {
            shape.read_columns(connection).await?;
            shape.read_indexes(connection).await?;
            shape.read_foreign_keys(connection).await?;
        }
        Ok(Some(shape))
    }

    /// The column of this name, ignoring case.
    pub(super) fn column(&self, name: &str) -> Option<&ShapeColumn> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// A name under which the rowid can be reached; `None` if there is none, or no rowid.
    pub(super) fn rowid(&self) -> Option<&'static str> {
        let free = |name: &&&str| self.column(name).is_none();
        let names = &["rowid", "_rowid_", "oid"];
        if self.without_rowid { None } else { names.iter().find(free).copied() }
    }

    /// Whether the primary key is the rowid itself.
    pub(super) fn has_integer_key(&self) -> bool {
        let [only] = self.primary_key.as_slice() else { return false };
        let indexed = self.unique.iter().any(|index| index.primary);
        let integer = self.column(only).is_some_and(|c| c.declared.eq_ignore_ascii_case("integer"));
        integer && !indexed && !self.without_rowid
    }

    async fn read_columns(&mut self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let sql = "SELECT name, type, \"notnull\", dflt_value, hidden, pk, dflt_value IS NULL \
                   FROM pragma_table_xinfo(?)";
        let mut keys = BTreeMap::new();
        for row in Statement::new(sql).bind(self.name.as_str()).rows(connection).await? {
            let name = text(&row, 0)?;
            if 0 < integer(&row, 5)? {
                keys.insert(integer(&row, 5)?, name.clone());
            }
            self.columns.push(ShapeColumn {
                name,
                declared: text(&row, 1)?,
                not_null: integer(&row, 2)? != 0,
                default: if integer(&row, 6)? == 0 { Some(text(&row, 3)?) } else { None },
                generated: integer(&row, 4)? != 0,
            });
        }
        self.primary_key = keys.into_values().collect();
        Ok(())
    }

    async fn read_indexes(&mut self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let sql = "SELECT l.name, l.origin = 'pk', x.cid, x.name, x.coll \
                   FROM pragma_index_list(?) l, pragma_index_xinfo(l.name) x \
                   WHERE l.\"unique\" = 1 AND x.key = 1 ORDER BY l.seq, x.seqno";
        let mut last = None;
        for row in Statement::new(sql).bind(self.name.as_str()).rows(connection).await? {
            let name = text(&row, 0)?;
            if last.as_ref() != Some(&name) {
                let primary = integer(&row, 1)? != 0;
                self.unique.push(UniqueIndex { primary, columns: Some(Vec::new()) });
                last = Some(name);
            }
            let index = self.unique.last_mut().expect("BUG: just pushed");
            if integer(&row, 2)? < 0 {
                index.columns = None;
            } else if let Some(columns) = &mut index.columns {
                columns.push((text(&row, 3)?, text(&row, 4)?));
            }
        }
        Ok(())
    }

    async fn read_foreign_keys(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        let sql = "SELECT id, \"table\", \"from\", \"to\", seq FROM pragma_foreign_key_list(?) \
                   ORDER BY id, seq";
        let mut keys: BTreeMap<i64, ForeignKey> = BTreeMap::new();
        for row in Statement::new(sql).bind(self.name.as_str()).rows(connection).await? {
            let parent = text(&row, 1)?;
            let key = keys
                .entry(integer(&row, 0)?)
                .or_insert_with(|| ForeignKey { parent, columns: Vec::new() });
            key.columns.push((text(&row, 2)?, text(&row, 3)?));
        }
        self.foreign_keys = keys.into_values().collect();
        Ok(())
    }
}

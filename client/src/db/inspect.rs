//! Which tables of a file can be synced, as what, and why the others can't. Nothing is guessed: a
//! column has the type of its declared affinity if every value in it has that storage class, and
//! holds anything otherwise. A table that is synced already is what the gateway says.

use lakesync::limits::{COLUMNS_MAX, NAME_BYTES_MAX, ROW_ID_BYTES_MAX};
use lakesync::name::{ColumnName, TableName};
use lakesync::schema::{ColumnType, Proposal};
use sqlx::SqliteConnection;

use super::error::{DbError, is_refusal, refusal_text};
use super::key::Key;
use super::shape::{Shape, ShapeColumn};
use super::sql::{Statement, integer, quoted};
use super::table::{Registry, Table};
use super::{Adoptable, Candidate, Waiting, install, probe};

/// Names for a key that is not made of columns.
const KEY_NAMES: [&str; 4] = ["row_id", "lakesync_id", "row_id_2", "row_id_3"];

/// Every table of the file but LakeSync's own.
pub(super) async fn inspect(
    connection: &mut SqliteConnection,
    registry: &Registry,
) -> Result<Vec<Candidate>, DbError> {
    let mut candidates = Vec::new();
    for shape in Shape::all(connection).await? {
        let name = shape.name.to_ascii_lowercase();
        if name.starts_with("_lakesync") || name == "sqlite_schema" {
            continue;
        }
        let mut inspector = Inspector { connection, shape: &shape };
        let verdict = match inspector.judge(registry).await {
            // Even reading it takes what only its application has.
            Err(DbError::Sqlite(error)) if is_refusal(&error) => Err(refusal_text(&error)),
            verdict => verdict?,
        };
        candidates.push(Candidate { table: shape.name, verdict });
    }
    Ok(candidates)
}

/// The tables that wait for being adopted, or can't be.
pub(super) async fn waiting(
    connection: &mut SqliteConnection,
    registry: &Registry,
) -> Result<Vec<Waiting>, DbError> {
    let mut all = Vec::new();
    for (table, id) in registry.waiting() {
        let why = install::fit(connection, id, &table).await?.err();
        all.push(Waiting { table, why });
    }
    Ok(all)
}

/// Why a table can't be synced, as far as its shape tells.
fn refusal(shape: &Shape) -> Option<String> {
    match shape.kind.as_str() {
        "view" => return Some("it is a view; the tables it shows can be synced".to_owned()),
        "virtual" => return Some("it is a virtual table".to_owned()),
        "shadow" => return Some("it is the storage of a virtual table".to_owned()),
        _ => {}
    }
    if shape.name.to_ascii_lowercase().starts_with("sqlite_") {
        return Some("it is internal to SQLite".to_owned());
    }
    if let Err(error) = TableName::parse(&shape.name) {
        return Some(error.to_string());
    }
    let columns = shape.columns.iter().filter(|column| !column.generated).count();
    if columns == 0 {
        return Some("it has no columns of its own".to_owned());
    }
    if COLUMNS_MAX < columns {
        return Some(format!("it has {columns} columns; the limit is {COLUMNS_MAX}"));
    }
    let unreachable = |column: &&ShapeColumn| {
        ColumnName::parse(&column.name).is_err()
            && !column.generated
            && ((column.not_null && column.default.is_none())
                || shape.primary_key.contains(&column.name))
    };
    let column = shape.columns.iter().find(unreachable)?;
    Some(format!(
        "its column {:?} must have a value, but its name is not legal: [A-Za-z_][A-Za-z0-9_]* of at \
         most {NAME_BYTES_MAX} bytes",
        column.name
    ))
}

struct Inspector<'a> {
    connection: &'a mut SqliteConnection,
    shape: &'a Shape,
}

impl<'a> Inspector<'a> {
    async fn judge(&mut self, registry: &Registry) -> Result<Result<Adoptable, String>, DbError> {
        let same = |table: &&std::sync::Arc<Table>| {
            table.shape.name.eq_ignore_ascii_case(&self.shape.name)
        };
        if let Some(table) = registry.captured().iter().find(same) {
            return Ok(Ok(self.known(table).await?));
        }
        if let Some(reason) = refusal(self.shape) {
            return Ok(Err(reason));
        }
        match probe::obstacle(self.connection, self.shape).await? {
            Some(reason) => Ok(Err(reason)),
            None => self.propose().await,
        }
    }

    /// A table that is synced: as the gateway has it, with the columns that were added since.
    async fn known(&mut self, table: &Table) -> Result<Adoptable, DbError> {
        let synced = self.synced();
        let (rows, kinds) = self.kinds(&synced).await?;
        let schema = &table.schema;
        let names = || schema.columns.iter().map(|column| &column.name).chain([&schema.key]);
        let is_new = |column: &ShapeColumn| names().all(|name| !is_named(name, &column.name));
        let added = synced.iter().zip(kinds).filter(|(column, _)| is_new(column));
        let added =
            added.filter_map(|(column, kind)| Some((ColumnName::parse(&column.name).ok()?, kind)));
        let known = schema.columns.iter().map(|column| (column.name.clone(), column.kind));
        let mut warnings = self.warnings();
        if let Some(why) = probe::obstacle(self.connection, self.shape).await? {
            warnings.push(format!("what arrives for it waits in _lakesync_parked: {why}"));
        }
        Ok(Adoptable {
            proposal: Proposal {
                table: schema.table.clone(),
                key: schema.key.clone(),
                columns: known.chain(added).collect(),
                primary_key: schema.primary_key.clone(),
            },
            rows,
            adopted: true,
            row_id: Some(table.key.row_id_sql("_t")),
            warnings,
            left_out: self.left_out(&synced),
        })
    }

    /// The columns that can be synced.
    fn synced(&self) -> Vec<&'a ShapeColumn> {
        let can_be =
            |column: &&ShapeColumn| !column.generated && ColumnName::parse(&column.name).is_ok();
        self.shape.columns.iter().filter(can_be).collect()
    }

    fn left_out(&self, synced: &[&ShapeColumn]) -> Vec<String> {
        let all = self.shape.columns.iter();
        let out = all.filter(|column| synced.iter().all(|c| c.name != column.name));
        out.map(|column| column.name.clone()).collect()
    }

    async fn propose(&mut self) -> Result<Result<Adoptable, String>, DbError> {
        let shape = self.shape;
        let Ok(table) = TableName::parse(&shape.name) else { return Ok(Err(String::new())) };
        let synced = self.synced();
        let (rows, kinds) = self.kinds(&synced).await?;
        let mut warnings = self.warnings();
        let key = match self.key(&synced, &kinds).await? {
            Err(reason) => return Ok(Err(reason)),
            Ok(key) => key,
        };
        if let (Key::Mapped { .. }, false) = (&key, shape.primary_key.is_empty()) {
            warnings.push(
                "some of its primary keys are NULL, empty or too long to name a row: its rows get \
                 random ids instead"
                    .to_owned(),
            );
        }
        let columns = synced.iter().zip(kinds).filter_map(|(column, kind)| {
            ColumnName::parse(&column.name).ok().map(|name| (name, kind))
        });
        let mut columns: Vec<_> = columns.collect();
        let primary_key: Vec<ColumnName> = match &key {
            Key::Integer(_) | Key::Columns(_) => {
                let named = |name: &String| ColumnName::parse(name).ok();
                shape.primary_key.iter().filter_map(named).collect()
            }
            Key::Text(_) | Key::Mapped { .. } => Vec::new(),
        };
        let key_name = match &key {
            Key::Text(column) => {
                columns.retain(|(name, _)| name.as_str() != column);
                column.clone()
            }
            _ => match KEY_NAMES.iter().find(|name| shape.column(name).is_none()) {
                Some(name) => (*name).to_owned(),
                None => return Ok(Err("no name is left for its key".to_owned())),
            },
        };
        let Ok(key) = ColumnName::parse(&key_name) else {
            return Ok(Err(format!("the name of its key, {key_name:?}, is not legal")));
        };
        Ok(Ok(Adoptable {
            proposal: Proposal { table, key, columns, primary_key },
            rows,
            adopted: false,
            row_id: None,
            warnings,
            left_out: self.left_out(&synced),
        }))
    }

    /// How many rows there are, and the type of each column.
    async fn kinds(&mut self, columns: &[&ShapeColumn]) -> Result<(u64, Vec<ColumnType>), DbError> {
        let other = |column: &&ShapeColumn| match affinity(&column.declared) {
            Some((_, class)) => format!(
                ", coalesce(sum(typeof({}) NOT IN ('{class}', 'null')), 0)",
                quoted(&column.name)
            ),
            None => ", 0".to_owned(),
        };
        let others: String = columns.iter().map(other).collect();
        let sql = format!("SELECT count(*){others} FROM {}", quoted(&self.shape.name));
        let Some(row) = Statement::new(sql).once().row(self.connection).await? else {
            return Ok((0, Vec::new()));
        };
        let mut kinds = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            let pure = integer(&row, at + 1)? == 0;
            let kind = affinity(&column.declared).filter(|_| pure).map(|(kind, _)| kind);
            kinds.push(kind.unwrap_or(ColumnType::Any));
        }
        Ok((u64::try_from(integer(&row, 0)?).unwrap_or(0), kinds))
    }

    /// How the rows are named, or why they can't be.
    async fn key(
        &mut self,
        columns: &[&ShapeColumn],
        kinds: &[ColumnType],
    ) -> Result<Result<Key, String>, DbError> {
        let shape = self.shape;
        let kind = |name: &String| {
            let at = columns.iter().position(|column| column.name == *name);
            at.and_then(|at| kinds.get(at)).copied().unwrap_or(ColumnType::Any)
        };
        let declared = match shape.primary_key.as_slice() {
            [] => None,
            [only] if kind(only) == ColumnType::String => Some(Key::Text(only.clone())),
            [only] if kind(only) == ColumnType::Int64 => Some(Key::Integer(only.clone())),
            columns => {
                let typed = columns.iter().map(|name| (name.clone(), kind(name)));
                Some(Key::Columns(typed.collect()))
            }
        };
        if let Some(key) = declared
            && self.names_every_row(&key).await?
        {
            return Ok(Ok(key));
        }
        Ok(match shape.rowid() {
            Some(rowid) => Ok(Key::Mapped { ids: String::new(), rowid: rowid.to_owned() }),
            None if shape.without_rowid => {
                Err("some of its primary keys are NULL, empty or too long to name a row".to_owned())
            }
            None => Err("it has no usable primary key, and columns hide its rowid".to_owned()),
        })
    }

    async fn names_every_row(&mut self, key: &Key) -> Result<bool, DbError> {
        let row_id = key.row_id_sql("_t");
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM {} _t WHERE length(CAST({row_id} AS BLOB)) \
             NOT BETWEEN 1 AND {ROW_ID_BYTES_MAX} OR instr(CAST({row_id} AS BLOB), x'00') <> 0)",
            quoted(&self.shape.name)
        );
        let row = Statement::new(sql).once().row(self.connection).await?;
        Ok(row.map_or(Ok(0), |row| integer(&row, 0))? == 0)
    }

    fn warnings(&self) -> Vec<String> {
        let shape = self.shape;
        let mut warnings = Vec::new();
        if shape.has_integer_key() && !shape.autoincrement {
            warnings.push(format!(
                "two offline devices will both hand out the next {}: declare it INTEGER PRIMARY KEY \
                 AUTOINCREMENT, or give rows random keys",
                shape.primary_key[0]
            ));
        }
        let nullable = |name: &String| shape.column(name).is_some_and(|column| !column.not_null);
        if !shape.has_integer_key()
            && !shape.without_rowid
            && shape.primary_key.iter().any(nullable)
        {
            warnings.push("its primary key may be NULL; such rows stay on this device".to_owned());
        }
        if shape.unique.iter().any(|index| !index.primary) {
            warnings.push(
                "two devices may write the same unique value; the row that comes second is parked"
                    .to_owned(),
            );
        }
        if shape.unique.iter().any(|index| index.columns.is_none()) {
            warnings.push(
                "it has a unique index on an expression; rows that INSERT OR REPLACE removes \
                 through it are not noticed"
                    .to_owned(),
            );
        }
        let illegal = |column: &&ShapeColumn| ColumnName::parse(&column.name).is_err();
        if shape.columns.iter().any(|column| illegal(&column)) {
            warnings.push("columns whose names are not legal stay on this device".to_owned());
        }
        warnings
    }
}

fn is_named(name: &ColumnName, text: &str) -> bool {
    name.as_str().eq_ignore_ascii_case(text)
}

/// The type and the storage class that a declared type stands for, by SQLite's rules of affinity;
/// `None` where it leaves both open.
fn affinity(declared: &str) -> Option<(ColumnType, &'static str)> {
    let declared = declared.to_ascii_uppercase();
    let has = |parts: &[&str]| parts.iter().any(|part| declared.contains(part));
    if has(&["INT"]) {
        Some((ColumnType::Int64, "integer"))
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        Some((ColumnType::String, "text"))
    } else if has(&["BLOB"]) {
        Some((ColumnType::Bytes, "blob"))
    } else if has(&["REAL", "FLOA", "DOUB"]) {
        Some((ColumnType::Double, "real"))
    } else {
        None
    }
}

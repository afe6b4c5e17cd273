//! Which tables of a file can be synced, as what, and why the others can't. Nothing is guessed: a
//! column has the type of its declared affinity if every value in it has that storage class, and
//! holds anything otherwise.

use lakesync::limits::{COLUMNS_MAX, NAME_BYTES_MAX, ROW_ID_BYTES_MAX};
use lakesync::name::{ColumnName, TableName};
use lakesync::schema::{ColumnType, Proposal};
use sqlx::SqliteConnection;

use super::error::DbError;
use super::key::Key;
use super::shape::{Shape, ShapeColumn};
use super::sql::{Statement, integer, quoted};
use super::table::Registry;
use super::{Adoptable, Candidate};

/// The collations that every SQLite has.
const COLLATIONS: [&str; 3] = ["BINARY", "NOCASE", "RTRIM"];
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
        let verdict = match refusal(&shape) {
            Some(reason) => Err(reason),
            None => Inspector { connection, shape: &shape }.propose(registry).await?,
        };
        candidates.push(Candidate { table: shape.name, verdict });
    }
    Ok(candidates)
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
    let collations = shape.unique.iter().filter_map(|index| index.columns.as_ref()).flatten();
    let foreign = |name: &&String| COLLATIONS.iter().all(|known| !known.eq_ignore_ascii_case(name));
    if let Some(name) = collations.map(|(_, collation)| collation).find(foreign) {
        return Some(format!(
            "its unique values are compared by {name}, which only its application has"
        ));
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

impl Inspector<'_> {
    async fn propose(&mut self, registry: &Registry) -> Result<Result<Adoptable, String>, DbError> {
        let shape = self.shape;
        let Ok(table) = TableName::parse(&shape.name) else { return Ok(Err(String::new())) };
        let synced: Vec<&ShapeColumn> = shape
            .columns
            .iter()
            .filter(|column| !column.generated && ColumnName::parse(&column.name).is_ok())
            .collect();
        let left_out =
            shape.columns.iter().filter(|column| synced.iter().all(|c| c.name != column.name));
        let (rows, kinds) = self.kinds(&synced).await?;
        let mut warnings = self.warnings();
        let key = match self.key(&synced, &kinds).await? {
            Err(reason) => return Ok(Err(reason)),
            Ok(key) => key,
        };
        if let (Key::Mapped { .. }, false) = (&key, shape.primary_key.is_empty()) {
            warnings.push(
                "some of its primary keys are NULL, real or too long to name a row: its rows get \
                 random ids instead"
                    .to_owned(),
            );
        }
        let columns = synced.iter().zip(kinds).filter_map(|(column, kind)| {
            ColumnName::parse(&column.name).ok().map(|name| (name, kind))
        });
        let mut columns: Vec<_> = columns.collect();
        let primary_key: Vec<ColumnName> = match &key {
            Key::Integer(_) | Key::Array(_) => {
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
        let adopted = registry.captured().iter().any(|known| *known.name() == table);
        Ok(Ok(Adoptable {
            proposal: Proposal { table, key, columns, primary_key },
            rows,
            adopted,
            warnings,
            left_out: left_out.map(|column| column.name.clone()).collect(),
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
        let declared = match shape.primary_key.as_slice() {
            [] => None,
            [only] => {
                let at = columns.iter().position(|column| column.name == *only);
                Some(match at.and_then(|at| kinds.get(at)) {
                    Some(ColumnType::String) => Key::Text(only.clone()),
                    Some(ColumnType::Int64) => Key::Integer(only.clone()),
                    _ => Key::Array(vec![only.clone()]),
                })
            }
            several => Some(Key::Array(several.to_vec())),
        };
        if let Some(key) = declared
            && self.names_every_row(&key).await?
        {
            return Ok(Ok(key));
        }
        Ok(match shape.rowid() {
            Some(rowid) => Ok(Key::Mapped { ids: String::new(), rowid: rowid.to_owned() }),
            None if shape.without_rowid => {
                Err("some of its primary keys are NULL, real or too long to name a row".to_owned())
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

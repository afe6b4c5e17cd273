//! An oracle that knows nothing of buckets' instances or of any index: a copy of all rows in a SQL
//! database, and the rules as conditions of a query over it.

use std::collections::BTreeMap;

use lakesync::row::Row;
use lakesync::rules::{BucketDraft, Draft, FilterDraft};
use lakesync::value::Value;
use serde_json::{Map, Value as Json};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, Row as _, SqliteConnection};

/// The tables of the tests, and their columns beside the key.
pub(crate) const TABLES: [(&str, &[(&str, Kind)]); 2] = [
    (
        "docs",
        &[
            ("owner", Kind::Text),
            ("team", Kind::Number),
            ("open", Kind::Truth),
            ("body", Kind::Text),
        ],
    ),
    ("users", &[("name", Kind::Text)]),
];

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Truth,
}

/// A row's table and id.
pub(crate) type Name = (String, String);
/// What an application reads of a row, column by column; NULL where it never was written.
pub(crate) type Seen = Vec<Option<String>>;

/// A copy of all rows.
pub(crate) struct Oracle(SqliteConnection);

impl Oracle {
    pub(crate) async fn new() -> Self {
        let mut db = SqliteConnection::connect("sqlite::memory:").await.expect("a database");
        for (table, columns) in TABLES {
            let columns: Vec<&str> = columns.iter().map(|(column, _)| *column).collect();
            let sql = format!("CREATE TABLE {table} (id TEXT PRIMARY KEY, {})", columns.join(", "));
            sqlx::query(AssertSqlSafe(sql)).execute(&mut db).await.expect("a table");
        }
        Self(db)
    }

    /// Takes over what a row has come to.
    pub(crate) async fn put(&mut self, table: &str, id: &str, row: &Row) {
        let sql = format!("DELETE FROM {table} WHERE id = ?");
        sqlx::query(AssertSqlSafe(sql)).bind(id).execute(&mut self.0).await.expect("deleted");
        if !row.is_live() {
            return;
        }
        let values = columns(table).iter().map(|(column, _)| {
            let cell = row.cell(&column.parse().expect("a column"));
            cell.map_or("NULL".to_owned(), |cell| literal(&cell.value))
        });
        let values: Vec<String> = values.collect();
        let sql = format!("INSERT INTO {table} VALUES (?, {})", values.join(", "));
        sqlx::query(AssertSqlSafe(sql)).bind(id).execute(&mut self.0).await.expect("inserted");
    }

    /// The rows that `claims` may see under `rules`, or write.
    pub(crate) async fn rows(
        &mut self,
        rules: Option<&Draft>,
        claims: &Map<String, Json>,
        writing: bool,
    ) -> BTreeMap<Name, Seen> {
        let mut rows = BTreeMap::new();
        for (table, columns) in TABLES {
            let condition = rules.map_or("1".to_owned(), |rules| {
                let buckets = rules.buckets.iter().filter(|bucket| !(writing && bucket.read_only));
                let any = buckets.map(|bucket| holds(bucket, claims, table));
                any.fold("0".to_owned(), |any, one| format!("{any} OR ({one})"))
            });
            let sql = format!("SELECT * FROM {table} WHERE {condition}");
            let found = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut self.0).await.expect("rows");
            for row in found {
                let id: String = row.get("id");
                let seen = columns.iter().map(|(column, kind)| read(&row, column, *kind));
                rows.insert((table.to_owned(), id), seen.collect());
            }
        }
        rows
    }
}

/// The columns of a table.
pub(crate) fn columns(table: &str) -> &'static [(&'static str, Kind)] {
    let known = TABLES.iter().find(|(name, _)| *name == table);
    known.unwrap_or_else(|| panic!("no table {table}")).1
}

/// What an application reads of a row.
pub(crate) fn seen(table: &str, row: &Row) -> Seen {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Int64(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(i64::from(*truth).to_string()),
        other => panic!("no column holds {other:?}"),
    };
    let cell = |column: &str| row.cell(&column.parse().expect("a column"));
    columns(table).iter().map(|(column, _)| text(&cell(column)?.value)).collect()
}

fn read(row: &SqliteRow, column: &str, kind: Kind) -> Option<String> {
    match kind {
        Kind::Text => row.get::<Option<String>, _>(column),
        Kind::Number | Kind::Truth => row.get::<Option<i64>, _>(column).map(|n| n.to_string()),
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => quoted(text),
        Value::Int64(number) => number.to_string(),
        Value::Bool(truth) => i64::from(*truth).to_string(),
        other => panic!("no column holds {other:?}"),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A bucket as a condition on the rows of a table.
fn holds(bucket: &BucketDraft, claims: &Map<String, Json>, table: &str) -> String {
    let named = bucket.tables.is_empty() || bucket.tables.iter().any(|name| name == table);
    let kind = |column: &str| match column {
        "id" => Some(Kind::Text),
        _ => columns(table).iter().find(|(name, _)| *name == column).map(|(_, kind)| *kind),
    };
    let open = bucket.when.iter().all(|(claim, wanted)| {
        let said = said(claims, claim).unwrap_or_default();
        said.iter().any(|value| text(value).as_deref() == Some(wanted))
    });
    if !named || !open {
        return "0".to_owned();
    }
    let mut condition = "1".to_owned();
    for filter in &bucket.filters {
        let Some(kind) = kind(&filter.column) else { return "0".to_owned() };
        let Some(values) = values(filter, claims, kind) else { return "0".to_owned() };
        condition += &format!(" AND {} IN ({})", filter.column, values.join(", "));
    }
    condition
}

/// What a filter compares with, or nothing if a claim is missing or of another form.
fn values(filter: &FilterDraft, claims: &Map<String, Json>, kind: Kind) -> Option<Vec<String>> {
    let mut values = Vec::new();
    for value in &filter.values {
        match value.strip_prefix("jwt:") {
            None => values.push(match kind {
                Kind::Text => quoted(value),
                Kind::Number => value.clone(),
                Kind::Truth => i64::from(value == "true").to_string(),
            }),
            Some(claim) => {
                for value in said(claims, claim)? {
                    values.push(match (kind, value) {
                        (Kind::Text, Json::String(text)) => quoted(&text),
                        (Kind::Number, Json::String(text)) => text.parse::<i64>().ok()?.to_string(),
                        (Kind::Number, Json::Number(number)) => number.as_i64()?.to_string(),
                        (Kind::Truth, Json::Bool(truth)) => i64::from(truth).to_string(),
                        _ => return None,
                    });
                }
            }
        }
    }
    Some(values)
}

/// A claim's values, one or many.
fn said(claims: &Map<String, Json>, claim: &str) -> Option<Vec<Json>> {
    let mut found = &Json::Object(claims.clone());
    for part in claim.split('.') {
        found = found.get(part)?;
    }
    Some(found.as_array().cloned().unwrap_or_else(|| vec![found.clone()]))
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

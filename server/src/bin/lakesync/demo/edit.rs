//! Two edits of the same cell, made in plain SQL on two files, and which of them won.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use lakesync::hlc::Hlc;
use lakesync::schema::ColumnType;
use lakesync_client::{Candidate, Event};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::superseded;
use crate::exit::Exit;

/// What two edits are apart, so that one of them is later by any clock of milliseconds.
const TICK: Duration = Duration::from_millis(5);

/// What was written on the two sides.
#[derive(Debug)]
pub(super) struct Edits {
    target: Target,
    left: Edit,
    right: Edit,
}

/// The cell that both write.
#[derive(Debug)]
struct Target {
    table: String,
    column: String,
    /// The columns that tell the row, and its values for them as SQL literals.
    key: Vec<(String, String)>,
}

/// One side's edit: what it wrote, and the stamp it got.
#[derive(Debug)]
struct Edit {
    literal: String,
    hlc: u64,
}

/// Edits the same cell on both sides, the right one later. `None` if no table has one to edit: a row
/// that the gateway refused is on the left only, and a rule of the file may refuse the edit.
pub(super) async fn both(
    left: &Path,
    right: &Path,
    candidates: &[Candidate],
) -> Result<Option<Edits>, Exit> {
    let (mut a, mut b) = (open(left).await?, open(right).await?);
    for candidate in candidates {
        let Some((column, kind)) = editable(candidate) else { continue };
        let Some(key) = first_key(&mut b, candidate).await? else { continue };
        let (on_left, on_right) = match kind {
            ColumnType::Int64 => ("1001".to_owned(), "2002".to_owned()),
            _ => ("'edited on the left'".to_owned(), "'edited on the right'".to_owned()),
        };
        let target = Target { table: candidate.table.clone(), column, key };
        if let Some((left, right)) = target.edit(&mut a, &mut b, on_left, on_right).await? {
            return Ok(Some(Edits { target, left, right }));
        }
    }
    Ok(None)
}

/// A column of text or numbers that is no part of the key.
fn editable(candidate: &Candidate) -> Option<(String, ColumnType)> {
    let proposal = &candidate.verdict.as_ref().ok()?.proposal;
    let free = |column: &&(lakesync::name::ColumnName, ColumnType)| {
        !proposal.primary_key.contains(&column.0)
            && matches!(column.1, ColumnType::String | ColumnType::Int64)
    };
    let texts_first = |column: &&(_, ColumnType)| column.1 != ColumnType::String;
    let column = proposal.columns.iter().filter(free).min_by_key(texts_first)?;
    Some((column.0.to_string(), column.1))
}

/// The key of the first row, if the table has a row and a key that both files know.
async fn first_key(
    connection: &mut SqliteConnection,
    candidate: &Candidate,
) -> Result<Option<Vec<(String, String)>>, Exit> {
    let Ok(adoptable) = &candidate.verdict else { return Ok(None) };
    let proposal = &adoptable.proposal;
    let mut columns: Vec<_> = proposal.primary_key.iter().map(ToString::to_string).collect();
    if columns.is_empty() {
        columns.push(proposal.key.to_string());
    }
    let known = sqlx::query("SELECT name FROM pragma_table_info(?)").bind(&candidate.table);
    let known = known.fetch_all(&mut *connection).await.map_err(Exit::input_output)?;
    let names: Vec<String> = known.iter().filter_map(|row| row.try_get(0).ok()).collect();
    // A table without a key has one that only LakeSync knows; another table serves.
    if !columns.iter().all(|column| names.contains(column)) {
        return Ok(None);
    }
    let list = columns.iter().map(|column| format!("quote({})", quoted(column)));
    let table = quoted(&candidate.table);
    let sql = format!("SELECT {} FROM {table} LIMIT 1", list.collect::<Vec<_>>().join(", "));
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(connection).await;
    let Some(row) = row.map_err(Exit::input_output)? else { return Ok(None) };
    let literal = |at: usize| row.try_get::<String, _>(at).map_err(Exit::input_output);
    let literals = (0..columns.len()).map(literal).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(columns.into_iter().zip(literals).collect()))
}

impl Target {
    /// Edits the row on both sides, or on none: each has to have it, and to let it be edited.
    async fn edit(
        &self,
        left: &mut SqliteConnection,
        right: &mut SqliteConnection,
        on_left: String,
        on_right: String,
    ) -> Result<Option<(Edit, Edit)>, Exit> {
        let mut left = left.begin().await.map_err(Exit::input_output)?;
        let mut right = right.begin().await.map_err(Exit::input_output)?;
        let Ok(Some(first)) = self.write(&mut left, on_left).await else { return Ok(None) };
        // Two edits of one millisecond would leave it to the replicas' ids which of them is later.
        tokio::time::sleep(TICK).await;
        let Ok(Some(second)) = self.write(&mut right, on_right).await else { return Ok(None) };
        left.commit().await.map_err(Exit::input_output)?;
        right.commit().await.map_err(Exit::input_output)?;
        Ok(Some((first, second)))
    }

    /// Edits the row; `None` if the file has no such row.
    async fn write(
        &self,
        connection: &mut SqliteConnection,
        literal: String,
    ) -> Result<Option<Edit>, sqlx::Error> {
        let (table, column) = (quoted(&self.table), quoted(&self.column));
        let sql = format!("UPDATE {table} SET {column} = {literal} WHERE {}", self.filter());
        let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut *connection).await?;
        if done.rows_affected() != 1 {
            return Ok(None);
        }
        // The trigger stamped the edit with the next reading of the file's clock.
        let row = sqlx::query("SELECT hlc FROM _lakesync_clock").fetch_one(connection).await?;
        Ok(Some(Edit { literal, hlc: row.try_get::<i64, _>(0)?.unsigned_abs() }))
    }

    fn filter(&self) -> String {
        let equal =
            |(column, literal): &(String, String)| format!("{} IS {literal}", quoted(column));
        self.key.iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }
}

impl Edits {
    /// Which edit the files hold now, and why.
    pub(super) async fn verdict(&self, file: &Path, events: &[Event]) -> Result<String, Exit> {
        let Target { table, column, .. } = &self.target;
        let mut connection = open(file).await?;
        let filter = self.target.filter();
        let sql = format!("SELECT quote({}) FROM {} WHERE {filter}", quoted(column), quoted(table));
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut connection).await;
        let held: String = row.and_then(|row| row.try_get(0)).map_err(Exit::input_output)?;
        if held != self.right.literal {
            // A trigger of the file's own, or a refusal: the stamps decided nothing.
            return Ok(format!(
                "  {table}.{column} is {held} now: neither edit stands as it was made"
            ));
        }
        let ahead_ms = Hlc(self.right.hlc).ms().saturating_sub(Hlc(self.left.hlc).ms());
        let told = match superseded(events).any(|lost| lost.table.as_str() == table) {
            true => "the left was told that its edit lost",
            false => "nobody lost anything",
        };
        Ok(format!(
            "  {table}.{column} is {held} everywhere: its stamp is later by {ahead_ms} ms, and the \
             later stamp wins,\n  whoever synced first; {told}"
        ))
    }
}

impl fmt::Display for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { table, column, .. } = &self.target;
        let (filter, left, right) = (self.target.filter(), &self.left, &self.right);
        for (side, Edit { literal, hlc }) in [("left: ", left), ("right:", right)] {
            writeln!(f, "  {side} UPDATE {table} SET {column} = {literal} WHERE {filter}")?;
            write!(f, "         stamped {hlc}")?;
            if side == "left: " {
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

async fn open(file: &Path) -> Result<SqliteConnection, Exit> {
    let options = SqliteConnectOptions::new().filename(file);
    SqliteConnection::connect_with(&options).await.map_err(Exit::input_output)
}

/// A name as an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

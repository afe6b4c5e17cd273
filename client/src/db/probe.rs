//! Whether a table can be written from here at all. Its checks, indexes, generated columns and
//! triggers may use functions and collations that only its application brings along: SQLite then
//! refuses every statement, whatever the row.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::error::{is_refusal, refusal_text};
use super::shape::Shape;
use super::sql::{Statement, integer, quoted, text};

/// What a halt of a statement's program does when it takes the whole transaction with it.
const ROLLBACK: i64 = 1;
/// What is wrong with a table that has a trigger which does so.
const RUINOUS: &str = "one of its triggers may roll back whole transactions, and with them what \
                       arrived for other tables";

/// Why only its application can write this table, if that is so. Nothing is written: SQLite is asked
/// to explain the statements that applying makes.
pub(super) async fn obstacle(
    connection: &mut SqliteConnection,
    shape: &Shape,
) -> Result<Option<String>, sqlx::Error> {
    for sql in statements(shape) {
        match explain(connection, &sql).await? {
            Err(word) => return Ok(Some(format!("only its application can write it: {word}"))),
            Ok(program) if rolls_back(&program)? => return Ok(Some(RUINOUS.to_owned())),
            Ok(_) => {}
        }
    }
    Ok(None)
}

/// Why this table must not be touched, if a single row of it may undo a whole transaction. Most files
/// have no trigger that says the word, and are spared a closer look.
pub(super) async fn ruin(
    connection: &mut SqliteConnection,
    shape: &Shape,
) -> Result<Option<&'static str>, sqlx::Error> {
    let said =
        "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '%ROLLBACK%' LIMIT 1";
    if Statement::new(said).row(connection).await?.is_none() {
        return Ok(None);
    }
    for sql in statements(shape) {
        if let Ok(program) = explain(connection, &sql).await?
            && rolls_back(&program)?
        {
            return Ok(Some(RUINOUS));
        }
    }
    Ok(None)
}

/// Whether SQLite can make this statement here.
pub(super) async fn is_possible(
    connection: &mut SqliteConnection,
    sql: &str,
) -> Result<bool, sqlx::Error> {
    Ok(explain(connection, sql).await?.is_ok())
}

/// The statement's program with those of the triggers it fires, or SQLite's word against it.
async fn explain(
    connection: &mut SqliteConnection,
    sql: &str,
) -> Result<Result<Vec<SqliteRow>, String>, sqlx::Error> {
    match Statement::new(format!("EXPLAIN {sql}")).once().rows(connection).await {
        Ok(program) => Ok(Ok(program)),
        Err(error) if is_refusal(&error) => Ok(Err(refusal_text(&error))),
        Err(error) => Err(error),
    }
}

/// An insert touches every check and index, and each kind of statement its own triggers.
fn statements(shape: &Shape) -> [String; 3] {
    let table = quoted(&shape.name);
    let own = shape.columns.iter().filter(|column| !column.generated);
    let columns: Vec<String> = own.map(|column| quoted(&column.name)).collect();
    let first = columns.first().map_or("rowid", String::as_str);
    let set: Vec<String> = columns.iter().map(|column| format!("{column} = NULL")).collect();
    [
        format!(
            "INSERT OR ABORT INTO {table} ({}) VALUES ({})",
            columns.join(", "),
            vec!["NULL"; columns.len()].join(", ")
        ),
        format!("UPDATE OR ABORT {table} SET {}", set.join(", ")),
        // Without a condition SQLite would empty the table without looking at its indexes.
        format!("DELETE FROM {table} WHERE {first} IS NULL"),
    ]
}

fn rolls_back(program: &[SqliteRow]) -> Result<bool, sqlx::Error> {
    for row in program {
        if text(row, 1)? == "Halt" && integer(row, 3)? == ROLLBACK {
            return Ok(true);
        }
    }
    Ok(false)
}

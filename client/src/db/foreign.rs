//! References between tables. Applying does not enforce them, because what arrives may be ordered
//! differently; they are checked before the commit, for the rows that were touched. A row whose
//! parent is missing is parked until the parent comes.
//!
//! A reference that dangled before is left alone: many applications never enforce theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use lakesync::name::RowId;
use sqlx::SqliteConnection;

use super::error::DbError;
use super::held::{Held, on_key};
use super::probe;
use super::session::Work;
use super::shape::Shape;
use super::sql::{Statement, Stored, chunk_rows, integer, placeholders, quoted, text};
use super::table::Table;

/// A synced table's reference to a table.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    /// The number of the table that refers.
    child: i64,
    /// The name of the table referred to.
    parent: String,
    /// The referring columns and the columns they refer to.
    columns: Vec<(String, String)>,
}

/// All references of these tables that can be checked.
pub(super) async fn references(
    connection: &mut SqliteConnection,
    tables: &[Arc<Table>],
) -> Result<Vec<Reference>, DbError> {
    let mut references = Vec::new();
    for table in tables {
        for key in &table.shape.foreign_keys {
            let Some(parent) = Shape::read(connection, &key.parent).await? else { continue };
            let mut columns = key.columns.clone();
            if columns.iter().all(|(_, to)| to.is_empty()) {
                if columns.len() != parent.primary_key.len() {
                    continue;
                }
                for (column, to) in columns.iter_mut().zip(&parent.primary_key) {
                    column.1.clone_from(to);
                }
            }
            let reference = Reference { child: table.id, parent: parent.name, columns };
            // One that compares by a collation which only the application has is its own to check.
            if probe::is_possible(connection, &reference.check(table)).await? {
                references.push(reference);
            }
        }
    }
    Ok(references)
}

/// Rows whose references must be checked before the commit.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Rows of tables that refer to others: their ids and keys, by table.
    pub(super) children: BTreeMap<i64, Vec<(RowId, Vec<Stored>)>>,
    /// What rows of tables referred to showed before: their keys, then their columns, by table.
    parents: BTreeMap<i64, Vec<Vec<Stored>>>,
}

/// A row whose parent is missing.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) table: Arc<Table>,
    pub(super) row_id: RowId,
    pub(super) reason: String,
}

impl Touched {
    /// Whether anything needs checking.
    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty() && self.parents.is_empty()
    }

    /// Notes a row that showed `before` and now shows its image.
    pub(super) fn note(
        &mut self,
        references: &[Reference],
        table: &Table,
        before: Option<&[Stored]>,
        held: &Held,
    ) {
        let value = |image: Option<&[Stored]>, name: &str| {
            let at = table.columns.iter().position(|column| column.sql == quoted(name))?;
            image.map(|image| image[at].clone())
        };
        let after = held.image.as_deref();
        let moved = |name: &str| value(before, name) != value(after, name);
        let child = |r: &&Reference| r.child == table.id && r.columns.iter().any(|c| moved(&c.0));
        let new = before.is_none() && references.iter().any(|r| r.child == table.id);
        if after.is_some() && (new || references.iter().any(|r| child(&r))) {
            let key = held.key.clone().unwrap_or_default();
            self.children.entry(table.id).or_default().push((held.row_id.clone(), key));
        }
        let Some(before) = before else { return };
        let is_parent = |r: &&Reference| r.parent.eq_ignore_ascii_case(&table.shape.name);
        let gone = after.is_none()
            || references.iter().filter(is_parent).any(|r| r.columns.iter().any(|c| moved(&c.1)));
        if gone && references.iter().any(|r| is_parent(&r)) {
            let key = held.key.iter().flatten();
            let row = key.chain(before).cloned().collect();
            self.parents.entry(table.id).or_default().push(row);
        }
    }

    /// The touched rows whose parents are missing.
    pub(super) async fn orphans(&self, work: &mut Work<'_>) -> Result<Vec<Orphan>, DbError> {
        let mut orphans = Vec::new();
        for reference in work.registry.references().to_vec() {
            let Some(child) = work.registry.by_id(reference.child).cloned() else { continue };
            if let Some(rows) = self.children.get(&reference.child) {
                orphans.extend(of_children(work, &reference, &child, rows).await?);
            }
            for (id, images) in &self.parents {
                let Some(parent) = work.registry.by_id(*id).cloned() else { continue };
                if reference.parent.eq_ignore_ascii_case(&parent.shape.name) {
                    orphans.extend(of_parents(work, &reference, &child, &parent, images).await?);
                }
            }
        }
        Ok(orphans)
    }
}

/// Those of `rows` whose parents are missing.
async fn of_children(
    work: &mut Work<'_>,
    reference: &Reference,
    child: &Arc<Table>,
    rows: &[(RowId, Vec<Stored>)],
) -> Result<Vec<Orphan>, DbError> {
    let width = 1 + child.key.columns().len();
    let mut orphans = Vec::new();
    for chunk in rows.chunks(chunk_rows(width)) {
        let sql = format!(
            "SELECT _v.column1 FROM (VALUES {}) _v CROSS JOIN {} _t ON {} WHERE {}",
            placeholders(chunk.len(), width),
            child.sql(),
            on_key(child, "_v", 2),
            reference.dangles()
        );
        let mut statement = Statement::new(sql).once();
        for (at, (_, key)) in chunk.iter().enumerate() {
            statement.add(at as i64);
            key.iter().for_each(|value| statement.push(value));
        }
        for row in statement.rows(work.connection()).await? {
            let row_id = chunk[integer(&row, 0)? as usize].0.clone();
            orphans.push(Orphan { table: Arc::clone(child), row_id, reason: reference.reason() });
        }
    }
    Ok(orphans)
}

/// The children of what was shown before, if it is missing now.
async fn of_parents(
    work: &mut Work<'_>,
    reference: &Reference,
    child: &Arc<Table>,
    parent: &Table,
    images: &[Vec<Stored>],
) -> Result<Vec<Orphan>, DbError> {
    let keys = parent.key.columns();
    let columns = || keys.iter().chain(parent.columns.iter().map(|column| &column.sql));
    let place = |name: &str| columns().position(|sql| sql.eq_ignore_ascii_case(&quoted(name)));
    let places: Option<Vec<usize>> = reference.columns.iter().map(|(_, to)| place(to)).collect();
    let Some(places) = places else { return Ok(Vec::new()) };
    let mut orphans = Vec::new();
    for chunk in images.chunks(chunk_rows(places.len())) {
        let equal = reference.columns.iter().enumerate();
        let equal =
            equal.map(|(at, (from, _))| format!("_t.{} = _v.column{}", quoted(from), at + 1));
        let sql = format!(
            "SELECT DISTINCT {} FROM (VALUES {}) _v CROSS JOIN {} _t ON {} WHERE {}",
            child.key.row_id_sql("_t"),
            placeholders(chunk.len(), places.len()),
            child.sql(),
            equal.collect::<Vec<_>>().join(" AND "),
            reference.dangles()
        );
        let mut statement = Statement::new(sql).once();
        for image in chunk {
            places.iter().for_each(|at| statement.push(&image[*at]));
        }
        for row in statement.rows(work.connection()).await? {
            let Ok(row_id) = RowId::parse(&text(&row, 0)?) else { continue };
            orphans.push(Orphan { table: Arc::clone(child), row_id, reason: reference.reason() });
        }
    }
    Ok(orphans)
}

impl Reference {
    /// Whether the row `_t` refers to a row that is not there.
    fn dangles(&self) -> String {
        let set = self.columns.iter().map(|(from, _)| format!("_t.{} IS NOT NULL", quoted(from)));
        let met =
            |(from, to): &(String, String)| format!("_p.{} = _t.{}", quoted(to), quoted(from));
        format!(
            "{} AND NOT EXISTS (SELECT 1 FROM {} _p WHERE {})",
            set.collect::<Vec<_>>().join(" AND "),
            quoted(&self.parent),
            self.columns.iter().map(met).collect::<Vec<_>>().join(" AND ")
        )
    }

    /// All comparisons that checking this reference makes.
    fn check(&self, child: &Table) -> String {
        let equal = |(from, _): &(String, String)| format!("_t.{} = ''", quoted(from));
        let equal = self.columns.iter().map(equal).collect::<Vec<_>>().join(" AND ");
        format!("SELECT 1 FROM {} _t WHERE {equal} AND {}", child.sql(), self.dangles())
    }

    fn reason(&self) -> String {
        let columns: Vec<&str> = self.columns.iter().map(|(from, _)| from.as_str()).collect();
        format!(
            "FOREIGN KEY constraint failed: {} refers to a missing row of {}",
            columns.join(", "),
            self.parent
        )
    }
}

//! Writing to the application's tables what they should show: the differences only, many rows a
//! statement.
//!
//! A row that a constraint refuses never stops the others. Should a bulk statement be refused, the
//! rows are written one by one; those refused then are taken out of the table and written again, so
//! that neither their order nor an exchange of unique values matters. What no order of writing gets
//! past the constraints is handed back.

use std::collections::{BTreeMap, HashSet};

use super::error::{DbError, is_refusal, refusal_text};
use super::held::{Held, Wish, on_key};
use super::key::Key;
use super::session::Work;
use super::sql::{
    Statement, Stored, chunk_rows, insert_rows, integer, placeholders, quoted, script,
};
use super::table::Table;

/// A row that the table refuses: index into the rows given, and SQLite's word.
pub(super) type Refusal = (usize, String);

/// What became of the rows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Rows whose table changed.
    pub(super) changed: Vec<usize>,
    /// Rows that the table refuses. They are not in it, unless a trigger kept them there.
    pub(super) refused: Vec<Refusal>,
}

/// A row that differs from what its table shows.
struct Change {
    at: usize,
    /// What the table should show; `None` for no row.
    desired: Option<Vec<Wish>>,
    /// The columns to write.
    columns: Vec<usize>,
    /// The columns to reset.
    defaults: Vec<usize>,
}

/// How a row is written: what can share a statement.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Manner<'a> {
    new: bool,
    columns: &'a [usize],
    defaults: &'a [usize],
}

/// Makes the table show what `held` says, and says which rows it refuses. Their images tell what is
/// shown now.
pub(super) async fn show(
    work: &mut Work<'_>,
    table: &Table,
    held: &mut [Held],
) -> Result<Shown, DbError> {
    let desired = held.iter().map(|held| held.desired(table)).collect();
    write(work, table, held, desired).await
}

/// Makes the table show these rows or none, one for each of `held`.
pub(super) async fn write(
    work: &mut Work<'_>,
    table: &Table,
    held: &mut [Held],
    desired: Vec<Option<Vec<Wish>>>,
) -> Result<Shown, DbError> {
    let mut refused = Vec::new();
    let mut changes = Vec::new();
    for ((at, held), desired) in held.iter().enumerate().zip(desired) {
        let unnamed = held.key.is_none() && !matches!(table.key, Key::Mapped { .. });
        if desired.is_some() && unnamed {
            refused.push((at, format!("{:?} is no key of this table", held.row_id.as_str())));
        } else {
            changes.extend(change(at, desired, held.image.as_deref()));
        }
    }
    if let Some(why) = table.closed {
        refused.extend(changes.drain(..).map(|change| (change.at, why.to_owned())));
    }
    if changes.is_empty() {
        return Ok(Shown { changed: Vec::new(), refused });
    }
    give_rowids(work, table, held, &changes).await?;
    let mut writer = Writer { work, table, held };
    script(writer.work.connection(), "SAVEPOINT _lakesync_show").await?;
    let outcome = writer.write_all(&changes).await;
    match outcome {
        Ok(true) => {}
        Err(DbError::Sqlite(error)) if !is_refusal(&error) => return Err(error.into()),
        Err(error @ (DbError::Damaged { .. } | DbError::SchemaStale { .. })) => return Err(error),
        _ => {
            script(writer.work.connection(), "ROLLBACK TO _lakesync_show").await?;
            refused.extend(writer.write_each(&changes).await?);
        }
    }
    script(writer.work.connection(), "RELEASE _lakesync_show").await?;
    let changed = changes.iter().map(|change| change.at).collect();
    let stopped: HashSet<usize> = refused.iter().map(|(at, _)| *at).collect();
    for change in changes.into_iter().filter(|change| !stopped.contains(&change.at)) {
        let value = |wish| match wish {
            Wish::Value(value) => value,
            Wish::Default | Wish::Keep => Stored::Null,
        };
        let shown = |wishes: Vec<Wish>| wishes.into_iter().map(value).collect();
        held[change.at].image = change.desired.map(shown);
    }
    Ok(Shown { changed, refused })
}

/// Takes rows out of the table, whatever they should show. Those that the table keeps, because a
/// trigger of the application refuses or can't be run, go on showing what they show.
pub(super) async fn take_out(
    work: &mut Work<'_>,
    table: &Table,
    held: &mut [Held],
) -> Result<(), DbError> {
    let shown = |held: &Held| held.image.is_some() && table.closed.is_none();
    let changes: Vec<Change> = (0..held.len())
        .filter(|at| shown(&held[*at]))
        .map(|at| Change { at, desired: None, columns: Vec::new(), defaults: Vec::new() })
        .collect();
    let mut writer = Writer { work, table, held };
    let kept = writer.delete_all(&changes).await?;
    let gone = changes.iter().filter(|change| !kept.contains(&change.at));
    gone.for_each(|change| held[change.at].image = None);
    Ok(())
}

fn change(at: usize, desired: Option<Vec<Wish>>, image: Option<&[Stored]>) -> Option<Change> {
    let (mut columns, mut defaults) = (Vec::new(), Vec::new());
    for (column, wish) in desired.iter().flatten().enumerate() {
        match (wish, image) {
            (Wish::Value(value), Some(image)) if *value == image[column] => {}
            (Wish::Value(_), _) => columns.push(column),
            (Wish::Default, Some(_)) => defaults.push(column),
            (Wish::Default, None) | (Wish::Keep, _) => {}
        }
    }
    let same = match (&desired, image) {
        (None, None) => true,
        (Some(_), Some(_)) => columns.is_empty() && defaults.is_empty(),
        _ => false,
    };
    (!same).then_some(Change { at, desired, columns, defaults })
}

/// New rows of a table without keys are put behind all that are there.
async fn give_rowids(
    work: &mut Work<'_>,
    table: &Table,
    held: &mut [Held],
    changes: &[Change],
) -> Result<(), DbError> {
    let Key::Mapped { ids, rowid } = &table.key else { return Ok(()) };
    let new: Vec<usize> =
        changes.iter().map(|change| change.at).filter(|at| held[*at].key.is_none()).collect();
    if new.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT max((SELECT coalesce(max({rowid}), 0) FROM {}), \
         (SELECT coalesce(max(rowid), 0) FROM {}))",
        table.sql(),
        quoted(ids)
    );
    let row = Statement::new(sql).row(work.connection()).await?;
    let mut last = row.map_or(Ok(0), |row| integer(&row, 0))?;
    for at in new {
        last += 1;
        held[at].key = Some(vec![Stored::Integer(last)]);
    }
    Ok(())
}

struct Writer<'a, 'w> {
    work: &'a mut Work<'w>,
    table: &'a Table,
    held: &'a [Held],
}

impl Writer<'_, '_> {
    /// Writes everything by bulk statements. False if a trigger of the application swallowed a row.
    async fn write_all(&mut self, changes: &[Change]) -> Result<bool, DbError> {
        let gone: Vec<&Change> = changes.iter().filter(|change| change.desired.is_none()).collect();
        let mut whole = self.delete(&gone).await?;
        // Rows that are written alike go into one statement: updates first, which may free values.
        let mut alike: BTreeMap<Manner<'_>, Vec<&Change>> = BTreeMap::new();
        for change in changes.iter().filter(|change| change.desired.is_some()) {
            let Change { columns, defaults, .. } = change;
            let new = self.held[change.at].image.is_none();
            alike.entry(Manner { new, columns, defaults }).or_default().push(change);
        }
        for (Manner { new, columns, defaults }, changes) in alike {
            whole &= match new {
                true => self.insert(columns, &changes).await?,
                false => self.update(columns, defaults, &changes).await?,
            };
        }
        Ok(whole)
    }

    /// Deletes in bulk, or one by one what can be. Which rows the table keeps.
    async fn delete_all(&mut self, changes: &[Change]) -> Result<HashSet<usize>, DbError> {
        let mut kept = HashSet::new();
        script(self.work.connection(), "SAVEPOINT _lakesync_take").await?;
        if refusal(self.delete(&changes.iter().collect::<Vec<_>>()).await)?.is_some() {
            script(self.work.connection(), "ROLLBACK TO _lakesync_take").await?;
            for change in changes {
                if refusal(self.delete(&[change]).await)?.is_some() {
                    kept.insert(change.at);
                }
            }
        }
        script(self.work.connection(), "RELEASE _lakesync_take").await?;
        Ok(kept)
    }

    /// Writes one by one, and again what was refused, until nothing more gets in.
    async fn write_each(&mut self, changes: &[Change]) -> Result<Vec<Refusal>, DbError> {
        let mut refused = Vec::new();
        let mut out = Vec::new();
        let rank = |change: &&Change| match (&change.desired, &self.held[change.at].image) {
            (None, _) => 0,
            (Some(_), Some(_)) => 1,
            (Some(_), None) => 2,
        };
        let mut ordered: Vec<&Change> = changes.iter().collect();
        ordered.sort_by_key(rank);
        for change in ordered {
            let new = self.held[change.at].image.is_none();
            let done = match (&change.desired, new) {
                (None, _) => self.delete(&[change]).await,
                (Some(_), true) => self.insert(&change.columns, &[change]).await,
                (Some(_), false) => self.update(&change.columns, &change.defaults, &[change]).await,
            };
            match (refusal(done)?, &change.desired, new) {
                (None, ..) => {}
                // A trigger keeps it: the row stays, and is reported.
                (Some(why), None, _) => refused.push((change.at, why)),
                (Some(why), Some(_), true) => out.push((change, why)),
                (Some(why), Some(_), false) => match refusal(self.delete(&[change]).await)? {
                    None => out.push((change, why)),
                    Some(kept) => refused.push((change.at, kept)),
                },
            }
        }
        refused.extend(self.insert_until_stuck(out).await?);
        Ok(refused)
    }

    async fn insert_until_stuck(
        &mut self,
        mut out: Vec<(&Change, String)>,
    ) -> Result<Vec<Refusal>, DbError> {
        loop {
            let before = out.len();
            let mut still = Vec::new();
            for (change, _) in out {
                let wishes = change.desired.iter().flatten().enumerate();
                let all: Vec<usize> = wishes
                    .filter(|(_, wish)| matches!(wish, Wish::Value(_)))
                    .map(|(column, _)| column)
                    .collect();
                if let Some(why) = refusal(self.insert(&all, &[change]).await)? {
                    still.push((change, why));
                }
            }
            out = still;
            if out.is_empty() || out.len() == before {
                return Ok(out.into_iter().map(|(change, why)| (change.at, why)).collect());
            }
        }
    }

    async fn delete(&mut self, changes: &[&Change]) -> Result<bool, DbError> {
        let keys: Vec<&[Stored]> =
            changes.iter().filter_map(|change| self.held[change.at].key.as_deref()).collect();
        let columns = self.table.key.columns();
        let mut changed = 0;
        for chunk in keys.chunks(chunk_rows(columns.len())) {
            let sql = format!(
                "DELETE FROM {} WHERE ({}) IN (VALUES {})",
                self.table.sql(),
                columns.join(", "),
                placeholders(chunk.len(), columns.len())
            );
            let mut statement = Statement::new(sql);
            chunk.iter().copied().flatten().for_each(|value| statement.push(value));
            let statement = if chunk.len() == 1 { statement } else { statement.once() };
            changed += statement.run(self.work.connection()).await?;
        }
        self.unmap(changes).await?;
        Ok(changed == keys.len() as u64)
    }

    /// Forgets the rowids of rows that are gone.
    async fn unmap(&mut self, changes: &[&Change]) -> Result<(), DbError> {
        let Key::Mapped { ids, .. } = &self.table.key else { return Ok(()) };
        for chunk in changes.chunks(chunk_rows(1)) {
            let marks = vec!["?"; chunk.len()].join(",");
            let sql = format!("DELETE FROM {} WHERE row_id IN ({marks})", quoted(ids));
            let mut statement = Statement::new(sql).once();
            chunk.iter().for_each(|change| statement.add(self.held[change.at].row_id.as_str()));
            statement.run(self.work.connection()).await?;
        }
        Ok(())
    }

    async fn update(
        &mut self,
        columns: &[usize],
        defaults: &[usize],
        changes: &[&Change],
    ) -> Result<bool, DbError> {
        let keys = self.table.key.columns().len();
        let set = columns.iter().enumerate().map(|(at, column)| {
            format!("{} = _v.column{}", self.table.columns[*column].sql, keys + at + 1)
        });
        let reset = defaults.iter().map(|column| {
            let column = &self.table.columns[*column];
            format!("{} = ({})", column.sql, column.default.as_deref().unwrap_or("NULL"))
        });
        let set = set.chain(reset).collect::<Vec<_>>().join(", ");
        let width = keys + columns.len();
        let mut changed = 0;
        let full = chunk_rows(width);
        for chunk in changes.chunks(full) {
            // OR ABORT: a table's own ON CONFLICT REPLACE must not remove other rows.
            let sql = format!(
                "UPDATE OR ABORT {} AS _t SET {set} FROM (VALUES {}) AS _v WHERE {}",
                self.table.sql(),
                placeholders(chunk.len(), width),
                on_key(self.table, "_v", 1)
            );
            let mut statement = Statement::new(sql);
            for change in chunk {
                self.held[change.at].key.iter().flatten().for_each(|value| statement.push(value));
                columns.iter().for_each(|column| statement.push(change.value(*column)));
            }
            let common = chunk.len() == full || chunk.len() == 1;
            let statement = if common { statement } else { statement.once() };
            changed += statement.run(self.work.connection()).await?;
        }
        Ok(changed == changes.len() as u64)
    }

    async fn insert(&mut self, columns: &[usize], changes: &[&Change]) -> Result<bool, DbError> {
        // The key is a column of its own unless it is made of synced columns.
        let own_key = self.table.columns.iter().all(|column| !column.in_key);
        let mut names = if own_key { self.table.key.columns() } else { Vec::new() };
        names.extend(columns.iter().map(|column| self.table.columns[*column].sql.clone()));
        let head = format!("INSERT OR ABORT INTO {} ({})", self.table.sql(), names.join(", "));
        let row = |change: &&Change| {
            let key = self.held[change.at].key.iter().flatten().filter(|_| own_key).cloned();
            let value = |column: &usize| change.value(*column).clone();
            key.chain(columns.iter().map(value)).collect()
        };
        let rows: Vec<Vec<Stored>> = changes.iter().map(row).collect();
        let changed = insert_rows(self.work.connection(), &head, &rows).await?;
        if let Key::Mapped { ids, .. } = &self.table.key {
            let id = |change: &&Change| {
                let held = &self.held[change.at];
                let rowid = held.key.iter().flatten().next().cloned().unwrap_or(Stored::Null);
                vec![rowid, Stored::Text(held.row_id.to_string())]
            };
            let rows: Vec<Vec<Stored>> = changes.iter().map(id).collect();
            let head = format!("INSERT OR REPLACE INTO {} (rowid, row_id)", quoted(ids));
            insert_rows(self.work.connection(), &head, &rows).await?;
        }
        Ok(changed == changes.len() as u64)
    }
}

impl Change {
    /// The value to write to a column.
    fn value(&self, column: usize) -> &Stored {
        match self.desired.as_ref().map(|wishes| &wishes[column]) {
            Some(Wish::Value(value)) => value,
            _ => &Stored::Null,
        }
    }
}

/// Why a single row was refused, if it was.
fn refusal(outcome: Result<bool, DbError>) -> Result<Option<String>, DbError> {
    match outcome {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some("a trigger of the application ignored the row".to_owned())),
        Err(DbError::Sqlite(error)) if is_refusal(&error) => Ok(Some(refusal_text(&error))),
        Err(error) => Err(error),
    }
}

//! Applying: what arrives is joined into what is known, unsent changes are laid over it, and the
//! tables show the result. Triggers are silent meanwhile. Rows that a constraint refuses are parked
//! and never stop the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lakesync::hlc::Hlc;
use lakesync::name::{RowId, TableName};
use lakesync::wire::Arrival;
use sqlx::SqliteConnection;

pub(super) use self::arrivals::Mode;
use self::arrivals::{Parts, fold, group};
use super::error::DbError;
use super::foreign::Touched;
use super::held::{Held, load};
use super::layout::{NOTING, NOW_MS, SILENT};
use super::session::{Work, to_sql};
use super::sql::{Statement, Stored, insert_rows, integer, script, text};
use super::table::Table;
use super::{Applied, Parked, echo, known, ranges, show};

mod arrivals;

/// Parked rows tried again with every page; a round tries them all.
const RETRIES_MAX: i64 = 1_000;
/// Rows handled together, so that memory stays bounded.
const ROWS_MAX: usize = 20_000;

/// An application under way: what it changed so far.
#[derive(Debug)]
pub(super) struct Applying {
    now_ms: i64,
    rows: usize,
    tables: BTreeSet<TableName>,
    parked_before: BTreeMap<(TableName, RowId), i64>,
    parked_now: BTreeMap<(TableName, RowId), String>,
    /// Rows that were in their tables when this began, and were parked at any time since.
    parked_here: BTreeSet<(TableName, RowId)>,
    touched: Touched,
}

impl Applying {
    /// Silences the triggers.
    pub(super) async fn begin(work: &mut Work<'_>) -> Result<Self, DbError> {
        let noting = work.registry.noting;
        let connection = work.connection();
        script(connection, "DELETE FROM _lakesync_candidates").await?;
        let applying = if noting { NOTING } else { SILENT };
        let sql = format!(
            "UPDATE _lakesync_clock SET applying = {applying} WHERE id = 1 \
             RETURNING {NOW_MS} + offset_ms"
        );
        let row = Statement::new(sql).row(connection).await?;
        Ok(Self {
            now_ms: row.map_or(Ok(0), |row| integer(&row, 0))?,
            rows: 0,
            tables: BTreeSet::new(),
            parked_before: BTreeMap::new(),
            parked_now: BTreeMap::new(),
            parked_here: BTreeSet::new(),
            touched: Touched::default(),
        })
    }

    /// Joins arrivals into their rows.
    pub(super) async fn join(
        &mut self,
        work: &mut Work<'_>,
        arrivals: Vec<Arrival>,
        mode: Mode,
    ) -> Result<(), DbError> {
        self.rows += arrivals.len();
        let mut newest = Hlc::default();
        for (table, parts) in group(work, arrivals).await? {
            for part in &parts {
                newest = newest.max(part.newest());
            }
            let mut parts = parts.into_iter();
            loop {
                let chunk: Vec<Parts> = parts.by_ref().take(ROWS_MAX).collect();
                if chunk.is_empty() {
                    break;
                }
                let held = fold(work, &table, chunk, mode).await?;
                self.finish(work, &table, held).await?;
            }
            ranges::keep(work, &table).await?;
        }
        let sql = "UPDATE _lakesync_clock SET hlc = max(hlc, ?) WHERE id = 1";
        Statement::new(sql).bind(to_sql(newest)).run(work.connection()).await?;
        Ok(())
    }

    /// Shows and records rows as they are now held.
    pub(super) async fn finish(
        &mut self,
        work: &mut Work<'_>,
        table: &Arc<Table>,
        mut held: Vec<Held>,
    ) -> Result<(), DbError> {
        let before: Vec<_> = match work.registry.references() {
            [] => Vec::new(),
            _ => held.iter().map(|held| held.image.clone()).collect(),
        };
        let shown = show::show(work, table, &mut held).await?;
        echo::undo(work, table, &held, &shown.refused).await?;
        if !shown.changed.is_empty() {
            self.tables.insert(table.name().clone());
        }
        let name = |held: &Held| (table.name().clone(), held.row_id.clone());
        for held in &held {
            if let Some(since) = held.parked_since
                && !self.parked_here.contains(&name(held))
            {
                self.parked_before.entry(name(held)).or_insert(since);
            }
            self.parked_now.remove(&name(held));
        }
        let reasons: HashMap<usize, String> = shown.refused.into_iter().collect();
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for (at, held) in held.into_iter().enumerate() {
            if !reasons.contains_key(&at) && !before.is_empty() {
                let before = before[at].as_deref();
                self.touched.note(work.registry.references(), table, before, &held);
            }
            match reasons.get(&at) {
                Some(reason) => refused.push((held, reason.as_str())),
                None => accepted.push(held),
            }
        }
        known::record(work, table, &accepted).await?;
        let refused: Vec<_> = refused.iter().map(|(held, reason)| (held, *reason)).collect();
        for (held, reason) in &refused {
            self.note_parked(name(held), reason);
        }
        known::park(work, table, &refused, self.now_ms).await
    }

    /// Takes rows whose parents are missing out of their tables, and theirs after them.
    pub(super) async fn check_references(&mut self, work: &mut Work<'_>) -> Result<(), DbError> {
        while !self.touched.is_empty() {
            let touched = std::mem::take(&mut self.touched);
            let mut reasons: BTreeMap<i64, BTreeMap<RowId, String>> = BTreeMap::new();
            for orphan in touched.orphans(work).await? {
                let rows = reasons.entry(orphan.table.id).or_default();
                rows.insert(orphan.row_id, orphan.reason);
            }
            for (id, rows) in reasons {
                let Some(table) = work.registry.by_id(id).cloned() else { continue };
                self.park(work, &table, rows).await?;
            }
        }
        Ok(())
    }

    async fn park(
        &mut self,
        work: &mut Work<'_>,
        table: &Arc<Table>,
        reasons: BTreeMap<RowId, String>,
    ) -> Result<(), DbError> {
        let row_ids: Vec<RowId> = reasons.keys().cloned().collect();
        let mut held = load(work, table, &row_ids).await?;
        let before: Vec<_> = held.iter().map(|held| held.image.clone()).collect();
        show::take_out(work, table, &mut held).await?;
        echo::undo(work, table, &held, &[]).await?;
        for (held, before) in held.iter_mut().zip(before) {
            self.touched.note(work.registry.references(), table, before.as_deref(), held);
            let name = (table.name().clone(), held.row_id.clone());
            held.parked_since = held.parked_since.or(self.parked_before.get(&name).copied());
            self.note_parked(name, &reasons[&held.row_id]);
        }
        self.tables.insert(table.name().clone());
        let parked: Vec<_> =
            held.iter().map(|held| (held, reasons[&held.row_id].as_str())).collect();
        known::park(work, table, &parked, self.now_ms).await
    }

    fn note_parked(&mut self, name: (TableName, RowId), reason: &str) {
        if !self.parked_before.contains_key(&name) {
            self.parked_here.insert(name.clone());
        }
        self.parked_now.insert(name, reason.to_owned());
    }

    /// Leaves the check of references to the end of the checkpoint, whose order is not theirs.
    pub(super) async fn postpone_references(&mut self, work: &mut Work<'_>) -> Result<(), DbError> {
        let children = std::mem::take(&mut self.touched).children;
        let row =
            |id: i64, row_id: &RowId| vec![Stored::Integer(id), Stored::Text(row_id.to_string())];
        let rows: Vec<_> = children
            .iter()
            .flat_map(|(id, rows)| rows.iter().map(|(row_id, _)| row(*id, row_id)))
            .collect();
        let head = "INSERT OR REPLACE INTO _lakesync_unchecked (tbl, row_id)";
        insert_rows(work.connection(), head, &rows).await?;
        Ok(())
    }

    /// Takes up the rows whose check was left to the end.
    pub(super) async fn resume_references(&mut self, work: &mut Work<'_>) -> Result<(), DbError> {
        loop {
            let sql = "DELETE FROM _lakesync_unchecked WHERE (tbl, row_id) IN \
                       (SELECT tbl, row_id FROM _lakesync_unchecked LIMIT 1000) \
                       RETURNING tbl, row_id";
            let rows = Statement::new(sql).rows(work.connection()).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut by_table: BTreeMap<i64, Vec<RowId>> = BTreeMap::new();
            for row in rows {
                let Ok(row_id) = RowId::parse(&text(&row, 1)?) else { continue };
                by_table.entry(integer(&row, 0)?).or_default().push(row_id);
            }
            for (id, row_ids) in by_table {
                let Some(table) = work.registry.by_id(id).cloned() else { continue };
                for held in load(work, &table, &row_ids).await? {
                    self.touched.note(work.registry.references(), &table, None, &held);
                }
            }
            self.check_references(work).await?;
        }
    }

    /// Tries parked rows again until no more of them get in: all, or as many as a page may.
    pub(super) async fn retry_parked(
        &mut self,
        work: &mut Work<'_>,
        all: bool,
    ) -> Result<(), DbError> {
        let limit = if all { i64::MAX } else { RETRIES_MAX };
        let mut left = usize::MAX;
        loop {
            let sql = "SELECT tbl, row_id FROM _lakesync_parked LIMIT ?";
            let rows = Statement::new(sql).bind(limit).rows(work.connection()).await?;
            if rows.is_empty() || left <= rows.len() {
                return Ok(());
            }
            left = rows.len();
            let mut by_table: BTreeMap<i64, Vec<RowId>> = BTreeMap::new();
            for row in rows {
                let Ok(row_id) = RowId::parse(&text(&row, 1)?) else { continue };
                by_table.entry(integer(&row, 0)?).or_default().push(row_id);
            }
            for (id, row_ids) in by_table {
                let Some(table) = work.registry.by_id(id).cloned() else { continue };
                for chunk in row_ids.chunks(ROWS_MAX) {
                    let held = load(work, &table, chunk).await?;
                    self.finish(work, &table, held).await?;
                }
            }
            self.check_references(work).await?;
        }
    }

    /// Lets the triggers speak again, and says what was changed.
    pub(super) async fn end(self, work: &mut Work<'_>) -> Result<Applied, DbError> {
        script(work.connection(), "UPDATE _lakesync_clock SET applying = 0 WHERE id = 1").await?;
        let parked =
            self.parked_now.iter().filter(|(name, _)| !self.parked_before.contains_key(*name));
        let parked = parked.map(|((table, row_id), reason)| Parked {
            table: table.clone(),
            row_id: row_id.clone(),
            reason: reason.clone(),
            since_ms: u64::try_from(self.now_ms).unwrap_or(0),
        });
        let unparked =
            self.parked_before.keys().filter(|name| !self.parked_now.contains_key(*name));
        Ok(Applied {
            rows: self.rows,
            parked: parked.collect(),
            unparked: unparked.cloned().collect(),
            tables: self.tables.into_iter().collect(),
        })
    }
}

/// The parked rows, oldest first.
pub(super) async fn parked(connection: &mut SqliteConnection) -> Result<Vec<Parked>, DbError> {
    let sql = "SELECT t.name, p.row_id, p.reason, p.since FROM _lakesync_parked p \
               JOIN _lakesync_tables t ON t.id = p.tbl ORDER BY p.since, p.tbl, p.row_id";
    let mut parked = Vec::new();
    for row in Statement::new(sql).rows(connection).await? {
        let names = (TableName::parse(&text(&row, 0)?), RowId::parse(&text(&row, 1)?));
        let (Ok(table), Ok(row_id)) = names else { continue };
        let since_ms = u64::try_from(integer(&row, 3)?).unwrap_or(0);
        parked.push(Parked { table, row_id, reason: text(&row, 2)?, since_ms });
    }
    Ok(parked)
}

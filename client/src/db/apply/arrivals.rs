//! Arrivals, grouped by row and joined into what is held of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use lakesync::hlc::Hlc;
use lakesync::name::RowId;
use lakesync::row::Row;
use lakesync::wire::{Arrival, Incoming};

use crate::db::error::DbError;
use crate::db::held::{Held, load};
use crate::db::key::Key;
use crate::db::restore::{self, Horizon};
use crate::db::session::Work;
use crate::db::sql::{Statement, chunk_rows, text};
use crate::db::table::{Entry, Table};

/// How rows arrive.
#[derive(Clone, Copy, Debug)]
pub(in crate::db) enum Mode {
    /// As changes, while the checkpoint of this number is under way, if one is.
    Changes(Option<i64>),
    /// Whole, in the checkpoint of this number: what was known of them before is forgotten. If the
    /// log was replaced, what is newer of it is given back instead.
    Whole(i64, Option<Horizon>),
}

impl Mode {
    fn checkpoint(self) -> Option<i64> {
        match self {
            Self::Changes(under_way) => under_way,
            Self::Whole(number, _) => Some(number),
        }
    }
}

/// What arrived for one row, in order.
pub(super) struct Parts {
    row_id: RowId,
    parts: Vec<Incoming>,
}

impl Parts {
    pub(super) fn newest(&self) -> Hlc {
        let of = |part: &Incoming| match part {
            Incoming::ScopeExit | Incoming::Unchanged => Hlc::default(),
            Incoming::Join(row) => {
                let stamps = row.written().into_iter().chain(row.deleted());
                stamps.map(|stamp| stamp.hlc).max().unwrap_or_default()
            }
        };
        self.parts.iter().map(of).max().unwrap_or_default()
    }
}

/// Arrivals by table and row. Those for tables that were not adopted are passed over, which is
/// remembered: adopting one will need a checkpoint.
pub(super) async fn group(
    work: &mut Work<'_>,
    arrivals: Vec<Arrival>,
) -> Result<Vec<(Arc<Table>, Vec<Parts>)>, DbError> {
    let mut tables: Vec<(Arc<Table>, Vec<Parts>)> = Vec::new();
    let mut places: HashMap<(usize, RowId), usize> = HashMap::new();
    let mut skipped = BTreeSet::new();
    for Arrival { table, row_id, what } in arrivals {
        let at = match tables.iter().position(|(known, _)| *known.name() == table) {
            Some(at) => at,
            None => match work.registry.find(&table) {
                Entry::Unknown => return Err(DbError::SchemaStale { table }),
                Entry::Waiting(id) => {
                    skipped.insert(id);
                    continue;
                }
                Entry::Captured(found) => {
                    tables.push((found, Vec::new()));
                    tables.len() - 1
                }
            },
        };
        let (known, rows) = &mut tables[at];
        if let Incoming::Join(row) = &what
            && row.cells().iter().any(|cell| known.place(&cell.column).is_none())
        {
            return Err(DbError::SchemaStale { table });
        }
        let place = *places.entry((at, row_id.clone())).or_insert_with(|| {
            rows.push(Parts { row_id, parts: Vec::new() });
            rows.len() - 1
        });
        rows[place].parts.push(what);
    }
    for id in skipped {
        let sql = "UPDATE _lakesync_tables SET skipped = 1 WHERE id = ? AND skipped = 0";
        Statement::new(sql).bind(id).run(work.connection()).await?;
    }
    Ok(tables)
}

/// The rows that arrived, joined into what is held of them.
pub(super) async fn fold(
    work: &mut Work<'_>,
    table: &Table,
    parts: Vec<Parts>,
    mode: Mode,
) -> Result<Vec<Held>, DbError> {
    let row_ids: Vec<RowId> = parts.iter().map(|parts| parts.row_id.clone()).collect();
    let familiar = familiar(work, table, &row_ids).await?;
    let to_load: Vec<RowId> =
        row_ids.iter().filter(|row_id| familiar.contains(row_id.as_str())).cloned().collect();
    let mut loaded = load(work, table, &to_load).await?.into_iter();
    let mut all = Vec::with_capacity(parts.len());
    let mut before = Vec::new();
    for Parts { row_id, parts } in parts {
        let mut held = match familiar.contains(row_id.as_str()) {
            true => loaded.next().expect("BUG: a row was loaded for every id"),
            false => Held::fresh(&table.key, row_id),
        };
        let unchanged = parts.contains(&Incoming::Unchanged);
        if unchanged && held.known == Row::default() {
            let table = table.name().clone();
            return Err(DbError::NotHeld { table, row_id: held.row_id });
        }
        if let Mode::Whole(number, restore) = mode
            && held.seen != number
            && !unchanged
        {
            let known = std::mem::take(&mut held.known);
            before.extend(restore.is_some().then_some((all.len(), known)));
        }
        for part in parts {
            match part {
                Incoming::Unchanged => {}
                Incoming::ScopeExit => held.known = Row::default(),
                Incoming::Join(row) if held.known == Row::default() => held.known = row,
                Incoming::Join(row) => _ = held.known.join(&row),
            }
        }
        held.seen = mode.checkpoint().unwrap_or(held.seen);
        all.push(held);
    }
    if let Mode::Whole(_, Some(horizon)) = mode {
        restore::queue(work, table, &mut all, &before, horizon).await?;
    }
    Ok(all)
}

/// The rows of which anything is held already. Most rows of a first checkpoint are not.
async fn familiar(
    work: &mut Work<'_>,
    table: &Table,
    row_ids: &[RowId],
) -> Result<BTreeSet<String>, DbError> {
    let mut familiar = BTreeSet::new();
    let full = chunk_rows(1);
    for chunk in row_ids.chunks(full) {
        // Each part reads the same parameters again, by number.
        let marks: Vec<String> = (2..chunk.len() + 2).map(|at| format!("?{at}")).collect();
        let marks = marks.join(",");
        let parts = ["rows", "outbox", "parked"].map(|from| {
            format!("SELECT row_id FROM _lakesync_{from} WHERE tbl = ?1 AND row_id IN ({marks})")
        });
        let mut statement = Statement::new(parts.join(" UNION ALL ")).bind(table.id);
        chunk.iter().for_each(|row_id| statement.add(row_id.as_str()));
        let common = chunk.len() == full || chunk.len() == 1;
        let statement = if common { statement } else { statement.once() };
        for row in statement.rows(work.connection()).await? {
            familiar.insert(text(&row, 0)?);
        }
    }
    Ok(familiar)
}

impl Held {
    /// A row of which nothing was held before.
    fn fresh(key: &Key, row_id: RowId) -> Self {
        let key = key.parse(&row_id);
        Self::new(&row_id, key)
    }
}

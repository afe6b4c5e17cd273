//! A device, and a gateway as small as it can be: rows merged by `Row::merge`, and a log of what
//! took effect.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lakesync::delta::{Delta, Op};
use lakesync::hlc::Hlc;
use lakesync::limits::OFFLINE_MAX;
use lakesync::name::{ClientId, RowId, TableName};
use lakesync::proto::v1::Outcome;
use lakesync::proto::v1::outcome::Kind;
use lakesync::row::Row;
use lakesync::schema::{Column, ColumnType, TableSchema};
use lakesync::wire::{Arrival, decode_changes, encode_commit, encode_rows};
use sqlx::SqliteConnection;
use tempfile::TempDir;

use super::super::sql::{Statement, Stored, script, stored};
use super::super::{
    Applied, Batch, Database, DbError, Ended, PUSH_BYTES_MAX, Reading, Settled, Share, open,
};

impl Database {
    /// As much as a message holds, of at most so many changes.
    pub(super) async fn pending_at_most(&self, rows_max: usize) -> Result<Option<Batch>, DbError> {
        self.pending(Share { rows_max, bytes_target: PUSH_BYTES_MAX }, &[]).await
    }
}

/// A replica and the application that uses it.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) db: Database,
    pub(super) application: SqliteConnection,
    pub(super) path: PathBuf,
    _dir: Option<TempDir>,
}

impl Device {
    /// A new file with these tables.
    pub(super) async fn with(tables: &[TableSchema]) -> Self {
        let device = Self::new("").await;
        device.db.install_schema(tables).await.unwrap();
        device
    }

    /// A file that an application has prepared by `sql`.
    pub(super) async fn new(sql: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let mut application = open::connect_application(&path).await.unwrap();
        script(&mut application, sql).await.unwrap();
        let db = Database::open(&path).await.unwrap();
        Self { db, application, path, _dir: Some(dir) }
    }

    /// A file of an application, adopted as what inspecting it proposes.
    pub(super) async fn adopting(sql: &str) -> Self {
        let device = Self::new(sql).await;
        device.adopt_all().await;
        device
    }

    pub(super) async fn adopt_all(&self) -> Vec<TableSchema> {
        let schemas = self.proposals().await;
        self.db.install_schema(&schemas).await.unwrap();
        for schema in &schemas {
            self.db.adopt(&schema.table).await.unwrap();
        }
        schemas
    }

    /// The schemas a gateway makes of what inspecting proposes.
    pub(super) async fn proposals(&self) -> Vec<TableSchema> {
        let found = self.db.inspect().await.unwrap();
        let proposals: Vec<_> = found
            .into_iter()
            .filter_map(|candidate| candidate.verdict.ok())
            .map(|adoptable| adoptable.proposal)
            .collect();
        let schema = lakesync::schema::Schema::default().evolve(&proposals).unwrap();
        schema.tables().map(|table| TableSchema::clone(table)).collect()
    }

    /// Closes the database and opens it again.
    pub(super) async fn reopen(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        let other = Database::open(&dir.path().join("other.db")).await.unwrap();
        drop(std::mem::replace(&mut self.db, other));
        self.db = Database::open(&self.path).await.unwrap();
    }

    /// A copy of the file, as another device would have it.
    pub(super) async fn copy(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        std::fs::copy(&self.path, &path).unwrap();
        let application = open::connect_application(&path).await.unwrap();
        let db = Database::open(&path).await.unwrap();
        Self { db, application, path, _dir: Some(dir) }
    }

    /// The file under another name: the same inode, elsewhere.
    pub(super) async fn moved(self) -> Self {
        let Self { db, application, path, _dir } = self;
        drop((db, application));
        let there = path.with_file_name("moved.db");
        std::fs::rename(&path, &there).unwrap();
        let application = open::connect_application(&there).await.unwrap();
        let db = Database::open(&there).await.unwrap();
        Self { db, application, path: there, _dir }
    }

    /// Runs statements of the application.
    pub(super) async fn run(&mut self, sql: &str) {
        self.try_run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(super) async fn try_run(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        script(&mut self.application, sql).await
    }

    /// What a query yields: values joined by `|`, rows by a line each.
    pub(super) async fn ask(&mut self, sql: &str) -> String {
        // The driver can't bear a table that gained columns between preparing and running.
        script(&mut self.application, "SELECT 1 FROM sqlite_master LIMIT 1").await.unwrap();
        let rows = Statement::new(sql).once().rows(&mut self.application).await.unwrap();
        let line = |row: &sqlx::sqlite::SqliteRow| {
            let values = (0..sqlx::Row::len(row)).map(|at| shown(&stored(row, at).unwrap()));
            values.collect::<Vec<_>>().join("|")
        };
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The unsent changes as `row column=value …` or `row delete`, in order.
    pub(super) async fn outbox(&mut self) -> String {
        self.ask(
            "SELECT o.row_id || iif(o.op = 2, ' delete', coalesce((SELECT group_concat(' ' || c.col \
             || '=' || coalesce(quote(c.value), 'NULL'), '') FROM (SELECT * FROM \
             _lakesync_outbox_cells WHERE seq = o.seq ORDER BY col) c), '')) \
             FROM _lakesync_outbox o ORDER BY o.seq",
        )
        .await
    }

    pub(super) async fn pull(&mut self, gateway: &Gateway) -> Applied {
        let after = self.db.cursor().await.unwrap().parse().unwrap_or(0);
        let (arrivals, cursor) = gateway.pull(after);
        self.db.apply_page(arrivals, &cursor).await.unwrap()
    }

    pub(super) async fn push(&mut self, gateway: &mut Gateway) -> Settled {
        let mut all = Settled::default();
        while let Some(batch) = self.db.pending_at_most(10_000).await.unwrap() {
            let outcomes = gateway.push(self.db.client_id(), &batch.deltas);
            let settled = self.db.settle(batch, &outcomes).await.unwrap();
            all.accepted += settled.accepted;
            all.superseded.extend(settled.superseded);
            all.rejected.extend(settled.rejected);
            if !settled.drifted.is_empty() {
                all.drifted = settled.drifted;
                break;
            }
        }
        all
    }

    /// A whole round.
    pub(super) async fn sync(&mut self, gateway: &mut Gateway) -> Settled {
        self.pull(gateway).await;
        let settled = self.push(gateway).await;
        self.pull(gateway).await;
        settled
    }

    /// A checkpoint in chunks of a few rows.
    pub(super) async fn checkpoint(&mut self, gateway: &Gateway) -> Ended {
        self.checkpoint_after(None, gateway).await
    }

    /// A checkpoint of a gateway that was restored or made anew.
    pub(super) async fn checkpoint_of_another(&mut self, gateway: &Gateway) -> Ended {
        self.checkpoint_after(Some(OFFLINE_MAX), gateway).await
    }

    async fn checkpoint_after(&mut self, replaced: Option<Duration>, gateway: &Gateway) -> Ended {
        let cursor = gateway.log.len().to_string();
        self.db.begin_checkpoint(replaced).await.unwrap();
        for (at, arrivals) in gateway.chunks(3).into_iter().enumerate() {
            self.db.apply_chunk(arrivals, &at.to_string()).await.unwrap();
        }
        self.db.end_checkpoint(&cursor, true).await.unwrap()
    }
}

fn shown(value: &Stored) -> String {
    match value {
        Stored::Null => "NULL".to_owned(),
        Stored::Integer(value) => value.to_string(),
        Stored::Real(value) => format!("{value:?}"),
        Stored::Text(text) => text.clone(),
        Stored::Garbled(bytes) | Stored::Blob(bytes) => format!("{bytes:02x?}"),
    }
}

/// A gateway in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Gateway {
    pub(super) rows: BTreeMap<(TableName, RowId), Row>,
    pub(super) log: Vec<(ClientId, Vec<Delta>)>,
    /// Refuses changes that write this text anywhere.
    pub(super) poison: Option<&'static str>,
    /// Refuses stamps from this reading on.
    pub(super) horizon: Option<Hlc>,
}

impl Gateway {
    /// Merges a push, and answers as the protocol says.
    pub(super) fn push(&mut self, client: &ClientId, deltas: &[Delta]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut effective = Vec::new();
        let (mut table, mut row) = (0, 0);
        for (at, delta) in deltas.iter().enumerate() {
            if at != 0 {
                let same = deltas[at - 1].table == delta.table;
                (table, row) = if same { (table, row + 1) } else { (table + 1, 0) };
            }
            assert_eq!(delta.stamp.client, *client, "a client stamps its own changes");
            let answer =
                |kind: Kind, reason: &str, columns: &[lakesync::name::ColumnName]| Outcome {
                    table,
                    row,
                    kind: kind.into(),
                    reason: reason.to_owned(),
                    message: String::new(),
                    columns: columns.iter().map(ToString::to_string).collect(),
                };
            if self.horizon.is_some_and(|horizon| horizon < delta.stamp.hlc) {
                outcomes.push(answer(Kind::Rejected, "CLOCK_DRIFT", &[]));
                continue;
            }
            if self.is_poisoned(delta) {
                outcomes.push(answer(Kind::Rejected, "SCHEMA_MISMATCH", &[]));
                continue;
            }
            let name = (delta.table.clone(), delta.row_id.clone());
            let before = self.rows.get(&name).cloned().unwrap_or_default();
            let mut merged = before.clone();
            let effect = merged.merge(delta);
            if !effect.effective {
                let replayed = effect.lost.is_empty();
                let reason = if replayed { "REPLAYED" } else { "" };
                outcomes.push(answer(Kind::Superseded, reason, &effect.lost));
                continue;
            }
            self.rows.insert(name, merged);
            if !effect.lost.is_empty() {
                outcomes.push(answer(Kind::PartlySuperseded, "", &effect.lost));
            }
            let mut delta = delta.clone();
            if let Op::Upsert(cells) = &mut delta.op {
                let idle: Vec<_> = effect.lost.iter().chain(&effect.tied).collect();
                cells.retain(|cell| !idle.contains(&&cell.column));
            }
            effective.push(delta);
        }
        if !effective.is_empty() {
            self.log.push((client.clone(), effective));
        }
        outcomes
    }

    fn is_poisoned(&self, delta: &Delta) -> bool {
        let Op::Upsert(cells) = &delta.op else { return false };
        let poison = self.poison.map(|text| lakesync::value::Value::String(text.to_owned()));
        poison.is_some_and(|poison| cells.iter().any(|cell| cell.value == poison))
    }

    /// Everything after a position, as it travels, and the new cursor.
    pub(super) fn pull(&self, after: usize) -> (Vec<Arrival>, String) {
        let mut arrivals = Vec::new();
        for (client, deltas) in &self.log[after..] {
            arrivals.extend(decode_changes(encode_commit(client, deltas.clone())).unwrap());
        }
        (arrivals, self.log.len().to_string())
    }

    /// All live rows, as a checkpoint sends them.
    pub(super) fn chunks(&self, size: usize) -> Vec<Vec<Arrival>> {
        let live: Vec<_> = self.rows.iter().filter(|(_, row)| row.is_live()).collect();
        let chunk = |rows: &[(&(TableName, RowId), &Row)]| {
            let tables = rows.iter().map(|((table, id), row)| encode_rows(table, 1, [(id, *row)]));
            decode_changes(tables.collect()).unwrap()
        };
        live.chunks(size).map(chunk).collect()
    }

    /// The live rows of a table: `id column=value …`, a line each.
    pub(super) fn show(&self, table: &str) -> String {
        let live =
            self.rows.iter().filter(|((name, _), row)| name.as_str() == table && row.is_live());
        let line = |((_, id), row): (&(TableName, RowId), &Row)| {
            format!("{id} {}", lakesync::testing::shown(row))
        };
        live.map(line).collect::<Vec<_>>().join("\n")
    }
}

/// A table whose row id is its key `id`, from `column:type …`.
pub(super) fn keyed(table: &str, columns: &str) -> TableSchema {
    schema(table, "id", columns, &[])
}

/// A table whose row id is made of columns.
pub(super) fn schema(table: &str, key: &str, columns: &str, primary_key: &[&str]) -> TableSchema {
    let column = |(at, text): (usize, &str)| {
        let (name, kind) = text.split_once(':').unwrap();
        let kind = match kind {
            "bool" => ColumnType::Bool,
            "int" => ColumnType::Int64,
            "double" => ColumnType::Double,
            "text" => ColumnType::String,
            "bytes" => ColumnType::Bytes,
            "uuid" => ColumnType::Uuid,
            "any" => ColumnType::Any,
            other => panic!("{other}: no type of these tests"),
        };
        Column { name: name.parse().unwrap(), kind, field_id: at as u32 + 1 }
    };
    TableSchema {
        table: table.parse().unwrap(),
        version: 1,
        key: key.parse().unwrap(),
        columns: columns.split_whitespace().enumerate().map(column).collect(),
        primary_key: primary_key.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

/// A reading of a server's wall clock.
pub(super) fn exact(hlc: Hlc) -> Reading {
    Reading { hlc, slack: Duration::ZERO }
}

//! The tests that every adapter passes, and every wrapper around one. Enabled by the `testing`
//! feature.
//!
//! Each check starts from an empty backend and states one clause of the [`Adapter`] contract.
//! [`adapter_conformance`](crate::adapter_conformance) declares a test of each.

use async_trait::async_trait;

use super::{Adapter, Batch, Commit};
use crate::delta::{Cell, Delta, Op};
use crate::hlc::Hlc;
use crate::name::{LogId, Position, RowId, TableName};
use crate::row::Row;
use crate::schema::{Column, ColumnType, Schema, TableSchema};
use crate::stamp::Stamp;
use crate::value::Value;

mod exact;
mod history;
mod order;
mod rows;
mod schema;

pub use exact::*;
pub use history::*;
pub use order::*;
pub use rows::*;
pub use schema::*;

/// A backend under test, empty at first, which outlives the adapters opened on it.
#[async_trait]
pub trait Backend: Send + Sync {
    /// An adapter on this backend, as a process that has just started would open it.
    async fn open(&self) -> Box<dyn Adapter>;

    /// Whether the adapters keep a history.
    fn keeps_history(&self) -> bool {
        true
    }
}

/// Declares one test per clause. `$start` is an `async fn` that yields an empty [`Backend`].
#[macro_export]
macro_rules! adapter_conformance {
    ($start:path) => {
        $crate::adapter_conformance!(
            $start,
            a_batch_written_again_changes_nothing,
            a_batch_that_overlaps_is_written_from_the_watermark_on,
            a_batch_beyond_the_watermark_is_refused,
            a_refused_batch_leaves_no_trace,
            what_was_written_is_there_after_a_restart,
            logs_have_watermarks_of_their_own,
            positions_without_commits_move_the_watermark,
            joined_rows_merge_and_move_no_watermark,
            rows_are_found_by_their_ids,
            rows_that_have_not_changed_are_forgotten,
            overwritten_rows_are_what_was_given,
            what_people_see_is_told,
            after_a_fence_nothing_ahead_of_it_happens,
            rows_are_the_merge_of_what_was_written,
            a_deleted_row_returns_with_what_was_written_since,
            values_come_back_as_they_were,
            what_a_backend_cannot_hold_stops_nothing,
            legal_names_are_only_names,
            ten_thousand_rows_fit_one_commit,
            a_history_tells_each_change_once,
            a_part_of_a_commit_keeps_its_places,
            what_was_recorded_is_written_all_the_same,
            columns_are_added_and_rows_stay,
            what_was_written_before_a_type_was_widened_fits,
            the_schema_is_told,
            a_schema_that_does_not_fit_is_refused,
            what_was_not_prepared_is_refused,
            joined_rows_that_do_not_fit_are_refused,
            a_working_backend_is_healthy,
        );
    };
    ($start:path, $($check:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $check() {
            let backend = $start().await;
            $crate::adapter::conformance::$check(&backend).await;
        }
    )+};
}

const LOG: LogId = LogId([1; 16]);

/// An adapter whose backend has the table `todos` with some text columns.
async fn opened(backend: &dyn Backend) -> Box<dyn Adapter> {
    let adapter = backend.open().await;
    adapter.prepare(&todos(1, &["title", "done"])).await.expect("prepare");
    adapter
}

fn todos(version: u32, columns: &[&str]) -> Schema {
    let columns: Vec<_> = columns.iter().map(|name| (*name, ColumnType::String)).collect();
    Schema::from_stored([table("todos", version, &columns)])
}

fn table(name: &str, version: u32, columns: &[(&str, ColumnType)]) -> TableSchema {
    let column = |(field_id, (name, kind)): (u32, &(&str, ColumnType))| Column {
        name: name.parse().expect("a legal name"),
        kind: *kind,
        field_id,
    };
    TableSchema {
        table: name.parse().expect("a legal name"),
        version,
        key: "id".parse().expect("a legal name"),
        columns: (1..).zip(columns).map(column).collect(),
        primary_key: Vec::new(),
    }
}

fn upsert(table: &str, row_id: &str, hlc: u64, cells: &[(&str, Value)]) -> Delta {
    let cell = |(column, value): &(&str, Value)| Cell {
        column: column.parse().expect("a legal name"),
        value: value.clone(),
    };
    Delta {
        table: table.parse().expect("a legal name"),
        row_id: row_id.parse().expect("a legal id"),
        stamp: Stamp { hlc: Hlc(hlc), client: "ann".parse().expect("a legal id") },
        op: Op::Upsert(cells.iter().map(cell).collect()),
    }
}

/// A batch of one commit.
fn batch(position: u64, deltas: Vec<Delta>) -> Batch {
    stretch(LOG, position, position, vec![(position, deltas)])
}

fn stretch(log: LogId, first: u64, last: u64, commits: Vec<(u64, Vec<Delta>)>) -> Batch {
    let commit = |(at, deltas)| Commit { position: Position(at), deltas };
    let commits = commits.into_iter().map(commit).collect();
    Batch::new(log, Position(first), Position(last), commits).expect("a legal batch")
}

async fn write(adapter: &dyn Adapter, batch: &Batch) {
    adapter.write(batch).await.expect("write");
}

async fn watermark(adapter: &dyn Adapter) -> Position {
    adapter.watermark(LOG).await.expect("watermark")
}

/// All rows of a table, read a few at a time.
async fn all(adapter: &dyn Adapter, table: &str, limit: usize) -> Vec<(RowId, Row)> {
    let table: TableName = table.parse().expect("a legal name");
    let mut all: Vec<(RowId, Row)> = Vec::new();
    loop {
        let after = all.last().map(|(row_id, _)| row_id.clone());
        let page = adapter.rows(&table, after.as_ref(), limit).await.expect("rows");
        assert!(page.len() <= limit, "{} rows where {limit} were asked for", page.len());
        if page.is_empty() {
            return all;
        }
        for (row_id, row) in page {
            // A page that does not move on would go round for ever.
            let last = all.last().map(|(last, _)| last);
            assert!(last < Some(&row_id), "row id {row_id:?} follows {last:?}");
            all.push((row_id, row));
        }
    }
}

/// The rows of `todos` as an application sees them.
async fn shown(adapter: &dyn Adapter) -> Vec<String> {
    let rows = all(adapter, "todos", 3).await;
    rows.iter().map(|(_, row)| crate::testing::shown(row)).collect()
}

//! The smallest replica there can be: rows, and where the next pull begins.

use std::collections::BTreeMap;
use std::fmt;

use lakesync::delta::Delta;
use lakesync::name::{RowId, TableName};
use lakesync::proto::v1::TableChanges;
use lakesync::row::{Row, StampedCell};
use lakesync::stamp::Stamp;
use lakesync::value::Value;
use lakesync::wire::{self, Incoming};
use tonic::Status;

use super::Client;

/// A replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    rows: BTreeMap<(TableName, RowId), Row>,
    pub(crate) cursor: String,
}

/// The rows that exist: what has to be the same everywhere. Of a delete before that, a replica which
/// began with a checkpoint need not know.
#[derive(PartialEq)]
pub(crate) struct Live(BTreeMap<(TableName, RowId), (Vec<StampedCell>, Option<Stamp>)>);

impl Replica {
    /// A replica that took a checkpoint, then pulled.
    pub(crate) async fn by_checkpoint(client: &Client) -> Result<Self, Status> {
        let checkpoint = client.checkpoint().await?;
        let mut replica = Self::default();
        replica.apply(checkpoint.tables());
        replica.cursor = checkpoint.end.expect("an end").cursor;
        replica.pull(client).await?;
        Ok(replica)
    }

    /// A replica that pulled everything from the beginning.
    pub(crate) async fn by_pull(client: &Client) -> Result<Self, Status> {
        let mut replica = Self::default();
        replica.pull(client).await?;
        Ok(replica)
    }

    /// A replica that holds these rows of `table` as well.
    pub(crate) fn with_rows(mut self, table: &str, rows: Vec<(RowId, Row)>) -> Self {
        let table: TableName = table.parse().expect("a table");
        self.rows.extend(rows.into_iter().map(|(row_id, row)| ((table.clone(), row_id), row)));
        self
    }

    /// What anybody who has seen exactly these changes must hold.
    pub(crate) fn of<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> Self {
        let mut replica = Self::default();
        for delta in deltas {
            let key = (delta.table.clone(), delta.row_id.clone());
            replica.rows.entry(key).or_default().merge(delta);
        }
        replica
    }

    /// Pulls up to the head.
    pub(crate) async fn pull(&mut self, client: &Client) -> Result<(), Status> {
        let pulled = client.pull(&self.cursor).await?;
        self.apply(pulled.tables());
        self.cursor = pulled.caught_up.expect("the head was reached").cursor;
        Ok(())
    }

    pub(crate) fn apply(&mut self, tables: Vec<TableChanges>) {
        for arrival in wire::decode_changes(tables).expect("changes that can be understood") {
            let Incoming::Join(part) = arrival.what else { panic!("nothing leaves without rules") };
            self.rows.entry((arrival.table, arrival.row_id)).or_default().join(&part);
        }
    }

    /// The rows that exist.
    pub(crate) fn live(&self) -> Live {
        let live = self.rows.iter().filter(|(_, row)| row.is_live());
        let seen = |row: &Row| (row.cells().to_vec(), row.written().cloned());
        Live(live.map(|(key, row)| (key.clone(), seen(row))).collect())
    }

    /// The rows of a table that exist.
    pub(crate) fn rows_of(&self, table: &str) -> impl Iterator<Item = (&RowId, &Row)> {
        let live =
            self.rows.iter().filter(move |((of, _), row)| of.as_str() == table && row.is_live());
        live.map(|((_, row_id), row)| (row_id, row))
    }

    /// What an application reads in a row's column, if the row exists and has it.
    pub(crate) fn text(&self, row: &str, column: &str) -> Option<String> {
        let (table, id) = row.split_once('/').expect("table/id");
        let key = (table.parse().expect("a table"), id.parse().expect("a row id"));
        let row = self.rows.get(&key).filter(|row| row.is_live())?;
        match &row.cell(&column.parse().expect("a column"))?.value {
            Value::String(text) => Some(text.clone()),
            other => Some(format!("{other:?}")),
        }
    }
}

impl Live {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A line a row, long values cut.
impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((table, row_id), (cells, _)) in &self.0 {
            write!(f, "\n  {table}/{row_id}:")?;
            for cell in cells {
                let value: String = format!("{:?}", cell.value).chars().take(40).collect();
                write!(f, " {}={value}@{:?}{}", cell.column, cell.stamp.hlc, cell.stamp.client)?;
            }
        }
        Ok(())
    }
}

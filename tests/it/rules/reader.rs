//! A reader that looks at every byte it is sent.

use std::collections::{BTreeMap, BTreeSet};

use lakesync::name::{RowId, TableName};
use lakesync::proto::v1::checkpoint_response::Event as CheckpointEvent;
use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{
    ChangeKind, CheckpointRequest, PullRequest, PullResponse, TableChanges, value,
};
use lakesync::row::Row;
use lakesync::wire::{self, Incoming};
use serde_json::{Map, Value as Json};
use tonic::{Code, Status, Streaming};

use super::oracle::{Name, Seen, seen};
use crate::harness::{Client, within};

/// What a token could have seen since it is what it is: every row that was in its scope at a commit,
/// with every value that the row had then.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    rows: BTreeSet<Name>,
    values: BTreeSet<(Name, usize, String)>,
    /// The rows that are in its scope now.
    now: BTreeSet<Name>,
}

impl Allowed {
    /// Takes in what is in scope after a commit.
    pub(crate) fn extend(&mut self, rows: &BTreeMap<Name, Seen>) {
        for (name, values) in rows {
            self.rows.insert(name.clone());
            for (at, value) in values.iter().enumerate() {
                let value = value.iter().map(|value| (name.clone(), at, value.clone()));
                self.values.extend(value);
            }
        }
        self.now = rows.keys().cloned().collect();
    }

    /// Whether something was ever in scope that is not so now.
    fn knew(&self, name: &Name) -> bool {
        self.rows.contains(name)
    }
}

/// A replica, and what it may be told.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    rows: BTreeMap<(TableName, RowId), Row>,
    pub(crate) cursor: String,
    /// What it may be told under each token since it last synced, the current one last; nothing is
    /// looked at without rules. Where the cursor is still good, the scope is the same as under an
    /// earlier one, and so what that was allowed counts as well.
    pub(crate) epochs: Vec<(Map<String, Json>, Allowed)>,
    /// Whether what arrives may have been sent before the newest commit: a page that was sent when a
    /// row was in scope may be taken after it left.
    pub(crate) following: bool,
    /// Rows that were spared by a checkpoint, because they were here.
    pub(crate) spared: usize,
    /// How often it began anew.
    pub(crate) begun_anew: u64,
}

impl Reader {
    /// Another token is shown.
    pub(crate) fn begin_anew(&mut self, claims: &Map<String, Json>) {
        self.epochs.push((claims.clone(), Allowed::default()));
    }

    /// Pulls to the head, by a checkpoint where the cursor is good no longer.
    pub(crate) async fn sync(&mut self, client: &Client) -> Result<(), String> {
        loop {
            let expired = match self.pull(client).await {
                Ok(leak) => return leak,
                Err(status) => status,
            };
            assert_eq!(expired.code(), Code::OutOfRange, "{expired:?}");
            // Rules may change again meanwhile.
            match self.checkpoint(client).await {
                Ok(leak) => leak?,
                Err(status) => assert_eq!(status.code(), Code::OutOfRange, "{status:?}"),
            }
        }
    }

    async fn pull(&mut self, client: &Client) -> Result<Result<(), String>, Status> {
        let cursor = self.cursor.clone();
        let pulled = client.pull_with(PullRequest { cursor, ..PullRequest::default() }).await?;
        for page in &pulled.pages {
            if let Err(leak) = self.take(page.tables.clone()) {
                return Ok(Err(leak));
            }
        }
        pulled.cursor("").clone_into(&mut self.cursor);
        self.forget_earlier();
        Ok(Ok(()))
    }

    fn forget_earlier(&mut self) {
        let current = self.epochs.len().saturating_sub(1);
        self.epochs.drain(..current);
    }

    /// Takes what a checkpoint brings in place of what is here, once all of it has come.
    async fn checkpoint(&mut self, client: &Client) -> Result<Result<(), String>, Status> {
        let held = std::mem::take(&mut self.rows);
        let taken = self.take_checkpoint(client, &held).await;
        if taken.is_err() {
            self.rows = held;
        }
        taken
    }

    async fn take_checkpoint(
        &mut self,
        client: &Client,
        held: &BTreeMap<(TableName, RowId), Row>,
    ) -> Result<Result<(), String>, Status> {
        let (gateway, since) = (client.gateway.clone(), self.cursor.clone());
        let request = CheckpointRequest { gateway, since, ..CheckpointRequest::default() };
        let mut stream = within(client.sync.clone().checkpoint(request)).await?.into_inner();
        self.begun_anew += 1;
        self.forget_earlier();
        while let Some(answer) = within(stream.message()).await? {
            match answer.event.expect("an event") {
                CheckpointEvent::Chunk(chunk) => {
                    let rows = chunk.rows.expect("rows");
                    let taken = self.spare(held, &rows);
                    if let Err(leak) = taken.and_then(|()| self.take(vec![rows])) {
                        return Ok(Err(leak));
                    }
                }
                CheckpointEvent::End(end) => {
                    assert!(end.complete, "rows that were not sent are to go");
                    self.cursor = end.cursor;
                }
            }
        }
        Ok(Ok(()))
    }

    /// Keeps rows that are said to be here.
    fn spare(
        &mut self,
        held: &BTreeMap<(TableName, RowId), Row>,
        rows: &TableChanges,
    ) -> Result<(), String> {
        let unchanged = |kind: i32| kind == i32::from(ChangeKind::Unchanged);
        for change in rows.rows.iter().filter(|change| unchanged(change.kind)) {
            let key = (rows.table.parse().expect("a table"), change.row_id.parse().expect("an id"));
            let row = held.get(&key).ok_or_else(|| format!("{key:?} was said to be here"))?;
            self.rows.insert(key, row.clone());
            self.spared += 1;
        }
        Ok(())
    }

    /// What a follower is sent.
    pub(crate) async fn take_next(
        &mut self,
        stream: &mut Streaming<PullResponse>,
    ) -> Result<Result<(), String>, Status> {
        let Some(answer) = within(stream.message()).await? else {
            return Err(Status::unavailable("it ended"));
        };
        Ok(match answer.event.expect("an event") {
            Event::Page(page) => {
                self.cursor = page.cursor;
                self.take(page.tables)
            }
            Event::CaughtUp(caught_up) => {
                self.cursor = caught_up.cursor;
                Ok(())
            }
            Event::Heartbeat(_) => Ok(()),
        })
    }

    /// Applies what was sent, and looks at all of it.
    pub(crate) fn take(&mut self, tables: Vec<TableChanges>) -> Result<(), String> {
        self.inspect(&tables)?;
        for arrival in wire::decode_changes(tables).expect("changes that can be understood") {
            let key = (arrival.table, arrival.row_id);
            match arrival.what {
                Incoming::Join(part) => _ = self.rows.entry(key).or_default().join(&part),
                Incoming::ScopeExit => _ = self.rows.remove(&key),
                Incoming::Unchanged => {}
            }
        }
        Ok(())
    }

    /// Finds a row or a value that this reader should not have been sent.
    fn inspect(&self, tables: &[TableChanges]) -> Result<(), String> {
        let Some((_, allowed)) = self.epochs.last() else { return Ok(()) };
        for table in tables {
            for change in &table.rows {
                let name = (table.table.clone(), change.row_id.clone());
                let ends = matches!(change.kind(), ChangeKind::ScopeExit | ChangeKind::Delete);
                if !self.epochs.iter().any(|(_, allowed)| allowed.knew(&name)) {
                    return Err(format!("{:?} of {name:?}, which it never saw", change.kind()));
                }
                if !ends && !self.following && !allowed.now.contains(&name) {
                    return Err(format!("{:?} of {name:?}, which is out of scope", change.kind()));
                }
                for cell in &change.cells {
                    let column = &table.columns[cell.column as usize];
                    let columns = super::oracle::columns(&table.table);
                    let at = columns.iter().position(|(name, _)| name == column);
                    let at = at.unwrap_or_else(|| panic!("no column {column}"));
                    let text = match cell.value.clone().and_then(|value| value.kind) {
                        Some(value::Kind::StringValue(text)) => text,
                        Some(value::Kind::Int64Value(number)) => number.to_string(),
                        Some(value::Kind::BoolValue(truth)) => i64::from(truth).to_string(),
                        _ => continue,
                    };
                    let told = (name.clone(), at, text);
                    if !self.epochs.iter().any(|(_, allowed)| allowed.values.contains(&told)) {
                        return Err(format!("{told:?}, which was never in its scope"));
                    }
                }
            }
        }
        Ok(())
    }

    /// All rows, with their tables and ids.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, &str, &Row)> {
        self.rows.iter().map(|((table, id), row)| (table.as_str(), id.as_str(), row))
    }

    /// What an application reads here.
    pub(crate) fn seen(&self) -> BTreeMap<Name, Seen> {
        let live = self.rows.iter().filter(|(_, row)| row.is_live());
        let name = |table: &TableName, id: &RowId| (table.to_string(), id.to_string());
        live.map(|((table, id), row)| (name(table, id), seen(table.as_str(), row))).collect()
    }
}

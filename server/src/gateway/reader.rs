//! Pulls: the commits after a cursor in pages, then what is new as it happens.
//!
//! Whatever a page carries is durable. Its cursor moves past every commit looked at, whether or not
//! it held anything for this reader, so nothing is skipped and nothing is sent twice.

use std::collections::HashSet;
use std::sync::Arc;

use lakesync::limits::PAGE_BYTES_TARGET;
use lakesync::name::{ClientId, Position, TableName};
use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{CaughtUp, Heartbeat, Page, PullResponse, TableChanges};
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::commit::{self, Commit};
use super::cursor::{Cursor, CursorError, Selection};
use super::followers::Head;
use super::out::{Answers, Out, Stopped};
use super::{Gateway, ReadError};
use crate::store::StoreError;

/// What a reader asks for.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Who reads.
    pub client: Option<ClientId>,
    /// Where it stands; empty is the beginning.
    pub cursor: String,
    /// Which tables it wants; empty is all.
    pub tables: Vec<TableName>,
    /// Whether to stay and see new commits.
    pub follow: bool,
    /// After about how many rows to end; zero is no bound.
    pub rows_max: u32,
    /// Positions that the reader pushed itself, and so holds.
    pub skip: HashSet<Position>,
}

impl Gateway {
    /// Streams what follows the cursor. A bad cursor is refused before the stream begins.
    pub async fn pull(
        &self,
        options: PullOptions,
        stopped: Stopped,
    ) -> Result<Answers<PullResponse>, ReadError> {
        let selection = Selection::of(&options.tables);
        let at = self.start(&options.cursor, selection).await?;
        let started = self.0.tail.head()?;
        let head = self.0.tail.subscribe();
        let (out, answers) = Out::new(self, stopped);
        let gateway = self.clone();
        let spoke = Instant::now();
        let reader = Reader { gateway, options, selection, at, started, rows: 0, spoke, out };
        tokio::spawn(reader.run(head));
        Ok(answers)
    }

    async fn start(&self, cursor: &str, selection: Selection) -> Result<Position, ReadError> {
        let at = if cursor.is_empty() {
            Position::START
        } else {
            let cursor = Cursor::decode(cursor)?;
            cursor.check(self.0.record.log_id, selection)?;
            cursor.position
        };
        self.check_held(at).await?;
        Ok(at)
    }

    /// Refuses a position whose successors the log no longer holds, or never gave out.
    pub(super) async fn check_held(&self, at: Position) -> Result<(), ReadError> {
        if at < self.0.store.trimmed(self.0.record.id).await? {
            let gone = "commits after the cursor are no longer kept";
            return Err(CursorError::Expired(gone).into());
        }
        if self.0.tail.head()? < at {
            // Only another life of the log can have given it out.
            return Err(CursorError::OtherLog.into());
        }
        Ok(())
    }
}

/// One pull under way.
struct Reader {
    gateway: Gateway,
    options: PullOptions,
    selection: Selection,
    at: Position,
    /// The head when the pull began: later commits of the same client are left out.
    started: Position,
    rows: usize,
    /// When something was last sent.
    spoke: Instant,
    out: Out<PullResponse>,
}

impl Reader {
    async fn run(mut self, mut head: watch::Receiver<Head>) {
        if let Err(error) = self.read(&mut head).await {
            self.out.end(error);
        }
    }

    async fn read(&mut self, head: &mut watch::Receiver<Head>) -> Result<(), ReadError> {
        loop {
            let durable = head.borrow_and_update().clone()?;
            while self.at < durable {
                if !self.send_page(durable).await? || self.is_full() {
                    return Ok(());
                }
            }
            if !self.send_caught_up().await? || !self.options.follow {
                return Ok(());
            }
            if !self.await_more(head).await? {
                return Ok(());
            }
        }
    }

    fn is_full(&self) -> bool {
        0 < self.options.rows_max && self.options.rows_max as usize <= self.rows
    }

    /// Sends one page, if the commits it covers hold anything for this reader. False if the reader
    /// has gone.
    async fn send_page(&mut self, durable: Position) -> Result<bool, ReadError> {
        let Some(commits) = self.out.unless_ended(self.next(durable)).await? else {
            return Ok(false);
        };
        let mut tables = Vec::new();
        let mut bytes = 0;
        for commit in commits? {
            let changes = self.wanted(&commit)?;
            let more = changes.iter().map(Message::encoded_len).sum::<usize>();
            if 0 < bytes && PAGE_BYTES_TARGET < bytes + more {
                break;
            }
            bytes += more;
            self.at = commit.position;
            self.rows += changes.iter().map(|table| table.rows.len()).sum::<usize>();
            tables.extend(changes);
            if PAGE_BYTES_TARGET <= bytes || self.is_full() {
                break;
            }
        }
        if tables.is_empty() {
            // A long walk past other readers' commits is no silence.
            let heartbeat = self.gateway.0.settings.heartbeat;
            return if heartbeat <= self.spoke.elapsed() {
                self.send_heartbeat().await
            } else {
                Ok(true)
            };
        }
        let page = Page { tables, cursor: self.cursor(), position: self.at.0 };
        self.spoke = Instant::now();
        self.out.send(PullResponse { event: Some(Event::Page(page)) }).await
    }

    async fn next(&self, durable: Position) -> Result<Vec<Arc<Commit>>, ReadError> {
        let inner = &self.gateway.0;
        if let Some(recent) = inner.tail.after(self.at, PAGE_BYTES_TARGET) {
            return Ok(recent);
        }
        let stored = inner.store.log(inner.record.id, self.at, PAGE_BYTES_TARGET).await?;
        // Asked afterwards, so that a trim under way can't leave a silent gap.
        self.gateway.check_held(self.at).await?;
        let commit = |entry: crate::store::LogEntry| Commit {
            position: entry.position,
            bytes: entry.commit,
        };
        let shown = stored.into_iter().filter(|entry| entry.position <= durable);
        let commits: Vec<_> = shown.map(|entry| Arc::new(commit(entry))).collect();
        if commits.is_empty() {
            let gap = format!("the log ends after {} and its head is {durable}", self.at);
            return Err(StoreError::Corrupt(gap).into());
        }
        Ok(commits)
    }

    /// What of a commit this reader is to have.
    fn wanted(&self, commit: &Commit) -> Result<Vec<TableChanges>, ReadError> {
        if self.options.skip.contains(&commit.position) {
            return Ok(Vec::new());
        }
        let mut tables = commit::decode(&commit.bytes)?;
        let own = |client: &ClientId| commit::is_by(&tables, client);
        let during = self.options.follow && self.started < commit.position;
        if during && self.options.client.as_ref().is_some_and(own) {
            return Ok(Vec::new());
        }
        let narrowed = &self.options.tables;
        if !narrowed.is_empty() {
            tables.retain(|table| narrowed.iter().any(|name| name.as_str() == table.table));
        }
        Ok(tables)
    }

    async fn send_caught_up(&self) -> Result<bool, ReadError> {
        let (cursor, position) = (self.cursor(), self.at.0);
        let caught_up = CaughtUp { cursor, position, server_hlc: self.gateway.hlc().0 };
        self.out.send(PullResponse { event: Some(Event::CaughtUp(caught_up)) }).await
    }

    /// Waits for the head to move, with heartbeats meanwhile. False if the reader has gone.
    async fn await_more(&mut self, head: &mut watch::Receiver<Head>) -> Result<bool, ReadError> {
        let heartbeat = self.gateway.0.settings.heartbeat;
        loop {
            match timeout(heartbeat, self.out.unless_ended(head.changed())).await {
                // A gateway that closed has no more to tell; its readers resume at the next.
                Ok(moved) => return Ok(moved?.is_some_and(|moved| moved.is_ok())),
                Err(_) if self.send_heartbeat().await? => {}
                Err(_) => return Ok(false),
            }
        }
    }

    async fn send_heartbeat(&mut self) -> Result<bool, ReadError> {
        self.spoke = Instant::now();
        let (cursor, server_hlc) = (self.cursor(), self.gateway.hlc().0);
        let token_expires = Some(self.out.expires_at());
        let heartbeat = Heartbeat { cursor, server_hlc, token_expires };
        self.out.send(PullResponse { event: Some(Event::Heartbeat(heartbeat)) }).await
    }

    fn cursor(&self) -> String {
        let (log_id, position) = (self.gateway.0.record.log_id, self.at);
        Cursor { log_id, position, tables: self.selection }.encode()
    }
}

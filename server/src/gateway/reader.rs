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

use super::allowance::Stream;
use super::commit::{self, Chain, Commit};
use super::cursor::{Cursor, Seal, View};
use super::followers::{Head, Tail, Watch};
use super::holds::Hold;
use super::lens::{Caller, Lens};
use super::out::{Answers, Out, Stopped};
use super::permit::Permit;
use super::scoped::{self, Piece};
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
        caller: &Caller,
        options: PullOptions,
        stopped: Stopped,
    ) -> Result<Answers<PullResponse>, ReadError> {
        let (lens, now) = self.standing(caller, &options.tables)?;
        let stand = self.start(&options.cursor, &now).await?;
        let place = self.place(caller)?;
        let started = now.position;
        let alarm = Alarm::of(&self.0.tail, lens.as_ref());
        let permit = Permit::new(self, caller, now.view.generation);
        let (out, answers) = Out::new(self, permit, stopped);
        let (gateway, caller) = (self.clone(), caller.clone());
        let spoke = Instant::now();
        let hold = self.0.holds.take(stand.position);
        let reader = Reader {
            _place: place,
            hold,
            gateway,
            caller,
            lens,
            options,
            stand,
            passed: None,
            seal: self.seal(),
            started,
            rows: 0,
            spoke,
            out,
        };
        tokio::spawn(reader.run(alarm));
        Ok(answers)
    }
}

/// One pull under way.
pub(super) struct Reader {
    _place: Stream,
    hold: Hold,
    pub(super) gateway: Gateway,
    caller: Caller,
    /// What the reader may see; everything without rules.
    lens: Option<Lens>,
    pub(super) options: PullOptions,
    /// How far the reader has come.
    stand: Cursor,
    /// The last commit that was gathered, and the chain at it.
    passed: Option<(Position, Chain)>,
    seal: Seal,
    /// The head when the pull began: later commits of the same client are left out.
    started: Position,
    rows: usize,
    /// When something was last sent.
    spoke: Instant,
    out: Out<PullResponse>,
}

/// What wakes a follower: any commit, or those that concern it.
enum Alarm {
    Head(watch::Receiver<Head>),
    Bell(Watch),
}

impl Alarm {
    fn of(tail: &Arc<Tail>, lens: Option<&Lens>) -> Self {
        match lens {
            None => Self::Head(tail.subscribe()),
            Some(lens) => Self::Bell(tail.watch(lens.scope.instances().collect())),
        }
    }

    /// Resolves when there may be more; false if there never will be.
    async fn rung(&mut self) -> bool {
        match self {
            // A gateway that closed has no more to tell; its readers resume at the next.
            Self::Head(head) => head.changed().await.is_ok(),
            Self::Bell(watch) => {
                watch.rung().await;
                true
            }
        }
    }

    /// Marks the head as seen.
    fn seen(&mut self) {
        if let Self::Head(head) = self {
            head.mark_unchanged();
        }
    }
}

impl Reader {
    async fn run(mut self, mut alarm: Alarm) {
        if let Err(error) = self.read(&mut alarm).await {
            self.out.end(error);
        }
    }

    async fn read(&mut self, alarm: &mut Alarm) -> Result<(), ReadError> {
        loop {
            if !self.catch_up(alarm).await? || self.is_full() {
                return Ok(());
            }
            if !self.send_caught_up().await? || !self.options.follow {
                return Ok(());
            }
            if !self.await_more(alarm).await? {
                return Ok(());
            }
        }
    }

    /// Sends what there is up to the head, or as much as was asked for. False if the reader has gone.
    async fn catch_up(&mut self, alarm: &mut Alarm) -> Result<bool, ReadError> {
        alarm.seen();
        let durable = self.gateway.0.tail.head()?;
        self.look_again()?;
        while self.stand.position < durable && !self.is_full() {
            if !self.send_page(durable).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes over what the same rules mean where tables have changed since: it may be more than the
    /// cursor was made for. Of other rules the permit tells.
    fn look_again(&mut self) -> Result<(), ReadError> {
        let index = self.gateway.0.in_force.borrow().index.clone();
        if let (Some(lens), Some(index)) = (&self.lens, index)
            && lens.index.generation == index.generation
            && !Arc::ptr_eq(&lens.index, &index)
        {
            let lens = Lens::of(Some(&index), &self.caller)?;
            self.stand.check(&Cursor { view: View::of(lens.as_ref()), ..self.stand.clone() })?;
            self.lens = lens;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        0 < self.options.rows_max && self.options.rows_max as usize <= self.rows
    }

    /// Sends one page, if the commits it covers hold anything for this reader. False if the reader
    /// has gone.
    async fn send_page(&mut self, durable: Position) -> Result<bool, ReadError> {
        let pieces = match self.lens.clone() {
            None => match self.out.unless_ended(self.gather(durable)).await? {
                Some(Ok((pieces, passed))) => {
                    self.passed = passed;
                    Some(Ok(pieces))
                }
                Some(Err(error)) => Some(Err(error)),
                None => None,
            },
            Some(lens) => self.out.unless_ended(scoped::gather(self, &lens, durable)).await?,
        };
        let Some(pieces) = pieces else { return Ok(false) };
        for Piece { tables, named, at } in pieces? {
            let mut left = named.as_slice();
            while !left.is_empty() {
                let lens = self.lens.clone().expect("BUG: rows are named within a scope only");
                let looked_up = scoped::look_up(&self.gateway, &lens, &mut left);
                let Some(tables) = self.out.unless_ended(looked_up).await? else {
                    return Ok(false);
                };
                for tables in tables? {
                    if !self.send_tables(vec![tables], self.stand.position).await? {
                        return Ok(false);
                    }
                }
            }
            if !self.send_tables(tables, at).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends what brings the reader to `at`. False if the reader has gone.
    async fn send_tables(
        &mut self,
        tables: Vec<TableChanges>,
        at: Position,
    ) -> Result<bool, ReadError> {
        if at != self.stand.position {
            let passed = self.passed.take().filter(|(position, _)| *position == at);
            self.stand.chain = match passed {
                Some((_, chain)) => chain,
                None => self.gateway.chain(at).await?,
            };
            self.stand.position = at;
        }
        self.hold.move_to(at);
        self.rows += tables.iter().map(|table| table.rows.len()).sum::<usize>();
        if tables.is_empty() {
            // A long walk past other readers' commits is no silence.
            let heartbeat = self.gateway.0.settings.heartbeat;
            return if heartbeat <= self.spoke.elapsed() {
                self.send_heartbeat().await
            } else {
                Ok(true)
            };
        }
        let cursor = self.stand.encode(&self.seal);
        let page = Page { tables, cursor, position: at.0, continues: false };
        self.spoke = Instant::now();
        self.out.send(PullResponse { event: Some(Event::Page(page)) }).await
    }

    /// The next page without rules, and the last commit of it with the chain at that.
    async fn gather(
        &self,
        durable: Position,
    ) -> Result<(Vec<Piece>, Option<(Position, Chain)>), ReadError> {
        let (mut tables, mut bytes, mut at) = (Vec::new(), 0, self.stand.position);
        let (mut rows, mut passed) = (self.rows, None);
        for commit in self.next(durable).await? {
            let changes = self.wanted(&commit)?;
            let more = changes.iter().map(Message::encoded_len).sum::<usize>();
            if 0 < bytes && PAGE_BYTES_TARGET < bytes + more {
                break;
            }
            bytes += more;
            at = commit.position;
            passed = Some((at, commit.chain));
            rows += changes.iter().map(|table| table.rows.len()).sum::<usize>();
            tables.extend(changes);
            let full = 0 < self.options.rows_max && self.options.rows_max as usize <= rows;
            if PAGE_BYTES_TARGET <= bytes || full {
                break;
            }
        }
        Ok((vec![Piece { tables, named: Vec::new(), at }], passed))
    }

    async fn next(&self, durable: Position) -> Result<Vec<Arc<Commit>>, ReadError> {
        let (inner, at) = (&self.gateway.0, self.stand.position);
        if let Some(recent) = inner.tail.after(at, PAGE_BYTES_TARGET) {
            return Ok(recent);
        }
        let stored = inner.store.log(inner.record.id, at, PAGE_BYTES_TARGET).await?;
        // Asked afterwards, so that a trim under way can't leave a silent gap.
        self.gateway.check_held(at)?;
        let commit =
            |entry: crate::store::LogEntry| Commit::new(entry.position, entry.commit, Vec::new());
        let shown = stored.into_iter().filter(|entry| entry.position <= durable);
        let commits: Vec<_> = shown.map(|entry| Arc::new(commit(entry))).collect();
        if commits.is_empty() {
            let gap = format!("the log ends after {at} and its head is {durable}");
            return Err(StoreError::Corrupt(gap).into());
        }
        Ok(commits)
    }

    /// What of a commit this reader is to have.
    fn wanted(&self, commit: &Commit) -> Result<Vec<TableChanges>, ReadError> {
        let mut tables = commit::decode(&commit.bytes)?;
        if self.is_skipped(commit.position, |client| commit::is_by(&tables, client))
            || self.is_own(commit.position, |client| commit::is_by(&tables, client))
        {
            return Ok(Vec::new());
        }
        self.narrow(&mut tables);
        Ok(tables)
    }

    /// Where the reader stands.
    pub(super) fn at(&self) -> Position {
        self.stand.position
    }

    /// Whether the reader's own client pushed a commit while the stream lasts, and so holds it.
    pub(super) fn is_own(&self, position: Position, is_by: impl FnOnce(&ClientId) -> bool) -> bool {
        let during = self.options.follow && self.started < position;
        during && self.options.client.as_ref().is_some_and(is_by)
    }

    /// Whether the reader says that it pushed a commit, and so holds it. Where it says who it is, the
    /// commit must be its own: in another past of the log it may be anybody's.
    pub(super) fn is_skipped(
        &self,
        position: Position,
        is_by: impl FnOnce(&ClientId) -> bool,
    ) -> bool {
        self.options.skip.contains(&position) && self.options.client.as_ref().is_none_or(is_by)
    }

    /// Leaves only tables that the reader asked for.
    pub(super) fn narrow(&self, tables: &mut Vec<TableChanges>) {
        let narrowed = &self.options.tables;
        if !narrowed.is_empty() {
            tables.retain(|table| narrowed.iter().any(|name| name.as_str() == table.table));
        }
    }

    async fn send_caught_up(&self) -> Result<bool, ReadError> {
        let (cursor, position) = (self.stand.encode(&self.seal), self.stand.position.0);
        let caught_up = CaughtUp { cursor, position, server_hlc: self.gateway.hlc().0 };
        self.out.send(PullResponse { event: Some(Event::CaughtUp(caught_up)) }).await
    }

    /// Waits until there may be more, with heartbeats meanwhile. False if the reader has gone.
    async fn await_more(&mut self, alarm: &mut Alarm) -> Result<bool, ReadError> {
        let heartbeat = self.gateway.0.settings.heartbeat;
        loop {
            match timeout(heartbeat, self.out.unless_ended(alarm.rung())).await {
                Ok(more) => return Ok(more?.unwrap_or(false)),
                // Commits that hold nothing for this reader woke nobody: it moves past them now.
                Err(_) if self.catch_up(alarm).await? && self.send_heartbeat().await? => {}
                Err(_) => return Ok(false),
            }
        }
    }

    async fn send_heartbeat(&mut self) -> Result<bool, ReadError> {
        self.spoke = Instant::now();
        let (cursor, server_hlc) = (self.stand.encode(&self.seal), self.gateway.hlc().0);
        let token_expires = Some(self.out.expires_at());
        let heartbeat = Heartbeat { cursor, server_hlc, token_expires };
        self.out.send(PullResponse { event: Some(Event::Heartbeat(heartbeat)) }).await
    }
}

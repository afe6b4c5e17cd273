//! Pulls: the commits after a cursor in pages, then what is new as it happens.
//!
//! Whatever a page carries is durable. Its cursor moves past every commit looked at, whether or not
//! it held anything for this reader, so nothing is skipped and nothing is sent twice. Of a commit that
//! takes several pages only the last moves the cursor.

use std::sync::Arc;

use lakesync::name::Position;
use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{CaughtUp, Heartbeat, Page, PullResponse, TableChanges};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::cursor::{Cursor, Seal, View};
use super::draft::{Batch, Draft, Drafts, Part, keep_rest};
use super::flight::Kept;
use super::followers::{Head, Tail, Watch};
use super::holds::Hold;
use super::judge::judge;
use super::lens::{Caller, Lens};
use super::out::{Answers, Out, Room, Stopped};
use super::permit::Permit;
use super::stand::{PullOptions, Stand};
use super::{Gateway, ReadError, plain, scoped};

impl Gateway {
    /// Streams what follows the cursor. A bad cursor is refused before the stream begins.
    pub async fn pull(
        &self,
        caller: &Caller,
        options: PullOptions,
        stopped: Stopped,
    ) -> Result<Answers<PullResponse>, ReadError> {
        let (lens, now) = self.standing(caller, &options.tables)?;
        let cursor = self.start(&options.cursor, &now).await?;
        let place = self.place(caller)?;
        let started = now.position;
        let alarm = Alarm::of(&self.0.tail, lens.as_ref());
        let permit = Permit::new(self, caller, now.view.generation);
        let (mut out, answers) = Out::new(self, permit, place, stopped);
        if lens.is_some() {
            out.read_nothing_ahead();
        }
        let (gateway, caller) = (self.clone(), caller.clone());
        let hold = self.0.holds.take(cursor.position);
        let reader = Reader {
            stand: Stand { gateway, lens, options, cursor, started },
            hold,
            caller,
            seal: self.seal(),
            rows: 0,
            spoke: Instant::now(),
            drafts: Drafts::new(),
            kept: None,
            part: None,
            continues: false,
            out,
        };
        tokio::spawn(reader.run(alarm));
        Ok(answers)
    }
}

/// One pull under way.
struct Reader {
    stand: Stand,
    hold: Hold,
    caller: Caller,
    seal: Seal,
    rows: usize,
    /// When something was last sent.
    spoke: Instant,
    /// The rest of a commit that takes several pages, and the room that it takes.
    drafts: Drafts,
    kept: Option<Kept>,
    /// What was sent of such a commit, where there was no room to keep the rest.
    part: Option<Part>,
    /// Whether the last page that was sent goes on in the next.
    continues: bool,
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
            if !self.send_caught_up().await? || !self.stand.options.follow {
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
        let durable = self.stand.gateway.0.tail.head()?;
        self.look_again()?;
        while self.stand.at() < durable && (self.part.is_some() || !self.is_full()) {
            if !self.send_page(durable).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes over what the same rules mean where tables have changed since: it may be more than the
    /// cursor was made for. Of other rules the permit tells.
    fn look_again(&mut self) -> Result<(), ReadError> {
        let stand = &mut self.stand;
        let index = stand.gateway.0.in_force.borrow().index.clone();
        if let (Some(lens), Some(index)) = (&stand.lens, index)
            && lens.index.generation == index.generation
            && !Arc::ptr_eq(&lens.index, &index)
        {
            let lens = Lens::of(Some(&index), &self.caller)?;
            stand
                .cursor
                .check(&Cursor { view: View::of(lens.as_ref()), ..stand.cursor.clone() })?;
            stand.lens = lens;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows_left() == 0
    }

    fn rows_left(&self) -> usize {
        match self.stand.options.rows_max as usize {
            0 => usize::MAX,
            rows_max => rows_max.saturating_sub(self.rows),
        }
    }

    /// Sends one page, if the commits it covers hold anything for this reader. False if the reader
    /// has gone.
    async fn send_page(&mut self, durable: Position) -> Result<bool, ReadError> {
        let Some(mut room) = self.room().await? else { return Ok(false) };
        if self.drafts.is_empty() {
            let Some(gathered) = self.out.unless_ended(self.gather(durable)).await? else {
                return Ok(false);
            };
            self.drafts = gathered?;
            self.kept = keep_rest(&mut self.drafts, &self.stand.gateway.0.flight);
        }
        let mut draft = self.drafts.pop_front().expect("BUG: there is always something to gather");
        loop {
            let work = judge(&self.stand, &mut draft);
            let work = self.stand.gateway.0.flight.in_turn(work);
            let Some(judged) = self.out.unless_ended(work).await? else { return Ok(false) };
            let mut messages = judged?.into_iter().peekable();
            loop {
                let message = messages.next().unwrap_or_default();
                let is_last = messages.peek().is_none() && draft.is_over();
                if is_last {
                    let reached = self.out.unless_ended(self.reached(&draft)).await?;
                    let Some(reached) = reached else { return Ok(false) };
                    self.send_tables(room, message, &draft, reached?, draft.continues);
                    return self.break_silence().await;
                }
                self.send_tables(room, message, &draft, self.stand.cursor.clone(), true);
                let Some(more) = self.room().await? else { return Ok(false) };
                room = more;
                if messages.peek().is_none() {
                    break;
                }
            }
        }
    }

    /// Waits until a page may be read. `None` if the reader has gone.
    async fn room(&self) -> Result<Option<Room>, ReadError> {
        self.out.room(self.stand.page_bytes()).await
    }

    /// What is sent next.
    async fn gather(&self, durable: Position) -> Result<Drafts, ReadError> {
        let stand = &self.stand;
        let batch = Batch::begin(stand, self.rows_left(), self.part.as_ref());
        let flight = &stand.gateway.0.flight;
        match &stand.lens {
            None => flight.in_turn(plain::gather(stand, batch, durable)).await,
            Some(lens) => flight.in_turn(scoped::gather(stand, batch, lens, durable)).await,
        }
    }

    /// Where the reader stands once it has all of a draft.
    async fn reached(&self, draft: &Draft) -> Result<Cursor, ReadError> {
        let now = self.stand.cursor.clone();
        if draft.continues || draft.at == now.position {
            return Ok(now);
        }
        let chain = match draft.chain {
            Some(chain) => chain,
            None => self.stand.gateway.chain(draft.at).await?,
        };
        Ok(Cursor { position: draft.at, chain, ..now })
    }

    /// Sends one message of a draft, unless there is nothing to tell, and moves on to `reached`.
    fn send_tables(
        &mut self,
        room: Room,
        tables: Vec<TableChanges>,
        draft: &Draft,
        reached: Cursor,
        continues: bool,
    ) {
        self.stand.cursor = reached;
        self.hold.move_to(self.stand.at());
        if !continues {
            (self.part, self.kept) = (None, None);
        } else if draft.is_over() {
            self.part = draft.last.clone().map(|last| (draft.at, last));
        }
        // What was begun is ended, be it by an empty page: the reader waits for the last.
        if tables.is_empty() && (continues || !self.continues) {
            return;
        }
        self.rows += tables.iter().map(|table| table.rows.len()).sum::<usize>();
        let cursor = self.stand.cursor.encode(&self.seal);
        let page = Page { tables, cursor, position: draft.at.0, continues };
        self.continues = continues;
        self.spoke = Instant::now();
        self.out.put(room, PullResponse { event: Some(Event::Page(page)) });
    }

    /// A long walk past other readers' commits is no silence. False if the reader has gone.
    async fn break_silence(&mut self) -> Result<bool, ReadError> {
        let heartbeat = self.stand.gateway.0.settings.heartbeat;
        if self.continues || self.spoke.elapsed() < heartbeat {
            return Ok(true);
        }
        self.send_heartbeat().await
    }

    async fn send_caught_up(&self) -> Result<bool, ReadError> {
        let (cursor, position) = (self.stand.cursor.encode(&self.seal), self.stand.at().0);
        let caught_up = CaughtUp { cursor, position, server_hlc: self.stand.gateway.hlc().0 };
        self.out.send(PullResponse { event: Some(Event::CaughtUp(caught_up)) }).await
    }

    /// Waits until there may be more, with heartbeats meanwhile. False if the reader has gone.
    async fn await_more(&mut self, alarm: &mut Alarm) -> Result<bool, ReadError> {
        let heartbeat = self.stand.gateway.0.settings.heartbeat;
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
        let (cursor, server_hlc) =
            (self.stand.cursor.encode(&self.seal), self.stand.gateway.hlc().0);
        let token_expires = Some(self.out.expires_at());
        let heartbeat = Heartbeat { cursor, server_hlc, token_expires };
        self.out.send(PullResponse { event: Some(Event::Heartbeat(heartbeat)) }).await
    }
}

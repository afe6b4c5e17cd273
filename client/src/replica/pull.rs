//! Taking what others wrote: pages and checkpoints, each applied in a transaction together with
//! where to go on, so that a broken stream is resumed and nothing is skipped.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lakesync::error::ErrorKind;
use lakesync::hlc::Hlc;
use lakesync::name::Position;
use lakesync::status::Problem;
use tokio::time::Instant;

use super::error::broken;
use super::{Core, Round, SyncError};
use crate::db::Ended;
use crate::event::Event;
use crate::status::Phase;
use crate::transport::{Checkpoint, CheckpointEvent, Chunk, Page, Pull, PullEvent, unless_silent};

/// Times a pull is begun again within a round, after a checkpoint or a new schema.
const ATTEMPTS_MAX: u32 = 3;

impl Core {
    /// Applies everything committed by now, `own` commits left out. Takes a checkpoint first where
    /// there is no cursor, one that can't be continued, or a commit too large to be held. One that was
    /// begun is ended first: its resume token tells, too, if the log was replaced meanwhile.
    pub(super) async fn pull_to_head(
        &self,
        own: &[Position],
        round: &mut Round,
    ) -> Result<(), SyncError> {
        let mut attempt = 1;
        loop {
            let cursor = self.db.cursor().await?;
            let pulled = if cursor.is_empty() {
                let replaced = self.was_replaced().await?;
                self.checkpoint("", replaced, round).await
            } else if self.db.is_in_checkpoint().await? {
                self.checkpoint(&cursor, false, round).await
            } else {
                match self.pull_from(&cursor, own, round).await {
                    Err(error) if error.is_expired() => {
                        self.checkpoint(&cursor, error.is_replaced(), round).await
                    }
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                }
            };
            match pulled {
                Err(error) if error.is_stale_schema() && attempt < ATTEMPTS_MAX => {
                    self.refresh_schema().await?;
                }
                Ok(()) if attempt < ATTEMPTS_MAX => {}
                Ok(()) => {
                    return Err(broken(
                        "every cursor of the gateway is followed by another checkpoint",
                    ));
                }
                Err(error) => return Err(error),
            }
            attempt += 1;
        }
    }

    async fn pull_from(
        &self,
        cursor: &str,
        own: &[Position],
        round: &mut Round,
    ) -> Result<(), SyncError> {
        self.board.enter(Phase::Pulling);
        let mut events = self.transport.pull(self.pull(cursor, own, false)).await?;
        while let Some((event, waited)) = self.timed(&mut events).await? {
            match event {
                PullEvent::Page(page) => {
                    self.sizing.received(page.bytes, waited);
                    round.pulled += self.apply_page(page).await?;
                }
                PullEvent::CaughtUp { cursor, position, server_hlc } => {
                    return self.caught_up(&cursor, position, Some(server_hlc)).await;
                }
                PullEvent::Heartbeat { .. } => {}
            }
        }
        Err(broken("the pull ended before it had caught up"))
    }

    /// What to pull.
    pub(super) fn pull<'a>(
        &'a self,
        cursor: &'a str,
        skip: &'a [Position],
        follow: bool,
    ) -> Pull<'a> {
        let (gateway, client) = (&self.gateway, self.db.client_id());
        let bytes_max = self.sizing.page_bytes();
        // What is followed is small, most often, and a server compresses for each follower.
        let compress = !follow || self.sizing.is_slow();
        Pull { gateway, client, cursor, follow, skip, bytes_max, compress }
    }

    /// Applies a page. How many changes it held.
    pub(super) async fn apply_page(&self, page: Page) -> Result<usize, SyncError> {
        self.keep_up(&page.shapes).await?;
        let rows = page.arrivals.len();
        let applied = self.db.apply_page(page.arrivals, &page.cursor).await?;
        self.tell_applied(applied).await?;
        self.received(rows, page.bytes);
        self.board.reach(page.position);
        Ok(rows)
    }

    /// Notes that everything up to `position` has arrived.
    pub(super) async fn caught_up(
        &self,
        cursor: &str,
        position: Position,
        server_hlc: Option<Hlc>,
    ) -> Result<(), SyncError> {
        self.move_cursor(cursor).await?;
        if let Some(server_hlc) = server_hlc {
            self.observe(server_hlc).await?;
        }
        self.board.reach(position);
        let now_ms = self.config.clock.now_ms();
        self.board.note(|status| status.caught_up_ms = Some(now_ms));
        Ok(())
    }

    /// Moves past commits that hold nothing for this replica. Most often the last page has.
    pub(super) async fn move_cursor(&self, cursor: &str) -> Result<(), SyncError> {
        if !cursor.is_empty() && cursor != self.db.cursor().await? {
            self.db.apply_page(Vec::new(), cursor).await?;
        }
        Ok(())
    }

    /// Whether the log that was read before a checkpoint was asked for here is no more. Only its
    /// cursor can tell.
    async fn was_replaced(&self) -> Result<bool, SyncError> {
        let cursor = self.db.last_cursor().await?;
        if cursor.is_empty() {
            return Ok(false);
        }
        let heard = match self.transport.pull(self.pull(&cursor, &[], false)).await {
            Ok(mut events) => self.heard(&mut events).await.map(|_| ()),
            Err(problem) => Err(problem.into()),
        };
        match heard {
            Err(error) if error.is_expired() => Ok(error.is_replaced()),
            outcome => outcome.map(|()| false),
        }
    }

    /// Receives every row. One that was interrupted is resumed, as long as the server can. If the
    /// log was `replaced`, what it lacks of what is known here is queued again.
    async fn checkpoint(
        &self,
        since: &str,
        replaced: bool,
        round: &mut Round,
    ) -> Result<(), SyncError> {
        self.board.enter(Phase::Checkpoint);
        round.checkpoint = true;
        let offline_max = self.offline_max();
        let resume = self.db.begin_checkpoint(replaced.then_some(offline_max)).await?;
        match self.receive(&resume, since, round).await {
            Err(error) if error.is_not_held() => {
                self.db.abandon_checkpoint().await?;
                let resume = self.db.begin_checkpoint(replaced.then_some(offline_max)).await?;
                self.receive(&resume, "", round).await
            }
            Err(error) if !resume.is_empty() && can_not_resume(&error) => {
                self.db.abandon_checkpoint().await?;
                let replaced = replaced || error.is_replaced();
                let resume = self.db.begin_checkpoint(replaced.then_some(offline_max)).await?;
                self.receive(&resume, since, round).await
            }
            outcome => outcome,
        }
    }

    async fn receive(&self, resume: &str, since: &str, round: &mut Round) -> Result<(), SyncError> {
        let (gateway, bytes_max) = (&self.gateway, self.sizing.page_bytes());
        let checkpoint = Checkpoint { gateway, resume, since, bytes_max };
        let mut events = self.transport.checkpoint(checkpoint).await?;
        while let Some((event, waited)) = self.timed(&mut events).await? {
            match event {
                CheckpointEvent::Chunk(chunk) => {
                    self.sizing.received(chunk.bytes, waited);
                    round.pulled += self.apply_chunk(chunk).await?;
                }
                CheckpointEvent::End { cursor, complete, .. } => {
                    let ended = self.db.end_checkpoint(&cursor, complete).await?;
                    let Ended { applied, removed, restored } = ended;
                    self.tell_applied(applied).await?;
                    round.removed += removed;
                    round.restored += restored;
                    self.bell.tell(Event::CheckpointEnded { removed, restored });
                    return Ok(());
                }
            }
        }
        Err(broken("the checkpoint ended before its last row"))
    }

    async fn apply_chunk(&self, chunk: Chunk) -> Result<usize, SyncError> {
        self.keep_up(&chunk.shapes).await?;
        let rows = chunk.arrivals.len();
        let applied = self.db.apply_chunk(chunk.arrivals, &chunk.resume).await?;
        self.tell_applied(applied).await?;
        self.received(rows, chunk.bytes);
        self.bell.tell(Event::CheckpointProgress { done: chunk.done, total: chunk.total });
        Ok(rows)
    }

    /// The next event of a stream, however long it takes while bytes move. One that falls silent is
    /// given up.
    pub(super) async fn heard<E>(
        &self,
        events: &mut BoxStream<'static, Result<E, Problem>>,
    ) -> Result<Option<E>, SyncError> {
        let bytes_moved = || self.transport.bytes_moved();
        let heard = match unless_silent(self.silence_max(), bytes_moved, events.next()).await {
            Ok(event) => event.transpose().map_err(SyncError::from),
            Err(_) => Err(broken("the server has been silent for three heartbeats")),
        };
        if heard.as_ref().is_err_and(SyncError::is_of_the_line) {
            self.sizing.stream_failed();
        }
        heard
    }

    /// The next event, and how long it was waited for.
    async fn timed<E>(
        &self,
        events: &mut BoxStream<'static, Result<E, Problem>>,
    ) -> Result<Option<(E, Duration)>, SyncError> {
        let began = Instant::now();
        Ok(self.heard(events).await?.map(|event| (event, began.elapsed())))
    }

    fn received(&self, rows: usize, bytes: u64) {
        self.board.note(|status| {
            status.traffic.down_rows += rows as u64;
            status.traffic.down_bytes += bytes;
        });
    }
}

/// A resume token that another life of the log has given is malformed or expired to this one.
fn can_not_resume(error: &SyncError) -> bool {
    let kind = error.problem().map(|problem| problem.kind);
    matches!(kind, Some(ErrorKind::Expired | ErrorKind::Invalid))
}

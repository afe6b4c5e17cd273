//! Staying in step: commits are applied as they happen, local changes sent as they are noticed.
//!
//! A fault ends the stream, never the follower: it waits, with growing pauses, and catches up.
//! Uploads and downloads do not wait for each other: a push that fails is tried again by itself.

use std::convert::Infallible;
use std::pin::pin;

use futures_util::FutureExt;
use futures_util::future::{Fuse, FusedFuture};
use lakesync::name::Position;
use lakesync::status::Problem;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::time::Instant;

use super::desk::Request;
use super::error::broken;
use super::pull::heard_by;
use super::{Core, Round, SyncError};
use crate::backoff::{Backoff, Failure, Pace};
use crate::status::Phase;
use crate::transport::{PullEvent, PullStream};

type Requests = Receiver<Request>;

/// Why the replica is out of step.
struct Setback {
    failure: Failure,
    words: String,
}

impl<E: Into<SyncError>> From<E> for Setback {
    fn from(error: E) -> Self {
        let error = error.into();
        Self { failure: error.failure(), words: error.to_string() }
    }
}

impl Core {
    /// Stays in step until `shutdown`.
    pub(super) async fn follow(&self, shutdown: impl Future<Output = ()>) {
        let following = async {
            let mut seat = self.desk.sit_down().await;
            self.keep_in_step(&mut seat.requests).await
        };
        tokio::select! {
            biased;
            () = shutdown => {}
            never = following => match never {},
        }
        self.board.enter(Phase::Idle);
    }

    async fn keep_in_step(&self, requests: &mut Requests) -> Infallible {
        let mut backoff = Backoff::new(self.config.pace);
        loop {
            let Err(setback) = self.stay_in_step(requests, &mut backoff).await;
            let wait = backoff.after(&setback.failure, (self.config.random)());
            let wait_ms = wait.as_millis();
            self.forget_server();
            match setback.failure {
                Failure::NeedsPerson => tracing::error!(error = setback.words, wait_ms, "sync"),
                _ => tracing::warn!(error = setback.words, wait_ms, "out of step"),
            }
            self.board.note(|status| {
                status.phase = Phase::Waiting;
                status.last_error = Some(setback.words);
            });
            // Somebody who asks for a round does not wait for the pause to end.
            tokio::select! {
                biased;
                Some(request) = requests.recv() => self.serve(request).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Catches up, then follows the log until something fails.
    async fn stay_in_step(
        &self,
        requests: &mut Requests,
        backoff: &mut Backoff,
    ) -> Result<Infallible, Setback> {
        let changes = self.pulse.subscribe();
        self.catch_up(&mut Round::default()).await?;
        let cursor = self.db.cursor().await?;
        let events = self.transport.pull(self.pull(&cursor, &[], true)).await.map_err(lost)?;
        backoff.reset();
        self.board.note(|status| {
            status.phase = Phase::Following;
            status.last_error = None;
        });
        self.attend(events, changes, requests).await
    }

    async fn attend(
        &self,
        mut events: PullStream,
        mut changes: watch::Receiver<u64>,
        requests: &mut Requests,
    ) -> Result<Infallible, Setback> {
        let mut deadline = Instant::now() + self.silence_max();
        let mut uploads = Uploads::new(self.config.pace);
        let mut sending = pin!(Fuse::terminated());
        loop {
            if sending.is_terminated() && uploads.begin() {
                sending.set(self.send_pending().fuse());
            }
            tokio::select! {
                biased;
                sent = &mut sending, if !sending.is_terminated() => self.sent(sent, &mut uploads),
                event = heard_by(&mut events, deadline) => {
                    let event = event.map_err(passing)?;
                    self.take(event, sending.is_terminated()).await?;
                    deadline = Instant::now() + self.silence_max();
                }
                _ = changes.changed() => uploads.dirty = true,
                () = uploads.pause() => uploads.resume(),
                Some(request) = requests.recv() => {
                    if !sending.is_terminated() {
                        let sent = (&mut sending).await;
                        self.sent(sent, &mut uploads);
                    }
                    self.serve(request).await;
                    uploads.resume();
                    self.board.enter(Phase::Following);
                }
            }
        }
    }

    /// Notes how an upload ended. One that failed is tried again after a pause of its own.
    fn sent(&self, sent: Result<(), SyncError>, uploads: &mut Uploads) {
        let Err(error) = sent else {
            uploads.backoff.reset();
            return self.board.note(|status| status.last_error = None);
        };
        let wait = uploads.backoff.after(&error.failure(), (self.config.random)());
        uploads.paused_until = Some(Instant::now() + wait);
        tracing::warn!(%error, wait_ms = wait.as_millis(), "changes could not be sent");
        self.board.note(|status| {
            status.phase = Phase::Following;
            status.last_error = Some(error.to_string());
        });
    }

    /// Takes one event of the followed log. `quiet` says that no push is under way.
    async fn take(&self, event: Option<PullEvent>, quiet: bool) -> Result<(), SyncError> {
        match event {
            None => Err(broken("the gateway ended the stream")),
            Some(PullEvent::Page(page)) => self.apply_page(page).await.map(|_| ()),
            Some(PullEvent::CaughtUp { cursor, position, server_hlc }) => {
                self.caught_up(&cursor, position, quiet.then_some(server_hlc)).await
            }
            Some(PullEvent::Heartbeat { cursor, server_hlc }) => {
                if 0 < self.board.read().parked {
                    self.retry_parked().await?;
                }
                let server_hlc = quiet.then_some(server_hlc);
                self.caught_up(&cursor, Position::START, server_hlc).await
            }
        }
    }

    async fn send_pending(&self) -> Result<(), SyncError> {
        if self.has_pending().await? {
            self.push_all(&mut Round::default()).await?;
            self.board.enter(Phase::Following);
        }
        Ok(())
    }

    /// Runs a round for somebody who asked, and who is told if it fails.
    async fn serve(&self, request: Request) {
        let outcome = self.round().await;
        // Whoever asked may have left; the round was worth it all the same.
        let _ = request.send(outcome);
    }
}

/// When local changes are sent.
struct Uploads {
    /// Whether there may be some.
    dirty: bool,
    backoff: Backoff,
    paused_until: Option<Instant>,
}

impl Uploads {
    /// Edits may have been made before anybody looked.
    fn new(pace: Pace) -> Self {
        Self { dirty: true, backoff: Backoff::new(pace), paused_until: None }
    }

    /// Whether to send now.
    fn begin(&mut self) -> bool {
        self.paused_until.is_none() && std::mem::take(&mut self.dirty)
    }

    /// Done when the pause is over; without one, never.
    async fn pause(&self) {
        match self.paused_until {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn resume(&mut self) {
        self.paused_until = None;
        self.dirty = true;
    }
}

/// A stream that ends with the token's life, or with a cursor's, began with good ones: the round
/// that follows gets new ones, or is refused in its turn.
fn passing(error: SyncError) -> Setback {
    let mut setback = Setback::from(error);
    setback.failure = match setback.failure {
        Failure::NeedsPerson => Failure::Passing,
        failure => failure,
    };
    setback
}

fn lost(problem: Problem) -> Setback {
    SyncError::from(problem).into()
}

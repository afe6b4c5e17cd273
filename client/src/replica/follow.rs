//! Staying in step: commits are applied as they happen, local changes sent as they are noticed.
//!
//! A fault ends the stream, never the follower: it waits, with growing pauses, and catches up.
//! Uploads and downloads do not wait for each other: a push that fails is tried again by itself.

use std::convert::Infallible;

use lakesync::error::Reason;
use lakesync::name::Position;
use lakesync::status::Problem;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::desk::Request;
use super::error::broken;
use super::{Core, Round, SyncError};
use crate::backoff::{Backoff, Failure, Pace};
use crate::status::Phase;
use crate::transport::{PullEvent, PullStream};

type Requests = Receiver<Request>;

/// Why the replica is out of step.
struct Setback {
    failure: Failure,
    words: String,
    /// Whether the token ran out.
    is_expiry: bool,
}

impl<E: Into<SyncError>> From<E> for Setback {
    fn from(error: E) -> Self {
        let error = error.into();
        let reason = error.problem().and_then(|problem| problem.reason);
        let is_expiry = reason == Some(Reason::TokenExpired);
        Self { failure: error.failure(), words: error.to_string(), is_expiry }
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
        self.board.note(|status| {
            status.phase = Phase::Idle;
            status.following = false;
        });
    }

    async fn keep_in_step(&self, requests: &mut Requests) -> Infallible {
        let mut backoff = Backoff::new(self.config.pace);
        let mut uploads = Uploads::new(self.config.pace);
        loop {
            let Err(setback) = self.stay_in_step(requests, &mut backoff, &mut uploads).await;
            let wait = backoff.after(&setback.failure, (self.config.random)());
            let wait_ms = wait.as_millis();
            self.forget_server();
            match setback.failure {
                Failure::NeedsPerson => tracing::error!(error = setback.words, wait_ms, "sync"),
                _ => tracing::warn!(error = setback.words, wait_ms, "out of step"),
            }
            self.board.note(|status| {
                status.phase = Phase::Waiting;
                status.following = false;
                status.last_error = Some(setback.words);
            });
            // Somebody who asks for a round does not wait for the pause to end.
            tokio::select! {
                biased;
                Some(request) = requests.recv() => {
                    self.serve(request).await;
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Catches up, then follows the log until something fails.
    async fn stay_in_step(
        &self,
        requests: &mut Requests,
        backoff: &mut Backoff,
        uploads: &mut Uploads,
    ) -> Result<Infallible, Setback> {
        let changes = self.pulse.subscribe();
        self.catch_up(&mut Round::default()).await?;
        let cursor = self.db.cursor().await?;
        let events = self.transport.pull(self.pull(&cursor, &[], true)).await.map_err(lost)?;
        let (before, began) = (*backoff, Instant::now());
        backoff.reset();
        self.board.note(|status| {
            status.phase = Phase::Following;
            status.following = true;
            status.last_error = None;
        });
        let ended = self.attend(events, changes, requests, uploads).await;
        // A token that ends streams as soon as they begin would have this replica reconnect at once,
        // again and again.
        let is_expiry = ended.as_ref().is_err_and(|setback| setback.is_expiry);
        if is_expiry && began.elapsed() < self.config.pace.slow {
            *backoff = before;
        }
        ended
    }

    /// Both directions at once. The database is shared: neither may wait for it while the other,
    /// holding it, is not run.
    async fn attend(
        &self,
        events: PullStream,
        changes: watch::Receiver<u64>,
        requests: &mut Requests,
        uploads: &mut Uploads,
    ) -> Result<Infallible, Setback> {
        let stamping = Mutex::default();
        tokio::select! {
            biased;
            setback = self.download(events, &stamping) => setback,
            setback = self.upload(changes, requests, uploads, &stamping) => setback,
        }
    }

    async fn download(
        &self,
        mut events: PullStream,
        stamping: &Mutex<()>,
    ) -> Result<Infallible, Setback> {
        loop {
            let event = self.heard(&mut events).await.map_err(passing)?;
            self.take(event, stamping).await?;
        }
    }

    async fn upload(
        &self,
        mut changes: watch::Receiver<u64>,
        requests: &mut Requests,
        uploads: &mut Uploads,
        stamping: &Mutex<()>,
    ) -> Result<Infallible, Setback> {
        // Edits may have been made before anybody looked.
        uploads.resume();
        loop {
            if uploads.begin() {
                let _stamped = stamping.lock().await;
                let sent = self.send_pending(&mut uploads.ahead).await;
                self.sent(sent, uploads);
            }
            tokio::select! {
                biased;
                _ = changes.changed() => uploads.dirty = true,
                () = uploads.pause() => uploads.resume(),
                Some(request) = requests.recv() => {
                    let _stamped = stamping.lock().await;
                    if self.serve(request).await {
                        return Err(broken("the stream is of before the checkpoint").into());
                    }
                    uploads.resume();
                    self.board.enter(Phase::Following);
                }
            }
        }
    }

    /// Notes how an upload ended. One that failed is tried again after a pause of its own. Changes
    /// whose stamps stay ahead of the server's clock wait by themselves: later ones are sent.
    fn sent(&self, sent: Result<(), SyncError>, uploads: &mut Uploads) {
        let Err(error) = sent else {
            uploads.backoff.reset();
            return self.board.note(|status| status.last_error = None);
        };
        let until =
            Instant::now() + uploads.backoff.after(&error.failure(), (self.config.random)());
        if matches!(error, SyncError::Drift { .. }) {
            uploads.backoff.reset();
            uploads.ahead_until.get_or_insert(until);
        } else {
            uploads.paused_until = Some(until);
            let wait_ms = until.duration_since(Instant::now()).as_millis();
            tracing::warn!(%error, wait_ms, "changes could not be sent");
        }
        self.board.note(|status| {
            status.phase = Phase::Following;
            status.last_error = Some(error.to_string());
        });
    }

    /// Takes one event of the followed log. While a push is under way, what it holds must not be
    /// stamped again: the clock is corrected by its answer instead.
    async fn take(&self, event: Option<PullEvent>, stamping: &Mutex<()>) -> Result<(), SyncError> {
        match event {
            None => Err(broken("the gateway ended the stream")),
            Some(PullEvent::Page(page)) => self.apply_page(page).await.map(|_| ()),
            Some(PullEvent::CaughtUp { cursor, position, server_hlc }) => {
                let stamped = stamping.try_lock();
                let server_hlc = stamped.is_ok().then_some(server_hlc);
                self.caught_up(&cursor, position, server_hlc).await
            }
            Some(PullEvent::Heartbeat { cursor, server_hlc }) => {
                if 0 < self.board.read().parked {
                    self.retry_parked().await?;
                }
                let stamped = stamping.try_lock();
                let server_hlc = stamped.is_ok().then_some(server_hlc);
                self.caught_up(&cursor, Position::START, server_hlc).await
            }
        }
    }

    async fn send_pending(&self, ahead: &mut Vec<i64>) -> Result<(), SyncError> {
        if self.has_pending().await? {
            self.push_all(ahead, &mut Round::default()).await?;
            self.board.enter(Phase::Following);
            if !ahead.is_empty() {
                return Err(SyncError::Drift { changes: ahead.len() });
            }
        }
        Ok(())
    }

    /// Runs a round for somebody who asked, and who is told if it fails. Whether it took a
    /// checkpoint.
    async fn serve(&self, request: Request) -> bool {
        let outcome = self.round().await;
        let checkpoint = outcome.as_ref().is_ok_and(|round| round.checkpoint);
        // Whoever asked may have left; the round was worth it all the same.
        let _ = request.send(outcome);
        checkpoint
    }
}

/// When local changes are sent.
struct Uploads {
    /// Whether there may be some.
    dirty: bool,
    backoff: Backoff,
    paused_until: Option<Instant>,
    /// The numbers, in order, of changes that stay ahead of the server's clock.
    ahead: Vec<i64>,
    /// When they are tried again.
    ahead_until: Option<Instant>,
}

impl Uploads {
    fn new(pace: Pace) -> Self {
        Self {
            dirty: true,
            backoff: Backoff::new(pace),
            paused_until: None,
            ahead: Vec::new(),
            ahead_until: None,
        }
    }

    /// Whether to send now.
    fn begin(&mut self) -> bool {
        if self.ahead_until.is_some_and(|at| at <= Instant::now()) {
            self.ahead_until = None;
            self.ahead.clear();
        }
        self.paused_until.is_none() && std::mem::take(&mut self.dirty)
    }

    /// Done when the pause is over, or what is ahead is tried again; without either, never.
    async fn pause(&self) {
        match self.paused_until.or(self.ahead_until) {
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

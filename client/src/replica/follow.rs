//! Staying in step: commits are applied as they happen, local changes sent as they are noticed.
//!
//! A fault ends the stream, never the follower: it waits, with growing pauses, and begins with a
//! round. Uploads and downloads do not wait for each other.

use std::convert::Infallible;
use std::pin::pin;

use futures_util::future::{Fuse, FusedFuture};
use futures_util::stream::BoxStream;
use futures_util::FutureExt;
use lakesync::error::ErrorKind;
use lakesync::name::Position;
use lakesync::status::Problem;
use tokio::sync::mpsc::Receiver;

use super::desk::Request;
use super::error::broken;
use super::pull::heard;
use super::{Core, Round, SyncError};
use crate::backoff::{Backoff, Failure};
use crate::status::Phase;
use crate::transport::PullEvent;

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
                Some(request) = requests.recv() => {
                    let _ = self.serve(request).await;
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
    ) -> Result<Infallible, Setback> {
        // Before the round, so that no edit falls between the round and the first look.
        let changes = self.pulse.subscribe();
        self.round().await?;
        let cursor = self.db.cursor().await?;
        let events = self.transport.pull(self.pull(&cursor, &[], true)).await.map_err(lost)?;
        backoff.reset();
        self.board.enter(Phase::Following);
        self.attend(events, changes, requests).await
    }

    async fn attend(
        &self,
        mut events: BoxStream<'static, Result<PullEvent, Problem>>,
        mut changes: tokio::sync::watch::Receiver<u64>,
        requests: &mut Requests,
    ) -> Result<Infallible, Setback> {
        let silence_max = self.silence_max();
        let mut sending = pin!(Fuse::terminated());
        let mut dirty = true;
        loop {
            if dirty && sending.is_terminated() {
                dirty = false;
                sending.set(self.send_pending().fuse());
            }
            tokio::select! {
                biased;
                sent = &mut sending, if !sending.is_terminated() => sent?,
                event = heard(&mut events, silence_max) => {
                    let event = event.map_err(passing)?;
                    self.take(event, sending.is_terminated()).await?;
                }
                _ = changes.changed() => dirty = true,
                Some(request) = requests.recv() => {
                    if !sending.is_terminated() {
                        (&mut sending).await?;
                    }
                    self.serve(request).await?;
                    self.board.enter(Phase::Following);
                }
            }
        }
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

    /// Runs a round for somebody who asked.
    async fn serve(&self, request: Request) -> Result<(), Setback> {
        let outcome = self.round().await;
        let failed = outcome.as_ref().err().map(|error| Setback {
            failure: error.failure(),
            words: error.to_string(),
        });
        // Whoever asked may have left; the round was worth it all the same.
        let _ = request.send(outcome);
        failed.map_or(Ok(()), Err)
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

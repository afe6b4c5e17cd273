//! Whose turn it is: one round at a time, and while the replica follows, the follower runs them.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot, watch};

use super::{Core, Round, SyncError};

/// Callers whose rounds may wait for the follower; further ones wait to be let in.
const REQUESTS_MAX: usize = 16;

/// Where a round's outcome is told.
pub(super) type Request = oneshot::Sender<Result<Round, SyncError>>;

/// Decides who runs rounds: whoever has the turn. A follower keeps it, and takes requests.
#[derive(Debug)]
pub(super) struct Desk {
    turn: Arc<Mutex<()>>,
    follower: watch::Sender<Option<mpsc::Sender<Request>>>,
}

/// The follower's seat. Callers run their own rounds again once it is dropped.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    pub(super) requests: mpsc::Receiver<Request>,
    desk: &'a Desk,
    _turn: OwnedMutexGuard<()>,
}

impl Default for Desk {
    fn default() -> Self {
        Self { turn: Arc::default(), follower: watch::Sender::new(None) }
    }
}

impl Desk {
    /// Waits for the turn, and takes callers' requests from then on.
    pub(super) async fn sit_down(&self) -> Seat<'_> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        self.follower.send_replace(Some(sender));
        Seat { requests, desk: self, _turn: turn }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.desk.follower.send_replace(None);
    }
}

impl Core {
    /// Runs a round, or has the follower run one.
    pub(super) async fn sync(&self) -> Result<Round, SyncError> {
        let mut seat = self.desk.follower.subscribe();
        loop {
            let follower = seat.borrow_and_update().clone();
            let Some(follower) = follower else {
                tokio::select! {
                    biased;
                    turn = self.desk.turn.lock() => {
                        let outcome = self.round().await;
                        drop(turn);
                        return outcome;
                    }
                    // A follower took the turn that this caller waited for.
                    _ = seat.changed() => continue,
                }
            };
            let (reply, outcome) = oneshot::channel();
            // A follower that leaves drops its requests: look again who it is now.
            if follower.send(reply).await.is_ok()
                && let Ok(outcome) = outcome.await
            {
                return outcome;
            }
        }
    }
}

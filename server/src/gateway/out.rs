//! A stream of answers to one reader, bounded in memory and in time.
//!
//! It ends with the caller's token, with its permit, with the server, or when the reader takes nothing
//! for too long; why it ended is its last word, whether or not there was room for one. An answer that
//! waits when the permit ends is not sent any more.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use prost_types::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::permit::Permit;
use super::{Gateway, ReadError};
use crate::store::StoreError;

/// How many answers may wait for the reader: enough to overlap reading and sending.
const PENDING_MAX: usize = 2;

/// What ends a stream from outside.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// When the caller's token runs out, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Turns true when the server stops.
    pub shutdown: watch::Receiver<bool>,
}

/// The reading end.
#[derive(Debug)]
pub struct Answers<T> {
    pending: mpsc::Receiver<T>,
    last_word: LastWord,
    permit: Permit,
    ended: bool,
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Out<T> {
    pending: mpsc::Sender<T>,
    last_word: LastWord,
    permit: Permit,
    stopped: Stopped,
    expires: Instant,
    stall_max: Duration,
}

type LastWord = Arc<Mutex<Option<ReadError>>>;

impl<T> Stream for Answers<T> {
    type Item = Result<T, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(answer) = ready!(self.pending.poll_recv(context)) else {
            let last = self.last_word.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Poll::Ready(last.map(Err));
        };
        let permitted = self.permit.check();
        self.ended = permitted.is_err();
        Poll::Ready(Some(permitted.map(|()| answer)))
    }
}

impl<T> Out<T> {
    pub(super) fn new(gateway: &Gateway, permit: Permit, stopped: Stopped) -> (Self, Answers<T>) {
        let (sender, pending) = mpsc::channel(PENDING_MAX);
        let last_word = LastWord::default();
        let left_ms = stopped.expires_ms.saturating_sub(gateway.0.clock.now_ms());
        // A token that outlives the timer's range outlives the connection as well.
        let expires = Instant::now() + Duration::from_millis(left_ms.min(u64::from(u32::MAX)));
        let (waits, reason) = (permit.clone(), Arc::clone(&last_word));
        let answers = Answers { pending, last_word: reason, permit: waits, ended: false };
        let stall_max = gateway.0.settings.stall_max;
        (Self { pending: sender, last_word, permit, stopped, expires, stall_max }, answers)
    }

    /// Sends one answer. False if the reader has gone.
    pub(super) async fn send(&self, answer: T) -> Result<bool, ReadError> {
        match self.unless_ended(timeout(self.stall_max, self.pending.reserve())).await? {
            Some(Ok(Ok(room))) => {
                room.send(answer);
                Ok(true)
            }
            Some(Err(_)) => Err(ReadError::SlowConsumer(self.stall_max)),
            None | Some(Ok(Err(_))) => Ok(false),
        }
    }

    /// Awaits `work`, unless the token, the permit or the server ends first. `None` if the reader has
    /// gone.
    pub(super) async fn unless_ended<F: Future>(
        &self,
        work: F,
    ) -> Result<Option<F::Output>, ReadError> {
        let mut shutdown = self.stopped.shutdown.clone();
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stopping| *stopping) => Err(ReadError::ShuttingDown),
            () = sleep_until(self.expires) => Err(ReadError::TokenExpired),
            error = self.permit.refused() => Err(error),
            () = self.pending.closed() => Ok(None),
            output = work => Ok(Some(output)),
        }
    }

    /// Ends the stream: `error` follows what the reader has yet to take.
    pub(super) fn end(&self, error: ReadError) {
        *self.last_word.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// When the stream will end for want of a fresh token.
    pub(super) fn expires_at(&self) -> Timestamp {
        let ms = i64::try_from(self.stopped.expires_ms).unwrap_or(i64::MAX);
        let nanos = i32::try_from(ms % 1_000 * 1_000_000).expect("BUG: less than a second");
        Timestamp { seconds: ms / 1_000, nanos }
    }
}

impl<T> Drop for Out<T> {
    /// A task that panics must not end its stream as if all had been said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = ReadError::Store(StoreError::Failed("a reader panicked".to_owned()));
            *self.last_word.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}

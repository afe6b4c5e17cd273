//! A stream of answers to one reader, bounded in memory and in time.
//!
//! It ends with the caller's token, with its permit, with the server, or when no byte of what was sent
//! has left for too long. The final item is the error that ended the stream; it is delivered after what
//! the reader has yet to take. An answer that waits when the permit ends is not sent any more.
//!
//! A page is read only once the transport has asked for it, or one page ahead while the process has
//! room for that (see [`flight`](super::flight)). For a reader within a scope nothing is read ahead: what
//! waits was judged already, and may be out of the scope before it leaves.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use prost_types::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::allowance;
use super::flight::{Flight, Kept, Seat};
use super::permit::Permit;
use super::slot::{Giver, Gone, Taker, slot};
use super::{Gateway, ReadError};
use crate::store::StoreError;

/// What ends a stream from outside.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// From when on calls with the caller's token are refused, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Turns true when the server stops.
    pub shutdown: watch::Receiver<bool>,
}

/// When bytes of a stream last left. Whoever sends them on says so.
#[derive(Clone, Debug)]
pub struct Sending(Arc<Moved>);

#[derive(Debug)]
struct Moved {
    began: Instant,
    /// Milliseconds after that.
    last_ms: AtomicU64,
}

impl Sending {
    /// A stream that begins now.
    pub fn begin() -> Self {
        Self(Arc::new(Moved { began: Instant::now(), last_ms: AtomicU64::new(0) }))
    }

    /// Bytes have left.
    pub fn moved(&self) {
        let ms = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_ms.store(ms, Ordering::Relaxed);
    }

    /// When that last was.
    pub fn last(&self) -> Instant {
        self.0.began + Duration::from_millis(self.0.last_ms.load(Ordering::Relaxed))
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Answers<T> {
    taker: Taker<T>,
    permit: Permit,
    sending: Sending,
    ended: bool,
    _place: allowance::Stream,
    _seat: Seat,
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Out<T> {
    giver: Giver<T>,
    flight: Arc<Flight>,
    sending: Sending,
    permit: Permit,
    stopped: Stopped,
    expires: Instant,
    stall_max: Duration,
    reads_ahead: bool,
}

/// That the next answer may be read and put.
#[derive(Debug)]
pub(super) struct Room(Option<Kept>);

impl<T> Answers<T> {
    /// What is to be told whenever bytes of these answers have left.
    pub fn sending(&self) -> Sending {
        self.sending.clone()
    }
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(answer) = ready!(self.taker.poll_take(context)) else { return Poll::Ready(None) };
        self.sending.moved();
        let answer = answer.and_then(|answer| self.permit.check().map(|()| answer));
        self.ended = answer.is_err();
        Poll::Ready(Some(answer))
    }
}

impl<T> Out<T> {
    pub(super) fn new(
        gateway: &Gateway,
        permit: Permit,
        place: allowance::Stream,
        stopped: Stopped,
    ) -> (Self, Answers<T>) {
        let (giver, taker) = slot();
        let left_ms = stopped.expires_ms.saturating_sub(gateway.0.clock.now_ms());
        // A token that outlives the timer's range outlives the connection as well.
        let expires = Instant::now() + Duration::from_millis(left_ms.min(u64::from(u32::MAX)));
        let (flight, sending) = (Arc::clone(&gateway.0.flight), Sending::begin());
        let stall_max = gateway.0.settings.stall_max;
        let answers = Answers {
            taker,
            permit: permit.clone(),
            sending: sending.clone(),
            ended: false,
            _place: place,
            _seat: flight.take_seat(),
        };
        let reads_ahead = true;
        (Self { giver, flight, sending, permit, stopped, expires, stall_max, reads_ahead }, answers)
    }

    /// Reads no page before the transport has asked for it.
    pub(super) fn read_nothing_ahead(&mut self) {
        self.reads_ahead = false;
    }

    /// Waits until another answer of about `page_bytes` may be read. `None` if the reader has gone.
    pub(super) async fn room(&self, page_bytes: usize) -> Result<Option<Room>, ReadError> {
        let may_wait = self.reads_ahead || page_bytes == 0;
        let ahead = may_wait.then(|| self.flight.page_ahead(page_bytes)).flatten();
        let free = self.unless_stalled(self.giver.free(ahead.is_none()));
        match self.unless_ended(free).await? {
            Some(Ok(Ok(()))) => Ok(Some(Room(ahead))),
            Some(Ok(Err(Gone))) | None => Ok(None),
            Some(Err(error)) => {
                // Who takes nothing shall hold nothing.
                self.giver.withdraw();
                Err(error)
            }
        }
    }

    /// Awaits `work`, for as long as bytes leave.
    async fn unless_stalled<F: Future>(&self, work: F) -> Result<F::Output, ReadError> {
        tokio::pin!(work);
        let began = Instant::now();
        loop {
            let deadline = began.max(self.sending.last()) + self.stall_max;
            match timeout_at(deadline, &mut work).await {
                Ok(output) => return Ok(output),
                Err(_) if deadline < began.max(self.sending.last()) + self.stall_max => {}
                Err(_) => return Err(ReadError::SlowConsumer(self.stall_max)),
            }
        }
    }

    /// Sends an answer for which there is room.
    pub(super) fn put(&self, room: Room, answer: T) {
        let Room(kept) = room;
        self.giver.put(answer, kept);
    }

    /// Sends one small answer. False if the reader has gone.
    pub(super) async fn send(&self, answer: T) -> Result<bool, ReadError> {
        let Some(room) = self.room(0).await? else { return Ok(false) };
        self.put(room, answer);
        Ok(true)
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
            () = self.giver.gone() => Ok(None),
            output = work => Ok(Some(output)),
        }
    }

    /// Ends the stream: `error` follows what the reader has yet to take.
    pub(super) fn end(&self, error: ReadError) {
        self.giver.end(error);
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
            self.end(ReadError::Store(StoreError::Failed("a reader panicked".to_owned())));
        }
    }
}

//! The calls of one connection: how many are under way, and how many of them the server works on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// The calls of a connection.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: AtomicUsize,
    /// Calls whose request is there whole, and that have no answer yet. A call may end its request
    /// and its answer at once, on two threads, so that the count is below zero for a moment.
    working: AtomicIsize,
    changed: Notify,
}

/// The request was received whole.
const RECEIVED: u8 = 1;
/// The answer has begun, or never will.
const ANSWERED: u8 = 2;

/// One call, until all who hold it have let go.
#[derive(Debug)]
pub(super) struct Call {
    calls: Arc<Calls>,
    progress: AtomicU8,
}

impl Calls {
    /// Whether any call is under way.
    pub(super) fn any(&self) -> bool {
        self.open.load(Ordering::Acquire) != 0
    }

    /// Whether the server works on any call, rather than wait for the client.
    pub(super) fn any_work(&self) -> bool {
        0 < self.working.load(Ordering::Acquire)
    }

    /// Resolves when something has changed since it was last asked.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn work(&self, change: isize) {
        self.working.fetch_add(change, Ordering::AcqRel);
        self.changed.notify_one();
    }
}

impl Call {
    pub(super) fn begin(calls: &Arc<Calls>) -> Arc<Self> {
        calls.open.fetch_add(1, Ordering::AcqRel);
        calls.changed.notify_one();
        Arc::new(Self { calls: Arc::clone(calls), progress: AtomicU8::new(0) })
    }

    pub(super) fn received(&self) {
        if self.progress.fetch_or(RECEIVED, Ordering::AcqRel) == 0 {
            self.calls.work(1);
        }
    }

    /// The answer begins.
    pub(super) fn answered(&self) {
        if self.progress.fetch_or(ANSWERED, Ordering::AcqRel) == RECEIVED {
            self.calls.work(-1);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.answered();
        self.calls.open.fetch_sub(1, Ordering::AcqRel);
        self.calls.changed.notify_one();
    }
}

/// The body of a request, which says when it was received whole.
#[derive(Debug)]
pub(super) struct Received<B> {
    body: B,
    call: Arc<Call>,
}

impl<B: Body> Received<B> {
    pub(super) fn new(body: B, call: Arc<Call>) -> Self {
        if body.is_end_stream() {
            call.received();
        }
        Self { body, call }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Received<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.call.received();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer. The call is under way until it is dropped.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    _call: Arc<Call>,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, call: Arc<Call>) -> Self {
        Self { body, _call: call }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_worked_on_between_its_request_and_its_answer() {
        let calls = Arc::new(Calls::default());
        let call = Call::begin(&calls);
        assert!(calls.any() && !calls.any_work(), "half a request");
        call.received();
        assert!(calls.any_work());
        call.received();
        call.answered();
        assert!(calls.any() && !calls.any_work(), "the answer is on its way");
        drop(call);
        assert!(!calls.any());
    }

    #[test]
    fn a_call_that_is_dropped_counts_no_longer() {
        let calls = Arc::new(Calls::default());
        let call = Call::begin(&calls);
        call.received();
        drop(call);
        assert!(!calls.any() && !calls.any_work());
        let early = Call::begin(&calls);
        early.answered();
        early.received();
        assert!(!calls.any_work(), "an answer before the request was whole");
    }
}

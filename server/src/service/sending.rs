//! Streams on their way out, in small pieces.
//!
//! The transport takes a piece only as the line takes bytes, and lets go of it once it is written. So
//! the pieces tell when bytes last moved, however large a message is, and the next message is asked for
//! only once the last one has left: a stream never holds more than one in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::Response;
use http_body::{Frame, SizeHint};
use tonic::body::Body;

use crate::gateway::Sending;

/// How large a piece is: at 8 KiB a second it takes two seconds.
const PIECE_BYTES: usize = 16 << 10;
/// How many bytes of pieces the transport may hold.
const PIECES_BYTES_MAX: usize = 128 << 10;
/// Up to this size a message may follow another that has not left yet.
const SMALL_BYTES: usize = 16 << 10;

/// Sends the answers of a stream in pieces. Other answers stay as they are.
pub(super) fn in_pieces(mut answer: Response<Body>) -> Response<Body> {
    match answer.extensions_mut().remove::<Sending>() {
        Some(sending) => answer.map(|body| Body::new(Pieces::of(body, sending))),
        None => answer,
    }
}

/// The answers, of which the transport takes piece by piece.
struct Pieces {
    messages: Body,
    /// What of the last message has yet to be taken, and how large it was.
    rest: Bytes,
    message_bytes: usize,
    taken: Arc<Taken>,
}

/// What the transport took and has not written yet.
struct Taken {
    bytes: AtomicUsize,
    sending: Sending,
    waker: AtomicWaker,
}

/// A piece in the hands of the transport.
struct Piece {
    bytes: Bytes,
    taken: Arc<Taken>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.taken.bytes.fetch_sub(self.bytes.len(), Ordering::AcqRel);
        self.taken.sending.moved();
        self.taken.waker.wake();
    }
}

impl Taken {
    /// Resolves once the transport holds less than `bytes_max`.
    fn poll_below(&self, bytes_max: usize, context: &Context<'_>) -> Poll<()> {
        if self.bytes.load(Ordering::Acquire) < bytes_max {
            return Poll::Ready(());
        }
        self.waker.register(context.waker());
        // Asked again: it may have been written just before.
        match self.bytes.load(Ordering::Acquire) < bytes_max {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Pieces {
    fn of(messages: Body, sending: Sending) -> Self {
        let (bytes, waker) = (AtomicUsize::new(0), AtomicWaker::new());
        let taken = Arc::new(Taken { bytes, sending, waker });
        Self { messages, rest: Bytes::new(), message_bytes: 0, taken }
    }

    fn piece(&mut self) -> Bytes {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        self.taken.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        Bytes::from_owner(Piece { bytes, taken: Arc::clone(&self.taken) })
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        loop {
            let is_small = self.message_bytes <= SMALL_BYTES;
            let held_max = if !self.rest.is_empty() || is_small { PIECES_BYTES_MAX } else { 1 };
            ready!(self.taken.poll_below(held_max, context));
            if !self.rest.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(self.piece()))));
            }
            let frame = match ready!(Pin::new(&mut self.messages).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(message) => {
                    self.message_bytes = message.len();
                    self.rest = message;
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.messages.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use futures_util::task::noop_waker;
    use http_body::Body as _;

    use super::*;

    /// Messages that are there at once.
    struct Ready(VecDeque<Bytes>);

    impl http_body::Body for Ready {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn pieces(messages: impl IntoIterator<Item = usize>) -> Pieces {
        let messages = messages.into_iter().map(|bytes| Bytes::from(vec![7; bytes])).collect();
        Pieces::of(Body::new(Ready(messages)), Sending::begin())
    }

    /// The next piece; an error says that none is to be had now.
    fn next(pieces: &mut Pieces) -> Result<Option<Bytes>, ()> {
        let waker = noop_waker();
        match Pin::new(pieces).poll_frame(&mut Context::from_waker(&waker)) {
            Poll::Pending => Err(()),
            Poll::Ready(None) => Ok(None),
            Poll::Ready(Some(frame)) => {
                Ok(Some(frame.expect("no failure").into_data().expect("no trailers")))
            }
        }
    }

    fn all_there_is(pieces: &mut Pieces) -> Vec<Bytes> {
        std::iter::from_fn(|| next(pieces).ok().flatten()).collect()
    }

    #[test]
    fn a_large_message_leaves_in_pieces_and_the_next_waits_for_all_of_it() {
        let mut sent = pieces([300 << 10, 10]);
        let mut held = VecDeque::from(all_there_is(&mut sent));
        assert_eq!(held.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE_BYTES; 8]);
        let mut bytes = 0;
        while let Some(piece) = held.pop_front() {
            bytes += piece.len();
            drop(piece);
            let more = all_there_is(&mut sent);
            let small = more.iter().filter(|piece| piece.len() == 10).count();
            assert_eq!(small, usize::from(bytes == 300 << 10), "after {bytes} bytes");
            held.extend(more);
            if 0 < small {
                break;
            }
        }
        assert_eq!(next(&mut sent), Ok(None));
    }

    #[test]
    fn small_messages_do_not_wait_for_each_other() {
        let mut sent = pieces([100, 200, 300]);
        let held = all_there_is(&mut sent);
        assert_eq!(held.iter().map(Bytes::len).collect::<Vec<_>>(), [100, 200, 300]);
        // But for what the transport may hold.
        let mut sent = pieces([SMALL_BYTES; 10]);
        let held = all_there_is(&mut sent);
        assert_eq!(held.len(), PIECES_BYTES_MAX / SMALL_BYTES);
        drop(held);
        assert_eq!(all_there_is(&mut sent).len(), 2, "what was dropped has left");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_leave_are_progress() {
        let mut sent = pieces([100]);
        let sending = sent.taken.sending.clone();
        let piece = next(&mut sent);
        tokio::time::advance(std::time::Duration::from_secs(9)).await;
        let before = sending.last();
        drop(piece);
        assert_eq!((sending.last() - before).as_secs(), 9);
    }
}

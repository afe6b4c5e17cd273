//! The body of a request, within bounds: its size, the memory of all requests, and how long it may
//! bring nothing. Beyond any of them the body ends with a status, which becomes the call's answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use lakesync::error::{Classify, Reason};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::refuse;
use super::requests::Reservation;

/// What precedes a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// The bounds of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How long its message may be.
    pub(super) bytes_max: usize,
    /// How long it may bring no byte; `None` for calls whose requests are streams.
    pub(super) stall_max: Option<Duration>,
}

/// A request larger than its method takes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request has {bytes} bytes or more; this method takes {bytes_max}")]
struct TooLarge {
    bytes: usize,
    bytes_max: usize,
}

impl Classify for TooLarge {
    fn reason(&self) -> Reason {
        Reason::TooLarge
    }
}

/// A request that stopped half-way.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no byte of the request came for {} s; send it again", .stall_max.as_secs())]
struct Stalled {
    stall_max: Duration,
}

impl Classify for Stalled {
    fn reason(&self) -> Reason {
        Reason::RequestStalled
    }
}

/// A request's body.
pub(super) struct Metered<B> {
    body: B,
    reservation: Arc<Reservation>,
    bounds: Bounds,
    /// Its first bytes, until they say how long the message is.
    head: Vec<u8>,
    bytes: usize,
    stall: Option<Pin<Box<Sleep>>>,
    is_refused: bool,
}

impl<B: Body<Data = Bytes>> Metered<B> {
    pub(super) fn new(body: B, reservation: Arc<Reservation>, bounds: Bounds) -> Self {
        let stall_max = bounds.stall_max.filter(|_| !body.is_end_stream());
        let stall = stall_max.map(|stall_max| Box::pin(sleep(stall_max)));
        let head = Vec::with_capacity(HEAD_BYTES);
        Self { body, reservation, bounds, head, bytes: 0, stall, is_refused: false }
    }

    fn take(&mut self, data: &Bytes) -> Result<(), Status> {
        let bytes_max = self.bounds.bytes_max;
        let too_large = |bytes| refuse(TooLarge { bytes, bytes_max });
        self.bytes += data.len();
        if self.head.len() < HEAD_BYTES {
            let missing = HEAD_BYTES - self.head.len();
            self.head.extend(data.iter().take(missing));
            if let [_, length @ ..] = &self.head[..]
                && let Some(length) = length.first_chunk::<4>()
            {
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if bytes_max < length {
                    return Err(too_large(length));
                }
            }
        }
        if bytes_max + HEAD_BYTES < self.bytes {
            return Err(too_large(self.bytes - HEAD_BYTES));
        }
        self.reservation.add(data.len()).map_err(refuse)?;
        if let (Some(stall), Some(stall_max)) = (&mut self.stall, self.bounds.stall_max) {
            stall.as_mut().reset(Instant::now() + stall_max);
        }
        Ok(())
    }

    fn stalled(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        match (&mut self.stall, self.bounds.stall_max) {
            (Some(stall), Some(stall_max)) => {
                stall.as_mut().poll(context).map(|()| refuse(Stalled { stall_max }))
            }
            _ => Poll::Pending,
        }
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_refused {
            return Poll::Ready(None);
        }
        let refusal = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref().map(|data| self.take(data)) {
                Some(Err(refusal)) => refusal,
                Some(Ok(())) | None => return Poll::Ready(Some(Ok(frame))),
            },
            Poll::Ready(Some(Err(error))) => Status::from_error(error.into()),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => match self.stalled(context) {
                Poll::Ready(refusal) => refusal,
                Poll::Pending => return Poll::Pending,
            },
        };
        self.is_refused = true;
        Poll::Ready(Some(Err(refusal)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_refused || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use lakesync::status::from_status;

    use super::super::requests::Requests;
    use super::*;

    const STALL_MAX: Duration = Duration::from_secs(30);

    /// Brings a piece every 20 seconds, then nothing more.
    struct Trickle {
        pieces: VecDeque<Bytes>,
        pause: Pin<Box<Sleep>>,
    }

    impl Body for Trickle {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.pieces.is_empty() || self.pause.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.pause = Box::pin(sleep(Duration::from_secs(20)));
            Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// A body of these pieces, for a method that takes ten bytes, and what it holds.
    fn metered(pieces: &[&[u8]]) -> (Metered<Trickle>, Arc<Requests>) {
        let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        let trickle = Trickle { pieces, pause: Box::pin(sleep(Duration::ZERO)) };
        let requests = Arc::new(Requests::new(1_000, STALL_MAX));
        let bounds = Bounds { bytes_max: 10, stall_max: Some(STALL_MAX) };
        (Metered::new(trickle, requests.begin(Some("ann")), bounds), requests)
    }

    async fn next(body: &mut Metered<Trickle>) -> Option<Result<usize, Status>> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        frame.map(|frame| frame.map(|frame| frame.data_ref().map_or(0, Bytes::len)))
    }

    fn reason(refused: Option<Result<usize, Status>>) -> Option<Reason> {
        from_status(&refused?.expect_err("refused")).reason
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_request_goes_on_and_one_that_stops_is_ended() {
        let (mut body, requests) = metered(&[&[0, 0, 0, 0, 9], &[1], &[2], &[3, 4]]);
        for expected in [5, 1, 1, 2] {
            assert_eq!(next(&mut body).await.expect("more").expect("within bounds"), expected);
        }
        assert_eq!(requests.bytes(), 9);
        let began = Instant::now();
        assert_eq!(reason(next(&mut body).await), Some(Reason::RequestStalled));
        assert_eq!(began.elapsed(), STALL_MAX);
        assert!(next(&mut body).await.is_none() && body.is_end_stream());
        drop(body);
        assert_eq!(requests.bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_refused_once_it_says_how_long_it_is() {
        let (mut body, requests) = metered(&[&[0, 0, 0], &[0, 11, 1]]);
        next(&mut body).await.expect("more").expect("nobody knows yet");
        assert_eq!(reason(next(&mut body).await), Some(Reason::TooLarge));
        assert_eq!(requests.bytes(), 3, "nothing is held of what was refused");
        // What comes after the message counts as well.
        let (mut body, _) = metered(&[&[0, 0, 0, 0, 1, 1], &[0; 10]]);
        next(&mut body).await.expect("more").expect("a short message");
        assert_eq!(reason(next(&mut body).await), Some(Reason::TooLarge));
    }
}

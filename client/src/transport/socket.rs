//! The sockets of a channel: every byte is counted, and one whose server is gone fails.
//!
//! A phone that changed networks gets no reset: its connection only falls silent. A PING is sent
//! where nothing was heard for a while, and the socket fails once there was no sign of life for
//! longer than an answer takes. A sign of life is a byte that arrives, or room in a send buffer that
//! was full: the other side's system has then acknowledged what had been sent. On a slow line the
//! answer to a PING waits behind other bytes, and each of those is a sign of life, too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::codegen::{Service, StdError};

use super::motion::Meter;

/// Opens watched sockets.
#[derive(Clone, Debug)]
pub(super) struct Sockets {
    http: HttpConnector,
    meter: Arc<Meter>,
    silence_max: Duration,
}

impl Sockets {
    /// Sockets whose bytes `meter` counts and that fail after `silence_max` without a sign of life.
    pub(super) fn new(meter: Arc<Meter>, connect_max: Duration, silence_max: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_max));
        Self { http, meter, silence_max }
    }
}

impl Service<http::Uri> for Sockets {
    type Response = TokioIo<Watched<TcpStream>>;
    type Error = StdError;
    type Future = BoxFuture<'static, Result<Self::Response, StdError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Service::poll_ready(&mut self.http, context).map_err(Into::into)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let connecting = Service::call(&mut self.http, uri);
        let (meter, silence_max) = (Arc::clone(&self.meter), self.silence_max);
        async move {
            let socket = connecting.await?.into_inner();
            Ok(TokioIo::new(Watched::new(socket, meter, silence_max)))
        }
        .boxed()
    }
}

/// A socket that counts its bytes and fails when it has been silent for too long.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    meter: Arc<Meter>,
    silence_max: Duration,
    /// The last sign of life.
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Whether the send buffer was full when last tried.
    is_full: bool,
}

/// The server is gone, or the line to it.
#[derive(Debug, thiserror::Error)]
#[error("the server has given no sign of life for {} s", .0.as_secs_f32())]
struct Lifeless(Duration);

impl<S> Watched<S> {
    fn new(socket: S, meter: Arc<Meter>, silence_max: Duration) -> Self {
        let heard = Instant::now();
        let alarm = Box::pin(sleep_until(heard + silence_max));
        Self { socket, meter, silence_max, heard, alarm, is_full: false }
    }

    /// Nothing can be read or written at the moment: an error if that has lasted too long.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let due = self.heard + self.silence_max;
            if due <= Instant::now() {
                let error = Lifeless(self.silence_max);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, error)));
            }
            // Set anew only when it rings: most bytes need no timer.
            self.alarm.as_mut().reset(due);
        }
    }

    fn written(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Pending => {
                self.is_full = true;
                self.wait(context)
            }
            Poll::Ready(Ok(count)) => {
                self.meter.count(count);
                if std::mem::take(&mut self.is_full) {
                    self.heard = Instant::now();
                }
                Poll::Ready(Ok(count))
            }
            failed => failed,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.socket).poll_read(context, buffer) {
            Poll::Pending => self.wait(context),
            Poll::Ready(Ok(())) => {
                self.meter.count(buffer.filled().len() - before);
                self.heard = Instant::now();
                Poll::Ready(Ok(()))
            }
            failed => failed,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.written(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    const SILENCE_MAX: Duration = Duration::from_secs(40);

    fn pair() -> (Watched<DuplexStream>, DuplexStream, Arc<Meter>) {
        let (near, far) = duplex(1 << 10);
        let meter = Arc::new(Meter::default());
        (Watched::new(near, Arc::clone(&meter), SILENCE_MAX), far, meter)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_socket_fails_and_one_that_drips_does_not() {
        let (mut near, mut far, meter) = pair();
        let began = Instant::now();
        let drips = tokio::spawn(async move {
            for _ in 0..10 {
                sleep(Duration::from_secs(30)).await;
                far.write_all(b".").await.expect("open");
            }
            far
        });
        let mut bytes = [0; 10];
        near.read_exact(&mut bytes).await.expect("a byte in time, each time");
        assert_eq!((began.elapsed().as_secs(), meter.bytes()), (300, 10));
        let _far = drips.await.expect("no panic");
        let error = near.read_u8().await.expect_err("nothing more comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("no sign of life for 40 s"), "{error}");
        assert_eq!(began.elapsed().as_secs(), 340);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_into_the_void_is_no_sign_of_life() {
        let (mut near, far, meter) = pair();
        let began = Instant::now();
        // There is room for it: nobody has acknowledged anything.
        for _ in 0..3 {
            sleep(Duration::from_secs(12)).await;
            near.write_all(b"ping").await.expect("room");
        }
        near.read_u8().await.expect_err("no answer");
        assert_eq!((began.elapsed().as_secs(), meter.bytes()), (40, 12));
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn room_in_a_full_buffer_is_a_sign_of_life() {
        let (mut near, mut far, _) = pair();
        let began = Instant::now();
        // Takes a buffer each 30 s, and says nothing.
        let slow = tokio::spawn(async move {
            let mut taken = vec![0; 1 << 10];
            for _ in 0..8 {
                sleep(Duration::from_secs(30)).await;
                far.read_exact(&mut taken).await.expect("open");
            }
            far
        });
        near.write_all(&vec![0; 8 << 10]).await.expect("taken in the end");
        assert!(200 < began.elapsed().as_secs(), "{:?}", began.elapsed());
        let _far = slow.await.expect("no panic");
        let error = near.write_all(&vec![0; 8 << 10]).await.expect_err("full for good");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

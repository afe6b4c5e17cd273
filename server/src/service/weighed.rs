//! Large requests are weighed before they are read: a message within its limit may say in two bytes
//! what takes a hundred in memory. What it weighs counts among the memory of all requests until the
//! call is answered. Calls whose requests are small pass by.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use lakesync::limits::MESSAGE_BYTES_MAX;
use lakesync::proto::admin::v1::admin_service_server::{AdminService, AdminServiceServer};
use lakesync::proto::v1::sync_service_server::{SyncService, SyncServiceServer};
use lakesync::wire::{self, Oversized, weigh, weigh_push};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService};
use tower::{Service, service_fn};

use super::requests::Reservation;
use super::{Services, refuse, sending};
use crate::auth::request_bounds;

/// The methods whose requests may be large, by their path.
const PUSH: &str = "/lakesync.v1.SyncService/Push";
const PULL: &str = "/lakesync.v1.SyncService/Pull";
const CHECKPOINT: &str = "/lakesync.v1.SyncService/Checkpoint";
const PUT_SCHEMA: &str = "/lakesync.admin.v1.AdminService/PutSchema";
const PUT_RULES: &str = "/lakesync.admin.v1.AdminService/PutSyncRules";
/// A request of so many bytes takes some megabytes in memory at worst: what is not weighed may unpack
/// to no more.
const LIGHT_BYTES: usize = 64 << 10;
/// All of them.
#[cfg(test)]
const WEIGHED: [&str; 5] = [PUSH, PULL, CHECKPOINT, PUT_SCHEMA, PUT_RULES];

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// A service of ours, with large requests weighed.
#[derive(Clone, Debug)]
pub(super) struct Weighed<S> {
    services: Arc<Services>,
    others: S,
}

impl Weighed<SyncServiceServer<Services>> {
    pub(super) fn sync(services: &Arc<Services>) -> Self {
        let others = SyncServiceServer::from_arc(Arc::clone(services))
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(LIGHT_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { services: Arc::clone(services), others }
    }
}

impl Weighed<AdminServiceServer<Services>> {
    pub(super) fn admin(services: &Arc<Services>) -> Self {
        let others = AdminServiceServer::from_arc(Arc::clone(services))
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(LIGHT_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { services: Arc::clone(services), others }
    }
}

impl<S: NamedService> NamedService for Weighed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Weighed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let services = Arc::clone(&self.services);
        let held = request.extensions().get::<Arc<Reservation>>().cloned();
        match request.uri().path() {
            PUSH => Box::pin(async move {
                let call = service_fn(move |request| {
                    let services = Arc::clone(&services);
                    async move { services.push(request).await }
                });
                Ok(grpc(PUSH, weigh_push, held).unary(call, request).await)
            }),
            PULL => Box::pin(async move {
                let call = service_fn(move |request| {
                    let services = Arc::clone(&services);
                    async move { services.pull(request).await }
                });
                let pull = |message: &[u8]| weigh(message, &wire::PULL);
                let answer = grpc(PULL, pull, held).server_streaming(call, request).await;
                Ok(sending::in_pieces(answer))
            }),
            CHECKPOINT => Box::pin(async move {
                let call = service_fn(move |request| {
                    let services = Arc::clone(&services);
                    async move { services.checkpoint(request).await }
                });
                let checkpoint = |message: &[u8]| weigh(message, &wire::CHECKPOINT);
                let answer =
                    grpc(CHECKPOINT, checkpoint, held).server_streaming(call, request).await;
                Ok(sending::in_pieces(answer))
            }),
            PUT_SCHEMA => Box::pin(async move {
                let call = service_fn(move |request| {
                    let services = Arc::clone(&services);
                    async move { services.put_schema(request).await }
                });
                let schema = |message: &[u8]| weigh(message, &wire::PUT_SCHEMA);
                Ok(grpc(PUT_SCHEMA, schema, held).unary(call, request).await)
            }),
            PUT_RULES => Box::pin(async move {
                let call = service_fn(move |request| {
                    let services = Arc::clone(&services);
                    async move { services.put_sync_rules(request).await }
                });
                let rules = |message: &[u8]| weigh(message, &wire::PUT_RULES);
                Ok(grpc(PUT_RULES, rules, held).unary(call, request).await)
            }),
            _ => Box::pin(self.others.call(request)),
        }
    }
}

/// How a message is weighed.
type Weigh = fn(&[u8]) -> Result<usize, Oversized>;

/// The call at `path`. What its method takes bounds what a compressed message unpacks to as well:
/// nothing is unpacked beyond that.
fn grpc<Q, A>(path: &str, weigh: Weigh, held: Option<Arc<Reservation>>) -> Grpc<Weighing<Q, A>>
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
{
    let (bytes_max, _) = request_bounds(path);
    Grpc::new(Weighing { weigh, held, messages: PhantomData })
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Reads a request once it was weighed, and writes answers. What writes them lives as long as the
/// answer does: it holds nothing of the request.
struct Weighing<Q, A> {
    weigh: Weigh,
    held: Option<Arc<Reservation>>,
    messages: PhantomData<fn() -> (Q, A)>,
}

impl<Q, A> Codec for Weighing<Q, A>
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
{
    type Encode = A;
    type Decode = Q;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self { weigh: self.weigh, held: None, messages: PhantomData }
    }

    fn decoder(&mut self) -> Self {
        Self { weigh: self.weigh, held: self.held.take(), messages: PhantomData }
    }
}

impl<Q, A: Message> Encoder for Weighing<Q, A> {
    type Item = A;
    type Error = Status;

    fn encode(&mut self, answer: A, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        answer.encode(out).expect("BUG: the buffer grows, and has no room");
        Ok(())
    }
}

impl<Q: Message + Default, A> Decoder for Weighing<Q, A> {
    type Item = Q;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Q>, Status> {
        // The library's buffer, not a copy of it.
        let message: Bytes = message.copy_to_bytes(message.remaining());
        let bytes = (self.weigh)(&message).map_err(refuse)?;
        if let Some(held) = &self.held {
            held.grow_to(bytes).map_err(refuse)?;
        }
        // Its own word for what is no message, which gets our reason where all such words do.
        let read = Q::decode(message);
        read.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body::Frame;
    use lakesync::proto::v1::{PullRequest, PullResponse};

    use super::super::Requests;
    use super::*;
    use crate::auth::METHODS;

    /// One piece.
    struct Whole(Option<Bytes>);

    impl http_body::Body for Whole {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    #[tokio::test]
    async fn a_stream_of_answers_holds_nothing_of_its_request() {
        let requests = Arc::new(Requests::new(1 << 20, Duration::from_secs(1)));
        let held = requests.begin(Some("ann"));
        let request = PullRequest {
            follow: true,
            skip_positions: (1..=10_000).collect(),
            ..PullRequest::default()
        };
        let message = request.encode_to_vec();
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        let body = Bytes::from([&[0_u8][..], &length[..], &message[..]].concat());
        let known = Arc::clone(&requests);
        let call = service_fn(move |_: tonic::Request<PullRequest>| {
            assert!(80_000 <= known.bytes(), "it was weighed");
            let answers = futures_util::stream::pending::<Result<PullResponse, Status>>();
            std::future::ready(Ok::<_, Status>(tonic::Response::new(answers)))
        });
        let pull = |message: &[u8]| weigh(message, &wire::PULL);
        let request = Request::new(Body::new(Whole(Some(body))));
        let answer =
            grpc(PULL, pull, Some(Arc::clone(&held))).server_streaming(call, request).await;
        // As whoever authorized the call lets go of it once the answer begins.
        drop(held);
        assert_eq!(requests.bytes(), 0, "while it is answered");
        drop(answer);
    }

    #[test]
    fn every_large_request_is_weighed() {
        for (path, _) in METHODS {
            let (bytes_max, is_stream) = request_bounds(path);
            let heavy = LIGHT_BYTES < bytes_max && !is_stream;
            assert_eq!(WEIGHED.contains(path), heavy, "{path}");
        }
        assert!(WEIGHED.iter().all(|path| METHODS.iter().any(|(known, _)| known == path)));
    }
}

//! Pushes are weighed before they are read: a message within its limit may say in two bytes what
//! takes a hundred in memory. All other calls of the service pass by.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use lakesync::limits::MESSAGE_BYTES_MAX;
use lakesync::proto::v1::sync_service_server::{SyncService, SyncServiceServer};
use lakesync::proto::v1::{PushRequest, PushResponse};
use lakesync::wire::weigh_push;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};
use tower::Service;

use super::{Services, refuse};

const PUSH: &str = "/lakesync.v1.SyncService/Push";

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// `SyncService`, with pushes weighed.
#[derive(Clone, Debug)]
pub(super) struct Weighed {
    services: Arc<Services>,
    others: SyncServiceServer<Services>,
}

impl Weighed {
    pub(super) fn new(services: Services) -> Self {
        let services = Arc::new(services);
        let others = SyncServiceServer::from_arc(Arc::clone(&services))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { services, others }
    }
}

impl NamedService for Weighed {
    const NAME: &'static str = <SyncServiceServer<Services> as NamedService>::NAME;
}

impl Service<Request<Body>> for Weighed {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != PUSH {
            return self.others.call(request);
        }
        let push = Push(Arc::clone(&self.services));
        Box::pin(async move {
            let mut grpc = Grpc::new(PushCodec)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            Ok(grpc.unary(push, request).await)
        })
    }
}

/// The call itself.
struct Push(Arc<Services>);

impl UnaryService<PushRequest> for Push {
    type Response = PushResponse;
    type Future = Answering<Result<tonic::Response<PushResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<PushRequest>) -> Self::Future {
        let services = Arc::clone(&self.0);
        Box::pin(async move { services.push(request).await })
    }
}

/// Reads a push once it was weighed.
#[derive(Clone, Copy, Debug)]
struct PushCodec;

impl Codec for PushCodec {
    type Encode = PushResponse;
    type Decode = PushRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for PushCodec {
    type Item = PushResponse;
    type Error = Status;

    fn encode(&mut self, answer: PushResponse, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        answer.encode(out).expect("BUG: the buffer grows, and has no room");
        Ok(())
    }
}

impl Decoder for PushCodec {
    type Item = PushRequest;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<PushRequest>, Status> {
        // The library's buffer, not a copy of it.
        let message: Bytes = message.copy_to_bytes(message.remaining());
        weigh_push(&message).map_err(refuse)?;
        // Its own word for what is no message, which gets our reason where all such words do.
        let read = PushRequest::decode(message);
        read.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

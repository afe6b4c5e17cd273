//! Calls below the stubs: any bytes, to any method, with any headers.

use std::convert::Infallible;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use http_body::Frame;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tower::ServiceExt;

use super::within;

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}

/// Sends `message` to the method at `path` and awaits everything that is answered.
pub(crate) async fn call(
    channel: &Channel,
    path: &str,
    authorization: Option<&str>,
    message: Bytes,
) -> Result<Vec<Bytes>, Status> {
    call_through(tonic::client::Grpc::new(channel.clone()), path, authorization, message).await
}

/// The same, with a message that is compressed.
pub(crate) async fn call_packed(
    channel: &Channel,
    path: &str,
    authorization: Option<&str>,
    message: Bytes,
    encoding: CompressionEncoding,
) -> Result<Vec<Bytes>, Status> {
    let client = tonic::client::Grpc::new(channel.clone()).send_compressed(encoding);
    call_through(client, path, authorization, message).await
}

async fn call_through(
    mut client: tonic::client::Grpc<Channel>,
    path: &str,
    authorization: Option<&str>,
    message: Bytes,
) -> Result<Vec<Bytes>, Status> {
    let mut request = Request::new(message);
    if let Some(text) = authorization {
        request.metadata_mut().insert("authorization", text.parse().expect("ASCII"));
    }
    let path = PathAndQuery::from_str(path).expect("a path");
    within(client.ready()).await.expect("a connection");
    let answer = within(client.server_streaming(request, path, RawCodec)).await?;
    let (mut stream, mut messages) = (answer.into_inner(), Vec::new());
    while let Some(message) = within(stream.message()).await? {
        messages.push(message);
    }
    Ok(messages)
}

/// Sends an HTTP request as it is.
pub(crate) async fn http(
    channel: &Channel,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, tonic::transport::Error> {
    within(channel.clone().oneshot(request)).await
}

/// A gRPC call whose request begins with `start`, and never ends.
pub(crate) fn half_a_call(path: &str, authorization: &str, start: Bytes) -> http::Request<Body> {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", authorization);
    request.body(Body::new(Half(Some(start)))).expect("a request")
}

/// A message of `bytes` zeros as gRPC sends it, without its last `missing` bytes.
pub(crate) fn part_of_a_message(bytes: usize, missing: usize) -> Bytes {
    let mut message = vec![0];
    message.put_u32(u32::try_from(bytes).expect("small"));
    message.resize(5 + bytes - missing, 0);
    message.into()
}

/// The beginning of a body.
struct Half(Option<Bytes>);

impl http_body::Body for Half {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(start) => Poll::Ready(Some(Ok(Frame::data(start)))),
            None => Poll::Pending,
        }
    }
}

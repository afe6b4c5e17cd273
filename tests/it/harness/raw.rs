//! Calls below the stubs: any bytes, to any method, with any headers.

use std::str::FromStr;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

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
    let mut request = Request::new(message);
    if let Some(text) = authorization {
        request.metadata_mut().insert("authorization", text.parse().expect("ASCII"));
    }
    let path = PathAndQuery::from_str(path).expect("a path");
    let mut client = tonic::client::Grpc::new(channel.clone());
    within(client.ready()).await.expect("a connection");
    let answer = within(client.server_streaming(request, path, RawCodec)).await?;
    let (mut stream, mut messages) = (answer.into_inner(), Vec::new());
    while let Some(message) = within(stream.message()).await? {
        messages.push(message);
    }
    Ok(messages)
}

//! Messages as bytes: sent as they are, and kept as they came beside what they say.
//!
//! Both ends use it: the harness encodes its pushes before the clock starts, and the yardstick
//! writes and streams bytes that it need not encode.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{self, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// An encoded message in two parts: protobuf reads them as one.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame(pub(super) Bytes, pub(super) Bytes);

/// A message, and the bytes it came in.
#[derive(Debug)]
pub(super) struct Kept<T> {
    pub(super) bytes: Bytes,
    pub(super) message: T,
}

/// Sends [`Frame`]s, receives [`Kept`] messages.
#[derive(Debug)]
pub(super) struct Codec<T>(PhantomData<fn() -> T>);

impl<T> Default for Codec<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default + 'static> codec::Codec for Codec<T> {
    type Encode = Frame;
    type Decode = Kept<T>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<T> Encoder for Codec<T> {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, Frame(head, rest): Frame, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(head.len() + rest.len());
        out.put(head);
        out.put(rest);
        Ok(())
    }
}

impl<T: Message + Default> Decoder for Codec<T> {
    type Item = Kept<T>;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Kept<T>>, Status> {
        let bytes = input.copy_to_bytes(input.remaining());
        let message = T::decode(bytes.clone())
            .map_err(|error| Status::internal(format!("a malformed message: {error}")))?;
        Ok(Some(Kept { bytes, message }))
    }
}

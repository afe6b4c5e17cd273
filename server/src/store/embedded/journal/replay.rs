//! Reading a journal file back: every record of every sound frame, and what follows them.

use std::fs;
use std::io;
use std::path::Path;

use bytes::{Buf, Bytes};

use super::{FILE_HEADER_BYTES, FRAME_HEADER_BYTES, FrameHeader, Kind, file_header};

/// How a journal file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::embedded) enum End {
    /// It was ended: another file follows.
    Finished,
    /// Writing can go on at this offset. What follows was never confirmed to anybody.
    Open(u64),
    /// Not even its header was finished: nothing was ever written to it.
    Unborn,
}

/// Why a journal file can't be read back.
#[derive(Debug, thiserror::Error)]
pub(in crate::store::embedded) enum ReplayError {
    /// The disk said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file does not begin as a journal does.
    #[error("it does not begin as journal {0} does")]
    Header(u64),
    /// Something that had been durable is damaged.
    #[error("the frame at byte {at} is damaged, although it was durable")]
    Damaged { at: u64 },
    /// A record does not follow what came before.
    #[error(transparent)]
    Mismatch(#[from] crate::store::embedded::gateways::Mismatch),
    /// A record can't be understood.
    #[error(transparent)]
    Record(#[from] crate::store::embedded::record::Malformed),
}

/// Hands each record of the file at `path` to `take`, in order.
///
/// The file is read at once: it is about as large as an overlay, which is about to hold it.
pub(in crate::store::embedded) fn replay(
    path: &Path,
    number: u64,
    mut take: impl FnMut(Bytes) -> Result<(), ReplayError>,
) -> Result<End, ReplayError> {
    let bytes = Bytes::from(fs::read(path)?);
    if bytes.len() < FILE_HEADER_BYTES {
        return Ok(End::Unborn);
    }
    if bytes[..FILE_HEADER_BYTES] != file_header(number) {
        // A crash during creation leaves a header without a frame, of which any part may be missing.
        let unborn = bytes.len() == FILE_HEADER_BYTES;
        return if unborn { Ok(End::Unborn) } else { Err(ReplayError::Header(number)) };
    }
    let mut at = FILE_HEADER_BYTES;
    while let Some((header, payload)) = frame(&bytes, number, at) {
        records(payload.clone(), at, &mut take)?;
        at += FRAME_HEADER_BYTES + payload.len();
        if header.kind == Kind::End {
            return Ok(End::Finished);
        }
    }
    match knows_better(&bytes, number, at) {
        true => Err(ReplayError::Damaged { at: at as u64 }),
        false => Ok(End::Open(at as u64)),
    }
}

/// The frame at `at`, if a sound one is there.
fn frame(bytes: &Bytes, number: u64, at: usize) -> Option<(FrameHeader, Bytes)> {
    let header = FrameHeader::decode(bytes.get(at..)?.first_chunk()?)?;
    let start = at + FRAME_HEADER_BYTES;
    let end = start.checked_add(header.payload_bytes as usize)?;
    let payload = bytes.get(start..end)?;
    let sound = header.sum(number, at as u64, std::iter::once(payload)) == header.checksum;
    sound.then(|| (header, bytes.slice(start..end)))
}

/// Whether a sound frame after `at` says that the place had been durable.
fn knows_better(bytes: &Bytes, number: u64, at: usize) -> bool {
    places(bytes, at + 1)
        .filter_map(|place| frame(bytes, number, place))
        .any(|(header, _)| (at as u64) < header.synced)
}

/// Where a frame may begin.
fn places(bytes: &[u8], from: usize) -> impl Iterator<Item = usize> {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.windows(4)
        .enumerate()
        .filter(|(_, four)| Kind::of(four).is_some())
        .map(move |(n, _)| from + n)
}

fn records(
    mut payload: Bytes,
    at: usize,
    take: &mut impl FnMut(Bytes) -> Result<(), ReplayError>,
) -> Result<(), ReplayError> {
    while let Ok(length) = payload.try_get_u32_le() {
        let length = length as usize;
        if payload.len() < length {
            return Err(ReplayError::Damaged { at: at as u64 });
        }
        take(payload.split_to(length))?;
    }
    Ok(())
}

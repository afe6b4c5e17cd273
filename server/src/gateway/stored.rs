//! A row as the store keeps it: its newest position, where it was when it was deleted, and its state.
//!
//! Stored form, version 2: the version byte, the position of the newest commit that changed the row
//! (big-endian), then [`Row::encode`]. Version 3, of a deleted row: after the position a count of 16
//! bits, and as many instances, each after its generation. Rows without a position, which begin with
//! that codec's own version, were stored before any cursor carried a scope, and count as unchanged
//! since.

use bytes::Bytes;
use lakesync::name::Position;
use lakesync::row::Row;
use lakesync::rules::Instance;

use super::access::Grave;
use crate::store::StoreError;

const PLAIN: u8 = 2;
const BURIED: u8 = 3;
/// A generation and an instance.
const INSTANCE_BYTES: usize = size_of::<u32>() + Instance::BYTES;

/// All that is kept of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) position: Position,
    pub(super) grave: Grave,
    pub(super) row: Row,
}

/// The stored form of a row.
pub(super) fn encode(position: Position, Grave(grave): &Grave, row: &Row) -> Bytes {
    let state = row.encode();
    let head = 1 + size_of::<u64>() + size_of::<u16>() + grave.len() * INSTANCE_BYTES;
    let mut bytes = Vec::with_capacity(head + state.len());
    bytes.push(if grave.is_empty() { PLAIN } else { BURIED });
    bytes.extend(position.0.to_be_bytes());
    if !grave.is_empty() {
        let count = u16::try_from(grave.len()).expect("BUG: buckets and indexes are bounded");
        bytes.extend(count.to_be_bytes());
        for (generation, instance) in grave {
            bytes.extend(generation.to_be_bytes());
            bytes.extend(instance.to_bytes());
        }
    }
    bytes.extend(state);
    bytes.into()
}

/// The row stored under `key`, and the position of its newest change.
pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<(Position, Row), StoreError> {
    let Stored { position, row, .. } = decode_whole(key, bytes)?;
    Ok((position, row))
}

/// All that is kept of a row under `key`.
pub(super) fn decode_whole(key: &[u8], bytes: &[u8]) -> Result<Stored, StoreError> {
    let corrupt = |what: &dyn ToString| {
        let key = String::from_utf8_lossy(key).into_owned();
        StoreError::Corrupt(format!("row {key:?}: {}", what.to_string()))
    };
    let (position, grave, state) = match bytes.first() {
        Some(&(PLAIN | BURIED)) => head(bytes).ok_or_else(|| corrupt(&"it ends early"))?,
        _ => (Position::START, Grave::default(), bytes),
    };
    let row = Row::decode(state).map_err(|error| corrupt(&error))?;
    Ok(Stored { position, grave, row })
}

fn head(bytes: &[u8]) -> Option<(Position, Grave, &[u8])> {
    let (version, rest) = bytes.split_first()?;
    let (position, rest) = rest.split_first_chunk()?;
    let position = Position(u64::from_be_bytes(*position));
    if *version == PLAIN {
        return Some((position, Grave::default(), rest));
    }
    let (count, rest) = rest.split_first_chunk()?;
    let count = usize::from(u16::from_be_bytes(*count));
    let (grave, state) = rest.split_at_checked(count * INSTANCE_BYTES)?;
    let each = |bytes: &[u8; INSTANCE_BYTES]| {
        let (generation, instance) = bytes.split_first_chunk()?;
        let instance = Instance::from_bytes(instance.first_chunk()?);
        Some((u32::from_be_bytes(*generation), instance))
    };
    let grave = grave.as_chunks().0.iter().map(each).collect::<Option<_>>()?;
    Some((position, Grave(grave), state))
}

#[cfg(test)]
mod tests {
    use lakesync::testing;

    use super::*;

    #[test]
    fn rows_round_trip_with_their_position_and_their_grave() {
        let row = testing::fold(&[testing::delta("ann@1 title=milk")]);
        let instance = |byte| Instance::from_bytes(&[byte; Instance::BYTES]);
        for grave in [vec![], vec![(5, instance(1))], vec![(5, instance(1)), (6, instance(2))]] {
            let stored = encode(Position(7), &Grave(grave.clone()), &row);
            let whole = Stored { position: Position(7), grave: Grave(grave), row: row.clone() };
            assert_eq!(decode_whole(b"k", &stored).expect("whole"), whole);
            assert_eq!(decode(b"k", &stored).expect("whole"), (Position(7), row.clone()));
            for cut in 0..stored.len() {
                assert!(decode(b"k", &stored[..cut]).is_err(), "{cut} bytes");
            }
        }
        assert_eq!(decode(b"k", &row.encode()).expect("older"), (Position::START, row));
    }
}

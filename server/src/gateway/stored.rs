//! A row as the store keeps it: its newest position, then its state.
//!
//! Stored form, version 2: the version byte, the position of the newest commit that changed the row
//! (big-endian), then [`Row::encode`]. Rows without a position, which begin with that codec's own
//! version, were stored before any cursor carried a scope, and count as unchanged since.

use bytes::Bytes;
use lakesync::name::Position;
use lakesync::row::Row;

use crate::store::StoreError;

const VERSION: u8 = 2;

/// The stored form of a row.
pub(super) fn encode(position: Position, row: &Row) -> Bytes {
    let state = row.encode();
    let mut bytes = Vec::with_capacity(1 + size_of::<u64>() + state.len());
    bytes.push(VERSION);
    bytes.extend(position.0.to_be_bytes());
    bytes.extend(state);
    bytes.into()
}

/// The row stored under `key`, and the position of its newest change.
pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<(Position, Row), StoreError> {
    let (position, state) = match bytes.split_first() {
        Some((&VERSION, rest)) => match rest.split_first_chunk() {
            Some((position, state)) => (Position(u64::from_be_bytes(*position)), state),
            None => (Position::START, rest),
        },
        _ => (Position::START, bytes),
    };
    let row = Row::decode(state);
    let row = row.map_err(|error| {
        let key = String::from_utf8_lossy(key).into_owned();
        StoreError::Corrupt(format!("row {key:?}: {error}"))
    })?;
    Ok((position, row))
}

#[cfg(test)]
mod tests {
    use lakesync::testing;

    use super::*;

    #[test]
    fn rows_round_trip_with_their_position() {
        let row = testing::fold(&[testing::delta("ann@1 title=milk")]);
        let stored = encode(Position(7), &row);
        assert_eq!(decode(b"k", &stored).expect("whole"), (Position(7), row.clone()));
        assert_eq!(decode(b"k", &row.encode()).expect("older"), (Position::START, row));
        for cut in 0..stored.len() {
            assert!(decode(b"k", &stored[..cut]).is_err(), "{cut} bytes");
        }
    }
}

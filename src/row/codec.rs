//! A row as bytes, as stores keep it.
//!
//! Version 1: the version byte; the clients; the distinct stamps (clock big-endian, index of the
//! client); 1 + the index of the written and of the deleted stamp, or 0; then per cell its column,
//! the index of its stamp and its canonical value. Counts, lengths and indexes are LEB128. Cells of
//! one row mostly share one stamp, which this writes once.

use super::{Row, StampedCell};
use crate::hlc::Hlc;
use crate::name::{ClientId, ColumnName};
use crate::stamp::Stamp;
use crate::value::{Malformed, Value, take_array};

const VERSION: u8 = 1;

impl Row {
    /// The row as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut stamps: Vec<&Stamp> = Vec::new();
        let own = [&self.written, &self.deleted].map(|stamp| {
            stamp.as_ref().map_or(0, |stamp| index_of(&mut stamps, stamp, Stamp::eq) + 1)
        });
        let of_cells: Vec<usize> =
            self.cells.iter().map(|cell| index_of(&mut stamps, &cell.stamp, Stamp::eq)).collect();
        let mut clients: Vec<&ClientId> = Vec::new();
        let of_stamps: Vec<usize> = stamps
            .iter()
            .map(|stamp| index_of(&mut clients, &stamp.client, ClientId::eq))
            .collect();

        let cell_bytes = |cell: &StampedCell| 4 + cell.column.as_str().len() + cell.value.size();
        let mut out = Vec::with_capacity(32 + self.cells.iter().map(cell_bytes).sum::<usize>());
        out.push(VERSION);
        put_count(clients.len(), &mut out);
        for client in clients {
            put_text(client.as_str(), &mut out);
        }
        put_count(stamps.len(), &mut out);
        for (stamp, client) in stamps.iter().zip(of_stamps) {
            out.extend(stamp.hlc.0.to_be_bytes());
            put_count(client, &mut out);
        }
        own.into_iter().for_each(|at| put_count(at, &mut out));
        put_count(self.cells.len(), &mut out);
        for (cell, stamp) in self.cells.iter().zip(of_cells) {
            put_text(cell.column.as_str(), &mut out);
            put_count(stamp, &mut out);
            cell.value.encode(&mut out);
        }
        out
    }

    /// The row that `bytes` hold, all of them.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let input = &mut bytes;
        if take_array(input)? != [VERSION] {
            return Err(Malformed("row version"));
        }
        let clients = take_many(input, |input| {
            ClientId::parse(take_text(input)?).map_err(|_| Malformed("client id"))
        })?;
        let stamps = take_many(input, |input| {
            let hlc = Hlc(u64::from_be_bytes(take_array(input)?));
            let client = clients.get(take_count(input)?).ok_or(Malformed("client index"))?.clone();
            Ok(Stamp { hlc, client })
        })?;
        let stamp = |at: usize| stamps.get(at).cloned().ok_or(Malformed("stamp index"));
        let mut own = || match take_count(input)? {
            0 => Ok(None),
            at => stamp(at - 1).map(Some),
        };
        let (written, deleted) = (own()?, own()?);
        let cells = take_many(input, |input| {
            let column = ColumnName::parse(take_text(input)?).map_err(|_| Malformed("column"))?;
            Ok(StampedCell {
                column,
                stamp: stamp(take_count(input)?)?,
                value: Value::decode(input)?,
            })
        })?;
        let sorted = cells.windows(2).all(|pair| pair[0].column < pair[1].column);
        if !sorted || !input.is_empty() {
            return Err(Malformed("row"));
        }
        Ok(Self { cells, written, deleted })
    }
}

/// The place of `item` in `seen`, where it is put if it is new. Rows have few of either.
fn index_of<'a, T>(seen: &mut Vec<&'a T>, item: &'a T, same: fn(&T, &T) -> bool) -> usize {
    seen.iter().position(|known| same(known, item)).unwrap_or_else(|| {
        seen.push(item);
        seen.len() - 1
    })
}

fn put_count(mut count: usize, out: &mut Vec<u8>) {
    while 0x80 <= count {
        out.push((count & 0x7f) as u8 | 0x80);
        count >>= 7;
    }
    out.push(count as u8);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_count(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn take_count(input: &mut &[u8]) -> Result<usize, Malformed> {
    let mut count = 0;
    // Nothing in a row needs more than 28 bits.
    for shift in [0, 7, 14, 21] {
        let [byte] = take_array(input)?;
        count |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(count);
        }
    }
    Err(Malformed("count"))
}

fn take_text<'a>(input: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    let len = take_count(input)?;
    let (text, rest) = input.split_at_checked(len).ok_or(Malformed("length"))?;
    *input = rest;
    str::from_utf8(text).map_err(|_| Malformed("text"))
}

fn take_many<T>(
    input: &mut &[u8],
    mut take: impl FnMut(&mut &[u8]) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = take_count(input)?;
    // Every item takes a byte at least, so a false count can't ask for much memory.
    let mut items = Vec::with_capacity(count.min(input.len()));
    for _ in 0..count {
        items.push(take(input)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    proptest! {
        #[test]
        fn rows_round_trip(deltas in testing::deltas()) {
            let row = testing::fold(&deltas);
            prop_assert_eq!(Row::decode(&row.encode()), Ok(row));
        }

        #[test]
        fn torn_rows_are_refused(deltas in testing::deltas(), cut in any::<prop::sample::Index>()) {
            let bytes = testing::fold(&deltas).encode();
            prop_assert!(Row::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Row::decode(&raw);
        }
    }
}

//! A copy on its way: its items as one text of bytes, cut into pieces of about the same size.
//!
//! The text begins with [`MAGIC`]. Each item is its kind, the lengths of its key and its value (32 bits
//! each, little-endian), and both. It ends with an item of kind [`END`], whose value says how many items
//! there were: a copy that broke off is never taken for a whole one.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Item, Items, Kind};
use crate::store::StoreError;

const MAGIC: &[u8] = b"lakesync copy 1\n";
const END: u8 = 0xff;
/// How large a piece is.
const PIECE_BYTES: usize = 256 << 10;
/// What precedes an item's key.
const HEAD_BYTES: usize = 1 + 2 * size_of::<u32>();
/// How large an item may be. Nothing that a gateway takes comes near.
const ITEM_BYTES_MAX: usize = 256 << 20;

impl Kind {
    const ALL: [Self; 4] = [Self::Gateway, Self::Log, Self::Row, Self::Meta];
}

/// Items as pieces.
pub(super) struct Pieces<'a> {
    items: Items<'a>,
    text: BytesMut,
    count: u64,
    ended: bool,
}

impl<'a> Pieces<'a> {
    pub(super) fn of(items: Items<'a>) -> Self {
        Self { items, text: BytesMut::from(MAGIC), count: 0, ended: false }
    }

    fn put(&mut self, kind: u8, key: &[u8], value: &[u8]) {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("BUG: an item of 4 GiB");
        self.text.reserve(HEAD_BYTES + key.len() + value.len());
        self.text.put_u8(kind);
        self.text.put_u32_le(length(key));
        self.text.put_u32_le(length(value));
        self.text.put_slice(key);
        self.text.put_slice(value);
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Bytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.text.len() < PIECE_BYTES && !self.ended {
            match self.items.next() {
                Some(Ok(Item { kind, key, value })) => {
                    self.count += 1;
                    self.put(kind as u8, &key, &value);
                }
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.ended = true;
                    self.put(END, &[], &self.count.to_le_bytes());
                }
            }
        }
        let length = self.text.len().min(PIECE_BYTES);
        (0 < length).then(|| Ok(self.text.split_to(length).freeze()))
    }
}

/// The items of pieces. Whatever is not a whole copy ends with an error.
pub(super) fn items(
    pieces: impl Iterator<Item = Result<Bytes, StoreError>> + Send,
) -> impl Iterator<Item = Result<Item, StoreError>> + Send {
    let mut reader = Reader { pieces, text: BytesMut::new(), begun: false, count: 0, ended: false };
    std::iter::from_fn(move || reader.next().transpose())
}

struct Reader<I> {
    pieces: I,
    text: BytesMut,
    begun: bool,
    count: u64,
    ended: bool,
}

impl<I: Iterator<Item = Result<Bytes, StoreError>>> Reader<I> {
    fn next(&mut self) -> Result<Option<Item>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        if !self.begun {
            if self.take(MAGIC.len())?[..] != *MAGIC {
                return Err(no_copy("it does not begin as a copy of this version does"));
            }
            self.begun = true;
        }
        let mut head = self.take(HEAD_BYTES)?;
        let (kind, key, value) = (head.get_u8(), head.get_u32_le(), head.get_u32_le());
        let (key, value) = (self.take(key as usize)?, self.take(value as usize)?);
        if kind == END {
            self.ended = true;
            return match value[..] == self.count.to_le_bytes() {
                true => Ok(None),
                false => Err(no_copy("it lacks something")),
            };
        }
        self.count += 1;
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
        let kind = kind.ok_or_else(|| no_copy("it holds what this version does not know"))?;
        Ok(Some(Item { kind, key, value }))
    }

    /// The next bytes.
    fn take(&mut self, count: usize) -> Result<Bytes, StoreError> {
        if ITEM_BYTES_MAX < count {
            return Err(no_copy("it holds more than any item may"));
        }
        while self.text.len() < count {
            let piece = self.pieces.next().ok_or_else(|| no_copy("it broke off"))?;
            self.text.extend_from_slice(&piece?);
        }
        Ok(self.text.split_to(count).freeze())
    }
}

fn no_copy(what: &str) -> StoreError {
    StoreError::NoCopy(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Item> {
        let item = |kind, key: &'static [u8], bytes| Item {
            kind,
            key: Bytes::from_static(key),
            value: Bytes::from(vec![7; bytes]),
        };
        vec![
            item(Kind::Gateway, b"\0\0\0\x01", 3),
            item(Kind::Log, b"log", 3 * PIECE_BYTES),
            item(Kind::Row, b"", 0),
            item(Kind::Meta, b"meta", 1),
        ]
    }

    fn read(pieces: &[Bytes]) -> Result<Vec<Item>, StoreError> {
        items(pieces.iter().cloned().map(Ok)).collect()
    }

    #[test]
    fn items_come_back_and_a_copy_that_broke_off_is_none() {
        let pieces = Pieces::of(Box::new(sample().into_iter().map(Ok)));
        let pieces: Vec<Bytes> = pieces.collect::<Result<_, _>>().expect("no error");
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES), "a piece too large");
        assert_eq!(read(&pieces).expect("whole"), sample());
        for count in 0..pieces.len() {
            assert!(read(&pieces[..count]).is_err(), "{count} of {} pieces", pieces.len());
        }
        let last = pieces.last().expect("one").clone();
        for cut in 0..last.len() {
            let mut cut_short = pieces.clone();
            cut_short.pop();
            cut_short.push(last.slice(..cut));
            assert!(read(&cut_short).is_err(), "{cut} bytes of the last piece");
        }
        assert!(read(&pieces[1..]).is_err(), "without its beginning");
    }

    #[test]
    fn an_error_is_handed_on() {
        let failing = std::iter::once(Err(StoreError::Closed));
        let mut pieces = Pieces::of(Box::new(failing));
        assert!(matches!(pieces.next(), Some(Err(StoreError::Closed))));
    }
}

//! The form of one operation in the journal. The running store applies what it reads back from this
//! form, so that recovery takes the very path every commit took.
//!
//! A record is one buffer, and what is decoded from it points into it: keys and values are copied
//! once, when they are written. Row and meta keys carry the gateway's number in front, as in tables.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use lakesync::name::{Gateway, Position};

use crate::store::{GatewayId, Group};

/// A change of one key; `None` removes.
pub(super) type Change = (Bytes, Option<Bytes>);

/// Bytes that a gateway's number takes in front of a key.
pub(super) const GATEWAY_BYTES: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create { id: GatewayId, name: Gateway, created_ms: u64 },
    Drop(GatewayId),
    Trim(GatewayId, Position),
    Commit(GatewayId, Changes),
}

/// What a commit changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changes {
    /// The position before the first log entry.
    pub(super) after: Position,
    pub(super) log: Vec<Bytes>,
    pub(super) rows: Vec<Change>,
    pub(super) meta: Vec<Change>,
}

/// Bytes that are no record, although their checksum is right.
#[derive(Debug, thiserror::Error)]
#[error("a journal record can't be understood: {0}")]
pub(super) struct Malformed(&'static str);

const CREATE: u8 = 1;
const DROP: u8 = 2;
const TRIM: u8 = 3;
const COMMIT: u8 = 4;
/// In place of a value's length: the key is removed.
const REMOVED: u32 = u32::MAX;

/// After the keys of every gateway: the greatest number is never given.
pub(super) const END: [u8; GATEWAY_BYTES] = [0xff; GATEWAY_BYTES];

/// The first full key after those that begin with `prefix`.
pub(super) fn end_of_prefix(gateway: GatewayId, prefix: &[u8]) -> Vec<u8> {
    let mut end = full_key(gateway, prefix);
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    END.to_vec()
}

/// A key as it stands in tables and overlays.
pub(super) fn full_key(gateway: GatewayId, key: &[u8]) -> Vec<u8> {
    [&gateway.0.to_be_bytes(), key].concat()
}

/// The gateway that a full key belongs to.
pub(super) fn gateway_of(full_key: &[u8]) -> Option<GatewayId> {
    full_key.first_chunk().map(|first| GatewayId(u32::from_be_bytes(*first)))
}

pub(super) fn create(id: GatewayId, name: &Gateway, created_ms: u64) -> Bytes {
    let mut out = begin(CREATE, id, name.as_str().len() + 16);
    out.put_u64_le(created_ms);
    put_bytes(&mut out, name.as_str().as_bytes());
    out.freeze()
}

pub(super) fn drop(id: GatewayId) -> Bytes {
    begin(DROP, id, 0).freeze()
}

pub(super) fn trim(id: GatewayId, through: Position) -> Bytes {
    let mut out = begin(TRIM, id, 8);
    out.put_u64_le(through.0);
    out.freeze()
}

/// The record of a group that follows `after`.
pub(super) fn commit(id: GatewayId, after: Position, group: &Group) -> Bytes {
    let log: usize = group.log.iter().map(|entry| entry.commit.len() + 4).sum();
    let sizes = [&group.rows, &group.meta].map(|changes| changes.iter().map(change_bytes).sum());
    let mut out = begin(COMMIT, id, 24 + log + sizes.iter().sum::<usize>());
    out.put_u64_le(after.0);
    put_count(&mut out, group.log.len());
    for entry in &group.log {
        put_bytes(&mut out, &entry.commit);
    }
    for changes in [&group.rows, &group.meta] {
        put_count(&mut out, changes.len());
        for (key, value) in changes {
            put_count(&mut out, GATEWAY_BYTES + key.len());
            out.put_u32(id.0);
            out.put_slice(key);
            match value {
                Some(value) => put_bytes(&mut out, value),
                None => out.put_u32_le(REMOVED),
            }
        }
    }
    out.freeze()
}

fn change_bytes((key, value): &Change) -> usize {
    8 + GATEWAY_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len)
}

fn begin(kind: u8, id: GatewayId, bytes: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(1 + GATEWAY_BYTES + bytes);
    out.put_u8(kind);
    out.put_u32(id.0);
    out
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

fn put_count(out: &mut BytesMut, count: usize) {
    let count = u32::try_from(count).ok().filter(|count| *count < REMOVED);
    out.put_u32_le(count.expect("BUG: a group beyond every limit of size"));
}

impl Operation {
    /// Reads a record back. What it holds points into `record`.
    pub(super) fn decode(mut record: Bytes) -> Result<Self, Malformed> {
        let from = &mut record;
        let kind = from.try_get_u8().map_err(|_| Malformed("it is empty"))?;
        let id = GatewayId(from.try_get_u32().map_err(|_| SHORT)?);
        let operation = match kind {
            CREATE => {
                let created_ms = take_u64(from)?;
                let name = take_bytes(from)?;
                let name = std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok());
                Self::Create { id, name: name.ok_or(Malformed("an illegal name"))?, created_ms }
            }
            DROP => Self::Drop(id),
            TRIM => Self::Trim(id, Position(take_u64(from)?)),
            COMMIT => Self::Commit(id, take_commit(from)?),
            _ => return Err(Malformed("an unknown kind")),
        };
        if from.has_remaining() {
            return Err(Malformed("it goes on after its end"));
        }
        Ok(operation)
    }
}

const SHORT: Malformed = Malformed("it ends early");

fn take_commit(from: &mut Bytes) -> Result<Changes, Malformed> {
    let after = Position(take_u64(from)?);
    let log = take_many(from, take_bytes)?;
    let rows = take_many(from, take_change)?;
    let meta = take_many(from, take_change)?;
    Ok(Changes { after, log, rows, meta })
}

fn take_many<T>(
    from: &mut Bytes,
    take: impl Fn(&mut Bytes) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = take_u32(from)? as usize;
    // Nothing takes fewer than four bytes, so a wrong count can't make us allocate the world.
    let mut items = Vec::with_capacity(count.min(from.len() / 4));
    for _ in 0..count {
        items.push(take(from)?);
    }
    Ok(items)
}

fn take_change(from: &mut Bytes) -> Result<Change, Malformed> {
    let key = take_bytes(from)?;
    if key.len() < GATEWAY_BYTES {
        return Err(Malformed("a key without its gateway"));
    }
    let value = match take_u32(from)? {
        REMOVED => None,
        length => Some(take(from, length as usize)?),
    };
    Ok((key, value))
}

fn take_bytes(from: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = take_u32(from)? as usize;
    take(from, length)
}

fn take(from: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if from.len() < length { Err(SHORT) } else { Ok(from.split_to(length)) }
}

fn take_u32(from: &mut Bytes) -> Result<u32, Malformed> {
    from.try_get_u32_le().map_err(|_| SHORT)
}

fn take_u64(from: &mut Bytes) -> Result<u64, Malformed> {
    from.try_get_u64_le().map_err(|_| SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LogEntry;

    fn group() -> Group {
        let entry = |n| LogEntry { position: Position(n), commit: Bytes::from_static(b"commit") };
        let change = |key, value: Option<&'static [u8]>| {
            (Bytes::from_static(key), value.map(Bytes::from_static))
        };
        Group {
            log: vec![entry(8), entry(9)],
            rows: vec![change(b"k", Some(b"v")), change(b"gone", None), change(b"", Some(b""))],
            meta: vec![change(b"m", Some(b"w"))],
        }
    }

    #[test]
    fn operations_survive_their_bytes() {
        let (id, name) = (GatewayId(0x0102_0304), "main".parse::<Gateway>().expect("a name"));
        let decoded = |record| Operation::decode(record).expect("a record");
        let created = Operation::Create { id, name: name.clone(), created_ms: 5 };
        assert_eq!(decoded(create(id, &name, 5)), created);
        assert_eq!(decoded(drop(id)), Operation::Drop(id));
        assert_eq!(decoded(trim(id, Position(7))), Operation::Trim(id, Position(7)));
        let Operation::Commit(of, changes) = decoded(commit(id, Position(7), &group())) else {
            panic!("another operation");
        };
        assert_eq!((of, changes.after), (id, Position(7)));
        assert_eq!(changes.log, ["commit", "commit"]);
        let shown = |(key, value): &Change| (key.to_vec(), value.clone());
        let rows: Vec<_> = changes.rows.iter().map(shown).collect();
        assert_eq!(rows[0], (full_key(id, b"k"), Some(Bytes::from_static(b"v"))));
        assert_eq!(rows[1], (full_key(id, b"gone"), None));
        assert_eq!(rows[2], (full_key(id, b""), Some(Bytes::new())));
        assert_eq!(changes.meta.len(), 1);
        assert_eq!(gateway_of(&rows[0].0), Some(id));
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        let record = commit(GatewayId(1), Position(7), &group());
        for end in 0..record.len() {
            let cut = Operation::decode(record.slice(..end));
            assert!(cut.is_err(), "{end} of {} bytes were accepted", record.len());
        }
        let longer = [&record[..], b"\0"].concat();
        assert!(Operation::decode(longer.into()).is_err());
    }
}

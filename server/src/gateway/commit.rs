//! A commit as the log keeps it: what one push changed, ready to be sent.
//!
//! Stored form, version 1: the version byte, the commit's clock reading and the chain before it (both
//! big-endian), then a `lakesync.v1.Page` whose tables hold the cells that took effect. Version 2,
//! where sync rules are in force: in front of the page, the rules' generation, the number of bucket
//! instances that the commit concerns, and those: their parts go when the commit goes.

use bytes::Bytes;
use lakesync::delta::Delta;
use lakesync::hlc::Hlc;
use lakesync::name::{ClientId, Position};
use lakesync::proto::v1::{Page, TableChanges};
use lakesync::rules::Instance;
use lakesync::wire;
use prost::Message;

use super::part::Part;
use crate::store::StoreError;

const PLAIN: u8 = 1;
const RULED: u8 = 2;
const HEADER_BYTES: usize = 1 + 2 * size_of::<u64>();
/// A generation, and a count of instances.
const RULED_BYTES: usize = 2 * size_of::<u32>();

/// A fingerprint of a commit and of all that came before it in its log. Two logs that differ anywhere
/// up to a position have different chains there, although their positions are the same. It tells logs
/// apart that went on from one copy. It is no proof against forgery, and no right depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain(pub(super) u64);

impl Chain {
    /// The chain at a stored commit, whose bytes hold the chain before it.
    pub(super) fn at(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(bytes))
    }
}

/// A durable commit on its way to readers.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    /// Its place in the log.
    pub(super) position: Position,
    /// The chain at it.
    pub(super) chain: Chain,
    /// Its stored form.
    pub(super) bytes: Bytes,
    /// What it means to readers under the rules in force, sorted by instance.
    pub(super) parts: Vec<Part>,
}

impl Commit {
    pub(super) fn new(position: Position, bytes: Bytes, parts: Vec<Part>) -> Self {
        Self { position, chain: Chain::at(&bytes), bytes, parts }
    }

    /// What it means to one instance.
    pub(super) fn part(&self, instance: &Instance) -> Option<&Part> {
        let found = self.parts.binary_search_by(|part| part.instance.cmp(instance));
        found.ok().map(|at| &self.parts[at])
    }

    /// How much memory it takes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.parts.iter().map(|part| part.bytes.len()).sum::<usize>()
    }
}

/// The stored form of what `client` changed at `hlc`, while the rules of `generation` were in force.
/// `before` is the chain at the commit before it.
pub(super) fn encode(
    client: &ClientId,
    hlc: Hlc,
    before: Chain,
    effective: &[Delta],
    (generation, parts): (u32, &[Part]),
) -> Bytes {
    let stored: Vec<&Part> = parts.iter().filter(|part| part.is_stored()).collect();
    let mut bytes = Vec::new();
    bytes.push(if stored.is_empty() { PLAIN } else { RULED });
    bytes.extend([hlc.0, before.0].map(u64::to_be_bytes).as_flattened());
    if !stored.is_empty() {
        let count = u32::try_from(stored.len()).expect("BUG: rows and buckets are bounded");
        bytes.extend([generation, count].map(u32::to_be_bytes).concat());
        stored.iter().for_each(|part| bytes.extend(part.instance.to_bytes()));
    }
    wire::put_commit(client, effective, &mut bytes);
    bytes.into()
}

/// The changes of a stored commit.
pub(super) fn decode(bytes: &Bytes) -> Result<Vec<TableChanges>, StoreError> {
    let (header, _) = header(bytes)?;
    let page = Page::decode(bytes.slice(header..));
    Ok(page.map_err(|error| corrupt(&error.to_string()))?.tables)
}

/// The gateway's clock when a stored commit was made.
pub(super) fn hlc(bytes: &Bytes) -> Result<Hlc, StoreError> {
    Ok(Hlc(field(bytes, 0)?))
}

/// The chain before a stored commit.
pub(super) fn before(bytes: &Bytes) -> Result<Chain, StoreError> {
    Ok(Chain(field(bytes, 1)?))
}

/// One of the two numbers after the version.
fn field(bytes: &Bytes, nth: usize) -> Result<u64, StoreError> {
    let start = 1 + nth * size_of::<u64>();
    let field = bytes.get(start..start + size_of::<u64>());
    let field = field.and_then(|field| field.try_into().ok());
    field.map(u64::from_be_bytes).ok_or_else(|| corrupt("it ends early"))
}

/// The generation and the instances that have parts of a stored commit.
pub(super) fn parts(bytes: &Bytes) -> Result<(u32, Vec<Instance>), StoreError> {
    let (end, generation) = header(bytes)?;
    let start = end.min(HEADER_BYTES + RULED_BYTES);
    let (instances, _) = bytes[start..end].as_chunks::<{ Instance::BYTES }>();
    Ok((generation, instances.iter().map(Instance::from_bytes).collect()))
}

/// Where the page begins, and the generation, if any.
fn header(bytes: &Bytes) -> Result<(usize, u32), StoreError> {
    if bytes.len() < HEADER_BYTES {
        return Err(corrupt("it ends early"));
    }
    let (end, generation) = match bytes[0] {
        PLAIN => (HEADER_BYTES, 0),
        RULED => {
            let number = |at: usize| {
                let number = bytes.get(at..at + size_of::<u32>());
                let number = number.and_then(|number| number.try_into().ok());
                number.map(u32::from_be_bytes).ok_or_else(|| corrupt("it ends early"))
            };
            let generation = number(HEADER_BYTES)?;
            let count = number(HEADER_BYTES + size_of::<u32>())? as usize;
            (HEADER_BYTES + RULED_BYTES + count.saturating_mul(Instance::BYTES), generation)
        }
        _ => return Err(corrupt("unknown version")),
    };
    if bytes.len() < end {
        return Err(corrupt("it ends early"));
    }
    Ok((end, generation))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a commit: {what}"))
}

/// Who pushed this commit, if it holds anything. A commit is one client's, so any table tells.
pub(super) fn pushed_by(tables: &[TableChanges]) -> Option<&str> {
    tables.iter().find_map(|table| table.clients.first()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use lakesync::testing;

    use super::*;

    #[test]
    fn commits_round_trip_with_and_without_parts() {
        let (ann, delta) = (testing::id("ann"), testing::delta("ann@1 title=milk"));
        let instance = |byte| Instance::from_bytes(&[byte; Instance::BYTES]);
        let part = |byte| Part { instance: instance(byte), bytes: Bytes::from_static(b"x") };
        let mut changes = Vec::new();
        for some in [vec![], vec![part(1)], vec![part(1), part(2)]] {
            let bytes = encode(&ann, Hlc(7), Chain(8), std::slice::from_ref(&delta), (5, &some));
            assert_eq!(
                (hlc(&bytes).expect("whole"), before(&bytes).expect("whole")),
                (Hlc(7), Chain(8))
            );
            let instances: Vec<_> = some.iter().map(|part| part.instance).collect();
            let generation = if some.is_empty() { 0 } else { 5 };
            assert_eq!(parts(&bytes).expect("whole"), (generation, instances));
            changes.push(decode(&bytes).expect("whole"));
            for cut in 0..header(&bytes).expect("whole").0 {
                assert!(decode(&bytes.slice(..cut)).is_err(), "{cut} bytes");
            }
            let commit = Commit::new(Position(1), bytes, some);
            assert_eq!(commit.part(&instance(1)).is_some(), !commit.parts.is_empty());
            assert!(commit.part(&instance(3)).is_none());
        }
        assert!(changes.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(pushed_by(&changes[0]), Some("ann"));
    }

    /// The same commit after another log is another: what differs once differs from then on.
    #[test]
    fn a_chain_tells_what_came_before() {
        let (ann, delta) = (testing::id("ann"), testing::delta("ann@1 title=milk"));
        let next = |before, hlc| {
            let bytes = encode(&ann, hlc, before, std::slice::from_ref(&delta), (0, &[]));
            Commit::new(Position(1), bytes, Vec::new()).chain
        };
        let (one, other) = (next(Chain::default(), Hlc(1)), next(Chain::default(), Hlc(2)));
        assert_eq!(one, next(Chain::default(), Hlc(1)));
        assert_ne!(one, other);
        assert_ne!(next(one, Hlc(3)), next(other, Hlc(3)));
    }
}

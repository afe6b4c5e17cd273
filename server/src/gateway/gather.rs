//! What commits hold for a reader within a scope, as it is kept: the parts of its bucket instances,
//! and the commits themselves for tables of which it sees every row. From memory, if they reach back
//! to where the reader stands; else from the store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lakesync::limits::PAGE_BYTES_TARGET;
use lakesync::name::Position;
use lakesync::rules::Instance;

use super::lens::Lens;
use super::part::{self, Opened, Part};
use super::reader::Reader;
use super::{ReadError, commit, keys};
use crate::store::StoreError;

/// The least that is read of an instance at a time.
const READ_BYTES_MIN: usize = 4 << 10;
/// How many bytes of parts are gathered at a time: enough for some pages.
const GATHER_BYTES_MAX: usize = 2 << 20;
/// What of a commit a reader is to have, in stored form.
pub(super) enum Source {
    /// An instance's part.
    Part(Bytes),
    /// The commit itself, for the tables of which the reader sees every row.
    Commit(Bytes),
}

impl Source {
    fn size(&self) -> usize {
        match self {
            Self::Part(bytes) | Self::Commit(bytes) => bytes.len(),
        }
    }

    pub(super) fn open(&self, whole: &BTreeSet<&str>) -> Result<Opened, StoreError> {
        match self {
            Self::Part(bytes) => part::open(bytes),
            Self::Commit(bytes) => {
                let mut tables = commit::decode(bytes)?;
                let client = tables.iter().find_map(|table| table.clients.first().cloned());
                tables.retain(|table| whole.contains(table.table.as_str()));
                Ok(Opened { client: client.unwrap_or_default(), tables })
            }
        }
    }
}

/// The parts of commits that a reader is to have, by position, up to `through`.
pub(super) struct Gathered {
    pub(super) parts: BTreeMap<Position, Vec<Source>>,
    pub(super) through: Position,
    /// Whether they reach to the head, and so tell what became of each row.
    pub(super) to_the_head: bool,
}

/// The commits in memory, if they reach back to where the reader stands.
pub(super) fn recent(reader: &Reader, lens: &Lens, durable: Position) -> Option<Gathered> {
    let commits = reader.gateway.0.tail.after(reader.at(), usize::MAX)?;
    let mut parts = BTreeMap::new();
    for commit in commits.iter().filter(|commit| commit.position <= durable) {
        let mut own: Vec<&Part> = match commit.parts.len() < lens.scope.instances().len() {
            true => commit.parts.iter().filter(|one| lens.scope.holds(&one.instance)).collect(),
            false => lens.scope.instances().filter_map(|one| commit.part(&one)).collect(),
        };
        let all = own.len();
        own.retain(|part| part.is_stored());
        // One that is not stored is the commit itself.
        let whole = (own.len() < all).then(|| Source::Commit(commit.bytes.clone()));
        let own = own.into_iter().map(|part| Source::Part(part.bytes.clone()));
        let own: Vec<Source> = own.chain(whole).collect();
        if !own.is_empty() {
            parts.insert(commit.position, own);
        }
    }
    Some(Gathered { parts, through: durable, to_the_head: true })
}

/// The parts that the store keeps. What was read of one instance beyond where another's reading
/// ended is left for the next time.
pub(super) async fn stored_parts(
    reader: &Reader,
    lens: &Lens,
    durable: Position,
) -> Result<Gathered, ReadError> {
    let whole = lens.whole_tables();
    let instances = lens.scope.instances();
    let each = (PAGE_BYTES_TARGET / instances.len().max(1)).max(READ_BYTES_MIN);
    let mut all = Gathered { parts: BTreeMap::new(), through: durable, to_the_head: false };
    let mut bytes = 0;
    if !whole.is_empty() {
        bytes += all.read_log(reader).await?;
    }
    for instance in instances {
        let whole = lens.index.rules.whole_tables(&instance).is_some();
        bytes += all.read_parts(reader, lens.index.generation, &instance, each, whole).await?;
        bytes -= all.cut(bytes.saturating_sub(GATHER_BYTES_MAX));
    }
    // Asked afterwards, so that a trim under way can't leave a silent gap.
    reader.gateway.check_held(reader.at())?;
    Ok(all)
}

impl Gathered {
    /// Reads commits, and as far as they go. How many bytes.
    async fn read_log(&mut self, reader: &Reader) -> Result<usize, ReadError> {
        let inner = &reader.gateway.0;
        let entries = inner.store.log(inner.record.id, reader.at(), PAGE_BYTES_TARGET).await?;
        let (mut read, mut last) = (0, None);
        for entry in entries.into_iter().filter(|entry| entry.position <= self.through) {
            read += entry.commit.len();
            last = Some(entry.position);
            self.parts.entry(entry.position).or_default().push(Source::Commit(entry.commit));
        }
        // The log has every position up to the head: there is always a next.
        let gap = || StoreError::Corrupt(format!("the log ends after {}", reader.at()));
        self.through = last.ok_or_else(gap)?;
        Ok(read)
    }

    /// Reads an instance's parts up to `through`, or until there are `each` bytes of them. How many
    /// bytes.
    async fn read_parts(
        &mut self,
        reader: &Reader,
        generation: u32,
        instance: &Instance,
        each: usize,
        whole: bool,
    ) -> Result<usize, ReadError> {
        let prefix = keys::bucket_commits(generation, instance);
        let mut after = keys::bucket_commit(generation, instance, reader.at());
        let mut read = 0;
        loop {
            let inner = &reader.gateway.0;
            let entries = inner.store.scan(inner.record.id, &prefix, Some(&after), each).await?;
            let Some((last, _)) = entries.last() else { return Ok(read) };
            after = last.clone();
            for (key, part) in entries {
                let corrupt = || StoreError::Corrupt(format!("the key of a part: {key:?}"));
                let position = keys::position(&key, &prefix).ok_or_else(corrupt)?;
                if self.through < position {
                    return Ok(read);
                }
                read += part.len();
                let sources = self.parts.entry(position).or_default();
                if whole {
                    // It says what of the commit may be told.
                    sources.retain(|source| matches!(source, Source::Part(_)));
                }
                sources.push(Source::Part(part));
                if each <= read {
                    self.through = position;
                    return Ok(read);
                }
            }
        }
    }

    /// Lets go of what is beyond `through`, and of the newest until `excess` bytes are freed, but
    /// for one position. How many bytes it freed.
    fn cut(&mut self, excess: usize) -> usize {
        let size = |parts: &Vec<Source>| parts.iter().map(Source::size).sum::<usize>();
        let mut freed: usize = self.parts.split_off(&self.through.next()).values().map(size).sum();
        while freed < excess && 1 < self.parts.len() {
            let Some((position, parts)) = self.parts.pop_last() else { break };
            freed += size(&parts);
            self.through = Position(position.0 - 1);
        }
        freed
    }
}

//! What commits hold for a reader within a scope, as it is kept: the parts of its bucket instances,
//! and the commits themselves for tables of which it sees every row. From memory, if they reach back
//! to where the reader stands; else from the store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lakesync::limits::PAGE_BYTES;
use lakesync::name::Position;
use lakesync::proto::v1::TableChanges;
use lakesync::rules::Instance;

use super::lens::Lens;
use super::part::{self, Part};
use super::stand::Stand;
use super::{ReadError, commit, keys};
use crate::store::StoreError;

/// How many bytes of parts are read of an instance at a time, at most and at least: most take few.
const READ_BYTES_MAX: usize = 256 << 10;
const READ_BYTES_MIN: usize = 1 << 10;
/// How many bytes of parts are gathered at a time: enough for some pages.
const GATHER_BYTES_MAX: usize = 2 * PAGE_BYTES;
/// What of a commit a reader is to have, in stored form.
#[derive(Default)]
pub(super) struct Source {
    /// The commit itself, if it is at hand.
    commit: Option<Bytes>,
    /// The instances' parts of it.
    parts: Vec<Bytes>,
    /// Whether the reader is to have all of it, of the tables of which it sees every row.
    whole: bool,
}

/// What of a commit a reader is to have, one list for each instance that tells of it.
pub(super) struct Opened {
    /// Who pushed the commit.
    pub(super) client: String,
    pub(super) parts: Vec<Vec<TableChanges>>,
}

impl Source {
    fn size(&self) -> usize {
        let commit = self.commit.as_ref().map_or(0, Bytes::len);
        commit + self.parts.iter().map(Bytes::len).sum::<usize>()
    }

    /// Understands it. Commits that are not at hand are read.
    pub(super) async fn open(
        self,
        stand: &Stand,
        position: Position,
        whole: &BTreeSet<&str>,
    ) -> Result<Opened, ReadError> {
        let commit = match self.commit {
            Some(commit) => commit,
            None => read_commit(stand, position).await?,
        };
        let mut tables = commit::decode(&commit)?;
        let client = tables.iter().find_map(|table| table.clients.first().cloned());
        let parts = self.parts.iter().map(|part| part::open(part, &tables));
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        if self.whole {
            tables.retain(|table| whole.contains(table.table.as_str()));
            parts.push(tables);
        }
        Ok(Opened { client: client.unwrap_or_default(), parts })
    }
}

/// One commit of the log.
async fn read_commit(stand: &Stand, position: Position) -> Result<Bytes, ReadError> {
    let (inner, before) = (&stand.gateway.0, Position(position.0 - 1));
    let read = inner.store.log(inner.record.id, before, 0).await;
    // Asked after the reading, whatever came of it: a trim under way takes the commit away.
    stand.gateway.check_held(before)?;
    let entry = read?.into_iter().next().filter(|entry| entry.position == position);
    let missing = || format!("a part of commit {position}, which is not there");
    Ok(entry.ok_or_else(|| StoreError::Corrupt(missing()))?.commit)
}

/// The parts of commits that a reader is to have, by position, up to `through`.
pub(super) struct Gathered {
    pub(super) commits: BTreeMap<Position, Source>,
    pub(super) through: Position,
    /// Whether they reach to the head, and so tell what became of each row.
    pub(super) to_the_head: bool,
}

/// The commits in memory, if they reach back to where the reader stands. All are durable, and they reach
/// to the head of now: it may have moved since the reader set out.
pub(super) fn recent(stand: &Stand, lens: &Lens) -> Option<Gathered> {
    let recent = stand.gateway.0.tail.after(stand.at(), usize::MAX)?;
    let through = recent.last().map_or(stand.at(), |commit| commit.position);
    let mut commits = BTreeMap::new();
    for commit in &recent {
        let mut own: Vec<&Part> = match commit.parts.len() < lens.scope.instances().len() {
            true => commit.parts.iter().filter(|one| lens.scope.holds(&one.instance)).collect(),
            false => lens.scope.instances().filter_map(|one| commit.part(&one)).collect(),
        };
        if !own.is_empty() {
            // One that is not stored is the commit itself.
            let whole = own.iter().any(|part| !part.is_stored());
            own.retain(|part| part.is_stored());
            let parts = own.into_iter().map(|part| part.bytes.clone()).collect();
            let commit_bytes = Some(commit.bytes.clone());
            commits.insert(commit.position, Source { commit: commit_bytes, parts, whole });
        }
    }
    Some(Gathered { commits, through, to_the_head: true })
}

/// The parts that the store keeps. What was read of one instance beyond where another's reading
/// ended is left for the next time.
pub(super) async fn stored_parts(
    stand: &Stand,
    lens: &Lens,
    durable: Position,
) -> Result<Gathered, ReadError> {
    let whole = lens.whole_tables();
    let instances = lens.scope.instances();
    let each = (READ_BYTES_MAX / instances.len().max(1)).max(READ_BYTES_MIN);
    let mut all = Gathered { commits: BTreeMap::new(), through: durable, to_the_head: false };
    let mut bytes = 0;
    if !whole.is_empty() {
        bytes += all.read_log(stand).await?;
    }
    for instance in instances {
        let whole = lens.index.rules.whole_tables(&instance).is_some();
        bytes += all.read_parts(stand, lens.index.generation, &instance, each, whole).await?;
        bytes -= all.cut(bytes.saturating_sub(GATHER_BYTES_MAX));
    }
    // Asked afterwards, so that a trim under way can't leave a silent gap.
    stand.gateway.check_held(stand.at())?;
    Ok(all)
}

impl Gathered {
    /// Reads commits, and as far as they go. How many bytes.
    async fn read_log(&mut self, stand: &Stand) -> Result<usize, ReadError> {
        let inner = &stand.gateway.0;
        let entries = inner.store.log(inner.record.id, stand.at(), PAGE_BYTES).await;
        // Asked after the reading, whatever came of it: the log may have been trimmed meanwhile, even
        // past `through`, which leaves nothing to read.
        stand.gateway.check_held(stand.at())?;
        let (mut read, mut last) = (0, None);
        for entry in entries?.into_iter().filter(|entry| entry.position <= self.through) {
            read += entry.commit.len();
            last = Some(entry.position);
            let source = Source { commit: Some(entry.commit), whole: true, ..Source::default() };
            self.commits.insert(entry.position, source);
        }
        // The log has every position up to the head: there is always a next.
        let gap = || StoreError::Corrupt(format!("the log ends after {}", stand.at()));
        self.through = last.ok_or_else(gap)?;
        Ok(read)
    }

    /// Reads an instance's parts up to `through`, or until there are `each` bytes of them. How many
    /// bytes.
    async fn read_parts(
        &mut self,
        stand: &Stand,
        generation: u32,
        instance: &Instance,
        each: usize,
        whole: bool,
    ) -> Result<usize, ReadError> {
        let prefix = keys::bucket_commits(generation, instance);
        let mut after = keys::bucket_commit(generation, instance, stand.at());
        let mut read = 0;
        loop {
            let inner = &stand.gateway.0;
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
                let source = self.commits.entry(position).or_default();
                // It says what of the commit may be told.
                source.whole &= !whole;
                source.parts.push(part);
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
        let mut freed: usize =
            self.commits.split_off(&self.through.next()).values().map(Source::size).sum();
        while freed < excess && 1 < self.commits.len() {
            let Some((position, source)) = self.commits.pop_last() else { break };
            freed += source.size();
            self.through = Position(position.0 - 1);
        }
        freed
    }
}

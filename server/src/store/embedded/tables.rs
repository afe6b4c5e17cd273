//! The tables: what was committed before the overlays, sorted and on disk, kept by fjall.
//!
//! Everything enters by ingestion, one overlay at a time, and fjall's own journal stays empty: rows
//! and log first, and last, in one atomic step, meta entries, the gateways' records and the number
//! of the journal file that is thereby applied. Killed before that step, the same overlay comes
//! again from the journal and is ingested over what is there already, which changes nothing.
//!
//! Space of trimmed and dropped data comes back without tombstones: tables that hold nothing else
//! are dropped whole, and compaction leaves out the rest.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::config::{FilterPolicy, FilterPolicyEntry};
use fjall::{
    AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
};

use self::reclaim::Reclaim;
use super::Options;
use super::gateways::{Gateways, Life};
use super::record::{Change, full_key, gateway_of};
use super::shortage::Lacking;
use crate::store::{GatewayId, StoreError};

pub(super) mod reclaim;

/// Level-0 runs beyond which the next overlay waits for compaction, since each slows every look-up.
const RUNS_MAX: usize = 16;
/// Logs whose whole tables are looked for after one ingestion; compaction gets the others.
const DROPS_MAX: usize = 32;

/// What the tables keep for themselves lies under the number that no gateway has.
const OWN: GatewayId = GatewayId(0);
const APPLIED: &[u8] = b"applied";
const GATEWAY: &[u8] = b"gateway";
const NEXT: &[u8] = b"next";

#[derive(Clone)]
pub(super) struct Tables {
    database: Database,
    rows: Keyspace,
    meta: Keyspace,
    log: Keyspace,
    reclaim: Arc<Reclaim>,
}

/// Which keys a range or look-up is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Rows,
    Meta,
}

/// What becomes of the gateways when an overlay is applied: those that it touched, as they were when
/// it was sealed. `None` was dropped.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) lives: Vec<(GatewayId, Option<Life>)>,
    pub(super) next: u32,
}

/// Changes in the order of their full keys.
pub(super) type Ordered<'a> = Box<dyn Iterator<Item = Result<Change, StoreError>> + Send + 'a>;

/// What is added to the tables at once. Log keys end with the position.
pub(super) struct Content<'a> {
    pub(super) log: Ordered<'a>,
    pub(super) rows: Ordered<'a>,
    pub(super) meta: Ordered<'a>,
}

/// The keyspaces of a database: its own, rows, meta and log.
const KEYSPACES: usize = 4;

/// What fjall makes anew without a word where it is missing, although data was in it; worse, it then
/// removes what belongs to it. Checked before fjall is asked.
pub(super) fn missing_part(path: &Path) -> io::Result<Option<PathBuf>> {
    let (marker, keyspaces) = (path.join("version"), path.join("keyspaces"));
    if !marker.try_exists()? {
        return Ok(Some(marker));
    }
    if !keyspaces.is_dir() {
        return Ok(Some(keyspaces));
    }
    // Nothing is in it; but where it is missing, fjall shows nothing of what the tables hold.
    let mut has_journal = false;
    for entry in fs::read_dir(path)? {
        has_journal |= entry?.path().extension().is_some_and(|end| end == "jnl");
    }
    if !has_journal {
        return Ok(Some(path.join("*.jnl")));
    }
    let mut found = 0;
    for entry in fs::read_dir(&keyspaces)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let current = entry.path().join("current");
            if !current.try_exists()? {
                return Ok(Some(current));
            }
            found += 1;
        }
    }
    Ok((found < KEYSPACES).then(|| keyspaces.join("*")))
}

impl Tables {
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, StoreError> {
        let reclaim = Arc::new(Reclaim::default());
        // fjall panics at some damage; whoever opens a store deserves an error.
        let opened =
            std::panic::catch_unwind(AssertUnwindSafe(|| Self::open_with(path, options, reclaim)));
        match opened {
            Ok(opened) => opened.map_err(fault),
            Err(_) => Err(StoreError::Corrupt(format!("{} can't be opened", path.display()))),
        }
    }

    fn open_with(path: &Path, options: &Options, reclaim: Arc<Reclaim>) -> fjall::Result<Self> {
        let (marker, lock) = (path.join("version"), path.join("lock"));
        if marker.try_exists()? && !lock.try_exists()? {
            // It is empty, and only fjall's own; without it nothing opens.
            File::create(lock)?;
        }
        let filters = Arc::clone(&reclaim);
        let database = Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_cached_files(Some(options.table_files))
            .worker_threads(1)
            .with_compaction_filter_factories(Arc::new(move |name| filters.factory(name)))
            .open()?;
        let scanned = || KeyspaceCreateOptions::default().filter_policy(no_filter());
        Ok(Self {
            rows: database.keyspace("rows", KeyspaceCreateOptions::default)?,
            meta: database.keyspace("meta", KeyspaceCreateOptions::default)?,
            log: database.keyspace(reclaim::LOG, scanned)?,
            database,
            reclaim,
        })
    }

    /// The gateways as of the last overlay applied, and the number of its journal file.
    pub(super) fn load(&self) -> Result<(Gateways, u64), StoreError> {
        // As readers see them: what they would not see, opening must not rely on.
        let snapshot = self.snapshot();
        let own = |key: &[u8]| snapshot.get(&self.meta, full_key(OWN, key)).map_err(fault);
        let number = |value: Option<fjall::Slice>| match value {
            Some(value) => value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
            None => Some(0),
        };
        let damaged = || StoreError::Corrupt("the tables' own records can't be understood".into());
        let applied = number(own(APPLIED)?).ok_or_else(damaged)?;
        // Rows come before the step that makes an overlay count, so they may be one ahead of it.
        let rows = snapshot.get(&self.rows, full_key(OWN, APPLIED)).map_err(fault)?;
        let rows = number(rows).ok_or_else(damaged)?;
        if rows < applied {
            let what = format!("the rows are those of journal {rows}, the rest is of {applied}");
            return Err(StoreError::Corrupt(what));
        }
        let next =
            number(own(NEXT)?).and_then(|next| u32::try_from(next).ok()).ok_or_else(damaged)?;
        let mut gateways = Gateways::new(next.max(1));
        for item in snapshot.prefix(&self.meta, full_key(OWN, GATEWAY)) {
            let (key, value) = item.into_inner().map_err(fault)?;
            let id = gateway_of(&key[full_key(OWN, GATEWAY).len()..]).ok_or_else(damaged)?;
            gateways.put(Life::decode(id, &value).ok_or_else(damaged)?);
        }
        self.reclaim.load(&gateways);
        Ok((gateways, applied))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.database.snapshot()
    }

    /// Whether anything is in them; if not, no look-up is needed.
    pub(super) fn is_empty(&self) -> bool {
        self.meta.tree.table_count() == 0
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Rows => &self.rows,
            Space::Meta => &self.meta,
        }
    }

    pub(super) fn get(
        &self,
        snapshot: &Snapshot,
        space: Space,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let found = snapshot.get(self.keyspace(space), key).map_err(fault)?;
        Ok(found.map(Bytes::from))
    }

    /// Keys and values from `from` on, before `to`.
    pub(super) fn range(
        &self,
        snapshot: &Snapshot,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send + use<> {
        items(snapshot.range(self.keyspace(space), from..to))
    }

    /// Entries of a gateway's log at positions from `from` on, before `to`; keys are full.
    pub(super) fn log(
        &self,
        snapshot: &Snapshot,
        gateway: GatewayId,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send + use<> {
        let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
        items(snapshot.range(&self.log, full_key(gateway, &from)..full_key(gateway, &to)))
    }

    /// Adds what was committed through journal `number`, all of which is durable. Repeating it
    /// changes nothing.
    pub(super) fn ingest(
        &self,
        number: u64,
        content: Content<'_>,
        touched: &Touched,
    ) -> Result<(), StoreError> {
        ingest(&self.log, content.log)?;
        let applied = (full_key(OWN, APPLIED).into(), Some(number.to_be_bytes().to_vec().into()));
        ingest(&self.rows, Box::new(std::iter::once(Ok(applied)).chain(content.rows)))?;
        // The tables' own records come before every gateway's, and make the rest count.
        let own = own_records(number, touched).into_iter().map(Ok);
        ingest(&self.meta, Box::new(own.chain(content.meta)))?;
        self.reclaim.note(touched);
        self.drop_tables(touched).map_err(fault)
    }

    /// Drops tables that hold nothing but what is trimmed or dropped.
    fn drop_tables(&self, touched: &Touched) -> fjall::Result<()> {
        for (gateway, life) in self.reclaim.due(touched).into_iter().take(DROPS_MAX) {
            let start = full_key(gateway, &[]);
            match life {
                Some(trimmed) => {
                    let end = full_key(gateway, &trimmed.0.to_be_bytes());
                    self.log.tree.drop_range(start..=end)?;
                }
                None => {
                    let end = full_key(GatewayId(gateway.0.saturating_add(1)), &[]);
                    for keyspace in [&self.log, &self.rows, &self.meta] {
                        keyspace.tree.drop_range(start.clone()..end.clone())?;
                    }
                }
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn log_bytes(&self) -> u64 {
        self.log.disk_space()
    }

    /// Whether compaction has kept up, so that another overlay may come; an error if it gave up.
    pub(super) fn has_room(&self) -> Result<bool, StoreError> {
        // fjall says that a background thread of its failed only when asked to write.
        self.database.persist(PersistMode::Buffer).map_err(fault)?;
        let spaces = [&self.rows, &self.meta, &self.log];
        Ok(spaces.iter().all(|keyspace| keyspace.tree.l0_run_count() < RUNS_MAX))
    }
}

fn ingest(keyspace: &Keyspace, changes: Ordered<'_>) -> Result<(), StoreError> {
    let mut changes = changes.peekable();
    if changes.peek().is_none() {
        return Ok(());
    }
    let mut ingestion = keyspace.start_ingestion().map_err(fault)?;
    for change in changes {
        let (key, value) = change?;
        let written = match value {
            Some(value) => ingestion.write(key, value),
            None => ingestion.write_tombstone(key),
        };
        written.map_err(fault)?;
    }
    ingestion.finish().map_err(fault)
}

fn no_filter() -> FilterPolicy {
    FilterPolicy::all(FilterPolicyEntry::None)
}

fn own_records(number: u64, touched: &Touched) -> Vec<Change> {
    let record = |key: &[u8], value: Vec<u8>| (full_key(OWN, key).into(), Some(value.into()));
    let mut own = vec![record(APPLIED, number.to_be_bytes().to_vec())];
    for (id, life) in &touched.lives {
        let key = full_key(OWN, &[GATEWAY, &id.0.to_be_bytes()].concat());
        own.push((key.into(), life.as_ref().map(|life| life.encode().into())));
    }
    own.push(record(NEXT, u64::from(touched.next).to_be_bytes().to_vec()));
    own
}

fn items(
    range: fjall::Iter,
) -> impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send + use<> {
    range.map(|item| {
        let (key, value) = item.into_inner().map_err(fault)?;
        Ok((Bytes::from(key), Bytes::from(value)))
    })
}

/// What an error of fjall means to us: the disk said no, or what it holds is wrong. Its own words are
/// for its developers.
fn fault(error: fjall::Error) -> StoreError {
    let failed = |what: &dyn fmt::Display| StoreError::Failed(format!("the tables: {what}"));
    match &error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io))
            if io.is_shortage() =>
        {
            StoreError::Shortage(format!("the tables: {io}"))
        }
        fjall::Error::Io(io) if !tells_damage(io) => failed(io),
        fjall::Error::Storage(fjall::LsmError::Io(io)) if !tells_damage(io) => failed(io),
        fjall::Error::Poisoned => failed(&"an earlier write to them failed"),
        fjall::Error::Locked => failed(&"another process has them open"),
        _ => {
            tracing::debug!(%error, "what fjall says of damaged tables");
            StoreError::Corrupt(format!("its tables can't be read: {}", damage(&error)))
        }
    }
}

/// What is wrong with tables, in words for whoever reads the log.
fn damage(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io.to_string(),
        fjall::Error::Storage(fjall::LsmError::ChecksumMismatch { .. }) => {
            "a block does not match its checksum".to_owned()
        }
        fjall::Error::InvalidVersion(_) => "their format is of another version".to_owned(),
        _ => "what they hold can't be understood".to_owned(),
    }
}

/// Whether a file is not as it was written, rather than out of reach.
fn tells_damage(error: &io::Error) -> bool {
    // A file that is shorter than its end has no place where that begins: an invalid input.
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | NotFound | InvalidData | InvalidInput)
}

//! Original or copy: the incarnation of a store, and how a copy is told from its original.
//!
//! The identity file is written anew at every opening, as another file, and holds its own inode
//! number and time of birth. A copy has another file's, whether it was made elsewhere, put in the
//! place of the original, or written over it: then the file is of a later opening than what it says.
//! It also counts openings, as `store/opening` does, so that identity and store can't be of different
//! ages; and it holds when `store/opening` last changed, which nobody can set, for file systems that
//! don't know births.
//!
//! Where copying keeps all that (a snapshot of a volume), whoever restores it creates the file
//! `RESTORED`. Either way a new incarnation is made durable before anything is served, and only then
//! is the marker removed; killed in between, the next opening just draws again.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::super::OpenError;
use super::{Directory, sync_directory, write_file};
use crate::store::identity::Incarnation;

const IDENTITY: &str = "identity";
pub(super) const RESTORED: &str = "RESTORED";
/// In the engine's own directory, so that whoever puts back only that is noticed as well.
const OPENING: &str = "opening";

/// What the identity file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    incarnation: Incarnation,
    opening: u64,
    origin: Origin,
    /// When `store/opening` last changed, in nanoseconds since the Unix epoch.
    counted_ns: i128,
}

/// What a file has from its creation, and no copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    inode: u64,
    /// In nanoseconds since the Unix epoch; nothing where the file system does not keep it.
    born_ns: Option<u128>,
}

/// What `store/opening` says, and when it last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    opening: u64,
    changed_ns: i128,
}

impl Directory {
    /// Counts an opening. Says the incarnation of the store in this directory: another than before
    /// if it is a copy.
    pub(in super::super) fn incarnation(&self) -> Result<Incarnation, OpenError> {
        let dir = self.path();
        let marker = dir.join(RESTORED);
        let marked = self.is_marked()?;
        let last = self.last_identity(!marked)?;
        let count = self.count()?;
        let kept = last.filter(|(last, found)| !marked && last.is_original(found, count.as_ref()));
        let before = last.map_or(0, |(last, _)| last.opening);
        let opening = 1 + before.max(count.map_or(0, |count| count.opening));
        let write = || {
            let incarnation = kept.map_or_else(draw, |(last, _)| Ok(last.incarnation))?;
            let counted_ns = write_count(&self.store(), opening)?.changed_ns;
            write_identity(dir, incarnation, opening, counted_ns)?;
            Ok(incarnation)
        };
        let incarnation = write().map_err(OpenError::io("write the identity of", dir))?;
        if marked {
            let removed = fs::remove_file(&marker).and_then(|()| sync_directory(dir));
            removed.map_err(OpenError::io("remove", &marker))?;
        }
        Ok(incarnation)
    }

    /// What the last opening wrote, and which file it is in; nothing in a new directory, nor in a copy
    /// that lacks it.
    fn last_identity(&self, needed: bool) -> Result<Option<(Identity, Origin)>, OpenError> {
        let path = self.path().join(IDENTITY);
        let found = read(&path)?;
        if found.is_none() && needed && self.is_made() {
            return Err(self.altered(format!("{IDENTITY} is missing")));
        }
        let Some((text, metadata)) = found else { return Ok(None) };
        match Identity::parse(&text) {
            Some(parsed) => Ok(Some((parsed, Origin::of(&metadata)))),
            None if needed => Err(self.altered(format!("{IDENTITY} can't be understood"))),
            None => Ok(None),
        }
    }

    fn count(&self) -> Result<Option<Count>, OpenError> {
        let path = self.store().join(OPENING);
        // Who puts back an identity alone may have put it beside a store that never had a count.
        let Some((text, metadata)) = read(&path)? else { return Ok(None) };
        let opening = text.lines().next().and_then(|line| line.parse().ok());
        let opening = opening.ok_or_else(|| self.unreadable(&path))?;
        Ok(Some(Count { opening, changed_ns: changed_ns(&metadata) }))
    }

    fn unreadable(&self, path: &Path) -> OpenError {
        let what = format!("{} can't be understood", path.display());
        OpenError::Corrupt { dir: self.path().to_owned(), what }
    }
}

impl Identity {
    /// Whether it is where it was written, beside the store that it was written for.
    fn is_original(&self, found: &Origin, count: Option<&Count>) -> bool {
        let Some(count) = count else { return false };
        let is_last = count.opening == self.opening
            && (found.born_ns.is_some() || count.changed_ns == self.counted_ns);
        // Killed after it had counted and before it wrote the identity.
        let is_next = count.opening == self.opening + 1;
        self.origin == *found && (is_last || is_next)
    }

    fn encode(&self) -> String {
        let Self { incarnation, opening, origin: Origin { inode, born_ns }, counted_ns } = self;
        let incarnation = u128::from_be_bytes(*incarnation);
        let born = born_ns.map_or_else(|| "unknown".to_owned(), |born| born.to_string());
        let text = format!(
            "incarnation {incarnation:032x}\nopening {opening}\ninode {inode}\nborn {born}\ncounted {counted_ns}\n"
        );
        let sum = crc32fast::hash(text.as_bytes());
        format!("{text}checksum {sum:08x}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let (text, sum) = text.split_at(text.find("checksum ")?);
        let sum = u32::from_str_radix(sum.strip_prefix("checksum ")?.trim_end(), 16).ok()?;
        if sum != crc32fast::hash(text.as_bytes()) {
            return None;
        }
        let mut lines = text.lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let incarnation = u128::from_str_radix(value("incarnation")?, 16).ok()?.to_be_bytes();
        let opening = value("opening")?.parse().ok()?;
        let inode = value("inode")?.parse().ok()?;
        let born_ns = match value("born")? {
            "unknown" => None,
            born => Some(born.parse().ok()?),
        };
        let counted_ns = value("counted")?.parse().ok()?;
        Some(Self { incarnation, opening, origin: Origin { inode, born_ns }, counted_ns })
    }
}

impl Origin {
    fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Self { inode: metadata.ino(), born_ns: born.map(|born| born.as_nanos()) }
    }
}

/// Marks a directory as a copy: whoever opens it takes a new incarnation.
pub(in super::super) fn mark_restored(dir: &Path) -> io::Result<()> {
    File::create(dir.join(RESTORED))?.sync_all()?;
    sync_directory(dir)
}

fn draw() -> io::Result<Incarnation> {
    let mut fresh = Incarnation::default();
    getrandom::fill(&mut fresh).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(fresh)
}

fn write_count(store: &Path, opening: u64) -> io::Result<Count> {
    fs::create_dir_all(store)?;
    // Of another length than the last, for tools that copy only what differs in length or by seconds.
    let length = usize::try_from(opening % 64).expect("BUG: less than 64");
    write_file(store, OPENING, format!("{opening}\n{}\n", ".".repeat(length)).as_bytes())?;
    let changed_ns = changed_ns(&fs::metadata(store.join(OPENING))?);
    Ok(Count { opening, changed_ns })
}

fn write_identity(
    dir: &Path,
    incarnation: Incarnation,
    opening: u64,
    counted_ns: i128,
) -> io::Result<()> {
    let new = dir.join(format!("{IDENTITY}.new"));
    let mut file = File::create(&new)?;
    let origin = Origin::of(&file.metadata()?);
    let identity = Identity { incarnation, opening, origin, counted_ns };
    file.write_all(identity.encode().as_bytes())?;
    file.sync_all()?;
    // Renaming keeps the inode; only copying gives another.
    fs::rename(new, dir.join(IDENTITY))?;
    sync_directory(dir)
}

/// A file's content, and what the file system says of it; nothing if there is no such file.
fn read(path: &Path) -> Result<Option<(String, Metadata)>, OpenError> {
    let found = fs::read_to_string(path).and_then(|text| Ok((text, fs::metadata(path)?)));
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io("read", path)(error)),
    }
}

/// When a file was last written to, renamed or given another owner.
fn changed_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
}

#[cfg(test)]
mod tests;

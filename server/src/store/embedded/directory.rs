//! The data directory: whose it is, which format it has, that nobody else has it open, and whether
//! it is the original or a copy.
//!
//! ```text
//! DIR/LOCK       held by the process that has the directory open
//! DIR/format     "lakesync data directory, format 1": written last when a directory is made
//! DIR/identity   the incarnation of the store, and what tells a copy from the original
//! DIR/RESTORED   left by a backup, or by whoever restored a volume: take a new incarnation
//! DIR/store/     tables, journal, how far that is durable, and how often they were opened
//! ```
//!
//! A directory that is refused is left as it was.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::OpenError;

pub(super) mod identity;

use identity::RESTORED;

/// The format this version reads and writes.
const FORMAT: u32 = 1;
const FORMAT_PREFIX: &str = "lakesync data directory, format ";

const LOCK: &str = "LOCK";
const FORMAT_FILE: &str = "format";
const STORE: &str = "store";

/// What may lie in a directory that is not yet ours: the beginnings of one, and what a file system
/// puts at the root of a new volume.
const OWN_NAMES: [&str; 6] = [LOCK, "identity", "identity.new", "format.new", STORE, "lost+found"];

/// The rights to a directory that are not its owner's.
const OTHERS: u32 = 0o077;
/// What a new data directory may be used for: everything, by its owner alone.
const PRIVATE: u32 = 0o700;

/// An open data directory. Its lock is let go when this is dropped, or when the process ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    made: bool,
    _lock: File,
}

impl Directory {
    /// Opens or begins a directory. A new one is ours only once [`made`](Self::made) was called.
    pub(super) fn open(path: &Path, companions: &[String]) -> Result<Self, OpenError> {
        check_ours(path, companions)?;
        create_durably(path, &sync_directory).map_err(OpenError::io("create", path))?;
        let lock = lock(path)?;
        // Somebody may have made it ours, or another's, while we had no lock.
        let made = check_ours(path, companions)?;
        let mode = fs::metadata(path).map_err(OpenError::io("look at", path))?.permissions().mode();
        if mode & OTHERS != 0 {
            tracing::warn!(
                "others than its owner may look into {}, which holds all rows: chmod 700 keeps them out",
                path.display()
            );
        }
        Ok(Self { path: path.to_owned(), made, _lock: lock })
    }

    /// Where the engine keeps its files.
    pub(super) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory held a store before.
    pub(super) fn is_made(&self) -> bool {
        self.made
    }

    /// Whether whoever restored it says that it is a copy.
    pub(super) fn is_marked(&self) -> Result<bool, OpenError> {
        let marker = self.path.join(RESTORED);
        marker.try_exists().map_err(OpenError::io("look for", &marker))
    }

    /// Refuses what is not as the last process left it, but for whoever takes it as a copy.
    pub(super) fn altered(&self, what: String) -> OpenError {
        OpenError::Altered { dir: self.path.clone(), what }
    }

    /// Declares a new directory whole, once everything in it is durable: from now on whatever misses in it is damage.
    pub(super) fn make(&mut self) -> Result<(), OpenError> {
        if !self.made {
            // Somebody else may have created the directory, and not durably.
            for dir in [Some(self.store().as_path()), holder(&self.path)].into_iter().flatten() {
                sync_directory(dir).map_err(OpenError::io("sync", dir))?;
            }
            write_file(&self.path, FORMAT_FILE, format!("{FORMAT_PREFIX}{FORMAT}\n").as_bytes())
                .map_err(OpenError::io("write the format of", &self.path))?;
            self.made = true;
        }
        Ok(())
    }
}

/// Whether a store was made here; an error if the directory is somebody else's.
fn check_ours(path: &Path, companions: &[String]) -> Result<bool, OpenError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(OpenError::io("read", path)(error)),
    };
    match fs::read_to_string(path.join(FORMAT_FILE)) {
        Ok(text) => return check_format(path, &text).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OpenError::io("read the format of", path)(error)),
    }
    for entry in entries {
        let name = entry.map_err(OpenError::io("read", path))?.file_name();
        let name = name.to_string_lossy();
        let is_companion = |companion: &String| match companion.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => *companion == name,
        };
        if !OWN_NAMES.contains(&&*name) && !companions.iter().any(is_companion) {
            return Err(OpenError::Foreign { dir: path.to_owned(), found: name.into_owned() });
        }
    }
    Ok(false)
}

fn check_format(path: &Path, text: &str) -> Result<(), OpenError> {
    let number = text.strip_prefix(FORMAT_PREFIX).map(str::trim_end).map(str::parse::<u32>);
    let dir = path.to_owned();
    match number {
        Some(Ok(FORMAT)) => Ok(()),
        Some(Ok(found)) => Err(OpenError::Format { dir, found, known: FORMAT }),
        _ => Err(OpenError::Foreign { dir, found: FORMAT_FILE.to_owned() }),
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let at = path.join(LOCK);
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&at);
    let file = options.map_err(OpenError::io("open", &at))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(OpenError::io("lock", &at)(error)),
    }
}

/// Creates a directory that only its owner may use, and those above it that are missing, each durable
/// where it lies.
fn create_durably(path: &Path, sync: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    create(path, &create_private, sync)
}

/// Creates a directory that only its owner may use.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(PRIVATE).create(path)
}

fn create(
    path: &Path,
    make: &dyn Fn(&Path) -> io::Result<()>,
    sync: &dyn Fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(holder) = holder(path) else { return Ok(()) };
    create(holder, &|path| fs::create_dir(path), sync)?;
    match make(path) {
        // Another process was faster; it may not have come to the sync yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created?,
    }
    sync(holder)
}

/// The directory that a path lies in; none for the root of all.
fn holder(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Puts a file in place whole and durably, or not at all.
pub(super) fn write_file(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(new, dir.join(name))?;
    sync_directory(dir)
}

/// Makes durable which files a directory holds.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;

//! How much room the disk has. A write is refused while nothing of it was kept, rather than failing
//! half-way: what is in memory must find room in the tables, and some is left for compaction.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::StoreError;

/// How free space is learnt. A seam: tests decide it.
pub(super) type Probe = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

pub(super) struct Disk {
    dir: PathBuf,
    reserve_bytes: u64,
    free_bytes: AtomicU64,
    probe: Probe,
}

impl Disk {
    pub(super) fn new(dir: &Path, reserve_bytes: u64, probe: Probe) -> io::Result<Self> {
        let free_bytes = AtomicU64::new(probe(dir)?);
        Ok(Self { dir: dir.to_owned(), reserve_bytes, free_bytes, probe })
    }

    /// Asks the file system again. Done after each sync, so that it costs nothing per commit.
    pub(super) fn refresh(&self) -> Result<(), StoreError> {
        let free = (self.probe)(&self.dir);
        let free = free.map_err(|error| StoreError::Failed(format!("free space: {error}")))?;
        self.free_bytes.store(free, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a write may come while `pending_bytes` are not in the tables yet.
    pub(super) fn check(&self, pending_bytes: usize) -> Result<(), StoreError> {
        if self.has_room(pending_bytes) {
            return Ok(());
        }
        // Somebody may have made room since the last sync.
        self.refresh()?;
        if self.has_room(pending_bytes) {
            return Ok(());
        }
        let free = self.free_bytes.load(Ordering::Relaxed);
        let (dir, reserve, pending) = (self.dir.display(), self.reserve_bytes, pending_bytes);
        Err(StoreError::Full(format!(
            "{dir} has {free} bytes free; {reserve} are kept in reserve and {pending} wait for the tables"
        )))
    }

    fn has_room(&self, pending_bytes: usize) -> bool {
        let needed = self.reserve_bytes.saturating_add(pending_bytes as u64);
        needed <= self.free_bytes.load(Ordering::Relaxed)
    }
}

/// What an ordinary process may still write to the file system that holds `dir`.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

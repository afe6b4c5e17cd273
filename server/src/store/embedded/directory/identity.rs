//! Original or copy: the incarnation of a store, and how a copy is told from its original.
//!
//! The identity file holds its own inode number, which a copy of the file does not have. Where
//! copying keeps inode numbers (a snapshot of a volume), whoever restores it creates the file
//! `RESTORED`. Either way a new incarnation is made durable before anything is served, and only then
//! is the marker removed; killed in between, the next opening just draws again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::OpenError;
use super::{Directory, sync_directory};
use crate::store::identity::Incarnation;

const IDENTITY: &str = "identity";
const RESTORED: &str = "RESTORED";

impl Directory {
    /// The incarnation of the store in this directory; another than before if it is a copy.
    pub(in super::super) fn incarnation(&self) -> Result<Incarnation, OpenError> {
        let dir = self.path();
        let marker = dir.join(RESTORED);
        let marked = marker.try_exists().map_err(OpenError::io("look for", &marker))?;
        if !marked && let Some(incarnation) = self.kept_incarnation()? {
            return Ok(incarnation);
        }
        let fresh = draw(dir).map_err(OpenError::io("write the identity of", dir))?;
        if marked {
            let removed = fs::remove_file(&marker).and_then(|()| sync_directory(dir));
            removed.map_err(OpenError::io("remove", &marker))?;
        }
        Ok(fresh)
    }

    /// The incarnation on disk, unless this is a copy of it, or a new directory.
    fn kept_incarnation(&self) -> Result<Option<Incarnation>, OpenError> {
        let path = self.path().join(IDENTITY);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_made() => {
                return Ok(None);
            }
            Err(error) => return Err(OpenError::io("read", &path)(error)),
        };
        let inode = fs::metadata(&path).map_err(OpenError::io("read", &path))?.ino();
        let Some((incarnation, written_inode)) = parse(&text) else {
            let what = format!("{} can't be understood", path.display());
            return Err(OpenError::Corrupt { dir: self.path().to_owned(), what });
        };
        Ok((written_inode == inode).then_some(incarnation))
    }
}

/// Marks a directory as a copy: whoever opens it takes a new incarnation.
pub(in super::super) fn mark_restored(dir: &Path) -> io::Result<()> {
    File::create(dir.join(RESTORED))?.sync_all()?;
    sync_directory(dir)
}

fn draw(dir: &Path) -> io::Result<Incarnation> {
    let mut fresh = Incarnation::default();
    getrandom::fill(&mut fresh).map_err(|error| io::Error::other(error.to_string()))?;
    let new = dir.join(format!("{IDENTITY}.new"));
    let mut file = File::create(&new)?;
    let line = format!(
        "incarnation {:032x}\ninode {}\n",
        u128::from_be_bytes(fresh),
        file.metadata()?.ino()
    );
    let sum = crc32fast::hash(line.as_bytes());
    writeln!(file, "{line}checksum {sum:08x}")?;
    file.sync_all()?;
    // Renaming keeps the inode; only copying gives another.
    fs::rename(new, dir.join(IDENTITY))?;
    sync_directory(dir)?;
    Ok(fresh)
}

fn parse(text: &str) -> Option<(Incarnation, u64)> {
    let (line, sum) = text.split_at(text.find("checksum ")?);
    let sum = u32::from_str_radix(sum.strip_prefix("checksum ")?.trim_end(), 16).ok()?;
    if sum != crc32fast::hash(line.as_bytes()) {
        return None;
    }
    let (incarnation, inode) = line.trim_end().split_once('\n')?;
    let incarnation = u128::from_str_radix(incarnation.strip_prefix("incarnation ")?, 16).ok()?;
    Some((incarnation.to_be_bytes(), inode.strip_prefix("inode ")?.parse().ok()?))
}

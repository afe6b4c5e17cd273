//! The journal: files of frames, each written whole and synced before the next is begun.
//!
//! A frame holds the records that shared one sync. It says up to where its file was synced when it
//! was written. That settles what a damaged frame means: if a later, sound frame knows that the
//! damaged place had been synced, data was lost, and the journal refuses to open; if none does, the
//! place is the torn end of a write that nobody was told of, and is cut off.
//!
//! Checksums are CRC-32 (`crc32fast`, which uses the processor's instructions): strong enough for
//! frames of some megabytes, and cheaper than copying them. They cover the file's number and the
//! frame's place, so that a sound frame in a wrong place is not taken for data.

use std::fs::{self, File, Metadata};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::directory::sync_directory;

pub(super) mod note;
pub(super) mod replay;

use note::Durable;

/// How written bytes are made durable. A seam: tests hold it, count it and make it fail.
pub(super) type Sync = Arc<dyn Fn(&File) -> io::Result<()> + Send + std::marker::Sync>;

/// How a file begins; its number and a checksum follow.
const FILE_MAGIC: &[u8; 19] = b"lakesync journal 1\n";
const FILE_HEADER_BYTES: usize = FILE_MAGIC.len() + 8 + 4;
const FRAME_HEADER_BYTES: usize = 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Records, or none: then it only says what was synced.
    Records,
    /// The last frame of a file that another follows.
    End,
}

impl Kind {
    fn magic(self) -> [u8; 4] {
        match self {
            Self::Records => *b"LSJr",
            Self::End => *b"LSJe",
        }
    }

    fn of(magic: &[u8]) -> Option<Self> {
        [Self::Records, Self::End].into_iter().find(|kind| kind.magic() == *magic)
    }
}

/// The journal file that is being written.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// Which file it is: device and inode number.
    identity: (u64, u64),
    number: u64,
    end: u64,
    synced: u64,
    sync: Sync,
}

/// The path of a journal file.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.journal"))
}

impl Journal {
    /// Begins the file `number`, durably.
    pub(super) fn create(dir: &Path, number: u64, sync: Sync) -> io::Result<Self> {
        let path = path(dir, number);
        // A crash may have left the beginning of this file, without a record in it.
        let file = File::options().write(true).create(true).truncate(true).open(&path)?;
        file.write_all_at(&file_header(number), 0)?;
        file.sync_all()?;
        sync_directory(dir)?;
        Self::of(file, path, number, FILE_HEADER_BYTES as u64, sync)
    }

    /// Goes on after the sound part of the file `number`, and cuts off what follows.
    pub(super) fn reopen(dir: &Path, number: u64, end: u64, sync: Sync) -> io::Result<Self> {
        let path = path(dir, number);
        let file = File::options().write(true).open(&path)?;
        file.set_len(end)?;
        // What a killed process wrote without a sync is in the file, but not surely on the disk.
        file.sync_all()?;
        Self::of(file, path, number, end, sync)
    }

    fn of(file: File, path: PathBuf, number: u64, end: u64, sync: Sync) -> io::Result<Self> {
        let identity = identity(&file.metadata()?);
        Ok(Self { file, path, identity, number, end, synced: end, sync })
    }

    /// Up to where it is durable.
    pub(super) fn durable(&self) -> Durable {
        Durable { number: self.number, end: self.synced }
    }

    /// Fails if the file is no longer where it was begun: removed, moved away, or replaced. What is
    /// written to it then is in no directory, and gone when the process ends.
    pub(super) fn check_in_place(&self) -> io::Result<()> {
        let found = match fs::metadata(&self.path) {
            Ok(metadata) => Some(identity(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if found == Some(self.identity) {
            return Ok(());
        }
        let what = if found.is_some() { "replaced" } else { "removed or moved away" };
        Err(io::Error::other(format!(
            "{} was {what} while the server ran, so nothing more can be kept: stop whoever did that, \
             put the directory back as it was, or restore a backup, and start the server again",
            self.path.display()
        )))
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn sync_seam(&self) -> Sync {
        Arc::clone(&self.sync)
    }

    /// Writes one frame of records and makes it durable.
    pub(super) fn append(&mut self, records: &[Bytes]) -> io::Result<()> {
        self.end += self.write(Kind::Records, records)?;
        self.sync()
    }

    /// Notes that everything so far is durable, in a frame that the next one overwrites. It tells
    /// damage from a torn end where no later frame would; to need no sync, it promises nothing.
    pub(super) fn confirm(&mut self) -> io::Result<()> {
        self.write(Kind::Records, &[]).map(|_| ())
    }

    /// Ends the file, durably; only then may the next one begin.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.end += self.write(Kind::End, &[])?;
        self.sync()
    }

    fn sync(&mut self) -> io::Result<()> {
        (self.sync)(&self.file)?;
        self.synced = self.end;
        Ok(())
    }

    /// Writes a frame at the end, and says how long it is.
    fn write(&self, kind: Kind, records: &[Bytes]) -> io::Result<u64> {
        let lengths: Vec<[u8; 4]> = records.iter().map(length_prefix).collect();
        let payload_bytes: usize = records.iter().map(|record| 4 + record.len()).sum();
        let mut header = FrameHeader {
            kind,
            payload_bytes: u32::try_from(payload_bytes).expect("BUG: a frame of 4 GiB"),
            synced: self.synced,
            checksum: 0,
        };
        let parts =
            || lengths.iter().zip(records).flat_map(|(length, record)| [&length[..], record]);
        header.checksum = header.sum(self.number, self.end, parts());
        let header = header.encode();
        let mut slices = vec![IoSlice::new(&header)];
        slices.extend(parts().map(IoSlice::new));
        write_all_vectored(&mut &self.file, self.end, &mut slices)?;
        Ok((FRAME_HEADER_BYTES + payload_bytes) as u64)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn length_prefix(record: &Bytes) -> [u8; 4] {
    u32::try_from(record.len()).expect("BUG: a record of 4 GiB").to_le_bytes()
}

fn write_all_vectored(file: &mut &File, at: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    io::Seek::seek(file, io::SeekFrom::Start(at))?;
    let mut rest = slices;
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn file_header(number: u64) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    let (magic, rest) = header.split_at_mut(FILE_MAGIC.len());
    magic.copy_from_slice(FILE_MAGIC);
    rest[..8].copy_from_slice(&number.to_le_bytes());
    rest[8..].copy_from_slice(&crc32fast::hash(&number.to_le_bytes()).to_le_bytes());
    header
}

#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    kind: Kind,
    payload_bytes: u32,
    /// Up to where the file was synced when this frame was written.
    synced: u64,
    checksum: u32,
}

impl FrameHeader {
    fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.kind.magic());
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.synced.to_le_bytes());
        bytes[16..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (payload_bytes, rest) = rest.split_first_chunk()?;
        let (synced, rest) = rest.split_first_chunk()?;
        Some(Self {
            kind: Kind::of(magic)?,
            payload_bytes: u32::from_le_bytes(*payload_bytes),
            synced: u64::from_le_bytes(*synced),
            checksum: u32::from_le_bytes(*rest.first_chunk()?),
        })
    }

    fn sum<'a>(&self, number: u64, at: u64, payload: impl Iterator<Item = &'a [u8]>) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        for field in [number, at, u64::from(self.payload_bytes), self.synced] {
            sum.update(&field.to_le_bytes());
        }
        sum.update(&self.kind.magic());
        payload.for_each(|part| sum.update(part));
        sum.finalize()
    }
}

#[cfg(test)]
mod tests;

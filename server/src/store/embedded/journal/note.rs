//! A note of how far the journal is durable, kept beside the journal.
//!
//! A journal file that was cut short looks like one whose last write was torn by a crash. The note
//! tells them apart: it names the newest journal file, and up to which byte that file was synced. It is
//! written after each sync of the journal, so it never promises more than the disk has. A commit does
//! not wait for the note: only when a file is begun, at opening and at a clean stop is it synced.
//!
//! The file has two slots, which are written in turn: a write that is torn spoils one of them, and the
//! other still holds what was noted before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::directory::sync_directory;

/// The file's name in the engine's own directory.
const NAME: &str = "durable";
/// Slots lie in different blocks of a disk.
const SLOT_BYTES: u64 = 4096;
const FIELDS: usize = 3;
const RECORD_BYTES: usize = FIELDS * 8 + 4;

/// Up to where the journal is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store::embedded) struct Durable {
    /// The newest journal file.
    pub(in crate::store::embedded) number: u64,
    /// Up to which byte of that file.
    pub(in crate::store::embedded) end: u64,
}

/// The open note.
#[derive(Debug)]
pub(in crate::store::embedded) struct Note {
    file: File,
    /// How often it was written. Odd and even turns have a slot each.
    turn: u64,
}

/// Where the note of an engine's directory is.
pub(in crate::store::embedded) fn path(store: &Path) -> PathBuf {
    store.join(NAME)
}

impl Note {
    /// Begins a note in the engine's directory, in place of any that is there.
    pub(in crate::store::embedded) fn create(store: &Path) -> io::Result<Self> {
        let path = path(store);
        let file = File::options().write(true).create(true).truncate(true).open(path)?;
        sync_directory(store)?;
        Ok(Self { file, turn: 0 })
    }

    /// The note of the engine's directory, and what it says; nothing if neither slot can be read.
    pub(in crate::store::embedded) fn open(store: &Path) -> io::Result<Option<(Self, Durable)>> {
        let file = File::options().read(true).write(true).open(path(store))?;
        let slots = [slot(&file, 0)?, slot(&file, 1)?];
        let newest = slots.into_iter().flatten().max_by_key(|(turn, _)| *turn);
        Ok(newest.map(|(turn, durable)| (Self { file, turn }, durable)))
    }

    /// Notes how far the journal is durable, which it must be already.
    pub(in crate::store::embedded) fn put(&mut self, durable: Durable) -> io::Result<()> {
        self.turn += 1;
        let record = encode(self.turn, durable);
        self.file.write_all_at(&record, self.turn % 2 * SLOT_BYTES)
    }

    /// As [`put`](Self::put); the note is durable when this returns.
    pub(in crate::store::embedded) fn put_durably(&mut self, durable: Durable) -> io::Result<()> {
        self.put(durable)?;
        self.file.sync_all()
    }
}

fn encode(turn: u64, Durable { number, end }: Durable) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    let (fields, sum) = record.split_at_mut(FIELDS * 8);
    fields.copy_from_slice([turn, number, end].map(u64::to_le_bytes).as_flattened());
    sum.copy_from_slice(&crc32fast::hash(fields).to_le_bytes());
    record
}

fn slot(file: &File, number: u64) -> io::Result<Option<(u64, Durable)>> {
    let mut record = [0; RECORD_BYTES];
    match file.read_exact_at(&mut record, number * SLOT_BYTES) {
        Ok(()) => Ok(decode(&record)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<(u64, Durable)> {
    let (fields, sum) = record.split_at(FIELDS * 8);
    if crc32fast::hash(fields).to_le_bytes() != *sum {
        return None;
    }
    let [turn, number, end] = fields.as_chunks::<8>().0 else { return None };
    let [turn, number, end] = [turn, number, end].map(|field| u64::from_le_bytes(*field));
    Some((turn, Durable { number, end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(store: &Path) -> Option<Durable> {
        Note::open(store).expect("read").map(|(_, durable)| durable)
    }

    #[test]
    fn the_last_note_counts_and_a_spoiled_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut note = Note::create(dir.path()).expect("create");
        assert_eq!(read(dir.path()), None);
        for end in 1..=5 {
            note.put(Durable { number: 7, end }).expect("put");
            assert_eq!(read(dir.path()), Some(Durable { number: 7, end }));
        }
        drop(note);
        let (mut note, _) = Note::open(dir.path()).expect("read").expect("a note");
        note.put_durably(Durable { number: 8, end: 1 }).expect("put");
        let path = path(dir.path());
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[9] ^= 1;
        std::fs::write(&path, &bytes).expect("spoil");
        assert_eq!(read(dir.path()), Some(Durable { number: 7, end: 5 }));
        bytes.truncate(20);
        std::fs::write(&path, &bytes).expect("cut");
        assert_eq!(read(dir.path()), None);
    }
}

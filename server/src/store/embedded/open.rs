//! Opening a store: whose directory it is, what the tables have, and what the journal adds to that.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::Directory;
use super::disk::Disk;
use super::engine::{Engine, Sealed, apply};
use super::gateways::Gateways;
use super::journal::note::{self, Durable, Note};
use super::journal::replay::{End, ReplayError, replay};
use super::journal::{self, Journal};
use super::overlay::Overlay;
use super::record::Operation;
use super::tables::Tables;
use super::{OpenError, Options, Seams, tables, threads};
use crate::store::StoreError;

pub(super) const TABLES: &str = "tables";
pub(super) const JOURNAL: &str = "journal";

/// An open store: its shared state, its threads, and the directory they hold.
pub(super) struct Opened {
    pub(super) engine: Arc<Engine>,
    pub(super) threads: Vec<std::thread::JoinHandle<()>>,
    pub(super) directory: Directory,
}

/// What the journal adds to the tables.
struct Replayed {
    gateways: Gateways,
    /// Complete overlays, oldest first.
    sealed: Vec<Sealed>,
    active: Arc<Overlay>,
    journal: Journal,
}

pub(super) fn open(dir: &Path, options: &Options, seams: &Seams) -> Result<Opened, OpenError> {
    let mut directory = Directory::open(dir, &options.companions)?;
    let store = directory.store();
    let journal_dir = store.join(JOURNAL);
    // What the engine and the tables would make anew where it is missing, as if it had been empty.
    if directory.is_made()
        && let Some(part) = missing_part(&store).map_err(OpenError::io("look at", &store))?
    {
        let what = format!("{} is missing", part.display());
        return Err(OpenError::Corrupt { dir: dir.to_owned(), what });
    }
    fs::create_dir_all(&journal_dir).map_err(OpenError::io("create", &journal_dir))?;
    let in_dir = |error| OpenError::store(dir, error);
    let tables = Tables::open(&store.join(TABLES), options).map_err(in_dir)?;
    let (gateways, applied) = tables.load().map_err(in_dir)?;
    let (mut note, noted) = note(&directory)?;
    let replay = Replay { directory: &directory, journal_dir: &journal_dir, noted, seams };
    let replayed = replay.run(gateways, applied)?;
    // Before the mark of a copy is removed: a copy whose note promises more would be refused without.
    let durable = note.put_durably(replayed.journal.durable());
    durable.map_err(OpenError::io("write", &note::path(&store)))?;
    let incarnation = directory.incarnation()?;
    directory.make()?;
    let disk = Disk::new(dir, options.disk_reserve_bytes, Arc::clone(&seams.free_bytes))
        .map_err(OpenError::io("ask for the free space of", dir))?;
    let Replayed { gateways, sealed, active, journal } = replayed;
    let mut overlays: Vec<_> = sealed.iter().map(|sealed| Arc::clone(&sealed.overlay)).collect();
    overlays.push(active);
    let overlay_bytes = options.overlay_bytes;
    let engine = Engine::new(incarnation, disk, tables.clone(), overlay_bytes, gateways, overlays);
    let engine = Arc::new(engine);
    let threads = threads::start(&engine, (journal, note), journal_dir, tables, sealed)
        .map_err(OpenError::io("start the threads for", dir))?;
    Ok(Opened { engine, threads, directory })
}

/// A part of an engine's directory that every store has and this one lacks.
fn missing_part(store: &Path) -> io::Result<Option<PathBuf>> {
    for part in [JOURNAL, TABLES] {
        let path = store.join(part);
        if !path.is_dir() {
            return Ok(Some(path));
        }
    }
    tables::missing_part(&store.join(TABLES))
}

/// The note of how far the journal is durable, and what it says: nothing in a new directory, and in a
/// copy that has no note.
fn note(directory: &Directory) -> Result<(Note, Option<Durable>), OpenError> {
    let store = directory.store();
    let path = note::path(&store);
    let found = match Note::open(&store) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(OpenError::io("read", &path)(error)),
    };
    match found {
        Some((note, noted)) => Ok((note, Some(noted))),
        None if directory.is_made() && !directory.is_marked()? => {
            Err(directory.altered(format!("{} is missing, or can't be understood", path.display())))
        }
        None => {
            let created = Note::create(&store).map_err(OpenError::io("create", &path))?;
            Ok((created, None))
        }
    }
}

struct Replay<'a> {
    directory: &'a Directory,
    journal_dir: &'a Path,
    /// How far the journal was durable, as far as that was noted.
    noted: Option<Durable>,
    seams: &'a Seams,
}

impl Replay<'_> {
    fn run(&self, mut gateways: Gateways, applied: u64) -> Result<Replayed, OpenError> {
        let numbers = self.numbers(applied)?;
        let mut sealed = Vec::new();
        let (last, complete) = numbers.split_last().expect("BUG: there is at least one number");
        for number in complete {
            let (overlay, end) = self.overlay(*number, &mut gateways)?;
            if end != End::Finished {
                let what = format!("journal {number} ends early, although another follows");
                return Err(self.corrupt(what));
            }
            sealed.push(Sealed { touched: gateways.touched(&overlay), overlay: Arc::new(overlay) });
        }
        let (overlay, end) = self.overlay(*last, &mut gateways)?;
        self.check_length(*last, end)?;
        let sync = Arc::clone(&self.seams.sync);
        let (overlay, journal) = match end {
            End::Unborn => (overlay, Journal::create(self.journal_dir, *last, sync)),
            End::Open(at) => (overlay, Journal::reopen(self.journal_dir, *last, at, sync)),
            End::Finished => {
                // Killed between the end of one file and the beginning of the next. That end may not
                // have reached the disk, and must do so before there is a next.
                let path = journal::path(self.journal_dir, *last);
                let synced = File::open(&path).and_then(|file| sync(&file));
                synced.map_err(OpenError::io("sync", &path))?;
                let touched = gateways.touched(&overlay);
                sealed.push(Sealed { touched, overlay: Arc::new(overlay) });
                let next = last + 1;
                (Overlay::new(next), Journal::create(self.journal_dir, next, sync))
            }
        };
        let journal = journal.map_err(OpenError::io("write the journal in", self.journal_dir))?;
        Ok(Replayed { gateways, sealed, active: Arc::new(overlay), journal })
    }

    /// Refuses a journal that was longer, and durably so, unless whoever restored it says that it is a
    /// copy.
    fn check_length(&self, last: u64, end: End) -> Result<(), OpenError> {
        let Some(noted) = self.noted else { return Ok(()) };
        let what = match end {
            _ if last < noted.number => format!("journal {} is missing", noted.number),
            _ if noted.number < last => return Ok(()),
            End::Finished => return Ok(()),
            End::Open(at) if noted.end <= at => return Ok(()),
            End::Open(at) => format!(
                "journal {last} ends at byte {at}, and was durable through byte {}: commits that were \
                 answered are gone",
                noted.end
            ),
            End::Unborn => format!("journal {last} is empty, and was not"),
        };
        if !self.directory.is_marked()? {
            return Err(self.directory.altered(what));
        }
        tracing::error!("{what}; the store goes on without, as another log");
        Ok(())
    }

    /// The journal files that the tables do not have, without a gap, and one at least.
    fn numbers(&self, applied: u64) -> Result<Vec<u64>, OpenError> {
        let mut numbers = Vec::new();
        let read = || OpenError::io("read", self.journal_dir);
        for entry in fs::read_dir(self.journal_dir).map_err(read())? {
            let path = entry.map_err(read())?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            let Some(number) =
                number.filter(|number| journal::path(self.journal_dir, *number) == path)
            else {
                return Err(self.corrupt(format!("{} is no journal", path.display())));
            };
            if number <= applied {
                // The tables have it: killed before it was removed.
                fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
            } else {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        if numbers.is_empty() && !self.directory.is_made() {
            numbers.push(applied + 1);
        }
        for (number, expected) in numbers.iter().zip(applied + 1..) {
            if *number != expected {
                return Err(self.corrupt(format!("journal {expected} is missing")));
            }
        }
        if numbers.is_empty() {
            return Err(self.corrupt(format!("journal {} is missing", applied + 1)));
        }
        Ok(numbers)
    }

    fn overlay(&self, number: u64, gateways: &mut Gateways) -> Result<(Overlay, End), OpenError> {
        let overlay = Overlay::new(number);
        let path = journal::path(self.journal_dir, number);
        if !path.try_exists().map_err(OpenError::io("look for", &path))? {
            return Ok((overlay, End::Unborn));
        }
        let end = replay(&path, number, |record| {
            let bytes = record.len();
            let operation = Operation::decode(record)?;
            gateways.apply(&operation)?;
            apply(&overlay, operation, bytes);
            Ok(())
        });
        let end = end.map_err(|error| match error {
            ReplayError::Io(error) => OpenError::io("read", &path)(error),
            error => self.corrupt(format!("{}: {error}", path.display())),
        })?;
        Ok((overlay, end))
    }

    fn corrupt(&self, what: String) -> OpenError {
        OpenError::Corrupt { dir: self.directory.path().to_owned(), what }
    }
}

impl OpenError {
    /// What could not be done to `path`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path: PathBuf = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    fn store(dir: &Path, error: StoreError) -> Self {
        let dir = dir.to_owned();
        match error {
            StoreError::Corrupt(what) => Self::Corrupt { dir, what },
            other => Self::Failed { dir, what: other.to_string() },
        }
    }
}

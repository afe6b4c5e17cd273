//! The two threads of an open store: one makes commits durable, one moves complete overlays into the
//! tables. Either stops the store when it fails, and nothing is tried twice: after a failed sync
//! nobody knows what is on the disk.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::directory::sync_directory;
use super::engine::{Engine, Sealed, Step, Write};
use super::journal::note::Note;
use super::journal::{self, Journal};
use super::shortage::patiently;
use super::tables::{Content, Tables};
use crate::store::StoreError;

/// Overlays on their way between the threads. Commits wait long before.
const SEALED_QUEUE_MAX: usize = 8;
/// How often a thread that waits for compaction looks whether there is room.
const COMPACTION_POLL: Duration = Duration::from_millis(20);

/// Starts both threads. `backlog` are overlays that were complete before.
pub(super) fn start(
    engine: &Arc<Engine>,
    (journal, note): (Journal, Note),
    journal_dir: PathBuf,
    tables: Tables,
    backlog: Vec<Sealed>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (to_tables, sealed) = sync_channel(SEALED_QUEUE_MAX.max(backlog.len()));
    for overlay in backlog {
        to_tables.send(overlay).expect("BUG: the receiver is at hand");
    }
    let sync = journal.sync_seam();
    let committer =
        Committer { engine: Arc::clone(engine), journal_dir: journal_dir.clone(), sync, note };
    let ingester = Ingester { engine: Arc::clone(engine), journal_dir, tables };
    Ok(vec![
        spawn("lakesync-commit", engine, move || committer.run(journal, &to_tables))?,
        spawn("lakesync-ingest", engine, move || ingester.run(&sealed))?,
    ])
}

fn spawn(
    name: &str,
    engine: &Arc<Engine>,
    run: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (engine, thread) = (Arc::clone(engine), name.to_owned());
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => engine.fail(&error),
            Err(_) => engine.fail(&StoreError::Failed(format!("the thread {thread} panicked"))),
        }
    })
}

struct Committer {
    engine: Arc<Engine>,
    journal_dir: PathBuf,
    sync: journal::Sync,
    note: Note,
}

impl Committer {
    fn run(
        mut self,
        mut journal: Journal,
        to_tables: &SyncSender<Sealed>,
    ) -> Result<(), StoreError> {
        while let Some(steps) = self.engine.take_work() {
            let mut writes = Vec::with_capacity(steps.len());
            for step in steps {
                match step {
                    Step::Write(write) => writes.push(write),
                    Step::Seal(sealed) => {
                        self.commit(&mut journal, std::mem::take(&mut writes))?;
                        journal = self.next(journal).map_err(failed)?;
                        // Once the other thread has stopped, the journal keeps the overlay.
                        let _ = to_tables.send(sealed);
                    }
                }
            }
            self.commit(&mut journal, writes)?;
            if self.engine.is_idle() {
                journal.confirm().map_err(failed)?;
            }
        }
        journal.confirm().map_err(failed)?;
        self.note.put_durably(journal.durable()).map_err(failed)
    }

    /// Makes all of `writes` durable with one sync, then says so, in order.
    fn commit(&mut self, journal: &mut Journal, writes: Vec<Write>) -> Result<(), StoreError> {
        let records = writes.iter().map(|write| write.record.clone());
        let records: Vec<_> = records.filter(|record| !record.is_empty()).collect();
        let outcome = self.append(journal, &records);
        for write in writes {
            // A caller that hung up learns nothing; its group is durable all the same.
            let _ = write.done.send(outcome.clone());
        }
        outcome
    }

    fn append(&mut self, journal: &mut Journal, records: &[Bytes]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        journal.append(records).map_err(failed)?;
        // A file that is in no directory any more can be synced, and is lost all the same.
        journal.check_in_place().map_err(failed)?;
        self.note.put(journal.durable()).map_err(failed)?;
        self.engine.disk.refresh()
    }

    fn next(&mut self, journal: Journal) -> io::Result<Journal> {
        let number = journal.number() + 1;
        journal.finish()?;
        let next = patiently(&self.engine, || {
            Journal::create(&self.journal_dir, number, Arc::clone(&self.sync))
        })?;
        // Before anything is in it: whoever removes the file later is found out.
        self.note.put_durably(next.durable())?;
        Ok(next)
    }
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Failed(format!("the journal: {error}"))
}

struct Ingester {
    engine: Arc<Engine>,
    journal_dir: PathBuf,
    tables: Tables,
}

impl Ingester {
    fn run(self, sealed: &Receiver<Sealed>) -> Result<(), StoreError> {
        for Sealed { overlay, touched } in sealed {
            while !self.engine.is_stopped() && !self.tables.has_room()? {
                std::thread::park_timeout(COMPACTION_POLL);
            }
            if self.engine.is_stopped() {
                return Ok(()); // The journal keeps what the tables do not have yet.
            }
            patiently(&self.engine, || {
                let content = Content {
                    log: Box::new(overlay.whole_log().map(Ok)),
                    rows: Box::new(overlay.rows.whole().map(Ok)),
                    meta: Box::new(overlay.meta.whole().map(Ok)),
                };
                self.tables.ingest(overlay.number, content, &touched)
            })?;
            // In this order: files that are missing then are always the oldest.
            fs::remove_file(journal::path(&self.journal_dir, overlay.number)).map_err(failed)?;
            patiently(&self.engine, || sync_directory(&self.journal_dir)).map_err(failed)?;
            self.engine.settle(overlay.number);
        }
        Ok(())
    }
}

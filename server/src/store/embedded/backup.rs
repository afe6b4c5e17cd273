//! A consistent copy of a store, made while it is written to.
//!
//! The newest overlay is sealed at one moment; it, those before it and a snapshot of the tables are
//! that moment. It is handed out item by item: the gateways, then logs, rows and meta entries, each in
//! the order of their keys. Whoever makes a directory of the items puts them into new tables. The
//! directory becomes a store only when all of it is durable, and it is marked, so that opening it gives
//! every log a new id.

use std::fs;
use std::io;
use std::iter::Peekable;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::directory::identity::mark_restored;
use super::directory::{Directory, create_private};
use super::engine::Engine;
use super::gateways::Life;
use super::journal::Journal;
use super::journal::note::Note;
use super::reads::View;
use super::record::{full_key, gateway_of};
use super::tables::{Content, Ordered, Space, Tables, Touched};
use super::{OpenError, Options, disk, open};
use crate::store::{Copying, StoreError};

mod pieces;

/// Pieces of a copy that wait for whoever takes them.
const PIECES_MAX: usize = 4;
/// How long a copy waits for whoever takes it. Meanwhile it keeps the store from forgetting anything.
const STALL_MAX: Duration = Duration::from_secs(60);
/// A disk with less than this free is full.
const FULL_BYTES: u64 = 1 << 20;

/// What an item of a copy is. Items come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gateway,
    Log,
    Row,
    Meta,
}

/// One entry of the tables, with its full key. Of a gateway, the key is its number.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    kind: Kind,
    key: Bytes,
    value: Bytes,
}

type Items<'a> = Box<dyn Iterator<Item = Result<Item, StoreError>> + Send + 'a>;

/// Copies the store to `to`, which must not exist.
pub(super) async fn backup(engine: &Arc<Engine>, to: &Path) -> Result<(), StoreError> {
    let (durable, moment) = View::freeze(engine).await?;
    durable.durable().await?;
    let (to, engine) = (to.to_owned(), Arc::clone(engine));
    let copied = tokio::task::spawn_blocking(move || make(&to, items(&engine, &moment)));
    copied.await.unwrap_or_else(|_| Err(given_up()))
}

/// Hands out a copy of the store in pieces. The turn ends with the copying, not with the taking: who
/// takes nothing keeps it no longer than the store waits.
pub(super) async fn copy(
    engine: &Arc<Engine>,
    turn: OwnedSemaphorePermit,
) -> Result<Copying, StoreError> {
    let (durable, moment) = View::freeze(engine).await?;
    durable.durable().await?;
    let (engine, runtime) = (Arc::clone(engine), Handle::current());
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        for piece in pieces::Pieces::of(items(&engine, &moment)) {
            let is_last = piece.is_err();
            match runtime.block_on(timeout(STALL_MAX, sender.send(piece))) {
                Ok(Ok(())) if !is_last => {}
                // It was the last, or nobody wants more.
                Ok(_) => return,
                Err(_) => {
                    tracing::warn!(
                        "a copy was broken off: nobody took any of it for {} s",
                        STALL_MAX.as_secs()
                    );
                    return;
                }
            }
        }
    });
    Ok(Copying(receiver))
}

/// Makes a data directory of the pieces that [`copy`] handed out.
pub(super) fn write_copy(
    to: &Path,
    pieces: impl Iterator<Item = Result<Bytes, StoreError>> + Send,
) -> Result<(), StoreError> {
    make(to, Box::new(pieces::items(pieces)))
}

/// A moment of the store, item by item. Ends with an error when the store is closed meanwhile.
fn items<'a>(engine: &'a Engine, moment: &'a [View]) -> Items<'a> {
    let gateways = moment.iter().map(|view| {
        let key = Bytes::copy_from_slice(&view.life.id.0.to_be_bytes());
        Ok(Item { kind: Kind::Gateway, key, value: view.life.encode().into() })
    });
    let log = moment.iter().flat_map(|view| {
        view.log(view.life.trimmed).map(|entry| {
            let entry = entry?;
            let key = full_key(view.life.id, &entry.position.0.to_be_bytes()).into();
            Ok(Item { kind: Kind::Log, key, value: entry.commit })
        })
    });
    let entries = move |space, kind| {
        let all = moment.iter().flat_map(move |view| view.everything(space));
        all.map(move |item| item.map(|(key, value)| Item { kind, key, value }))
    };
    let all = gateways.chain(log);
    let all = all.chain(entries(Space::Rows, Kind::Row)).chain(entries(Space::Meta, Kind::Meta));
    Box::new(all.map(|item| if engine.is_stopped() { Err(StoreError::Closed) } else { item }))
}

/// Items on their way into tables, and why there are no more of them if they failed.
struct Source<'a>(Mutex<State<'a>>);

struct State<'a> {
    items: Peekable<Items<'a>>,
    failed: Option<StoreError>,
}

impl<'a> Source<'a> {
    fn new(items: Items<'a>) -> Self {
        Self(Mutex::new(State { items: items.peekable(), failed: None }))
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item, if it is of this kind.
    fn next(&self, kind: Kind) -> Option<Result<(Bytes, Bytes), StoreError>> {
        let mut state = self.lock();
        if matches!(state.items.peek()?, Ok(item) if item.kind != kind) {
            return None;
        }
        let item = state.items.next()?;
        state.failed = item.as_ref().err().cloned();
        Some(item.map(|Item { key, value, .. }| (key, value)))
    }

    fn all(&self, kind: Kind) -> Ordered<'_> {
        let items = std::iter::from_fn(move || self.next(kind));
        Box::new(items.map(|item| item.map(|(key, value)| (key, Some(value)))))
    }
}

/// Makes a directory of items. A copy that fails is the copy's matter: the store goes on, and nothing
/// of the copy is left.
fn make(to: &Path, items: Items<'_>) -> Result<(), StoreError> {
    create_private(to).map_err(|error| not_created(to, &error))?;
    let source = Source::new(items);
    let written = write(to, &source);
    let outcome = written.map_err(|error| {
        let failed = source.lock().failed.take();
        failed.unwrap_or_else(|| not_written(to, &error, disk::free_bytes(to).ok()))
    });
    if outcome.is_err() {
        // Nobody would open it, for it was not made; but it takes space.
        let _ = fs::remove_dir_all(to);
    }
    outcome
}

fn write(to: &Path, source: &Source<'_>) -> Result<(), StoreError> {
    let io = |error: io::Error| StoreError::NoCopy(error.to_string());
    let opening = |error: OpenError| StoreError::NoCopy(error.to_string());
    let mut copy = Directory::open(to, &[]).map_err(opening)?;
    copy.incarnation().map_err(opening)?;
    let journal_dir = copy.store().join(open::JOURNAL);
    fs::create_dir_all(&journal_dir).map_err(io)?;
    let tables = Tables::open(&copy.store().join(open::TABLES), &Options::default())?;
    fill(&tables, source)?;
    drop(tables);
    let journal =
        Journal::create(&journal_dir, 1, Arc::new(|file| file.sync_data())).map_err(io)?;
    let mut note = Note::create(&copy.store()).map_err(io)?;
    note.put_durably(journal.durable()).map_err(io)?;
    mark_restored(to).map_err(io)?;
    copy.make().map_err(opening)
}

fn fill(tables: &Tables, source: &Source<'_>) -> Result<(), StoreError> {
    let mut lives = Vec::new();
    while let Some(item) = source.next(Kind::Gateway) {
        let (key, value) = item?;
        let life = gateway_of(&key).and_then(|id| Life::decode(id, &value));
        let life = life.ok_or_else(|| StoreError::NoCopy("a gateway that can't be read".into()))?;
        lives.push((life.id, Some(life)));
    }
    let next = lives.iter().map(|(id, _)| id.0 + 1).max().unwrap_or(1);
    let (log, rows) = (source.all(Kind::Log), source.all(Kind::Row));
    let content = Content { log, rows, meta: source.all(Kind::Meta) };
    tables.ingest(0, content, &Touched { lives, next })?;
    match source.lock().items.next() {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(_)) => Err(StoreError::NoCopy("it is out of order".to_owned())),
    }
}

fn given_up() -> StoreError {
    StoreError::NoCopy("it was given up".to_owned())
}

fn not_created(to: &Path, error: &io::Error) -> StoreError {
    let to = to.display();
    StoreError::NoCopy(match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{to} exists; choose a directory that does not exist yet")
        }
        io::ErrorKind::NotFound => format!("the directory that {to} would lie in does not exist"),
        _ => format!("{to}: {error}"),
    })
}

/// Says that the place of the copy failed, and not the store that was copied.
fn not_written(to: &Path, error: &StoreError, free_bytes: Option<u64>) -> StoreError {
    let to = to.display();
    if free_bytes.is_some_and(|free| free < FULL_BYTES) {
        return StoreError::NoCopy(format!(
            "the disk of {to} is full; make room there, or choose another place"
        ));
    }
    match error {
        StoreError::NoCopy(what) | StoreError::Failed(what) | StoreError::Corrupt(what) => {
            StoreError::NoCopy(format!("{to} could not be written: {what}"))
        }
        other => StoreError::NoCopy(format!("{to} could not be written: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_fails_is_not_the_stores_failure() {
        let root = tempfile::tempdir().expect("a directory");
        let to = root.path().join("copy");
        let taken_away = to.clone();
        let item =
            |kind| Item { kind, key: Bytes::from_static(&[0, 0, 0, 1, 7]), value: Bytes::new() };
        let items = [Kind::Row, Kind::Meta].into_iter().map(move |kind| {
            // While its rows are written, the place of the copy vanishes.
            let _ = fs::remove_dir_all(taken_away.join("store"));
            Ok(item(kind))
        });
        let error = make(&to, Box::new(items)).expect_err("its place is gone");
        assert!(matches!(error, StoreError::NoCopy(_)), "{error:?}");
        assert!(!error.to_string().contains("reopened"), "{error}");
        assert!(!to.exists(), "something of it is left");
        let failed = StoreError::Failed("the tables: I/O error".to_owned());
        let told = |free| not_written(&to, &failed, free).to_string();
        assert!(told(Some(0)).contains("is full; make room there"), "{}", told(Some(0)));
        assert!(told(Some(1 << 30)).contains("could not be written: the tables"));
    }

    #[test]
    fn a_source_that_fails_is_told_as_it_is() {
        let root = tempfile::tempdir().expect("a directory");
        let to = root.path().join("copy");
        let items = std::iter::once(Err(StoreError::Closed));
        assert!(matches!(make(&to, Box::new(items)), Err(StoreError::Closed)));
        assert!(!to.exists(), "something of it is left");
    }
}

//! A consistent copy of a store, made while it is written to.
//!
//! The newest overlay is sealed at one moment; it, those before it and a snapshot of the tables are
//! that moment. They are copied into the tables of a new directory, which becomes a store only when
//! all of it is durable, and which is marked so that opening it gives every log a new id.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::directory::Directory;
use super::directory::identity::mark_restored;
use super::engine::Engine;
use super::journal::Journal;
use super::reads::View;
use super::record::full_key;
use super::tables::{Content, Ordered, Space, Tables, Touched};
use super::{OpenError, Options, open};
use crate::store::StoreError;

/// Copies the store to `to`, which must not exist.
pub(super) async fn backup(engine: &Arc<Engine>, to: &Path) -> Result<(), StoreError> {
    let (durable, moment) = View::freeze(engine).await?;
    durable.durable().await?;
    let (to, engine) = (to.to_owned(), Arc::clone(engine));
    // A copy that fails is the copy's matter: the store goes on.
    let copied = tokio::task::spawn_blocking(move || {
        fs::create_dir(&to).map_err(|error| not_created(&to, &error))?;
        let outcome = write(&engine, &moment, &to);
        if outcome.is_err() {
            // Nobody would open it, for it was not made; but it takes space.
            let _ = fs::remove_dir_all(&to);
        }
        outcome
    });
    let copied = copied.await;
    copied.unwrap_or_else(|_| Err(StoreError::NoCopy("it was given up".to_owned())))
}

fn write(engine: &Engine, moment: &[View], to: &Path) -> Result<(), StoreError> {
    let io = |error: io::Error| StoreError::NoCopy(format!("{}: {error}", to.display()));
    let opening = |error: OpenError| StoreError::NoCopy(error.to_string());
    let mut copy = Directory::open(to, &[]).map_err(opening)?;
    copy.incarnation().map_err(opening)?;
    let journal_dir = copy.store().join(open::JOURNAL);
    fs::create_dir_all(&journal_dir).map_err(io)?;
    let tables = Tables::open(&copy.store().join(open::TABLES), Options::default().cache_bytes)?;
    fill(engine, moment, &tables)?;
    drop(tables);
    Journal::create(&journal_dir, 1, Arc::new(|file| file.sync_data())).map_err(io)?;
    mark_restored(to).map_err(io)?;
    copy.make().map_err(opening)
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

fn fill(engine: &Engine, moment: &[View], tables: &Tables) -> Result<(), StoreError> {
    let space = |space| -> Ordered<'_> {
        let items = moment.iter().flat_map(move |view| view.everything(space));
        Box::new(stoppable(engine, items).map(|item| item.map(|(key, value)| (key, Some(value)))))
    };
    let log = moment.iter().flat_map(|view| {
        let entries = view.log(view.life.trimmed);
        entries.map(|entry| {
            let entry = entry?;
            let key = full_key(view.life.id, &entry.position.0.to_be_bytes());
            Ok((Bytes::from(key), entry.commit))
        })
    });
    let log = stoppable(engine, log).map(|item| item.map(|(key, value)| (key, Some(value))));
    let lives = moment.iter().map(|view| (view.life.id, Some(view.life.clone()))).collect();
    let next = moment.iter().map(|view| view.life.id.0 + 1).max().unwrap_or(1);
    let content =
        Content { log: Box::new(log), rows: space(Space::Rows), meta: space(Space::Meta) };
    tables.ingest(0, content, &Touched { lives, next })
}

/// Ends with an error when the store is closed meanwhile.
fn stoppable<T>(
    engine: &Engine,
    items: impl Iterator<Item = Result<T, StoreError>>,
) -> impl Iterator<Item = Result<T, StoreError>> {
    items.map(|item| if engine.is_stopped() { Err(StoreError::Closed) } else { item })
}

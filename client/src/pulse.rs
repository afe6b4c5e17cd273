//! Notices that the database file changed, whoever changed it.
//!
//! SQLite has no way to be told across processes, so one cheap connection asks for
//! `PRAGMA data_version`, many times a second, for as long as anybody wants to know.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::watch;

/// A reader that finds the file locked waits as long as any application would.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts changes of one file. Clones share the count.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<Beat>);

#[derive(Debug)]
struct Beat {
    path: PathBuf,
    every: Duration,
    count: watch::Sender<u64>,
    /// Whether the task that asks is running.
    running: Mutex<bool>,
}

impl Pulse {
    pub(crate) fn new(path: &Path, every: Duration) -> Self {
        let (path, count) = (path.to_owned(), watch::Sender::new(0));
        Self(Arc::new(Beat { path, every, count, running: Mutex::new(false) }))
    }

    /// A count that grows with every change from now on, and now and then without one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.0.count.subscribe();
        if !*running {
            *running = true;
            tokio::spawn(Arc::clone(&self.0).run());
        }
        count
    }
}

impl Beat {
    async fn run(self: Arc<Self>) {
        let mut asked = None;
        let mut known = None;
        while !self.rests() {
            let version = self.version(&mut asked).await;
            // Versions of two connections can't be compared, so a failure may hide a change.
            if version.is_none() || version != known {
                self.count.send_modify(|count| *count += 1);
            }
            known = version;
            tokio::time::sleep(self.every).await;
        }
        if let Some(connection) = asked {
            // Nothing was written; a failure to close loses nothing.
            let _ = connection.close().await;
        }
    }

    /// Whether nobody wants to know any more. Decided under the lock that `subscribe` takes.
    fn rests(&self) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = 0 < self.count.receiver_count();
        !*running
    }

    async fn version(&self, asked: &mut Option<SqliteConnection>) -> Option<i64> {
        let mut connection = match asked.take() {
            Some(connection) => connection,
            None => read_connection(&self.path).await.ok()?,
        };
        let version = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut connection).await;
        let version = version.ok()?;
        *asked = Some(connection);
        Some(version)
    }
}

/// A connection that can't write.
pub(crate) async fn read_connection(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "ON")
        .connect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(path: &Path) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        options.connect().await.expect("opens")
    }

    async fn write(connection: &mut SqliteConnection) {
        sqlx::query("INSERT INTO t VALUES (1)").execute(connection).await.expect("inserts");
    }

    #[tokio::test]
    async fn every_change_is_noticed_by_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.db");
        let mut other = open(&path).await;
        sqlx::query("CREATE TABLE t (a)").execute(&mut other).await.expect("creates");
        let pulse = Pulse::new(&path, Duration::from_millis(1));
        let (mut one, mut two) = (pulse.subscribe(), pulse.subscribe());
        one.changed().await.expect("the first look counts");
        for _ in 0..3 {
            one.mark_unchanged();
            two.mark_unchanged();
            write(&mut other).await;
            one.changed().await.expect("the pulse is here");
            two.changed().await.expect("the pulse is here");
        }
    }

    #[tokio::test]
    async fn a_file_that_comes_later_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.db");
        let mut count = Pulse::new(&path, Duration::from_millis(1)).subscribe();
        count.changed().await.expect("the pulse is here");
        let mut other = open(&path).await;
        sqlx::query("CREATE TABLE t (a)").execute(&mut other).await.expect("creates");
        let before = *count.borrow_and_update();
        write(&mut other).await;
        count.wait_for(|count| before < *count).await.expect("the pulse is here");
    }
}

//! A device: a SQLite file, its replica, and an application that uses the file through a connection
//! of its own, as another process would.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lakesync_client::transport::{Transport, connect};
use lakesync_client::{Config, Event, Pace, Replica, Round, Status};
use lakesync_server::auth::Grant;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};
use tempfile::TempDir;

use crate::harness::process::{self, command};
use crate::harness::{MAIN, Server, Setup, grant, skip, within};

/// A device.
pub(crate) struct Site {
    pub(crate) replica: Replica,
    pub(crate) app: SqliteConnection,
    pub(crate) path: PathBuf,
    dir: Arc<TempDir>,
}

/// A file that no replica has opened yet, and the application that made it.
pub(crate) struct File {
    pub(crate) app: SqliteConnection,
    pub(crate) path: PathBuf,
    dir: Arc<TempDir>,
}

/// A token with all rights, for as long as any simulation lasts.
pub(crate) fn token(server: &Server) -> String {
    let ttl = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    server.token(&Grant { ttl, ..grant("tester", "sync admin") })
}

/// Starts a server whose clock moves as the devices' clocks do, which are real.
pub(crate) async fn serve(setup: &Setup) -> Server {
    let clock = Arc::downgrade(&setup.clock);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let mut last = tokio::time::Instant::now();
        while let Some(clock) = clock.upgrade() {
            let passed_ms = last.elapsed().as_millis();
            last += Duration::from_millis(u64::try_from(passed_ms).expect("not so long"));
            clock.advance(u64::try_from(passed_ms).expect("not so long"));
            ticks.tick().await;
        }
    });
    setup.start().await
}

/// The server over its socket.
pub(crate) fn line(server: &Server) -> Arc<dyn Transport> {
    let url = format!("http://{}", server.address);
    Arc::new(connect(&url, Some(token(server).into())).expect("a good URL"))
}

/// A replica that waits for nothing longer than it must.
pub(crate) fn config(transport: Arc<dyn Transport>) -> Config {
    let pace = Pace {
        first: Duration::from_millis(1),
        max: Duration::from_millis(5),
        slow: Duration::from_millis(5),
    };
    Config::over(transport, MAIN).with_pace(pace).with_poll_every(Duration::from_millis(2))
}

/// A connection of an application.
pub(crate) async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let options = options.busy_timeout(Duration::from_secs(30));
    options.connect().await.expect("a database")
}

/// Runs statements, which must succeed.
#[track_caller]
pub(crate) fn run(app: &mut SqliteConnection, sql: &str) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(app).await;
        done.unwrap_or_else(|error| panic!("{sql} at {caller}: {error}"));
    }
}

/// What a query finds, a text a row: its first column.
pub(crate) async fn texts(app: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let found = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(app).await;
    found.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// What these columns of a table hold, exactly: `quote` tells 1 from '1', and neither from 1.0.
pub(crate) async fn rows(app: &mut SqliteConnection, table: &str, columns: &str) -> Vec<String> {
    let quoted: Vec<_> = columns.split(", ").map(|name| format!("quote({name})")).collect();
    let sql = format!("SELECT {} AS r FROM {table} ORDER BY r", quoted.join("||'|'||"));
    texts(app, &sql).await
}

impl File {
    /// A file made by these statements.
    pub(crate) async fn made_by(sql: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a folder"));
        let path = dir.path().join("app.db");
        let mut app = open(&path).await;
        run(&mut app, sql).await;
        Self { app, path, dir }
    }

    /// Opens a replica on the file.
    pub(crate) async fn open(self, config: Config) -> Site {
        let replica = Replica::open(&self.path, config).await.expect("a file that opens");
        Site { replica, app: self.app, path: self.path, dir: self.dir }
    }

    /// Opens a replica on the file, and syncs these of its tables from now on.
    pub(crate) async fn adopt(self, server: &Server, tables: &[&str]) -> Site {
        let site = self.open(config(line(server))).await;
        let names: Vec<_> = tables.iter().map(|name| name.parse().expect("a name")).collect();
        site.replica.adopt(&names).await.expect("tables that can be synced");
        site
    }
}

impl Site {
    /// Ends the replica's process; the application goes on.
    pub(crate) fn closed(self) -> File {
        File { app: self.app, path: self.path, dir: self.dir }
    }

    /// An empty file that has synced once.
    pub(crate) async fn synced(server: &Server) -> Self {
        let site = File::made_by("").await.open(config(line(server))).await;
        site.sync().await;
        site
    }

    /// A file made by these statements, whose tables both devices have, and which has synced once.
    pub(crate) async fn with(server: &Server, sql: &str, tables: &[&str]) -> Self {
        let site = File::made_by(sql).await.adopt(server, tables).await;
        site.sync().await;
        site
    }

    /// Runs a round, which must succeed.
    #[track_caller]
    pub(crate) fn sync(&self) -> impl Future<Output = Round> {
        let caller = std::panic::Location::caller();
        async move {
            let round = within(self.replica.sync()).await;
            round.unwrap_or_else(|error| panic!("a round failed at {caller}: {error}"))
        }
    }

    /// Runs statements of the application.
    pub(crate) async fn run(&mut self, sql: &str) {
        run(&mut self.app, sql).await;
    }

    /// What these columns of a table hold, exactly.
    pub(crate) async fn rows(&mut self, table: &str, columns: &str) -> Vec<String> {
        rows(&mut self.app, table, columns).await
    }

    /// How the replica is doing.
    pub(crate) fn status(&self) -> Status {
        self.replica.status().borrow().clone()
    }
}

/// The head of the log, as the server counts.
pub(crate) async fn head(server: &Server) -> u64 {
    server.client("operator").await.stats().await.expect("figures").head
}

/// Whether SQLite's shell is here. Says so if it is not, and fails where nothing may be skipped.
pub(crate) async fn shell() -> bool {
    let found = process::run(command(Path::new("sh"), ["-c", "command -v sqlite3"])).await;
    if !found.status.success() {
        skip("the sqlite3 shell");
    }
    found.status.success()
}

/// The events that were told by now.
pub(crate) fn told(events: &mut BoxStream<'static, Event>) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(Some(event)) = futures_util::FutureExt::now_or_never(events.next()) {
        all.push(event);
    }
    all
}

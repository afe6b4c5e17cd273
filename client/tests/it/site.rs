//! A replica and the application beside it, which uses the same file through a connection of its
//! own, as another process would.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lakesync::delta::Cell;
use lakesync::schema::{ColumnType, Proposal};
use lakesync::value::Value;
use lakesync_client::transport::{Transport, local};
use lakesync_client::{Config, Event, Pace, Replica, Status};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};
use tempfile::TempDir;

use crate::fake::{Fake, Line, TOKEN};

/// Longer than anything here takes; a test that waits for it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A device: a file, its replica, and an application.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) replica: Replica,
    pub(crate) app: SqliteConnection,
    path: PathBuf,
    folder: TempDir,
}

/// `todos (id TEXT key, title TEXT, rank INTEGER)`.
pub(crate) fn todos() -> Proposal {
    let column = |name: &str, kind| (name.parse().expect("a name"), kind);
    Proposal {
        table: "todos".parse().expect("a name"),
        key: "id".parse().expect("a name"),
        columns: vec![column("title", ColumnType::String), column("rank", ColumnType::Int64)],
        primary_key: Vec::new(),
    }
}

/// A gateway that has the table.
pub(crate) fn gateway() -> Fake {
    Fake::with_tables(&[todos()])
}

/// What to write into the column `title`.
pub(crate) fn title(text: &str) -> [Cell; 1] {
    [Cell { column: "title".parse().expect("a name"), value: Value::String(text.into()) }]
}

pub(crate) fn config(fake: &Fake) -> Config {
    let transport: Arc<dyn Transport> = Arc::new(local(Line::new(fake), Some(TOKEN.into())));
    let pace = Pace {
        first: Duration::from_millis(1),
        max: Duration::from_millis(5),
        slow: Duration::from_secs(600),
    };
    Config::over(transport, "main").with_pace(pace).with_poll_every(Duration::from_millis(2))
}

impl Site {
    /// A new device, not yet in contact.
    pub(crate) async fn new(fake: &Fake) -> Self {
        Self::with(config(fake)).await
    }

    /// The same, configured like this.
    pub(crate) async fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("todos.db");
        let replica = Replica::open(&path, config).await.expect("opens");
        let app = SqliteConnectOptions::new().filename(&path).connect().await.expect("opens");
        Self { replica, app, path, folder }
    }

    /// A new device that has synced once.
    pub(crate) async fn synced(fake: &Fake) -> Self {
        let site = Self::new(fake).await;
        site.replica.sync().await.expect("first round");
        site
    }

    /// The same device after its process was restarted.
    pub(crate) async fn restart(self, fake: &Fake) -> Self {
        let Self { replica, app, path, folder } = self;
        drop(replica);
        let replica = Replica::open(&path, config(fake)).await.expect("opens again");
        Self { replica, app, path, folder }
    }

    /// Runs a statement of the application.
    pub(crate) async fn run(&mut self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut self.app).await.expect(sql);
    }

    /// The rows as `id=title`, in order.
    pub(crate) async fn todos(&mut self) -> Vec<String> {
        let sql = "SELECT id || '=' || coalesce(title, 'NULL') FROM todos ORDER BY id";
        sqlx::query_scalar(sql).fetch_all(&mut self.app).await.expect(sql)
    }

    /// Waits until the application sees these rows.
    pub(crate) async fn shows(&self, expected: &[&str]) {
        let sql = "SELECT id || '=' || coalesce(title, 'NULL') FROM todos ORDER BY id";
        let mut live = self.replica.watch(sql, []);
        let mut last = None;
        let seen = async {
            while let Some(result) = live.next().await {
                let rows = result.map(|found| found.rows).unwrap_or_default();
                let texts: Vec<_> = rows.into_iter().map(|row| text(&row[0])).collect();
                if texts == expected {
                    return;
                }
                last = Some(texts);
            }
        };
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            panic!("expected {expected:?}, last saw {last:?}, {:?}", self.status());
        }
    }

    /// Waits until the replica's status is like this.
    pub(crate) async fn is(&self, like: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.replica.status();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(like)).await;
        match found {
            Ok(status) => status.expect("the replica is open").clone(),
            Err(_) => panic!("still {:?}", self.status()),
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.replica.status().borrow().clone()
    }

    pub(crate) fn events(&self) -> BoxStream<'static, Event> {
        self.replica.events()
    }
}

/// Waits for the first event that `pick` takes.
pub(crate) async fn first<T>(
    events: &mut BoxStream<'static, Event>,
    mut pick: impl FnMut(Event) -> Option<T>,
) -> T {
    let picked = async {
        loop {
            let event = events.next().await.expect("the replica is open");
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    };
    tokio::time::timeout(PATIENCE, picked).await.expect("no such event")
}

fn text(value: &lakesync_client::SqlValue) -> String {
    match value {
        lakesync_client::SqlValue::Text(text) => text.clone(),
        other => panic!("not a text: {other:?}"),
    }
}

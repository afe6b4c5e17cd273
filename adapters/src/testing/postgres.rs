//! PostgreSQL, as Debian's `postgresql` package has it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::OnceCell;

use super::server::{Server, ask};
use super::{Durability, NULL, PASSWORD, USER, find_program, skip};

/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The database that every cluster has.
const DATABASE: &str = "postgres";

/// A running PostgreSQL.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
}

impl Postgres {
    /// The server that all tests of this process share.
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<Postgres>> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await.as_ref()
    }

    /// A server for one test, to be stopped and paused.
    pub async fn start() -> Option<Self> {
        Self::start_with(Durability::Process).await
    }

    /// A server that keeps what it commits as `durability` says.
    pub async fn start_with(durability: Durability) -> Option<Self> {
        let dirs = versions();
        let [Some(initdb), Some(postgres), Some(_)] =
            ["initdb", "postgres", "psql"].map(|name| find_program(name, &dirs))
        else {
            skip("PostgreSQL is not installed");
            return None;
        };
        let server = Server::new("postgres");
        let data = format!("--pgdata={}", server.dir.join("data").display());
        let secret = server.write("secret", PASSWORD);
        let login = [format!("--username={USER}"), format!("--pwfile={}", secret.display())];
        let form = ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256"];
        let form = form.map(str::to_owned);
        server.create(&initdb, &[&[data][..], &login, &form].concat());

        let mut arguments = vec!["-D".to_owned(), server.dir.join("data").display().to_string()];
        let mut set = |setting: &str| arguments.extend(["-c".to_owned(), setting.to_owned()]);
        set(&format!("port={}", server.port));
        set("listen_addresses=127.0.0.1");
        set("unix_socket_directories=");
        set("max_connections=200");
        if durability == Durability::Process {
            set("fsync=off");
            set("full_page_writes=off");
        }
        server.start(&postgres, &arguments);
        let postgres = Self { server };
        postgres.ready().await;
        Some(postgres)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How to log in, as a superuser. Point it at a [`Proxy`](super::Proxy) by its port.
    pub fn options(&self) -> PgConnectOptions {
        let address = self.address();
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(address.port());
        options.username(USER).password(PASSWORD).database(DATABASE)
    }

    /// A name for a schema that no test has had. It is not created.
    pub fn fresh(&self) -> String {
        self.server.fresh()
    }

    /// Crashes it. What it committed stays.
    pub fn stop(&self) {
        self.server.order("stop");
    }

    /// Starts it again, at the same address, after [`stop`](Self::stop).
    pub async fn restart(&self) {
        self.server.order("stop");
        self.server.order("start");
        self.ready().await;
    }

    /// Freezes it: connections stay, and nothing answers.
    pub fn pause(&self) {
        self.server.order("pause");
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.server.order("resume");
    }

    /// What `psql` prints for `sql`: a line per row, `|` between columns, and [`NULL`].
    pub async fn psql(&self, sql: &str) -> String {
        let printed = self.ask(sql).await;
        printed.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn ready(&self) {
        self.server.ready(async || self.ask("SHOW data_directory").await).await;
    }

    async fn ask(&self, sql: &str) -> Result<String, String> {
        let mut client = Command::new("psql");
        client.args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet"]);
        client.args(["--set=ON_ERROR_STOP=1", &format!("--pset=null={NULL}"), "--command", sql]);
        client.args(["--host=127.0.0.1", &format!("--port={}", self.address().port())]);
        client.args([&format!("--username={USER}"), &format!("--dbname={DATABASE}")]);
        client.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "10");
        client.env("PGCLIENTENCODING", "UTF8");
        ask(client).await.map(|text| text.trim_end_matches('\n').to_owned())
    }
}

/// The directories of Debian's versions, newest first.
fn versions() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(VERSIONS) else { return Vec::new() };
    let version = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let mut versions: Vec<u32> = entries.flatten().filter_map(version).collect();
    versions.sort_by(|a, b| b.cmp(a));
    let dir = |version: u32| Path::new(VERSIONS).join(version.to_string()).join("bin");
    versions.into_iter().map(dir).collect()
}

//! A database server of our own: Debian's programs, with the settings they have by themselves, on a
//! directory and a port that nobody else has. It ends when its handle does, and can be taken away.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;
use tokio::time::sleep;

use self::process::{Process, User};
use crate::exit::Exit;

mod process;
mod programs;

/// How long a server may take to answer, and how often it is asked. After a crash it reads its log.
const READY_MAX: Duration = Duration::from_secs(120);
const READY_EVERY: Duration = Duration::from_millis(20);
/// How often it is looked at until it rests, how many times at most, and how much of that time it
/// may compute and still be said to rest.
const REST_EVERY: Duration = Duration::from_millis(200);
const REST_LOOKS_MAX: u32 = 100;
const REST_CPU_MAX: Duration = Duration::from_millis(20);
/// Who we are there.
const USER: &str = "lakesync";

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Postgres,
    #[value(name = "mysql")]
    MySql,
}

/// A running server. The process ends before its directory goes.
pub(super) struct Database {
    pub(super) kind: Kind,
    process: Process,
    program: PathBuf,
    arguments: Vec<String>,
    /// Whom the server runs as, if we are root: servers refuse to be.
    user: Option<User>,
    port: u16,
    password: String,
    directory: TempDir,
}

impl Kind {
    /// As in reports, and in a server's settings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
        }
    }
}

impl Database {
    /// Makes a server in a directory of its own in `place`, and waits until it answers.
    pub(super) async fn start(kind: Kind, place: Option<&Path>) -> Result<Self, Exit> {
        let programs = programs::find(kind)?;
        let user = User::of_servers(kind)?;
        let place = place.map_or_else(std::env::temp_dir, Path::to_owned);
        let directory = tempfile::Builder::new().prefix("lakesync-bench-").tempdir_in(&place);
        let directory = directory.map_err(Exit::input_output)?;
        let password = format!("{:032x}", getrandom::u64().map_err(Exit::input_output)?);
        let port = free_port()?;
        let secret = directory.path().join("secret");
        fs::write(&secret, programs::secret(kind, &password)).map_err(Exit::input_output)?;
        for path in [directory.path(), &secret] {
            let Some(user) = user else { continue };
            chown(path, Some(user.uid), Some(user.gid)).map_err(Exit::input_output)?;
        }
        let create = programs::create(kind, directory.path());
        let made = command(&programs.create, &create, user, directory.path())?.status();
        if !made.map_err(Exit::input_output)?.success() {
            return Err(failure("could not be made", directory.path()));
        }
        let (program, arguments) = (programs.serve, programs::serve(kind, directory.path(), port));
        let process = Process::spawn(kind, command(&program, &arguments, user, directory.path())?)?;
        let database = Self { kind, process, program, arguments, user, port, password, directory };
        database.ready().await?;
        Ok(database)
    }

    /// Where it is, and who we are there.
    pub(super) fn url(&self) -> String {
        let Self { port, password, .. } = self;
        match self.kind {
            Kind::Postgres => format!("postgres://{USER}:{password}@127.0.0.1:{port}/postgres"),
            Kind::MySql => format!("mysql://{USER}:{password}@127.0.0.1:{port}"),
        }
    }

    /// A connection to a PostgreSQL.
    pub(super) async fn postgres(&self) -> Result<PgConnection, Exit> {
        PgConnection::connect(&self.url()).await.map_err(Exit::unavailable)
    }

    /// A connection to a MariaDB.
    pub(super) async fn mysql(&self) -> Result<MySqlConnection, Exit> {
        MySqlConnection::connect(&self.url()).await.map_err(Exit::unavailable)
    }

    /// Runs statements that yield nothing.
    pub(super) async fn run(&self, sql: String) -> Result<(), Exit> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        match self.kind {
            Kind::Postgres => sql.execute(&mut self.postgres().await?).await.map(|_| ()),
            Kind::MySql => sql.execute(&mut self.mysql().await?).await.map(|_| ()),
        }
        .map_err(Exit::unavailable)
    }

    /// How many rows a table has.
    pub(super) async fn count(&self, table: &str) -> Result<i64, Exit> {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        match self.kind {
            Kind::Postgres => sqlx::query_scalar(sql).fetch_one(&mut self.postgres().await?).await,
            Kind::MySql => sqlx::query_scalar(sql).fetch_one(&mut self.mysql().await?).await,
        }
        .map_err(Exit::unavailable)
    }

    /// How much it has computed so far, where the system tells.
    pub(super) fn cpu(&self) -> Option<Duration> {
        self.process.cpu()
    }

    /// Waits until what was written is where it belongs, so that the next does not pay for it.
    pub(super) async fn rest(&self) -> Result<(), Exit> {
        if self.kind == Kind::Postgres {
            self.run("CHECKPOINT".to_owned()).await?;
        }
        let mut before = self.cpu();
        for _ in 0..REST_LOOKS_MAX {
            sleep(REST_EVERY).await;
            let now = self.cpu();
            let worked = now.unwrap_or_default().saturating_sub(before.unwrap_or_default());
            if worked <= REST_CPU_MAX {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Freezes it: connections stay, and nothing answers.
    pub(super) fn freeze(&self) {
        self.process.freeze();
    }

    /// Ends it as a crash does: nothing is finished, and what it committed stays.
    pub(super) fn kill(&mut self) {
        self.process.end();
    }

    /// Starts it again, and waits until it answers.
    pub(super) async fn start_again(&mut self) -> Result<(), Exit> {
        self.process.end();
        let directory = self.directory.path();
        let command = command(&self.program, &self.arguments, self.user, directory)?;
        self.process = Process::spawn(self.kind, command)?;
        self.ready().await
    }

    async fn ready(&self) -> Result<(), Exit> {
        let start = Instant::now();
        loop {
            let answer = match self.kind {
                Kind::Postgres => self.postgres().await.map(|_| ()),
                Kind::MySql => self.mysql().await.map(|_| ()),
            };
            match answer {
                Ok(()) => return Ok(()),
                Err(_) if start.elapsed() < READY_MAX && self.process.is_there() => {}
                Err(_) => return Err(failure("does not answer", self.directory.path())),
            }
            sleep(READY_EVERY).await;
        }
    }
}

/// A port that was bound and let go of: nobody else is given it for a while.
fn free_port() -> Result<u16, Exit> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Exit::unavailable)?;
    Ok(listener.local_addr().map_err(Exit::unavailable)?.port())
}

/// A command whose words go into a log in `directory`.
fn command(
    program: &Path,
    arguments: &[String],
    user: Option<User>,
    directory: &Path,
) -> Result<Command, Exit> {
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log"));
    let log = log.map_err(Exit::input_output)?;
    let again = log.try_clone().map_err(Exit::input_output)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(log).stderr(again);
    // What interrupts us does not interrupt it: we end it.
    command.process_group(0);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(command)
}

fn failure(what: &str, directory: &Path) -> Exit {
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().rev().take(5).collect();
    let last = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
    Exit::unavailable(format!("a database server {what}:\n{last}"))
}

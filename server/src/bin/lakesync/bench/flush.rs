//! `lakesync bench flush`: how fast changes reach a database, against plain COPY or INSERT.
//!
//! A server holds the changes in its log, without a backend. Started again with one, it flushes all
//! of them, and is timed from its start until the backend has them. Then the same rows go into a
//! plain table of the same columns and key by the database's bulk way: COPY, or INSERTs of many
//! rows, prepared. The database is one of our own, with its own settings; before each turn it rests.
//! A third turn has one change in ten write a row again, which a COPY can't: it is reported only.

mod plain;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{ArgAction, ValueEnum};
use indicatif::ProgressBar;
use lakesync::clock::{SystemClock, WallClock};
use serde_json::{Map, Value};
use tempfile::TempDir;

use self::plain::Plain;
use self::report::{Pair, Side};
use super::database::{Database, Kind};
use super::pairs::{serve, target, workplace};
use super::rows::{Load, TABLE, schema};
use super::{between, push};
use crate::exit::Exit;

/// What can be varied.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Changes that wait in the log.
    #[arg(long, default_value_t = 1_000_000, value_parser = between(1, 5_000_000))]
    changes: usize,
    /// How many pairs of turns are counted; one more goes first and warms up.
    #[arg(long, default_value_t = 3, value_parser = between(1, 100))]
    pairs: usize,
    /// Which database.
    #[arg(long, value_enum, default_value_t = Which::Both)]
    backend: Which,
    /// Whether the backend keeps every change as well as the rows.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    history: bool,
    /// How many changes are written at a time.
    #[arg(long, default_value_t = 10_000, value_parser = between(1, 1_000_000))]
    batch: usize,
    /// Where the servers may keep their files for the time being. It should be on a real disk, and
    /// the database's user must be able to reach it.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Postgres,
    #[value(name = "mysql")]
    MySql,
    Both,
}

impl Which {
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Postgres => &[Kind::Postgres],
            Self::MySql => &[Kind::MySql],
            Self::Both => &[Kind::Postgres, Kind::MySql],
        }
    }
}

const PUSHERS: usize = 64;
const BATCH: usize = 100;
/// The gateways, which are schemas of the same name in the database.
const NEW: &str = "new";
const MIXED: &str = "mixed";

pub(super) async fn run(options: Options) -> Result<(), Exit> {
    let mut backends = Vec::new();
    let mut row_bytes = 0;
    for kind in options.backend.kinds() {
        let bench = Bench::start(*kind, options.clone()).await?;
        let mut pairs = Vec::new();
        for at in 0..=bench.options.pairs {
            let pair = bench.pair().await?;
            // The first pair warms up.
            if 0 < at {
                pairs.push(pair);
            }
        }
        row_bytes = bench.new.bytes / bench.new.changes;
        backends.push(report::backend(*kind, &pairs));
    }
    let whole = serde_json::json!({
        "work": "flush",
        "unit": "changes/s",
        "changes": options.changes,
        "row_bytes": row_bytes,
        "history": options.history,
        "batch": options.batch,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "backends": backends,
    });
    super::report::print(&whole, options.json, report::table)
}

/// A database, and what is written to it.
struct Bench {
    database: Database,
    new: Arc<Load>,
    mixed: Arc<Load>,
    options: Options,
}

impl Bench {
    async fn start(kind: Kind, options: Options) -> Result<Self, Exit> {
        let database = Database::start(kind, options.data.as_deref()).await?;
        let now_ms = SystemClock.now_ms();
        let new = Arc::new(Load::of_new_rows(PUSHERS, BATCH, options.changes, now_ms));
        let mixed = Arc::new(Load::new(PUSHERS, BATCH, options.changes, now_ms));
        Ok(Self { database, new, mixed, options })
    }

    async fn pair(&self) -> Result<Pair, Exit> {
        let server = self.served(NEW, &self.new).await?;
        let (rows, held) = (self.count(NEW).await?, self.options.changes as i64);
        if rows != held {
            return Err(Exit::software(format!(
                "{held} new rows were flushed, and {rows} arrived"
            )));
        }
        let plain = Plain::new(&self.database, &self.new, NEW).await?;
        self.database.rest().await?;
        let before = self.database.cpu();
        let elapsed = plain.write(&self.database).await?;
        let yardstick = self.side(elapsed, None, before);
        let rows = self.count(plain::SCHEMA).await?;
        if rows != held {
            return Err(Exit::software(format!("{rows} of {held} rows were written plainly")));
        }
        self.drop_schema(NEW).await?;
        self.drop_schema(plain::SCHEMA).await?;
        let mixed = self.served(MIXED, &self.mixed).await?;
        self.drop_schema(MIXED).await?;
        Ok(Pair { server, yardstick, mixed })
    }

    /// A server that holds a load flushes it.
    async fn served(&self, gateway: &str, load: &Arc<Load>) -> Result<Side, Exit> {
        let directory = workplace(self.options.data.as_deref())?;
        let data = directory.path().join("data");
        fill(&data, gateway, load).await?;
        let config = self.settings(&directory)?;
        self.database.rest().await?;
        let before = self.database.cpu();
        let start = Instant::now();
        // It begins to flush by itself, as soon as it runs.
        let config = ["--config".into(), config.into_os_string()];
        let (child, secret) = serve(&data, config).await?;
        let link = target(&child, &secret, "bench", Map::new())?.connect().await?;
        let flushed = link.flush(gateway).await?;
        let elapsed = start.elapsed();
        let stats = link.stats(gateway).await?;
        if flushed.position != stats.head {
            return Err(Exit::software("a flush ended before the log did"));
        }
        Ok(self.side(elapsed, child.cpu(), before))
    }

    /// Settings of a server that flushes to our database.
    fn settings(&self, directory: &TempDir) -> Result<PathBuf, Exit> {
        let path = directory.path().join("lakesync.toml");
        let Options { history, batch, .. } = self.options;
        let more = format!("history = {history}\nflush_rows = {batch}\n");
        settings(&path, &self.database, &more)?;
        Ok(path)
    }

    fn side(
        &self,
        elapsed: std::time::Duration,
        server: Option<std::time::Duration>,
        before: Option<std::time::Duration>,
    ) -> Side {
        let database = self.database.cpu().zip(before).map(|(now, then)| now.saturating_sub(then));
        Side { items: self.options.changes, elapsed, server, database }
    }

    async fn count(&self, schema: &str) -> Result<i64, Exit> {
        self.database.count(&format!("{schema}.{TABLE}")).await
    }

    async fn drop_schema(&self, schema: &str) -> Result<(), Exit> {
        let sql = match self.database.kind {
            Kind::Postgres => format!("DROP SCHEMA {schema} CASCADE"),
            Kind::MySql => format!("DROP DATABASE {schema}"),
        };
        self.database.run(sql).await
    }
}

/// Writes the settings of a server with `database` for a backend.
pub(super) fn settings(path: &Path, database: &Database, more: &str) -> Result<(), Exit> {
    let (kind, url) = (database.kind.name(), database.url());
    let text = format!("[backends.bench]\nkind = \"{kind}\"\nurl = \"{url}\"\n{more}");
    std::fs::write(path, text).map_err(Exit::input_output)
}

/// Has a server without a backend take a load, and ends it.
async fn fill(data: &Path, gateway: &str, load: &Arc<Load>) -> Result<(), Exit> {
    let (child, secret) = serve(data, []).await?;
    let target = target(&child, &secret, "bench", Map::new())?;
    target.create(gateway, schema(false)).await?;
    let filled = push::turn(&target, load, gateway, &ProgressBar::hidden()).await?;
    if filled.items != load.changes as u64 {
        let what = format!("only {} changes could be pushed in time", filled.items);
        return Err(Exit::unavailable(what));
    }
    child.rest().await;
    Ok(())
}

/// The middle value of some figure.
fn median(pairs: &[Pair], figure: impl Fn(&Pair) -> f64) -> Value {
    super::report::median(pairs.iter().map(figure)).into()
}

//! `lakesync bench outage`: a backend is away while everybody goes on, and comes back.
//!
//! A PostgreSQL of our own hangs for the first half of the time, so that connections stay and nothing
//! answers; then it crashes, and nobody listens. Clients push at a constant rate all along. Pushes
//! must not notice, the server must not gather what it can't pass on in memory, and when the backend
//! is there again, it must catch up although pushes go on.
//!
//! A server that holds more and more rows takes more memory whatever its backend does, until its
//! overlays and caches are as large as they get. A control tells how much: the same load at the same
//! time on a second server, whose backend is well all along.

mod load;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Map;
use tempfile::TempDir;
use tokio::time::{MissedTickBehavior, interval};

use self::load::Pushing;
use self::report::{Phase, Sample, Seen};
use super::between;
use super::child::Child;
use super::database::{Database, Kind};
use super::flush::settings;
use super::link::Link;
use super::pairs::{serve, target, workplace};
use super::rows::schema;
use crate::exit::Exit;

/// What can be varied.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// How long the backend is away, in seconds.
    #[arg(long, default_value_t = 600, value_parser = between(2, 86_400))]
    seconds: usize,
    /// How long all is well before, in seconds: the memory that the server has then is the base.
    #[arg(long, default_value_t = 60, value_parser = between(1, 3_600))]
    settle: usize,
    /// Changes a second, of all clients together.
    #[arg(long, default_value_t = 2_000, value_parser = between(10, 1_000_000))]
    rate: usize,
    /// How many clients push, ten times a second each.
    #[arg(long, default_value_t = 8, value_parser = between(1, 256))]
    clients: usize,
    /// Push the same to a second server as well, whose backend is well all the time: what its memory
    /// grows by is not the outage's doing.
    #[arg(long)]
    control: bool,
    /// Where the servers may keep their files for the time being. It should be on a real disk, and
    /// the database's user must be able to reach it.
    #[arg(long)]
    data: Option<PathBuf>,
}

const GATEWAY: &str = "outage";
/// How often it is looked at how things are.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A backend that lacks no more than what was pushed in so much time has caught up: a batch waits
/// for a second.
const CAUGHT_UP: Duration = Duration::from_secs(2);
/// How long catching up may take, in times of the outage, and at least.
const CATCH_UP_TIMES: u32 = 3;
const CATCH_UP_MIN: Duration = Duration::from_secs(120);

pub(super) async fn run(options: Options) -> Result<(), Exit> {
    let mut database = Database::start(Kind::Postgres, options.data.as_deref()).await?;
    let side = Side::start(&database, &options).await?;
    let control = match options.control {
        true => Some(Control::start(&options).await?),
        false => None,
    };
    let mut watch = Watch { side, control, start: Instant::now(), samples: Vec::new() };

    let half = Duration::from_secs(options.seconds as u64) / 2;
    watch.during(Phase::Well, Duration::from_secs(options.settle as u64)).await?;
    database.freeze();
    watch.during(Phase::Hangs, half).await?;
    database.kill();
    watch.during(Phase::Gone, half).await?;
    database.start_again().await?;
    let enough = options.rate as u64 * CAUGHT_UP.as_secs();
    let limit = CATCH_UP_MIN.max(half * 2 * CATCH_UP_TIMES);
    watch.until_caught_up(enough, limit).await?;
    let Watch { side, control, samples, .. } = watch;
    let pushed = side.pushing.stop().await?;
    if let Some(Control { side, .. }) = control {
        let pushed = side.pushing.stop().await?;
        if let Some(why) = pushed.why {
            return Err(Exit::unavailable(format!("the control refused a push: {why}")));
        }
    }
    let report = report::whole(&options, &samples, &pushed)?;
    super::report::print(&report, options.json, report::table)
}

/// A server that flushes to a database, and those who push to it. The process ends before its
/// directory goes.
struct Side {
    pushing: Pushing,
    link: Link,
    child: Child,
    _directory: TempDir,
}

impl Side {
    async fn start(database: &Database, options: &Options) -> Result<Self, Exit> {
        let directory = workplace(options.data.as_deref())?;
        let config = directory.path().join("lakesync.toml");
        settings(&config, database, "")?;
        let config = ["--config".into(), config.into_os_string()];
        let (child, secret) = serve(&directory.path().join("data"), config).await?;
        let target = target(&child, &secret, "bench", Map::new())?;
        target.create(GATEWAY, schema(false)).await?;
        let pushing = Pushing::start(&target, GATEWAY, options.clients, options.rate).await?;
        let link = target.connect().await?;
        Ok(Self { pushing, link, child, _directory: directory })
    }

    async fn look(&self) -> Result<Seen, Exit> {
        let pushed = self.pushing.changes();
        let stats = self.link.stats(GATEWAY).await?;
        let backend = stats.backends.values().next();
        let lag = backend.map(|backend| backend.lag_rows).unwrap_or(pushed);
        Ok(Seen { memory: self.child.memory().unwrap_or_default(), lag, pushed })
    }
}

/// A side whose database nobody takes away.
struct Control {
    side: Side,
    _database: Database,
}

impl Control {
    async fn start(options: &Options) -> Result<Self, Exit> {
        let database = Database::start(Kind::Postgres, options.data.as_deref()).await?;
        let side = Side::start(&database, options).await?;
        Ok(Self { side, _database: database })
    }
}

/// Those who look at a server, and what they saw.
struct Watch {
    side: Side,
    control: Option<Control>,
    start: Instant,
    samples: Vec<Sample>,
}

impl Watch {
    /// Looks every second, for so long.
    async fn during(&mut self, phase: Phase, time: Duration) -> Result<(), Exit> {
        self.side.pushing.enter(phase);
        let end = Instant::now() + time;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < end {
            ticks.tick().await;
            self.look(phase).await?;
        }
        Ok(())
    }

    /// Looks every second until the backend lacks no more than `enough` changes, or `limit` is over.
    async fn until_caught_up(&mut self, enough: u64, limit: Duration) -> Result<(), Exit> {
        self.side.pushing.enter(Phase::Back);
        let end = Instant::now() + limit;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < end {
            ticks.tick().await;
            if self.look(Phase::Back).await? <= enough {
                return Ok(());
            }
        }
        Err(Exit::unavailable(format!("the backend did not catch up in {} s", limit.as_secs())))
    }

    /// One look; returns how many changes the backend lacks.
    async fn look(&mut self, phase: Phase) -> Result<u64, Exit> {
        let server = self.side.look().await?;
        let control = match &self.control {
            Some(Control { side, .. }) => Some(side.look().await?),
            None => None,
        };
        self.samples.push(Sample { phase, at: self.start.elapsed(), server, control });
        Ok(server.lag)
    }
}

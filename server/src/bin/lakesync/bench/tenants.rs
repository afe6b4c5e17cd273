//! `lakesync bench tenants`: what one noisy tenant does to another.
//!
//! A quiet tenant pushes single changes, now alone, now beside one who pushes as much as the server
//! lets them; what that is, an allowance says. A push that is refused is tried again when the server
//! says, as a well-behaved client does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lakesync::clock::{SystemClock, WallClock};
use lakesync::status::from_status;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::{Code, Status};

use super::between;
use super::codec::Frame;
use super::link::{Link, Target, failed};
use super::pairs::{serve, target, workplace};
use super::report::{self, median};
use super::rows::{Client, Load, schema};
use super::turn::Latencies;
use crate::exit::Exit;

/// What can be varied.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Connections of the noisy tenant, each with a push under way all the time.
    #[arg(long, default_value_t = 16, value_parser = between(1, 256))]
    noisy: usize,
    /// What the server lets a tenant push: changes a second; 0 is no bound.
    #[arg(long, default_value_t = 5_000, value_parser = between(0, 10_000_000))]
    rows_max: usize,
    /// How long a turn lasts, in seconds.
    #[arg(long, default_value_t = 5, value_parser = between(1, 60))]
    seconds: usize,
    /// How many pairs of turns are counted; one more goes first and warms up.
    #[arg(long, default_value_t = 5, value_parser = between(1, 100))]
    pairs: usize,
    /// Where the server may keep its files for the time being.
    #[arg(long)]
    data: Option<PathBuf>,
}

const QUIET: &str = "quiet";
const NOISY: &str = "noisy";
/// How often the quiet tenant pushes.
const QUIET_EVERY: Duration = Duration::from_millis(10);
const BATCH: usize = 100;
/// How many pushes are made up beforehand for each noisy connection; they go round.
const PUSHES: usize = 50;

/// Two tenants of a server.
struct Bench {
    quiet: Target,
    noisy: Target,
    loads: Arc<Load>,
    options: Options,
}

/// What the noisy tenant came to.
#[derive(Default)]
struct Noise {
    over: AtomicBool,
    changes: AtomicU64,
    refused: AtomicU64,
}

pub(super) async fn run(options: Options) -> Result<(), Exit> {
    let directory = workplace(options.data.as_deref())?;
    let config = directory.path().join("lakesync.toml");
    let bound = format!("subject_rows_max = {}\n", options.rows_max);
    std::fs::write(&config, bound).map_err(Exit::input_output)?;
    let config = ["--config".into(), config.into_os_string()];
    let (child, secret) = serve(&directory.path().join("data"), config).await?;
    let quiet = target(&child, &secret, QUIET, Map::new())?;
    let noisy = target(&child, &secret, NOISY, Map::new())?;
    quiet.create(QUIET, schema(false)).await?;
    noisy.create(NOISY, schema(false)).await?;
    let changes = options.noisy * BATCH * PUSHES;
    let loads = Arc::new(Load::new(options.noisy, BATCH, changes, SystemClock.now_ms()));
    let bench = Bench { quiet, noisy, loads, options };
    let report = bench.measure().await?;
    report::print(&report, bench.options.json, table)
}

impl Bench {
    async fn measure(&self) -> Result<Value, Exit> {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        let (mut changes, mut refused) = (0, 0);
        for pair in 0..=self.options.pairs {
            alone.push(self.quiet_turn(2 * pair).await?);
            let noise = Arc::new(Noise::default());
            let mut connections = JoinSet::new();
            for at in 0..self.options.noisy {
                let link = self.noisy.connect().await?;
                let (loads, noise) = (Arc::clone(&self.loads), Arc::clone(&noise));
                connections
                    .spawn(async move { make_noise(&link, &loads.clients[at], &noise).await });
            }
            beside.push(self.quiet_turn(2 * pair + 1).await?);
            noise.over.store(true, Ordering::Release);
            while let Some(done) = connections.join_next().await {
                done.map_err(Exit::unavailable)??;
            }
            // The first pair warms up.
            if 0 < pair {
                changes += noise.changes.load(Ordering::Acquire);
                refused += noise.refused.load(Ordering::Acquire);
            }
        }
        let seconds = (self.options.pairs * self.options.seconds) as f64;
        let pairs = || alone.iter().zip(&beside).skip(1);
        let ratio = |percent| median(pairs().map(|(one, two)| two.ms(percent) / one.ms(percent)));
        let ms = |turns: &[Latencies], percent| {
            median(turns.iter().skip(1).map(|turn| turn.ms(percent)))
        };
        Ok(json!({
            "work": "tenants",
            "rows_max": self.options.rows_max,
            "alone": { "p50_ms": ms(&alone, 50.0), "p99_ms": ms(&alone, 99.0) },
            "beside": { "p50_ms": ms(&beside, 50.0), "p99_ms": ms(&beside, 99.0) },
            "ratio": { "p50": ratio(50.0), "p99": ratio(99.0) },
            "noisy_changes_per_s": changes as f64 / seconds,
            "noisy_refused_per_s": refused as f64 / seconds,
        }))
    }

    /// Single pushes of the quiet tenant, one after another.
    async fn quiet_turn(&self, nth: usize) -> Result<Latencies, Exit> {
        let count = self.options.seconds * 1_000 / QUIET_EVERY.as_millis() as usize;
        let load = Load::new(1, 1, count, SystemClock.now_ms());
        let head = Client::head_of(&format!("quiet-{nth}"), QUIET);
        let link = self.quiet.connect().await?;
        let mut latencies = Latencies::new();
        let mut ticks = interval(QUIET_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let end = Instant::now() + Duration::from_secs(self.options.seconds as u64);
        for push in &load.clients[0].pushes {
            ticks.tick().await;
            if end < Instant::now() {
                break;
            }
            let sent = Instant::now();
            link.push(Frame(head.clone(), push.body.clone())).await?;
            latencies.record(sent);
        }
        Ok(latencies)
    }
}

/// Pushes until it is over, as much as the server takes.
async fn make_noise(link: &Link, client: &Client, noise: &Noise) -> Result<(), Exit> {
    let head = client.head(NOISY);
    let mut pushes = client.pushes.iter().cycle();
    while !noise.over.load(Ordering::Acquire) {
        let Some(push) = pushes.next() else { break };
        match link.try_push(Frame(head.clone(), push.body.clone())).await {
            Ok(_) => _ = noise.changes.fetch_add(push.changes as u64, Ordering::AcqRel),
            Err(status) => {
                noise.refused.fetch_add(1, Ordering::AcqRel);
                sleep(wait(status)?).await;
            }
        }
    }
    Ok(())
}

/// When the server wants to hear of a refused push again.
fn wait(status: Status) -> Result<Duration, Exit> {
    let told = from_status(&status).retry_after;
    told.filter(|_| status.code() == Code::ResourceExhausted).ok_or_else(|| failed(status))
}

/// For people.
fn table(report: &Value) -> String {
    let number = |one: &str, two: &str| report[one][two].as_f64().unwrap_or(f64::NAN);
    let rate = |what: &str| report[what].as_f64().unwrap_or(f64::NAN);
    format!(
        "tenants: one pushes as much as the server takes, {} changes/s at most\n\n\
         quiet alone   p50 {:>7.2} ms   p99 {:>7.2} ms\n\
         beside noise  p50 {:>7.2} ms   p99 {:>7.2} ms\n\
         ratio         p50 x {:>5.2}      p99 x {:>5.2}\n\
         the noisy one had {:.0} changes/s taken and {:.0} pushes/s put off\n",
        report["rows_max"],
        number("alone", "p50_ms"),
        number("alone", "p99_ms"),
        number("beside", "p50_ms"),
        number("beside", "p99_ms"),
        number("ratio", "p50"),
        number("ratio", "p99"),
        rate("noisy_changes_per_s"),
        rate("noisy_refused_per_s"),
    )
}

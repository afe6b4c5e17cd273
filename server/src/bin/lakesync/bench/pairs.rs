//! Pairs of turns: the real server, then the yardstick, and so on, on the same machine at the same
//! time of day.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lakesync::clock::{SystemClock, WallClock};
use lakesync::proto::v1::{CheckpointResponse, PullResponse};
use lakesync_server::auth::{Grant, Secret};
use tempfile::TempDir;

use super::child::Child;
use super::link::Target;
use super::report::{self, Pair, Report};
use super::rows::{Load, schema};
use super::turn::Turn;
use super::{Options, push, read, yardstick};
use crate::exit::Exit;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Push,
    Pull,
    Checkpoint,
}

/// How many clients push and read unless told otherwise.
const PUSHERS: usize = 64;
const READERS: usize = 1;
/// The gateway that is read.
const READ_GATEWAY: &str = "bench-read";
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs all pairs and prints what came of them.
pub(super) async fn run(work: Work, options: Options) -> Result<(), Exit> {
    let readers = if work == Work::Push { None } else { Some(options.clients.unwrap_or(READERS)) };
    let pushers = if readers.is_some() { PUSHERS } else { options.clients.unwrap_or(PUSHERS) };
    let now_ms = SystemClock.now_ms();
    let load = Arc::new(Load::new(pushers, options.batch, options.changes, now_ms));
    let bench = Bench::start(work, readers, load, options).await?;
    let mut report = bench.report();
    for at in 0..=bench.options.pairs {
        bench.say(at);
        let pair = bench.pair(at).await?;
        // The first pair warms up.
        if 0 < at {
            report.pairs.push(pair);
        }
    }
    bench.bar.finish_and_clear();
    let text = if bench.options.json { report.json() } else { report.table() };
    report::put(&text)
}

/// Two servers and what they are given to do. Fields drop in order: the processes end before their
/// directory goes.
struct Bench {
    server: Side,
    yardstick: Side,
    work: Work,
    readers: Option<usize>,
    load: Arc<Load>,
    options: Options,
    bar: ProgressBar,
    _directory: TempDir,
}

/// A process, and how to reach it.
struct Side {
    child: Child,
    target: Target,
}

impl Bench {
    async fn start(
        work: Work,
        readers: Option<usize>,
        load: Arc<Load>,
        options: Options,
    ) -> Result<Self, Exit> {
        let directory = workplace(options.data.as_deref())?;
        let bar = bar(options.changes * readers.unwrap_or(1) * 2 * (options.pairs + 1));
        let server = start_server(&directory.path().join("data")).await?;
        let recording = directory.path().join("recording");
        if readers.is_some() {
            bar.set_message("filling");
            fill(work, &server.target, &load, &recording).await?;
        }
        let yardstick = start_yardstick(directory.path(), readers.map(|_| &*recording)).await?;
        Ok(Self { server, yardstick, work, readers, load, options, bar, _directory: directory })
    }

    /// One turn each. A gateway of its own for every turn of pushes, so that all have the same to do.
    async fn pair(&self, at: usize) -> Result<Pair, Exit> {
        let gateway = match self.readers {
            Some(_) => READ_GATEWAY.to_owned(),
            None => format!("bench-{at}"),
        };
        if self.readers.is_none() {
            self.server.target.create(&gateway, schema(false)).await?;
        }
        let server = self.turn(&self.server, &gateway).await?;
        let yardstick = self.turn(&self.yardstick, &gateway).await?;
        Ok(Pair { server, yardstick })
    }

    async fn turn(&self, side: &Side, gateway: &str) -> Result<Turn, Exit> {
        side.child.rest().await;
        let before = side.child.cpu();
        let (target, bar) = (&side.target, &self.bar);
        let readers = self.readers.unwrap_or_default();
        let mut turn = match self.work {
            Work::Push => push::turn(target, &self.load, gateway, bar).await?,
            Work::Pull => read::turn::<PullResponse>(target, readers, gateway, bar).await?,
            Work::Checkpoint => {
                read::turn::<CheckpointResponse>(target, readers, gateway, bar).await?
            }
        };
        side.child.rest().await;
        let after = side.child.cpu();
        turn.cpu = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        if turn.items == 0 {
            return Err(Exit::unavailable("a turn did nothing"));
        }
        Ok(turn)
    }

    fn say(&self, at: usize) {
        self.bar.set_message(match at {
            0 => "warming up".to_owned(),
            at => format!("pair {at} of {}", self.options.pairs),
        });
    }

    fn report(&self) -> Report {
        Report {
            work: self.work,
            clients: self.readers.unwrap_or(self.load.clients.len()),
            batch: self.options.batch,
            changes: self.load.changes,
            row_bytes: self.load.bytes / self.load.changes,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            pairs: Vec::new(),
        }
    }
}

async fn start_server(data: &Path) -> Result<Side, Exit> {
    let (child, secret) = serve(data, []).await?;
    let target = target(&child, &secret, "bench", serde_json::Map::new())?;
    Ok(Side { child, target })
}

/// A real server, and the secret that signs its tokens.
pub(super) async fn serve<const N: usize>(
    data: &Path,
    more: [OsString; N],
) -> Result<(Child, Secret), Exit> {
    let listen = OsString::from("127.0.0.1:0");
    let arguments = ["serve".into(), "--data".into(), data.into(), "--listen".into(), listen];
    let child = Child::start(arguments.into_iter().chain(more)).await?;
    // The server made its secret; nobody may touch its directory before it.
    let secret = Secret::load_or_create(data).map_err(Exit::input_output)?;
    Ok((child, secret))
}

/// A directory for the time being, in `data` or in the system's place for such.
pub(super) fn workplace(data: Option<&Path>) -> Result<TempDir, Exit> {
    let place = data.map_or_else(std::env::temp_dir, Path::to_owned);
    let directory = tempfile::Builder::new().prefix("lakesync-bench-").tempdir_in(&place);
    directory.map_err(|error| Exit::input_output(format!("{}: {error}", place.display())))
}

/// The server, for a token with these claims.
pub(super) fn target(
    child: &Child,
    secret: &Secret,
    subject: &str,
    claims: serde_json::Map<String, serde_json::Value>,
) -> Result<Target, Exit> {
    let grant = Grant {
        subject: subject.to_owned(),
        scope: "sync admin".to_owned(),
        gateways: Vec::new(),
        claims,
        ttl: TOKEN_TTL,
    };
    let token = grant.sign(secret, SystemClock.now_ms()).map_err(Exit::config)?;
    Target::new(child.address(), &token)
}

async fn start_yardstick(directory: &Path, recording: Option<&Path>) -> Result<Side, Exit> {
    let log = directory.join("yardstick.log").into_os_string();
    let start = ["bench".into(), "yardstick".into(), "--log".into(), log];
    let child = match recording {
        None => Child::start(start).await?,
        Some(path) => {
            let [bench, yardstick, flag, log] = start;
            let more = ["--recording".into(), path.into()];
            let [recording, path] = more;
            Child::start([bench, yardstick, flag, log, recording, path]).await?
        }
    };
    let target = Target::new(child.address(), "none")?;
    Ok(Side { child, target })
}

/// Pushes what is to be read, and records how the server tells it.
async fn fill(work: Work, server: &Target, load: &Arc<Load>, to: &Path) -> Result<(), Exit> {
    server.create(READ_GATEWAY, schema(false)).await?;
    let filled = push::turn(server, load, READ_GATEWAY, &ProgressBar::hidden()).await?;
    if filled.items != load.changes as u64 {
        let what = format!("only {} changes could be pushed in time", filled.items);
        return Err(Exit::unavailable(what));
    }
    let answers = match work {
        Work::Checkpoint => read::record::<CheckpointResponse>(server, READ_GATEWAY).await?,
        Work::Push | Work::Pull => read::record::<PullResponse>(server, READ_GATEWAY).await?,
    };
    yardstick::write_recording(to, &answers).map_err(Exit::input_output)
}

/// How far the run has come, for people; nothing where nobody looks.
fn bar(items: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:16} {wide_bar} {human_pos}/{human_len} {eta}");
    ProgressBar::new(items as u64).with_style(style.expect("BUG: an illegal template"))
}

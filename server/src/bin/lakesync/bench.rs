//! `lakesync bench`: what the served system can do, as a ratio to a bare server of the same work.
//!
//! Machines are shared and noisy, so no figure stands alone: the real server and the yardstick are
//! driven in turns, pair by pair, by the same requests over real gRPC on loopback, each in a process
//! of its own. Whatever happens, the processes end and their directories go.

mod child;
mod codec;
mod database;
mod flush;
mod link;
mod outage;
mod pairs;
mod push;
mod read;
mod report;
mod rows;
mod rules;
mod tenants;
mod turn;
mod yardstick;

use std::path::PathBuf;

use clap::Subcommand;
use clap::builder::RangedU64ValueParser;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Durable pushes of many clients at once.
    Push(Options),
    /// A pull of everything, from the start.
    Pull(Options),
    /// A checkpoint of everything.
    Checkpoint(Options),
    /// What sync rules cost, and whether a reader pays for its own rows only.
    Rules(rules::Options),
    /// What a noisy tenant does to a quiet one.
    Tenants(tenants::Options),
    /// What reaches a database, against plain COPY or INSERT of the same rows.
    Flush(flush::Options),
    /// What happens while a database is away, and when it comes back.
    Outage(outage::Options),
    /// Serve the yardstick: for the harness only.
    #[command(hide = true)]
    Yardstick(yardstick::Arguments),
}

/// What can be varied.
#[derive(Clone, Debug, clap::Args)]
struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// How many clients work at once, each on a connection of its own [default: 64; 1 to read].
    #[arg(long, value_parser = between(1, 256))]
    clients: Option<usize>,
    /// Changes in one push.
    #[arg(long, default_value_t = 100, value_parser = between(1, 10_000))]
    batch: usize,
    /// Changes that one turn pushes, or that there are to be read.
    #[arg(long, default_value_t = 200_000, value_parser = between(1, 5_000_000))]
    changes: usize,
    /// How many pairs of turns are counted; one more goes first and warms up.
    #[arg(long, default_value_t = 5, value_parser = between(1, 100))]
    pairs: usize,
    /// Where the servers may keep their files for the time being [default: the system's temporary
    /// directory]. It should be on a real disk.
    #[arg(long)]
    data: Option<PathBuf>,
}

fn between(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Exit::input_output)?;
    runtime.block_on(async {
        match arguments.work {
            Work::Push(options) => unless_stopped(pairs::run(pairs::Work::Push, options)).await,
            Work::Pull(options) => unless_stopped(pairs::run(pairs::Work::Pull, options)).await,
            Work::Checkpoint(options) => {
                unless_stopped(pairs::run(pairs::Work::Checkpoint, options)).await
            }
            Work::Rules(options) => unless_stopped(rules::run(options)).await,
            Work::Tenants(options) => unless_stopped(tenants::run(options)).await,
            Work::Flush(options) => unless_stopped(flush::run(options)).await,
            Work::Outage(options) => unless_stopped(outage::run(options)).await,
            Work::Yardstick(arguments) => yardstick::serve(arguments).await,
        }
    })
}

/// Gives up at a signal, so that everything held is dropped: processes and directories.
async fn unless_stopped(work: impl Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Exit::input_output)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Exit::input_output)?;
    tokio::select! {
        outcome = work => outcome,
        _ = interrupt.recv() => Err(Exit::unavailable("interrupted")),
        _ = terminate.recv() => Err(Exit::unavailable("terminated")),
    }
}

//! `lakesync migrate`: copy all of one backend to another, and prove that it is the same.

mod state;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use indicatif::ProgressBar;
use lakesync::adapter::Adapter;
use lakesync::name::Gateway;
use lakesync_adapters::migrate::{self, Checkpoint, MigrateError, Progress, Report, Step, Tally};

use crate::exit::Exit;
use crate::place::{self, Place};
use crate::{serve, show};
use state::State;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The backend to copy: a postgres:// or mysql:// URL, or the name of a [backends.NAME].
    #[arg(long)]
    from: String,
    /// The backend to copy it to, likewise. It must be empty.
    #[arg(long)]
    to: String,
    /// A file of settings (TOML) that has the backends named.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The gateway.
    #[arg(long, default_value = "main")]
    gateway: String,
    /// The schema that a URL's tables are in; the gateway's name, if not given.
    #[arg(long)]
    from_schema: Option<String>,
    /// The schema that a URL's tables are to be in, likewise.
    #[arg(long)]
    to_schema: Option<String>,
    /// The file that keeps how far it has come; lakesync-migrate-GATEWAY.state, if not given.
    #[arg(long)]
    state: Option<PathBuf>,
}

/// Where a migration is that was stopped before its first step.
const NOTHING_YET: &str = "nothing was copied yet";

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Exit::input_output)?.block_on(async {
        let stop = serve::stop_signal().map_err(Exit::input_output)?;
        copy(arguments, stop).await
    })
}

async fn copy(arguments: Arguments, stop: impl Future<Output = ()>) -> Result<(), Exit> {
    let Arguments { from, to, config, gateway, from_schema, to_schema, state } = arguments;
    let gateway: Gateway = gateway.parse().map_err(Exit::usage)?;
    let config = config.as_deref();
    let place = |flag, text, schema| Place { flag, text, schema, config };
    let source = place("from", &from, from_schema.as_deref()).open(&gateway)?;
    let target = place("to", &to, to_schema.as_deref()).open(&gateway)?;
    let names = [source.to_string(), target.to_string()];
    if names[0] == names[1] {
        return Err(Exit::usage(format!("--from and --to are both {}", names[0])));
    }
    let path = state.unwrap_or_else(|| format!("lakesync-migrate-{gateway}.state").into());
    let state = State::new(path, gateway.as_str(), names);
    let from = state.load()?;
    let mut stop = std::pin::pin!(stop);
    if from.is_none() {
        tokio::select! {
            found = something(&*source) => found?,
            () = &mut stop => return Err(Exit::interrupted(NOTHING_YET)),
        }
    }
    let mut keeper = Keeper { state, bar: show::bar(), begun: from.is_some(), failed: None };
    let outcome = tokio::select! {
        outcome = migrate::migrate(&*source, &*target, from, &mut keeper) => outcome,
        () = stop => Err(MigrateError::Stopped),
    };
    keeper.bar.finish_and_clear();
    match outcome {
        Ok(report) => {
            tell(&report)?;
            keeper.state.remove().map_err(|error| keeper.unkept(&error))
        }
        Err(error) => Err(keeper.broken_off(&error)),
    }
}

/// A wrong schema's name looks like an empty backend, which would be copied in no time.
async fn something(source: &dyn Adapter) -> Result<(), Exit> {
    let failed = |error| place::failed(&error, format!("the source failed: {error}"));
    let has_logs = !source.logs().await.map_err(failed)?.is_empty();
    if has_logs || source.schema().await.map_err(failed)?.tables().next().is_some() {
        return Ok(());
    }
    Err(Exit::usage(format!(
        "{source} holds nothing of a gateway: check --gateway, --from and --from-schema"
    )))
}

/// Keeps how far it has come, and shows it.
struct Keeper {
    state: State,
    bar: ProgressBar,
    /// Whether there is a state to go on from.
    begun: bool,
    failed: Option<io::Error>,
}

impl Progress for Keeper {
    fn done(&mut self, step: Step<'_>, at: &Checkpoint) -> ControlFlow<()> {
        self.bar.set_message(match step {
            Step::Begun => "begun".to_owned(),
            Step::Rows(table, rows) => format!("copying {table}: {}", show::count(rows, "row")),
            Step::Changes(done) => format!("copying the history: {}", show::count(done, "change")),
            Step::Copied => "copied; comparing".to_owned(),
            Step::Verified(table, rows) => {
                format!("compared {table}: {}", show::count(rows, "row"))
            }
        });
        match self.state.keep(at) {
            Ok(()) => {
                self.begun = true;
                ControlFlow::Continue(())
            }
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

impl Keeper {
    fn unkept(&self, error: &io::Error) -> Exit {
        Exit::input_output(format!("{}: {error}", self.state.path().display()))
    }

    /// Why it broke off, and how it goes on.
    fn broken_off(&self, error: &MigrateError) -> Exit {
        if let Some(error) = &self.failed {
            return self.unkept(error);
        }
        let message = match self.begun {
            true => format!(
                "{error}; how far it has come is in {}: the same command goes on from there",
                self.state.path().display()
            ),
            false => error.to_string(),
        };
        match error {
            MigrateError::Source(cause) | MigrateError::Target(cause) => {
                place::failed(cause, message)
            }
            MigrateError::Filled(_) => Exit::usage(message),
            MigrateError::Differs(_) => Exit::software(format!(
                "{error}; let nobody else write to either and repeat the command to compare again, \
                 or begin again: remove {} and empty the target",
                self.state.path().display()
            )),
            MigrateError::Stopped if self.begun => Exit::interrupted(format!(
                "how far it has come is in {}: the same command goes on from there",
                self.state.path().display()
            )),
            MigrateError::Stopped => Exit::interrupted(NOTHING_YET),
        }
    }
}

fn tell(report: &Report) -> Result<(), Exit> {
    let width = report.tables.iter().map(|(table, _)| table.as_str().len()).max().unwrap_or(0);
    for (table, tally) in &report.tables {
        line(table.as_str(), width, "row", tally)?;
    }
    if 0 < report.history.count {
        line("history", width, "change", &report.history)?;
    }
    if report.moved {
        show::line("the source was written to meanwhile: it has moved on from what was copied")?;
        for difference in &report.behind {
            show::line(format_args!("  the target is behind: {difference}"))?;
        }
        show::line("a server writes what is missing once it flushes to the target")?;
    }
    if report.behind.is_empty() {
        show::line("both hold the same")?;
    }
    Ok(())
}

fn line(
    what: &str,
    width: usize,
    thing: &str,
    Tally { count, digest }: &Tally,
) -> Result<(), Exit> {
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    show::line(format_args!("  {what:width$}  {}  sha256 {digest}", show::count(*count, thing)))
}

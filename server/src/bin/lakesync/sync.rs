//! `lakesync sync`: keep any SQLite file in step with a gateway.

use std::path::PathBuf;

use futures_util::StreamExt;
use lakesync::error::{ErrorKind, Reason};
use lakesync::name::TableName;
use lakesync_client::{AdoptError, Config, Event, OpenError, Replica, SyncError};

use crate::exit::Exit;
use crate::show;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The SQLite file; created if there is none.
    file: PathBuf,
    /// Where the server is, such as http://127.0.0.1:7461.
    #[arg(long)]
    url: String,
    /// The gateway to sync with.
    #[arg(long, default_value = "main")]
    gateway: String,
    /// The token; without it, the environment variable LAKESYNC_TOKEN.
    #[arg(long)]
    token: Option<String>,
    /// Make every table of the file that can be synced a synced one. Needs the scope admin.
    #[arg(long)]
    adopt: bool,
    /// Stay in step until interrupted.
    #[arg(long)]
    follow: bool,
}

/// The environment variable that holds the token.
const TOKEN_VARIABLE: &str = "LAKESYNC_TOKEN";

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Exit::input_output)?.block_on(sync(arguments))
}

async fn sync(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { file, url, gateway, token, adopt, follow } = arguments;
    let token = token.or_else(|| std::env::var(TOKEN_VARIABLE).ok()).ok_or_else(|| {
        Exit::usage(format!(
            "a token is needed: --token TOKEN, or {TOKEN_VARIABLE}; `lakesync token` makes one"
        ))
    })?;
    let config = Config::new(url, gateway).with_token(token);
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let replica = Replica::open(&file, config).await.map_err(|error| match &error {
        OpenError::Config(error) => Exit::usage(error),
        OpenError::Database(_) | OpenError::Binding(_) => Exit::input_output(named(&error)),
    })?;
    if adopt {
        adopt_all(&replica).await?;
    }
    let name = file
        .file_name()
        .map_or_else(|| file.display().to_string(), |name| name.to_string_lossy().into());
    let (round, _) = show::round(&replica, &name).await.map_err(|error| {
        match error.problem().and_then(|problem| problem.reason) {
            Some(Reason::GatewayNotFound) => Exit::usage(format!("{error}; --adopt creates it")),
            _ => failed(error),
        }
    })?;
    show::line(format_args!(
        "  in step with {} at position {}",
        replica.gateway(),
        round.position
    ))?;
    show::leftovers(&replica).await?;
    if follow {
        stay(&replica).await?;
    }
    Ok(())
}

/// Adopts every table that can be, and says which can't.
pub(crate) async fn adopt_all(replica: &Replica) -> Result<Vec<TableName>, Exit> {
    let candidates = replica.inspect().await.map_err(Exit::input_output)?;
    show::candidates(&candidates)?;
    let adoptable = candidates.iter().filter_map(|candidate| candidate.verdict.as_ref().ok());
    let tables: Vec<_> = adoptable.map(|adoptable| adoptable.proposal.table.clone()).collect();
    replica.adopt(&tables).await.map_err(|error| match error {
        AdoptError::Sync(error) => failed(error),
        error => Exit::usage(error),
    })?;
    Ok(tables)
}

/// What a failed round means for the caller.
pub(crate) fn failed(error: SyncError) -> Exit {
    match error.problem().map(|problem| problem.kind) {
        Some(
            ErrorKind::Invalid
            | ErrorKind::Unauthenticated
            | ErrorKind::Denied
            | ErrorKind::NotFound,
        ) => Exit::usage(error),
        Some(_) => Exit::unavailable(error),
        None => Exit::input_output(error),
    }
}

async fn stay(replica: &Replica) -> Result<(), Exit> {
    show::line("  following; interrupt to stop")?;
    let mut events = replica.events();
    let interrupted = async {
        // A process without signals follows until it is killed.
        let _ = tokio::signal::ctrl_c().await;
    };
    let following = replica.follow(interrupted);
    tokio::pin!(following);
    loop {
        tokio::select! {
            () = &mut following => return Ok(()),
            Some(event) = events.next() => tell(event)?,
        }
    }
}

fn tell(event: Event) -> Result<(), Exit> {
    match event {
        Event::Applied { tables } => {
            let names: Vec<_> = tables.iter().map(TableName::as_str).collect();
            show::line(format_args!("  received changes of {}", names.join(", ")))
        }
        Event::Pushed { rows, .. } => show::line(format_args!("  sent {rows} changes")),
        Event::CheckpointEnded { removed, restored } if 0 < removed + restored => {
            show::line(format_args!(
                "  received every row: {removed} removed that the gateway has no longer, {restored} \
                 sent again that it had lost"
            ))
        }
        Event::Superseded(lost) => {
            let columns: Vec<_> = lost.columns.iter().map(|column| column.as_str()).collect();
            let (table, row) = (lost.table, lost.row_id);
            show::line(format_args!("  {table} {row}: a newer write won ({})", columns.join(", ")))
        }
        Event::Rejected(refused) => show::line(format_args!(
            "  {} {}: refused: {}: {}",
            refused.table, refused.row_id, refused.reason, refused.message
        )),
        Event::Parked(row) => {
            show::line(format_args!("  {} {}: waits: {}", row.table, row.row_id, row.reason))
        }
        _ => Ok(()),
    }
}

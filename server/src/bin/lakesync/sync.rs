//! `lakesync sync`: keep any SQLite file in step with a gateway.

mod follow;
mod refused;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lakesync::error::{ErrorKind, Reason};
use lakesync::name::{Gateway, TableName};
use lakesync_client::transport::connect;
use lakesync_client::{Config, OpenError, Replica, SyncError, Transport};

use crate::exit::Exit;
use crate::show;
use crate::token::TOKEN_VARIABLE;
use refused::Which;

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
    /// Make a refused change again, as of now, by its number or all; may be repeated.
    #[arg(long, value_name = "ID|all")]
    retry: Vec<Which>,
    /// Forget a refused change, by its number or all; may be repeated.
    #[arg(long, value_name = "ID|all")]
    drop: Vec<Which>,
    /// Stay in step until interrupted.
    #[arg(long)]
    follow: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Exit::input_output)?.block_on(sync(arguments))
}

async fn sync(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { file, url, gateway, token, adopt, retry, drop, follow } = arguments;
    let token = token.or_else(|| std::env::var(TOKEN_VARIABLE).ok()).ok_or_else(|| {
        Exit::usage(format!(
            "a token is needed: --token TOKEN, or {TOKEN_VARIABLE}; `lakesync token` makes one"
        ))
    })?;
    let gateway: Gateway = gateway.parse().map_err(Exit::usage)?;
    let server: Arc<dyn Transport> =
        Arc::new(connect(&url, Some(token.into())).map_err(Exit::usage)?);
    if !file.exists() {
        greet(&*server, &gateway, adopt).await?;
    }
    let replica = open(&file, Config::over(server, gateway.as_str())).await?;
    refused::settle(&replica, &retry, &drop).await?;
    if adopt {
        adopt_all(&replica).await?;
    }
    let name = file
        .file_name()
        .map_or_else(|| file.display().to_string(), |name| name.to_string_lossy().into());
    let (round, _) = show::round(&replica, &name).await.map_err(failed)?;
    let position = round.position;
    show::line(format_args!("  in step with {gateway} at position {position}"))?;
    if !adopt {
        // Adopting has said what became of each table.
        show::waiting(&replica).await?;
    }
    show::leftovers(&replica).await?;
    if follow {
        follow::stay(&replica).await?;
    }
    Ok(())
}

/// A server that is not there, or does not have the gateway, must leave no file behind.
async fn greet(server: &dyn Transport, gateway: &Gateway, adopt: bool) -> Result<(), Exit> {
    match server.schema(gateway).await {
        // Adopting creates the gateway.
        Err(problem) if adopt && problem.reason == Some(Reason::GatewayNotFound) => Ok(()),
        Err(problem) => Err(failed(problem.into())),
        Ok(_) => Ok(()),
    }
}

async fn open(file: &Path, config: Config) -> Result<Replica, Exit> {
    Replica::open(file, config).await.map_err(|error| match &error {
        OpenError::Config(error) => Exit::usage(error),
        // It names the file by itself.
        OpenError::Database(error) => Exit::input_output(error),
        OpenError::Binding(error) => Exit::input_output(format!("{}: {error}", file.display())),
    })
}

/// Adopts every table that can be, and says which can't. Those that are synced now.
pub(crate) async fn adopt_all(replica: &Replica) -> Result<Vec<TableName>, Exit> {
    let candidates = replica.adopt_all().await.map_err(failed)?;
    show::candidates(&candidates)?;
    let adopted = candidates.into_iter().filter_map(|candidate| candidate.verdict.ok());
    Ok(adopted.map(|adoptable| adoptable.proposal.table).collect())
}

/// What a failed round means for the caller.
pub(crate) fn failed(error: SyncError) -> Exit {
    let problem = error.problem();
    let way_out = match problem.and_then(|problem| problem.reason) {
        Some(Reason::TokenInvalid) => {
            "; if another data directory's secret has signed it, make one for this server: \
             `lakesync token --data DIR --sub NAME`"
        }
        Some(Reason::GatewayNotFound) => "; --adopt creates it",
        Some(Reason::TokenExpired) => "; `lakesync token --data DIR --sub NAME` makes a new one",
        _ => "",
    };
    let message = format!("{error}{way_out}");
    match problem.map(|problem| problem.kind) {
        Some(
            ErrorKind::Invalid
            | ErrorKind::Unauthenticated
            | ErrorKind::Denied
            | ErrorKind::NotFound,
        ) => Exit::usage(message),
        Some(_) => Exit::unavailable(message),
        None => Exit::input_output(message),
    }
}

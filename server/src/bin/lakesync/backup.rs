//! `lakesync backup`: a consistent copy of a data directory: of a stopped server's, or of a running
//! server, which goes on meanwhile.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use lakesync::proto::admin::v1::BackupRequest;
use lakesync::status::from_status;
use lakesync_server::auth::SECRET_FILES;
use lakesync_server::store::embedded::{EmbeddedStore, OpenError, Options};
use lakesync_server::store::{Store, StoreError};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::exit::Exit;
use crate::operator::{self, Operator};

/// Pieces that wait for the disk.
const PIECES_MAX: usize = 4;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub(crate) struct Arguments {
    /// The data directory of a stopped server.
    #[arg(long, group = "source")]
    data: Option<PathBuf>,
    /// Where a running server is, such as http://127.0.0.1:7461.
    #[arg(long, group = "source")]
    url: Option<String>,
    /// A token with the scope admin that opens every gateway; without it, the environment variable
    /// LAKESYNC_TOKEN.
    #[arg(long, requires = "url")]
    token: Option<String>,
    /// Where the copy goes: a directory that does not exist yet.
    #[arg(long)]
    to: PathBuf,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { data, url, token, to } = arguments;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Exit::input_output)?;
    match (data, url) {
        (Some(data), _) => runtime.block_on(stopped(&data, &to)),
        (None, Some(url)) => runtime.block_on(running(url, token, to)),
        (None, None) => Err(Exit::usage("what is to be copied? --data DATA, or --url URL")),
    }
}

/// Copies the directory of a stopped server.
async fn stopped(data: &Path, to: &Path) -> Result<(), Exit> {
    // Opening would make a store where there is none.
    if !data.join("format").is_file() {
        return Err(Exit::input_output(format!("{} is no data directory", data.display())));
    }
    let options =
        Options { companions: SECRET_FILES.map(str::to_owned).into(), ..Options::default() };
    let store = EmbeddedStore::open(data, options).map_err(|error| match error {
        OpenError::Locked { .. } => Exit::input_output(format!(
            "{} is in use: stop its server, or copy what it holds while it runs, with --url URL",
            data.display()
        )),
        error => Exit::input_output(error),
    })?;
    let copied = store.backup(to).await;
    store.close().await.map_err(Exit::input_output)?;
    copied.map_err(Exit::input_output)
}

/// Copies what a running server holds.
async fn running(url: String, token: Option<String>, to: PathBuf) -> Result<(), Exit> {
    let mut operator = Operator::connect(url, token).await?;
    let request = operator.request(BackupRequest {});
    let answer = operator.admin.backup(request).await;
    let mut answers =
        answer.map_err(|status| operator::refused(&status, Exit::usage))?.into_inner();
    let (sender, mut pieces) = mpsc::channel::<Result<Bytes, StoreError>>(PIECES_MAX);
    let written = tokio::task::spawn_blocking(move || {
        EmbeddedStore::write_copy(&to, std::iter::from_fn(move || pieces.blocking_recv()))
    });
    let broken = receive(&mut answers, &sender).await;
    drop(sender);
    let written = written.await.map_err(Exit::software)?;
    match broken {
        Some(status) => Err(operator::refused(&status, Exit::usage)),
        None => written.map_err(Exit::input_output),
    }
}

/// Hands on what arrives, until there is no more or the disk has failed. What the server said, if it
/// broke off.
async fn receive(
    answers: &mut Streaming<lakesync::proto::admin::v1::BackupResponse>,
    sender: &mpsc::Sender<Result<Bytes, StoreError>>,
) -> Option<Status> {
    loop {
        let (piece, broken) = match answers.message().await {
            Ok(Some(answer)) => (Ok(answer.piece.into()), None),
            Ok(None) => return None,
            Err(status) => {
                let problem = from_status(&status).to_string();
                (Err(StoreError::NoCopy(problem)), Some(status))
            }
        };
        // Whoever writes has ended if nobody takes it, and says why.
        if sender.send(piece).await.is_err() || broken.is_some() {
            return broken;
        }
    }
}

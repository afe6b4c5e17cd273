//! `lakesync backup`: a consistent copy of the data directory of a stopped server.

use std::path::PathBuf;

use lakesync_server::auth::SECRET_FILES;
use lakesync_server::store::Store;
use lakesync_server::store::embedded::{EmbeddedStore, Options};

use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The data directory. Its server must be stopped.
    #[arg(long)]
    data: PathBuf,
    /// Where the copy goes: a directory that does not exist yet.
    #[arg(long)]
    to: PathBuf,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { data, to } = arguments;
    // Opening would make a store where there is none.
    if !data.join("format").is_file() {
        return Err(Exit::input_output(format!("{} is no data directory", data.display())));
    }
    let options =
        Options { companions: SECRET_FILES.map(str::to_owned).into(), ..Options::default() };
    let store = EmbeddedStore::open(&data, options).map_err(Exit::input_output)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Exit::input_output)?.block_on(async {
        let copied = store.backup(&to).await;
        store.close().await.map_err(Exit::input_output)?;
        copied.map_err(Exit::input_output)
    })
}

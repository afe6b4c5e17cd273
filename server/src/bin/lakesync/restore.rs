//! `lakesync restore`: a gateway made anew from a backend, where its data directory is gone.

use std::path::PathBuf;

use lakesync::clock::{SystemClock, WallClock};
use lakesync::name::Gateway;
use lakesync_server::auth::SECRET_FILES;
use lakesync_server::config::backends::DEFAULT;
use lakesync_server::gateway::{Restore, RestoreError, Restored};
use lakesync_server::store::Store;
use lakesync_server::store::embedded::{EmbeddedStore, Options};

use crate::exit::Exit;
use crate::place::{self, Place};
use crate::{rules, serve, show};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("access").required(true))]
pub(crate) struct Arguments {
    /// The backend that holds the rows: a postgres:// or mysql:// URL, or the name of a
    /// [backends.NAME].
    #[arg(long)]
    from: String,
    /// A file of settings (TOML) that has the backend named.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The schema that a URL's tables are in; the gateway's name, if not given.
    #[arg(long)]
    from_schema: Option<String>,
    /// The data directory; made if there is none. Its server must be stopped.
    #[arg(long)]
    data: PathBuf,
    /// The gateway.
    #[arg(long)]
    gateway: String,
    /// The sync rules to put into force, as JSON or YAML: backends do not keep them.
    #[arg(long, group = "access")]
    rules: Option<PathBuf>,
    /// Have no sync rules: every token of the gateway sees and writes every row.
    #[arg(long, group = "access")]
    without_rules: bool,
    /// What the server's settings call the backend; the name in --from, or default.
    #[arg(long)]
    backend: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Exit::input_output)?.block_on(async {
        let stop = serve::stop_signal().map_err(Exit::input_output)?;
        tokio::select! {
            done = restore(arguments) => done,
            () = stop => Err(Exit::interrupted(
                "no part of the gateway is served; the same command begins again",
            )),
        }
    })
}

async fn restore(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { from, config, from_schema, data, gateway, rules, backend, .. } = arguments;
    let name: Gateway = gateway.parse().map_err(Exit::usage)?;
    let rules = rules.as_deref().map(rules::draft).transpose()?;
    let (schema, config) = (from_schema.as_deref(), config.as_deref());
    let place = Place { flag: "from", text: &from, schema, config };
    let backend = backend.or(place.name().map(str::to_owned)).unwrap_or(DEFAULT.to_owned());
    let source = place.open(&name)?;
    // Before a directory is made: one that is away must leave no trace.
    let away = |error| place::failed(&error, format!("the backend failed: {error}"));
    source.health().await.map_err(away)?;
    let options =
        Options { companions: SECRET_FILES.map(str::to_owned).into(), ..Options::default() };
    let store = EmbeddedStore::open(&data, options).map_err(Exit::input_output)?;
    let restore = Restore { name, backend, rules, now_ms: SystemClock.now_ms() };
    let bar = show::bar();
    let mut copied = |table: &lakesync::name::TableName, rows| {
        bar.set_message(format!("reading {table}: {}", show::count(rows, "row")));
    };
    let outcome = restore.run(&store, &*source, &mut copied).await;
    bar.finish_and_clear();
    store.close().await.map_err(Exit::input_output)?;
    let restored = outcome.map_err(|error| match &error {
        RestoreError::Backend(cause) => place::failed(cause, &error),
        RestoreError::Store(_) => Exit::input_output(&error),
        RestoreError::Exists(_) | RestoreError::Empty => Exit::usage(&error),
        RestoreError::Rules(_) => Exit::config(&error),
        RestoreError::Moved => Exit::unavailable(&error),
    })?;
    tell(&restore, &restored)
}

fn tell(Restore { name, backend, rules, .. }: &Restore, restored: &Restored) -> Result<(), Exit> {
    let tables = &restored.tables;
    let width = tables.iter().map(|(table, ..)| table.as_str().len()).max().unwrap_or(0);
    for (table, rows, deleted) in tables {
        show::line(format_args!(
            "  {:width$}  {}, {} remembered",
            table.as_str(),
            show::count(*rows, "row"),
            show::count(*deleted, "delete")
        ))?;
    }
    let access = match rules {
        Some(draft) => format!(
            "{} of its rules are in force",
            show::count(draft.buckets.len() as u64, "bucket")
        ),
        None => "it has no sync rules: every token of it sees and writes every row".to_owned(),
    };
    show::line(format_args!(
        "gateway {name} is restored as another log; {access}\n\
         flushing goes on to backend {backend}; any other backend of the gateway must be emptied\n\
         what backends do not keep: whose each client id was (the first to push under one gets it), \
         which subjects were revoked, and the secret of tokens"
    ))
}

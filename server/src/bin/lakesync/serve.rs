//! `lakesync serve`: run a gateway server until it is told to stop.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use lakesync::clock::{SystemClock, WallClock};
use lakesync::hlc::Hlc;
use lakesync::name::Gateway;
use lakesync_server::app::{App, RunError, StartError};
use lakesync_server::auth::Grant;
use lakesync_server::config::{Config, Texts};
use lakesync_server::store::StoreError;
use lakesync_server::telemetry;
use serde_json::Map;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A file of settings (TOML).
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data directory.
    #[arg(long)]
    data: Option<String>,
    /// The address of the gRPC services; port 0 chooses a free one.
    #[arg(long)]
    listen: Option<String>,
    /// The address of /healthz, /readyz and /metrics.
    #[arg(long)]
    ops_listen: Option<String>,
    /// Create a gateway called main, and print lines to paste.
    #[arg(long)]
    dev: bool,
}

/// How long an ended server waits for threads that the system holds.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// The gateway that `--dev` makes.
const DEV_GATEWAY: &str = "main";

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let texts = texts(arguments).map_err(Exit::config)?;
    let config = texts.parse().map_err(Exit::config)?;
    telemetry::start(&config.log_level, config.log_json);
    for line in texts.lines() {
        tracing::info!("{line}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Exit::input_output)?;
    let outcome = runtime.block_on(serve(config));
    // A disk that hangs must not keep the process: what hangs was never answered.
    runtime.shutdown_timeout(LINGER_MAX);
    outcome
}

fn texts(arguments: Arguments) -> Result<Texts, lakesync_server::config::ConfigError> {
    let Arguments { config, data, listen, ops_listen, dev } = arguments;
    let mut texts = Texts::defaults();
    if let Some(path) = config {
        texts = texts.file(&path)?;
    }
    texts.environment(std::env::vars_os())?.flags([
        ("data", data),
        ("listen", listen),
        ("ops_listen", ops_listen),
        ("dev", dev.then(|| "true".to_owned())),
    ])
}

async fn serve(config: Config) -> Result<(), Exit> {
    // Before anything else, so that a signal sent as soon as we are ready is not missed.
    let stop = stop_signal().map_err(Exit::input_output)?;
    let dev = config.dev;
    let app = App::start(config.clone()).await.map_err(|error| match error {
        StartError::Bind { .. } => Exit::unavailable(error),
        StartError::Backend(_) => Exit::config(error),
        StartError::Store(_) | StartError::Secret(_) => Exit::input_output(error),
    })?;
    let mut text = format!("listening on {}\n", app.address());
    if let Some(address) = app.ops_address() {
        text += &format!("pages for operators on http://{address}/healthz, /readyz and /metrics\n");
    }
    if dev {
        text += &prepare_dev(&app, &config).await?;
    }
    say(&text)?;
    match app.run(stop).await {
        Ok(()) => Ok(()),
        Err(error @ (RunError::Store(_) | RunError::Hangs(_))) => Err(Exit::input_output(error)),
        Err(error @ RunError::Listener(_)) => Err(Exit::unavailable(error)),
    }
}

fn say(text: &str) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Exit::input_output)
}

/// Resolves at SIGTERM or SIGINT.
pub(crate) fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Makes the gateway, and says what can be pasted into another terminal.
async fn prepare_dev(app: &App, config: &Config) -> Result<String, Exit> {
    let gateway = Gateway::parse(DEV_GATEWAY).expect("BUG: an illegal name");
    match app.gateways().create(&gateway).await {
        Ok(_) | Err(StoreError::Exists(_)) => {}
        Err(error) => return Err(Exit::input_output(error)),
    }
    let grant = Grant {
        subject: "dev".to_owned(),
        scope: "sync admin".to_owned(),
        gateways: Vec::new(),
        claims: Map::new(),
        ttl: Duration::from_secs(30 * 24 * 60 * 60),
    };
    let token = grant.sign(app.secret(), SystemClock.now_ms()).map_err(Exit::config)?;
    let (address, data) = (app.address(), config.data.display());
    let table = r#"{"table": "todos", "columns": [{"name": "title", "type": "COLUMN_TYPE_STRING"}, {"name": "done", "type": "COLUMN_TYPE_BOOL"}]}"#;
    let hlc = Hlc::from_ms(SystemClock.now_ms());
    let change = format!(
        r#"{{"table": "todos", "columns": ["title"], "rows": [{{"row_id": "1", "kind": "CHANGE_KIND_UPSERT", "stamp": {{"hlc": "{hlc}"}}, "cells": [{{"column": 0, "value": {{"string_value": "milk"}}}}]}}]}}"#
    );
    Ok(format!(
        r#"
The gateway {gateway} is there. In another terminal:

  export TOKEN={token}

  grpcurl -plaintext {address} list
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{{"gateway": "{gateway}", "tables": [{table}]}}' {address} lakesync.admin.v1.AdminService/PutSchema
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{{"gateway": "{gateway}"}}' {address} lakesync.v1.SyncService/GetSchema
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{{"gateway": "{gateway}", "client_id": "shell", "tables": [{change}]}}' {address} lakesync.v1.SyncService/Push
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{{"gateway": "{gateway}"}}' {address} lakesync.admin.v1.AdminService/GetStats
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{{"gateway": "{gateway}", "follow": true}}' {address} lakesync.v1.SyncService/Pull

With buf in place of grpcurl:

  buf curl --protocol grpc --http2-prior-knowledge -H "authorization: Bearer $TOKEN" -d '{{"gateway": "{gateway}"}}' http://{address}/lakesync.admin.v1.AdminService/GetStats

Sync any SQLite file, and then the same into a second one:

  lakesync sync FILE.sqlite --url http://{address} --gateway {gateway} --token $TOKEN --adopt
  lakesync sync COPY.sqlite --url http://{address} --gateway {gateway} --token $TOKEN --follow

More tokens: lakesync token --data {data} --sub NAME --scope "sync admin"

"#
    ))
}

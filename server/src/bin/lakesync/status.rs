//! `lakesync status`: what a gateway holds, who follows it, and how far its backends have come.

use std::collections::BTreeMap;

use indicatif::HumanBytes;
use lakesync::proto::admin::v1::{BackendStats, GetStatsRequest, GetStatsResponse};
use lakesync::proto::v1::{GetServerInfoRequest, GetServerInfoResponse};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::operator::{self, Server};
use crate::show::{self, count};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The gateway.
    #[arg(long, default_value = "main")]
    gateway: String,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { gateway, server } = arguments;
    let json = server.json;
    server.run(async move |mut operator| {
        let told = |status: tonic::Status| operator::refused(&status, Exit::usage);
        let request = operator.request(GetServerInfoRequest {
            client_version: concat!("lakesync/", env!("CARGO_PKG_VERSION")).to_owned(),
        });
        let info = operator.sync.get_server_info(request).await.map_err(told)?.into_inner();
        let request = operator.request(GetStatsRequest { gateway: gateway.clone() });
        let stats = operator.admin.get_stats(request).await.map_err(told)?.into_inner();
        match json {
            true => show::line(document(&gateway, &info, &stats)),
            false => lines(&gateway, &info, stats),
        }
    })
}

fn document(gateway: &str, info: &GetServerInfoResponse, stats: &GetStatsResponse) -> Value {
    let backend = |(name, one): (&String, &BackendStats)| {
        let backend = json!({
            "position": one.position,
            "lag_commits": one.lag_commits,
            "lag_rows": one.lag_rows,
            "lag_seconds": seconds(one),
            "last_flush": one.last_flush.as_ref().map(show::time),
            "error": (!one.error.is_empty()).then_some(&one.error),
            "troubles": one.troubles,
        });
        (name.clone(), backend)
    };
    json!({
        "server": info.server_version,
        "gateway": gateway,
        "head": stats.head,
        "tail": stats.tail,
        "rows": stats.rows,
        "log_bytes": stats.log_bytes,
        "followers": stats.followers,
        "backends": stats.backends.iter().map(backend).collect::<serde_json::Map<_, _>>(),
    })
}

fn lines(gateway: &str, info: &GetServerInfoResponse, stats: GetStatsResponse) -> Result<(), Exit> {
    let (head, tail) = (stats.head, stats.tail);
    show::line(format_args!("gateway {gateway}, server version {}", info.server_version))?;
    show::line(format_args!("  log: positions {tail} to {head}, {}", HumanBytes(stats.log_bytes)))?;
    let followers = count(u64::from(stats.followers), "follower");
    show::line(format_args!("  {}, {followers}", count(stats.rows, "row")))?;
    if stats.backends.is_empty() {
        return show::line("  no backend");
    }
    let backends: BTreeMap<_, _> = stats.backends.into_iter().collect();
    backends.iter().try_for_each(|(name, backend)| {
        let position = backend.position;
        let lag = match backend.lag_commits {
            0 => "has everything".to_owned(),
            commits => format!(
                "lacks {} with {}, for {} s",
                count(commits, "commit"),
                count(backend.lag_rows, "change"),
                seconds(backend)
            ),
        };
        show::line(format_args!("  backend {name}: at position {position}, {lag}"))?;
        if !backend.error.is_empty() {
            show::line(format_args!("    the last attempt failed: {}", backend.error))?;
        }
        backend.troubles.iter().try_for_each(|trouble| show::line(format_args!("    {trouble}")))
    })
}

/// For how long the backend has lacked something, in whole seconds.
fn seconds(backend: &BackendStats) -> i64 {
    backend.lag_time.as_ref().map_or(0, |lag| lag.seconds)
}

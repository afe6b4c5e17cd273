//! A gateway's figures → `GetStatsResponse`.

use lakesync::proto::admin::v1::{BackendStats, GetStatsResponse};
use prost_types::Duration;

use super::timestamp;
use crate::gateway::{Lag, Stats};

pub(super) fn encode(stats: &Stats, lags: &[Lag]) -> GetStatsResponse {
    let named = |lag: &Lag| lag.backend.to_string();
    let errors = lags.iter().filter_map(|lag| Some((named(lag), lag.error.clone()?)));
    GetStatsResponse {
        head: stats.head.0,
        tail: stats.tail.0,
        flushed: lags.iter().map(|lag| (named(lag), lag.position.0)).collect(),
        rows: stats.rows,
        log_bytes: stats.log_bytes,
        followers: u32::try_from(stats.followers).unwrap_or(u32::MAX),
        last_flush: lags.iter().filter_map(|lag| lag.done_ms).max().map(timestamp),
        flush_errors: errors.collect(),
        backends: lags.iter().map(|lag| (named(lag), backend(lag))).collect(),
    }
}

fn backend(lag: &Lag) -> BackendStats {
    let seconds = i64::try_from(lag.age.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(lag.age.subsec_nanos()).expect("BUG: less than a second");
    BackendStats {
        position: lag.position.0,
        lag_commits: lag.commits,
        lag_rows: lag.changes,
        lag_time: Some(Duration { seconds, nanos }),
        last_flush: lag.done_ms.map(timestamp),
        error: lag.error.clone().unwrap_or_default(),
        troubles: lag.troubles.clone(),
    }
}

//! Settings → what gateways and clients are to know of them.

use std::time::Duration;

use lakesync::limits::{self, MESSAGE_BYTES_MAX, PUSH_ROWS_MAX, ROW_BYTES_MAX};
use lakesync::proto::v1::Limits;

use crate::config::Config;
use crate::gateway::{Allowance, Settings};

/// What the gateways are to know of the settings.
pub(super) fn of_gateways(config: &Config) -> Settings {
    Settings {
        clock_drift_max: config.clock_drift_max,
        offline_max: config.offline_max,
        log_bytes_max: config.log_bytes_max,
        stall_max: config.stall_max,
        queue_bytes_max: usize::try_from(config.queue_bytes_max).unwrap_or(usize::MAX),
        readers_bytes_max: usize::try_from(config.readers_bytes_max).unwrap_or(usize::MAX),
        each_subject: allowance(config.subject_max),
        each_gateway: allowance(config.gateway_max),
        ..Settings::default()
    }
}

fn allowance([calls, rows, bytes, streams]: [u64; 4]) -> Allowance {
    Allowance { calls, rows, bytes, streams }
}

/// What the server enforces, as clients are told.
pub(super) fn limits(config: &Config) -> Limits {
    let seconds = |duration: Duration| prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).expect("BUG: less than a second"),
    };
    let fits = |count: usize| u32::try_from(count).expect("BUG: limits fit in 32 bits");
    Limits {
        max_message_bytes: fits(MESSAGE_BYTES_MAX),
        max_push_rows: fits(PUSH_ROWS_MAX),
        max_row_bytes: fits(ROW_BYTES_MAX),
        max_clock_drift: Some(seconds(config.clock_drift_max)),
        heartbeat: Some(seconds(limits::HEARTBEAT)),
        max_offline: Some(seconds(config.offline_max)),
    }
}

//! Settings' texts → values. An error says what would do.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

/// The greatest duration that timers take.
const SECONDS_MAX: u64 = 100 * 365 * 24 * 60 * 60;

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("a path is needed".to_owned()) } else { Ok(text.into()) }
}

pub(super) fn optional_text(text: &str) -> Result<Option<String>, String> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let wanted = "an address with a port is needed, such as 127.0.0.1:7461";
    let mut found = text.to_socket_addrs().map_err(|error| format!("{wanted}: {error}"))?;
    found.next().ok_or_else(|| wanted.to_owned())
}

pub(super) fn optional_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() { Ok(None) } else { address(text).map(Some) }
}

pub(super) fn truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "true or false is needed".to_owned())
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn log_format(text: &str) -> Result<bool, String> {
    match text {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err("text or json is needed".to_owned()),
    }
}

/// A whole number and a unit: `250ms`, `5s`, `10m`, `12h`, `90d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wanted = "a whole number with a unit is needed: ms, s, m, h or d, such as 90d";
    let (number, unit) = split(text).ok_or(wanted)?;
    if unit == "ms" {
        return Ok(Duration::from_millis(number));
    }
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wanted.to_owned()),
    };
    match number.checked_mul(seconds) {
        Some(seconds) if seconds <= SECONDS_MAX => Ok(Duration::from_secs(seconds)),
        _ => Err("at most a hundred years can be waited".to_owned()),
    }
}

/// A whole number and perhaps a unit: `1000`, `64KiB`, `64MiB`, `4GiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wanted = "a whole number is needed, of bytes or of KiB, MiB, GiB or TiB, such as 64MiB";
    let (number, unit) = split(text).ok_or(wanted)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(wanted.to_owned()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than there can be".to_owned())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

//! Settings' texts → values. An error says what would do.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

/// The greatest duration that timers take, in milliseconds: a hundred years.
const WAIT_MS_MAX: u64 = 100 * 365 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What a setting may be at least and at most, as it would be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) min: &'static str,
    pub(super) max: &'static str,
}

impl Bounds {
    /// A duration within these.
    pub(super) fn duration(self, text: &str) -> Result<Duration, String> {
        self.check(text, duration)
    }

    /// A size within these.
    pub(super) fn size(self, text: &str) -> Result<u64, String> {
        self.check(text, size)
    }

    fn check<T: Ord>(self, text: &str, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
        let bound = |text| parse(text).expect("BUG: a bound that is no legal setting");
        match parse(text)? {
            value if value < bound(self.min) => Err(format!("it must be {} at least", self.min)),
            value if bound(self.max) < value => Err(format!("it must be {} at most", self.max)),
            value => Ok(value),
        }
    }
}

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

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A level for everything, and perhaps others for single modules: `info,lakesync_server=debug`.
///
/// The logging library takes any word for the name of a module, and then logs nothing at all.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_module = |name: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
        !name.is_empty() && name.bytes().all(is_letter)
    };
    let known = "off, error, warn, info, debug or trace";
    let (mut for_all, mut modules) = (None, Vec::new());
    for piece in text.split(',').map(str::trim) {
        let (module, level) = match piece.rsplit_once('=') {
            None => (None, piece),
            Some((module, level)) => (Some(module), level),
        };
        if !is_level(level) {
            return Err(format!("\"{level}\" is no level; {known} is needed"));
        }
        match module {
            None if for_all.replace(level).is_some() => {
                return Err(format!("\"{level}\" is a second level for everything"));
            }
            None => {}
            Some(module) if !is_module(module) => {
                return Err(format!("\"{module}\" is no module; MODULE=LEVEL is needed"));
            }
            Some(module) if modules.contains(&module) => {
                return Err(format!("\"{module}\" is given twice"));
            }
            Some(module) => modules.push(module),
        }
    }
    if for_all.is_none() {
        return Err(format!("a level for everything else is needed too, such as \"info,{text}\""));
    }
    // The library takes no spaces.
    let text = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    match EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
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
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        "d" => DAY_MS,
        _ => return Err(wanted.to_owned()),
    };
    match number.checked_mul(unit_ms) {
        Some(ms) if ms <= WAIT_MS_MAX => Ok(Duration::from_millis(ms)),
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

/// A whole number.
pub(super) fn count(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| "a whole number is needed".to_owned())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

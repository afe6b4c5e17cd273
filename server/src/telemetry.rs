//! Logs: structured, on standard error, and without anybody's values in them.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Starts logging. Does nothing if somebody did already: the first word counts.
///
/// `level` was checked with the other settings.
pub fn start(level: &str, json: bool) {
    let filter = EnvFilter::try_new(level).expect("BUG: a log level that was not checked");
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second subscriber is refused; the one that is there goes on.
    let _ = if json { logs.json().try_init() } else { logs.with_ansi(false).try_init() };
}

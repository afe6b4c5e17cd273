//! Settings: defaults < file < environment < flags, read as text from all four and parsed once.
//!
//! [`KEYS`] is the one table of what can be set. An error names the setting, where it was set, and
//! what would do.

pub mod backends;
mod parse;

pub use parse::duration;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backends::Backends;
use parse::Bounds;

/// Where backends are, in a file of settings.
const BACKENDS: &str = "backends";

/// One setting: its name, its default as text, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in the file; a flag writes dashes, the environment `LAKESYNC_` and capitals.
    pub name: &'static str,
    /// The default; empty where there is none.
    pub default: &'static str,
    /// For people.
    pub about: &'static str,
    /// Whether it may hold a password, and so is never printed.
    pub is_secret: bool,
}

const fn key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, default, about, is_secret: false }
}

const fn secret(name: &'static str, about: &'static str) -> Key {
    Key { name, default: "", about, is_secret: true }
}

/// Everything that can be set, in the order it is printed.
pub const KEYS: &[Key] = &[
    key("data", "lakesync-data", "the data directory"),
    key("listen", "127.0.0.1:7461", "the address of the gRPC services; port 0 chooses a free one"),
    key("ops_listen", "", "the address of /healthz, /readyz and /metrics; empty for none"),
    key(
        "connections_max",
        "0",
        "connections of clients; 0 for what file descriptors allow, to 10000",
    ),
    key("address_connections_max", "0", "connections from one address; 0 for half of all"),
    key("ping_interval", "60s", "after how long a silent client is sent a PING"),
    key("ping_timeout", "20s", "how long after that a byte must have moved, either way"),
    key("dev", "false", "create a gateway called main, and print lines to paste"),
    key("log_level", "info", "error, warn, info, debug or trace, or directives by module"),
    key("log_format", "text", "text or json, on standard error"),
    key("reflection", "true", "let grpcurl and buf curl ask what there is"),
    key("auth_audience", "", "the `aud` that tokens must carry; empty for any"),
    key("auth_issuer", "", "the `iss` that tokens must carry; empty for any"),
    key("clock_drift_max", "5s", "how far ahead of the server's clock a stamp may be"),
    key("offline_max", "90d", "how long deletes are remembered, and a replica may stay away"),
    key("log_size_max", "4GiB", "how large a gateway's log may grow before its oldest commits go"),
    key("queue_size_max", "256MiB", "how much all waiting pushes may hold"),
    key("requests_size_max", "256MiB", "what all requests that are not answered yet may hold"),
    key("request_stall_max", "30s", "how long an unfinished request may bring no byte"),
    key("readers_size_max", "256MiB", "how much all readers together may hold in memory"),
    key("disk_reserve", "64MiB", "free space below which pushes are refused"),
    key("stall_max", "60s", "how long a reader may take nothing before its stream is cut"),
    secret("backend_url", "a postgres:// or mysql:// URL of a backend to flush to; empty for none"),
    key("flush_to", "", "which [backends.NAME] of the file to flush to; empty for all"),
    key("subject_calls_max", "0", "pushes, pulls and checkpoints a second of a subject; 0 for any"),
    key("subject_rows_max", "0", "pushed changes a second of a subject, at each gateway"),
    key("subject_bytes_max", "0", "pushed bytes a second of a subject, at each gateway"),
    key(
        "subject_streams_max",
        "0",
        "pulls and checkpoints under way of a subject, at each gateway",
    ),
    key("gateway_calls_max", "0", "calls a second of all callers of a gateway together; 0 for any"),
    key("gateway_rows_max", "0", "pushed changes a second of all callers of a gateway together"),
    key("gateway_bytes_max", "0", "pushed bytes a second of all callers of a gateway together"),
    key("gateway_streams_max", "0", "pulls and checkpoints under way of all callers of a gateway"),
    key("drain_max", "20s", "how long a stopping server may take"),
];

const SUBJECT_KEYS: [&str; 4] =
    ["subject_calls_max", "subject_rows_max", "subject_bytes_max", "subject_streams_max"];
const GATEWAY_KEYS: [&str; 4] =
    ["gateway_calls_max", "gateway_rows_max", "gateway_bytes_max", "gateway_streams_max"];

const fn within(min: &'static str, max: &'static str) -> Bounds {
    Bounds { min, max }
}

/// Further ahead, and one device's wrong clock would win over everybody else's edits for days.
const CLOCK_DRIFT: Bounds = within("1ms", "1d");
/// Shorter, and a device that sleeps through a meeting could no longer push.
const OFFLINE: Bounds = within("1h", "36500d");
const LOG_SIZE: Bounds = within("1MiB", "1024TiB");
const QUEUE_SIZE: Bounds = within("8MiB", "1TiB");
/// Smaller, and a legal message would not find room in the half of it that one subject may hold.
const REQUESTS_SIZE: Bounds = within("128MiB", "1TiB");
const REQUEST_STALL: Bounds = within("1s", "1h");
/// Smaller, and a few readers would make each other's pages tiny.
const READERS_SIZE: Bounds = within("8MiB", "1TiB");
const DISK_RESERVE: Bounds = within("0", "1024TiB");
const STALL: Bounds = within("1s", "1d");
const DRAIN: Bounds = within("0s", "1h");
/// More often, and phones would hardly sleep.
const PING_INTERVAL: Bounds = within("1s", "1h");
/// Shorter, and a slow line would count as dead.
const PING_TIMEOUT: Bounds = within("1s", "10m");

/// The settings of a server, parsed.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Where the gRPC services listen.
    pub listen: SocketAddr,
    /// Where the operators' pages listen, if anywhere.
    pub ops_listen: Option<SocketAddr>,
    /// How many connections there may be; zero for what file descriptors allow.
    pub connections_max: u64,
    /// How many connections from one address; zero for half of all.
    pub address_connections_max: u64,
    /// After how long a silent client is sent a PING.
    pub ping_interval: Duration,
    /// How long after that a byte must have moved.
    pub ping_timeout: Duration,
    /// Whether to create a gateway and print lines to paste.
    pub dev: bool,
    /// What is logged.
    pub log_level: String,
    /// Whether logs are JSON.
    pub log_json: bool,
    /// Whether reflection is served.
    pub reflection: bool,
    /// The audience that tokens must name, if any.
    pub auth_audience: Option<String>,
    /// Who must have issued tokens, if that matters.
    pub auth_issuer: Option<String>,
    /// How far ahead of the server's clock a stamp may be.
    pub clock_drift_max: Duration,
    /// How long deletes are remembered.
    pub offline_max: Duration,
    /// How large a log may grow, in bytes.
    pub log_bytes_max: u64,
    /// How much all waiting pushes may hold, in bytes.
    pub queue_bytes_max: u64,
    /// What all requests that are not answered yet may hold, in bytes.
    pub requests_bytes_max: u64,
    /// How long an unfinished request may bring no byte.
    pub request_stall_max: Duration,
    /// How much all readers together may hold, in bytes.
    pub readers_bytes_max: u64,
    /// Free space below which pushes are refused, in bytes.
    pub disk_reserve_bytes: u64,
    /// How long a reader may take nothing.
    pub stall_max: Duration,
    /// What gateways are flushed to.
    pub backends: Backends,
    /// What a subject may take of a gateway: calls, rows and bytes a second, and streams at a time;
    /// zero is no bound.
    pub subject_max: [u64; 4],
    /// What all callers of a gateway may take of it together.
    pub gateway_max: [u64; 4],
    /// How long a stopping server waits.
    pub drain_max: Duration,
}

/// A setting that is wrong, and where it was set.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {what}")]
pub struct ConfigError {
    origin: String,
    what: String,
}

/// The settings as text, and where each was set.
#[derive(Clone, Debug)]
pub struct Texts {
    flat: BTreeMap<&'static str, (String, Origin)>,
    /// The tables under `backends`, and the file that they are in.
    backends: (toml::Table, Origin),
}

#[derive(Clone, Debug)]
enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The prefix of our environment variables.
const PREFIX: &str = "LAKESYNC_";
/// Our variables that are no settings of the server: the clients' own, and the tests'.
const OTHER_VARIABLES: [&str; 3] = ["LAKESYNC_IMPORT_FROM", "LAKESYNC_TOKEN", "LAKESYNC_TEST_"];

impl Texts {
    /// The defaults.
    pub fn defaults() -> Self {
        let text = |key: &Key| (key.name, (key.default.to_owned(), Origin::Default));
        let backends = (toml::Table::new(), Origin::Default);
        Self { flat: KEYS.iter().map(text).collect(), backends }
    }

    /// Overlays a TOML file of flat settings.
    pub fn file(mut self, path: &Path) -> Result<Self, ConfigError> {
        let origin = Origin::File(path.to_owned());
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&origin, error))?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            wrong(&origin, format!("line {line}: {}", error.message()))
        })?;
        for (name, value) in table {
            let text = match value {
                toml::Value::Table(backends) if name == BACKENDS => {
                    self.backends = (backends, origin.clone());
                    continue;
                }
                // A list of names, as the environment and flags write it.
                toml::Value::Array(names) if name == "flush_to" => {
                    let names: Option<Vec<String>> = names.iter().map(backends::text).collect();
                    names.map(|names| names.join(","))
                }
                value => backends::text(&value),
            };
            let other = || wrong(&origin, format!("{name} must be a text, number or truth value"));
            self.set(&name, text.ok_or_else(other)?, origin.clone())?;
        }
        Ok(self)
    }

    /// Overlays the environment, given as name and value.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        for (name, value) in variables {
            // A name that is no text is not one of ours, even where it begins like one.
            let name = name.to_string_lossy().into_owned();
            let ours = name.strip_prefix(PREFIX).map(str::to_ascii_lowercase);
            let Some(setting) = ours else { continue };
            if OTHER_VARIABLES.iter().any(|other| name.starts_with(other)) {
                continue;
            }
            let origin = Origin::Environment(name);
            let value = value.into_string().map_err(|_| wrong(&origin, "it is not UTF-8"))?;
            self.set(&setting, value, origin)?;
        }
        Ok(self)
    }

    /// Overlays flags that were given.
    pub fn flags(
        mut self,
        flags: impl IntoIterator<Item = (&'static str, Option<String>)>,
    ) -> Result<Self, ConfigError> {
        for (name, value) in flags {
            if let Some(value) = value {
                self.set(name, value, Origin::Flag(format!("--{}", name.replace('_', "-"))))?;
            }
        }
        Ok(self)
    }

    /// The settings, a line each, with where they were set. Of those that may hold a password, only
    /// whether they are set; of backends, only their names.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let line = |key: &Key| {
            let (text, origin) = &self.flat[key.name];
            let text = if key.is_secret && !text.is_empty() { "(not shown)" } else { text };
            format!("{} = {text:?} ({origin})", key.name)
        };
        let (backends, origin) = &self.backends;
        let named = move |name: &String| format!("backends.{name} = \"(not shown)\" ({origin})");
        KEYS.iter().map(line).chain(backends.keys().map(named))
    }

    /// Parses every setting.
    pub fn parse(&self) -> Result<Config, ConfigError> {
        let optional = |name| self.parsed(name, parse::optional_text);
        let taken = |[calls, rows, bytes, streams]: [&'static str; 4]| {
            Ok::<_, ConfigError>([
                self.parsed(calls, parse::count)?,
                self.parsed(rows, parse::count)?,
                self.parsed(bytes, parse::size)?,
                self.parsed(streams, parse::count)?,
            ])
        };
        Ok(Config {
            data: self.parsed("data", parse::path)?,
            listen: self.parsed("listen", parse::address)?,
            ops_listen: self.parsed("ops_listen", parse::optional_address)?,
            connections_max: self.parsed("connections_max", parse::count)?,
            address_connections_max: self.parsed("address_connections_max", parse::count)?,
            ping_interval: self.parsed("ping_interval", |text| PING_INTERVAL.duration(text))?,
            ping_timeout: self.parsed("ping_timeout", |text| PING_TIMEOUT.duration(text))?,
            dev: self.parsed("dev", parse::truth)?,
            log_level: self.parsed("log_level", parse::log_level)?,
            log_json: self.parsed("log_format", parse::log_format)?,
            reflection: self.parsed("reflection", parse::truth)?,
            auth_audience: optional("auth_audience")?,
            auth_issuer: optional("auth_issuer")?,
            clock_drift_max: self.parsed("clock_drift_max", |text| CLOCK_DRIFT.duration(text))?,
            offline_max: self.parsed("offline_max", |text| OFFLINE.duration(text))?,
            log_bytes_max: self.parsed("log_size_max", |text| LOG_SIZE.size(text))?,
            queue_bytes_max: self.parsed("queue_size_max", |text| QUEUE_SIZE.size(text))?,
            requests_bytes_max: self
                .parsed("requests_size_max", |text| REQUESTS_SIZE.size(text))?,
            request_stall_max: self
                .parsed("request_stall_max", |text| REQUEST_STALL.duration(text))?,
            readers_bytes_max: self.parsed("readers_size_max", |text| READERS_SIZE.size(text))?,
            disk_reserve_bytes: self.parsed("disk_reserve", |text| DISK_RESERVE.size(text))?,
            stall_max: self.parsed("stall_max", |text| STALL.duration(text))?,
            backends: self.parsed_backends()?,
            subject_max: taken(SUBJECT_KEYS)?,
            gateway_max: taken(GATEWAY_KEYS)?,
            drain_max: self.parsed("drain_max", |text| DRAIN.duration(text))?,
        })
    }

    fn set(&mut self, name: &str, text: String, origin: Origin) -> Result<(), ConfigError> {
        let known = KEYS.iter().find(|key| key.name == name);
        let unknown =
            || wrong(&origin, format!("there is no setting {name}; known are {}", names()));
        self.flat.insert(known.ok_or_else(unknown)?.name, (text, origin));
        Ok(())
    }

    fn parsed_backends(&self) -> Result<Backends, ConfigError> {
        let (tables, origin) = &self.backends;
        let (flush_to, flush_origin) = &self.flat["flush_to"];
        let (url, url_origin) = &self.flat["backend_url"];
        let named = flush_to.split(',').map(str::trim).filter(|name| !name.is_empty());
        let named: Vec<String> = named.map(str::to_owned).collect();
        let url = Some(url.as_str()).filter(|url| !url.is_empty());
        backends::parse(tables, &named, url).map_err(|what| match what.split_once(':') {
            Some(("flush_to", _)) => wrong(flush_origin, what),
            Some(("backend_url", _)) => wrong(url_origin, what),
            _ => wrong(origin, what),
        })
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let (text, origin) = &self.flat[name];
        parse(text).map_err(|what| wrong(origin, format!("{name} = {text:?}: {what}")))
    }
}

fn wrong(origin: &Origin, what: impl ToString) -> ConfigError {
    ConfigError { origin: origin.to_string(), what: what.to_string() }
}

fn names() -> String {
    KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;

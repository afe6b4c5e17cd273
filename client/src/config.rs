//! How a replica is configured. Required values are arguments; the rest have defaults, and every
//! setting is checked when the replica opens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lakesync::clock::{SystemClock, WallClock};
use lakesync::name::{Gateway, InvalidName};

use crate::backoff::Pace;
use crate::transport::{EndpointError, Token, Transport, connect};

/// How often the file is asked whether it changed. A reader sees an edit of another process after
/// half of this, on average; asking costs microseconds.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Settings of a [`Replica`](crate::Replica).
///
/// ```
/// use lakesync_client::Config;
///
/// let config = Config::new("http://127.0.0.1:7461", "main").with_token("eyJhbGciOi…");
/// ```
#[derive(Clone)]
pub struct Config {
    reach: Reach,
    gateway: String,
    token: Option<Token>,
    pub(crate) pace: Pace,
    pub(crate) poll_every: Duration,
    pub(crate) clock: Arc<dyn WallClock>,
    pub(crate) random: Random,
}

/// A source of randomness.
pub(crate) type Random = Arc<dyn Fn() -> u64 + Send + Sync>;

#[derive(Clone)]
enum Reach {
    Url(String),
    Transport(Arc<dyn Transport>),
}

/// A setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The gateway's name.
    #[error(transparent)]
    Gateway(#[from] InvalidName),
    /// The server's URL.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl Config {
    /// Syncs with the gateway of this name at the server of this URL, `http://HOST:PORT`.
    pub fn new(url: impl Into<String>, gateway: impl Into<String>) -> Self {
        Self::with_reach(Reach::Url(url.into()), gateway.into())
    }

    /// Syncs with the gateway of this name over a transport that exists already, such as
    /// [`local`](crate::transport::local()).
    pub fn over(transport: Arc<dyn Transport>, gateway: impl Into<String>) -> Self {
        Self::with_reach(Reach::Transport(transport), gateway.into())
    }

    fn with_reach(reach: Reach, gateway: String) -> Self {
        Self {
            reach,
            gateway,
            token: None,
            pace: Pace::default(),
            poll_every: POLL_EVERY,
            clock: Arc::new(SystemClock),
            random: Arc::new(system_random),
        }
    }

    /// Authenticates with `token`: a text, or [`Token::from_fn`]. Default: no token. Of no effect
    /// over a transport, which has its own.
    pub fn with_token(self, token: impl Into<Token>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// Sets how long to wait after failures. Default: 0.1 s to 5 s, with full jitter.
    pub fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Sets how often the file is asked whether anybody changed it. Default: every 50 ms.
    pub fn with_poll_every(self, poll_every: Duration) -> Self {
        Self { poll_every, ..self }
    }

    /// Sets the clock that status times are read from. Default: the operating system's.
    pub fn with_clock(self, clock: Arc<dyn WallClock>) -> Self {
        Self { clock, ..self }
    }

    /// Sets the source of randomness, for simulations. Default: the operating system's.
    pub fn with_random(self, random: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { random: Arc::new(random), ..self }
    }

    pub(crate) fn check(&self) -> Result<(Gateway, Arc<dyn Transport>), ConfigError> {
        let gateway = self.gateway.parse()?;
        let transport: Arc<dyn Transport> = match &self.reach {
            Reach::Url(url) => Arc::new(connect(url, self.token.clone())?),
            Reach::Transport(transport) => Arc::clone(transport),
        };
        Ok((gateway, transport))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Config");
        match &self.reach {
            Reach::Url(url) => shown.field("url", url),
            Reach::Transport(transport) => shown.field("transport", transport),
        };
        shown.field("gateway", &self.gateway).field("token", &self.token).finish_non_exhaustive()
    }
}

/// Only waits are drawn from it: without a source they are half as long as they may be.
fn system_random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settings_are_checked_when_opening() {
        for (config, refusal) in [
            (Config::new("http://127.0.0.1:1", "main"), None),
            (Config::new("http://127.0.0.1:1", "Main"), Some("gateway name")),
            (Config::new("https://127.0.0.1:1", "main"), Some("https is not supported")),
        ] {
            let refused = config.check().err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), refusal.is_some(), "{refused:?}");
            assert!(refused.unwrap_or_default().contains(refusal.unwrap_or_default()));
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let config = Config::new("http://127.0.0.1:1", "main").with_token("s3cret");
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}

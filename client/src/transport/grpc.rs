//! gRPC over a socket. A connection is made when first needed, and again after every fault.
//!
//! No call has a deadline: see [`motion`](super::motion) for how long a server may be silent, and
//! [`socket`](super::socket) for how a dead connection is noticed.

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Endpoint;

use super::line::Line;
use super::motion::Meter;
use super::socket::Sockets;
use super::{Remote, Token};

/// A PING that has no answer is judged by the socket, by the bytes that arrive meanwhile. The
/// library's own limit counts none, and must never be the first to end a connection.
const PONG_MAX: Duration = Duration::from_secs(60 * 60);
/// Two pages: one on its way while the other is applied. The answer to a push waits behind what is on
/// its way, and that is sent again when a connection breaks.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const USER_AGENT: &str = concat!("lakesync-rust/", env!("CARGO_PKG_VERSION"));

/// A URL that no gateway can be reached under.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("\"{}\" is not a URL such as http://127.0.0.1:7461: {what}", .url.escape_debug())]
    Malformed {
        /// What was given.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// A URL of another kind.
    #[error(
        "\"{}\": {scheme} is not supported; use http://HOST:PORT, behind a tunnel or a proxy \
             that speaks TLS where the network is not trusted",
        .url.escape_debug()
    )]
    Scheme {
        /// What was given.
        url: String,
        /// Its scheme.
        scheme: String,
    },
}

/// How long a server may be silent. A replica on a line of 8 KiB/s whose bytes take 2 s each way
/// trips none of these, whatever it sends and receives.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long opening a connection may take.
    pub connect: Duration,
    /// A PING is sent after so long without a frame.
    pub ping_every: Duration,
    /// A connection without a sign of life for so long is given up.
    pub lifeless: Duration,
    /// A call whose connection moves nothing to speak of for so long is given up: the server is
    /// there, and does not answer.
    pub silent: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            ping_every: Duration::from_secs(15),
            lifeless: Duration::from_secs(40),
            silent: Duration::from_secs(45),
        }
    }
}

/// Reaches the server at `url`, which is `http://HOST:PORT`. Nothing is sent yet. Needs a Tokio
/// runtime.
pub fn connect(url: &str, token: Option<Token>) -> Result<Remote, EndpointError> {
    connect_with(url, token, Patience::default())
}

/// As [`connect`], with limits of silence of one's own.
pub fn connect_with(
    url: &str,
    token: Option<Token>,
    patience: Patience,
) -> Result<Remote, EndpointError> {
    let meter = Arc::new(Meter::default());
    let sockets = Sockets::new(Arc::clone(&meter), patience.connect, patience.lifeless);
    let endpoint = endpoint(url)?.http2_keep_alive_interval(patience.ping_every);
    let line = Line::new(endpoint.connect_with_connector_lazy(sockets));
    Ok(Remote::new(url, line, meter, patience.silent, token).packing())
}

fn endpoint(url: &str) -> Result<Endpoint, EndpointError> {
    let malformed =
        |what: &dyn ToString| EndpointError::Malformed { url: url.into(), what: what.to_string() };
    let uri: http::Uri = url.parse().map_err(|error| malformed(&error))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some(scheme) => {
            return Err(EndpointError::Scheme { url: url.into(), scheme: scheme.into() });
        }
        None => return Err(malformed(&"it has no scheme")),
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(malformed(&"it has no host"));
    }
    if !matches!(uri.path(), "" | "/") {
        return Err(malformed(&format!("a path such as {} has no meaning here", uri.path())));
    }
    let endpoint = Endpoint::from(uri).user_agent(USER_AGENT).map_err(|error| malformed(&error))?;
    Ok(endpoint
        .keep_alive_timeout(PONG_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_before_anything_is_sent() {
        for (url, refusal) in [
            ("http://127.0.0.1:7461", None),
            ("http://localhost:7461/", None),
            ("http://[::1]:7461", None),
            ("https://sync.example.com", Some("https is not supported")),
            ("ftp://sync.example.com", Some("ftp is not supported")),
            ("127.0.0.1:7461", Some("not a URL")),
            ("http://localhost/sync", Some("a path")),
            ("", Some("not a URL")),
        ] {
            match (endpoint(url), refusal) {
                (Ok(_), None) => {}
                (Err(error), Some(part)) => {
                    assert!(error.to_string().contains(part), "{url}: {error}");
                }
                (outcome, _) => panic!("{url}: {outcome:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_the_cause() {
        // Bound and closed again: nobody listens.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
        let url = format!("http://{}", port.expect("a port"));
        let remote = connect(&url, None).expect("a URL");
        let problem = crate::Transport::server_info(&remote).await.expect_err("nobody there");
        let said = problem.to_string();
        assert!(said.starts_with(&url) && said.contains("refused"), "{said}");
    }
}

//! An operator's connection to a server: which server and gateway a command asks, by what right, and
//! what a refusal means for the command's exit code.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lakesync::error::{ErrorKind, Reason};
use lakesync::proto::admin::v1::admin_service_client::AdminServiceClient;
use lakesync::proto::v1::sync_service_client::SyncServiceClient;
use lakesync::status::from_status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::exit::Exit;
use crate::token::TOKEN_VARIABLE;

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A server that is silent is sent a PING this often: some calls take minutes without a word.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How long the answer to a PING may take. On a slow line it waits behind what was sent before.
const PONG_MAX: Duration = Duration::from_secs(60);

/// Which server a command asks, and by what right.
#[derive(Debug, clap::Args)]
pub(crate) struct Server {
    /// Where the server is, such as http://127.0.0.1:7461.
    #[arg(long)]
    url: String,
    /// A token with the scope admin; without it, the environment variable LAKESYNC_TOKEN.
    #[arg(long)]
    token: Option<String>,
    /// Print one JSON document instead of lines for people.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which gateway a command asks about, of a server that may be left out. `--url` stands beside it;
/// without it, neither flag has a meaning.
#[derive(Debug, clap::Args)]
pub(crate) struct Caller {
    /// The gateway.
    #[arg(long, default_value = "main", requires = "url")]
    pub(crate) gateway: String,
    /// A token with the scope admin; without it, the environment variable LAKESYNC_TOKEN.
    #[arg(long, requires = "url")]
    pub(crate) token: Option<String>,
}

/// An open connection.
pub(crate) struct Operator {
    pub(crate) admin: AdminServiceClient<Channel>,
    pub(crate) sync: SyncServiceClient<Channel>,
    token: String,
    authorization: MetadataValue<Ascii>,
}

impl Server {
    /// Connects, and runs a command's calls.
    pub(crate) fn run<F>(self, work: impl FnOnce(Operator) -> F) -> Result<(), Exit>
    where
        F: Future<Output = Result<(), Exit>>,
    {
        run(async { work(Operator::connect(self.url, self.token).await?).await })
    }
}

/// Runs a command's calls.
pub(crate) fn run(work: impl Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Exit::input_output)?.block_on(work)
}

impl Operator {
    pub(crate) async fn connect(url: String, token: Option<String>) -> Result<Self, Exit> {
        let token = token.or_else(|| std::env::var(TOKEN_VARIABLE).ok()).ok_or_else(|| {
            Exit::usage(format!(
                "a token is needed: --token TOKEN, or {TOKEN_VARIABLE}; `lakesync token --scope \
                 admin` makes one"
            ))
        })?;
        let token = token.trim().to_owned();
        let authorization = format!("Bearer {token}").parse();
        let authorization =
            authorization.map_err(|_| Exit::usage("the token holds characters of no header"))?;
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| Exit::usage(format!("{url}: {error}")))?
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_MAX)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Exit::unavailable(format!("{url}: {error}: {}", cause.unwrap_or_default()))
        })?;
        let (admin, sync) =
            (AdminServiceClient::new(channel.clone()), SyncServiceClient::new(channel));
        Ok(Self { admin, sync, token, authorization })
    }

    /// A call of this operator's.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    /// The claims that the operator's own token carries, as a JSON object. They are read, not
    /// verified: the server does that.
    pub(crate) fn claims(&self) -> Option<String> {
        let payload = self.token.split('.').nth(1)?;
        let bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&bytes).ok()?;
        Some(serde_json::Value::Object(claims).to_string())
    }
}

/// How a command ends that the server refused. `wrong` is the exit for a request that the server
/// found fault with.
pub(crate) fn refused(status: &Status, wrong: fn(String) -> Exit) -> Exit {
    let problem = from_status(status);
    let way_out = match problem.reason {
        Some(Reason::TokenInvalid) => {
            "; if another data directory's secret has signed it, make one for this server: \
             `lakesync token --data DIR --sub NAME --scope admin`"
        }
        Some(Reason::TokenExpired | Reason::ScopeMissing) => {
            "; `lakesync token --data DIR --sub NAME --scope admin` makes one that does"
        }
        Some(Reason::GatewayNotFound) => "; `lakesync gateways` lists those there are",
        _ => "",
    };
    let message = format!("{problem}{way_out}");
    match problem.kind {
        ErrorKind::Invalid => wrong(message),
        ErrorKind::Unauthenticated
        | ErrorKind::Denied
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists => Exit::usage(message),
        _ => Exit::unavailable(message),
    }
}

/// Asks a person at the terminal whether to go on. Where nobody can be asked, the answer is no, and
/// the error says that `--yes` goes on without asking.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Exit> {
    if yes {
        return Ok(());
    }
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Exit::usage("nothing was changed; --yes goes on without asking"));
    }
    let mut output = std::io::stderr();
    write!(output, "{question} [y/N] ")
        .and_then(|()| output.flush())
        .map_err(Exit::input_output)?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).map_err(Exit::input_output)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Exit::usage("nothing was changed")),
    }
}

//! An operator's connection to a server's AdminService.

use std::time::Duration;

use lakesync::proto::admin::v1::admin_service_client::AdminServiceClient;
use lakesync::status::from_status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::exit::Exit;
use crate::token::TOKEN_VARIABLE;

const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Which gateway an operator asks, and by what right. Beside it stands `--url`, without which both
/// say nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Caller {
    /// The gateway.
    #[arg(long, default_value = "main", requires = "url")]
    gateway: String,
    /// A token with the scope admin; without it, the environment variable LAKESYNC_TOKEN.
    #[arg(long, requires = "url")]
    token: Option<String>,
}

impl Caller {
    /// Who asks of no gateway, but of the server.
    pub(crate) fn of_server(token: Option<String>) -> Self {
        Self { gateway: String::new(), token }
    }
}

/// An open connection.
pub(crate) struct Operator {
    pub(crate) admin: AdminServiceClient<Channel>,
    pub(crate) gateway: String,
    authorization: MetadataValue<Ascii>,
}

impl Operator {
    pub(crate) async fn connect(url: String, caller: Caller) -> Result<Self, Exit> {
        let Caller { gateway, token } = caller;
        let token = token.or_else(|| std::env::var(TOKEN_VARIABLE).ok()).ok_or_else(|| {
            Exit::usage(format!(
                "a token is needed: --token TOKEN, or {TOKEN_VARIABLE}; `lakesync token --scope \
                 admin` makes one"
            ))
        })?;
        let authorization = format!("Bearer {}", token.trim()).parse();
        let authorization =
            authorization.map_err(|_| Exit::usage("the token holds characters of no header"))?;
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| Exit::usage(format!("{url}: {error}")))?
            .connect_timeout(CONNECT_MAX);
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Exit::unavailable(format!("{url}: {error}: {}", cause.unwrap_or_default()))
        })?;
        Ok(Self { admin: AdminServiceClient::new(channel), gateway, authorization })
    }

    /// A call of this operator's.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }
}

/// What the server said. Wrong rules are wrong whoever finds it out.
pub(crate) fn told(status: &Status) -> Exit {
    let problem = from_status(status);
    match status.code() {
        Code::InvalidArgument => Exit::config(problem),
        _ => Exit::unavailable(problem),
    }
}

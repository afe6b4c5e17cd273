//! A gateway in this very process: no socket, the same client.

use std::sync::Arc;

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};

use super::line::Line;
use super::motion::Meter;
use super::{Patience, Remote, Token};

/// Reaches the gateways of `service`: a generated `SyncServiceServer`, or a server's whole router.
/// A call that the service does not know is answered as unsupported by it.
pub fn local<S, B>(service: S, token: Option<Token>) -> Remote
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<StdError>,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    // Nothing is counted: no byte is ever on its way.
    let meter = Arc::new(Meter::default());
    Remote::new("the server", Line::new(service), meter, Patience::default().silent, token)
}

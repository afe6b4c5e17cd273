//! A service that carries gRPC calls, its type forgotten: a channel and an in-process server look
//! alike from here on.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Call = dyn Fn(Request) -> BoxFuture<'static, Result<Response, StdError>> + Send + Sync;

/// Carries calls to a server. Clones share the way.
#[derive(Clone)]
pub(super) struct Line(Arc<Call>);

impl Line {
    /// The line that `service` is.
    pub(super) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<StdError>,
        S::Future: Send,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        Self(Arc::new(move |request| {
            let mut service = service.clone();
            async move {
                poll_fn(|context| service.poll_ready(context)).await.map_err(Into::into)?;
                let response = service.call(request).await.map_err(Into::into)?;
                Ok(response.map(Body::new))
            }
            .boxed()
        }))
    }
}

impl Service<Request> for Line {
    type Response = Response;
    type Error = StdError;
    type Future = BoxFuture<'static, Result<Response, StdError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(())) // Each call waits for its own clone of the service.
    }

    fn call(&mut self, request: Request) -> Self::Future {
        (self.0)(request)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

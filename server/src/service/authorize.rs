//! The layer in front of every service: no call passes without the right it needs.
//!
//! It looks the method up in the table of rights, authenticates the caller, and leaves a
//! [`Principal`] with the request. A method that is not in the table is answered as if it did not
//! exist. Of a request that may pass no byte is read before its bounds are known.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::foreign::explain;
use super::metered::{Bounds, Metered};
use super::{NotOffered, Requests, refuse};
use crate::auth::{Access, AuthError, Authenticator, Principal, access, request_bounds};

/// Puts [`Authorize`] in front of services.
#[derive(Clone, Debug)]
pub struct AuthorizeLayer {
    auth: Arc<Authenticator>,
    requests: Arc<Requests>,
}

/// A service that only authorized calls reach.
#[derive(Clone, Debug)]
pub struct Authorize<S> {
    auth: Arc<Authenticator>,
    requests: Arc<Requests>,
    inner: S,
}

impl AuthorizeLayer {
    /// Authenticates callers with `auth`, and counts what their requests hold among `requests`.
    pub fn new(auth: Arc<Authenticator>, requests: Arc<Requests>) -> Self {
        Self { auth, requests }
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { auth: Arc::clone(&self.auth), requests: Arc::clone(&self.requests), inner }
    }
}

impl<S, B> Service<Request<B>> for Authorize<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let admitted = match access(request.uri().path()) {
            None => Err(refuse(NotOffered { method: "this method" })),
            Some(Access::Public) => Ok(None),
            Some(needed) => authorize(&self.auth, &request, needed).map(Some).map_err(refuse),
        };
        match admitted {
            Ok(principal) => {
                // A request can't bring a principal of its own.
                request.extensions_mut().remove::<Principal>();
                let held = self.requests.begin(principal.as_ref().map(Principal::subject));
                request.extensions_mut().extend(principal.map(extension).unwrap_or_default());
                request.extensions_mut().insert(Arc::clone(&held));
                let (bytes_max, is_stream) = request_bounds(request.uri().path());
                let stall_max = (!is_stream).then(|| self.requests.stall_max());
                let bounds = Bounds { bytes_max, stall_max };
                let request =
                    request.map(|body| Body::new(Metered::new(body, Arc::clone(&held), bounds)));
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let answer = answer.await.map(explain);
                    drop(held);
                    answer
                })
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

fn authorize<B>(
    auth: &Authenticator,
    request: &Request<B>,
    needed: Access,
) -> Result<Principal, AuthError> {
    let header = request.headers().get(AUTHORIZATION);
    let principal = auth.authenticate(header.map(|value| value.as_bytes()))?;
    principal.allow(needed, request.uri().path())?;
    Ok(principal)
}

fn extension(principal: Principal) -> http::Extensions {
    let mut extensions = http::Extensions::new();
    extensions.insert(principal);
    extensions
}

//! The layer in front of every service: no call passes without the right it needs.
//!
//! It looks the method up in the table of rights, authenticates the caller, and leaves a
//! [`Principal`] with the request. A method that is not in the table is
//! answered as if it did not exist.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::foreign::explain;
use super::{NotOffered, refuse};
use crate::auth::{Access, AuthError, Authenticator, Principal, access};

/// Puts [`Authorize`] in front of services.
#[derive(Clone, Debug)]
pub struct AuthorizeLayer {
    auth: Arc<Authenticator>,
}

/// A service that only authorized calls reach.
#[derive(Clone, Debug)]
pub struct Authorize<S> {
    auth: Arc<Authenticator>,
    inner: S,
}

impl AuthorizeLayer {
    /// Authenticates callers with `auth`.
    pub fn new(auth: Arc<Authenticator>) -> Self {
        Self { auth }
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { auth: Arc::clone(&self.auth), inner }
    }
}

impl<S, B> Service<Request<B>> for Authorize<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
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
                request.extensions_mut().extend(principal.map(extension).unwrap_or_default());
                let answer = self.inner.call(request);
                Box::pin(async move { answer.await.map(explain) })
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

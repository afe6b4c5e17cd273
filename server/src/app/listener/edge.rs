//! What every call passes first: it must be gRPC at all, it has a deadline if the client set one, and
//! it is counted.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::calls::{Answer, Call, Calls, Received};

/// The service of one connection.
#[derive(Clone, Debug)]
pub(super) struct Edge<S> {
    inner: S,
    calls: Arc<Calls>,
}

impl<S> Edge<S> {
    pub(super) fn new(inner: S, calls: Arc<Calls>) -> Self {
        Self { inner, calls }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if let Some(refusal) = not_grpc(request.method(), request.headers()) {
            return Box::pin(std::future::ready(Ok(refusal)));
        }
        let deadline = request.headers().get("grpc-timeout").and_then(timeout);
        let call = Call::begin(&self.calls);
        let request = request.map(|body| Body::new(Received::new(body, Arc::clone(&call))));
        let answering = self.inner.clone().oneshot(request);
        Box::pin(async move {
            let answer = match deadline {
                Some(deadline) => match tokio::time::timeout(deadline, answering).await {
                    Ok(answer) => answer,
                    Err(_) => return Ok(too_late()),
                },
                None => answering.await,
            };
            call.answered();
            answer.map(|answer| answer.map(|body| Body::new(Answer::new(body, call))))
        })
    }
}

/// The answer to what is no gRPC call, in the terms of HTTP.
fn not_grpc(method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
    let refusal = |status, name, value| {
        let mut refusal = Response::new(Body::empty());
        *refusal.status_mut() = status;
        refusal.headers_mut().insert(name, HeaderValue::from_static(value));
        Some(refusal)
    };
    if method != Method::POST {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, ALLOW, "POST");
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_grpc(kind) {
        let accept = http::HeaderName::from_static("accept-post");
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, accept, "application/grpc");
    }
    None
}

/// Whether a content type is gRPC's, with messages in Protocol Buffers.
fn is_grpc(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"]
        .iter()
        .any(|ours| kind.eq_ignore_ascii_case(ours))
}

/// The time that a client gives a call: at most eight digits, and a unit.
fn timeout(value: &HeaderValue) -> Option<Duration> {
    let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 60 * 60)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

fn too_late() -> Response<Body> {
    Status::deadline_exceeded("the call took longer than the client gave it").into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_is_grpc() {
        for kind in ["application/grpc", "application/grpc+proto", "Application/GRPC; x=y"] {
            assert!(is_grpc(kind), "{kind}");
        }
        for kind in ["", "application/json", "application/grpc-web", "application/grpc+json"] {
            assert!(!is_grpc(kind), "{kind:?}");
        }
    }

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        let read = |text: &'static str| timeout(&HeaderValue::from_static(text));
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for wrong in ["", "S", "1", "-1S", "+1S", "123456789S", "1x"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}

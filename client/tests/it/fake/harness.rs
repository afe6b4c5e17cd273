//! The fake behind a transport: in process, and over a socket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lakesync::proto::admin::v1::admin_service_server::AdminServiceServer;
use lakesync::proto::v1::sync_service_server::SyncServiceServer;
use lakesync_client::transport::conformance::Server;
use lakesync_client::transport::{self, Token, Transport};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic::server::NamedService;

use super::{Fake, TOKEN};

/// Both services of a fake behind one door.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    sync: SyncServiceServer<Fake>,
    admin: AdminServiceServer<Fake>,
}

impl Line {
    pub(crate) fn new(fake: &Fake) -> Self {
        // Replicas compress what they push.
        let sync =
            SyncServiceServer::new(fake.clone()).accept_compressed(CompressionEncoding::Zstd);
        Self { sync, admin: AdminServiceServer::new(fake.clone()) }
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let admin = <AdminServiceServer<Fake> as NamedService>::NAME;
        match request.uri().path().strip_prefix('/').is_some_and(|path| path.starts_with(admin)) {
            true => self.admin.call(request).boxed(),
            false => self.sync.call(request).boxed(),
        }
    }
}

/// A fake in this process.
pub(crate) async fn local() -> impl Server {
    InProcess(Fake::default())
}

#[derive(Debug)]
struct InProcess(Fake);

impl Server for InProcess {
    fn reach(&self, token: Token) -> Arc<dyn Transport> {
        Arc::new(transport::local(Line::new(&self.0), Some(token)))
    }

    fn token(&self) -> String {
        TOKEN.to_owned()
    }
}

/// A fake behind a socket of its own.
pub(crate) async fn socket() -> impl Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let line = Line::new(&Fake::default());
    tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(line, incoming));
    Socket(address)
}

#[derive(Debug)]
struct Socket(SocketAddr);

impl Server for Socket {
    fn reach(&self, token: Token) -> Arc<dyn Transport> {
        let url = format!("http://{}", self.0);
        Arc::new(transport::connect(&url, Some(token)).expect("a good URL"))
    }

    fn token(&self) -> String {
        TOKEN.to_owned()
    }
}

//! Both transports against the real server, by the suite that the client's own tests use.

use std::sync::Arc;
use std::time::Duration;

use lakesync::clock::{SystemClock, WallClock};
use lakesync_client::transport::conformance::Server;
use lakesync_client::transport::{self, Token, Transport};
use lakesync_server::app::App;
use lakesync_server::auth::Grant;
use lakesync_server::config::Texts;
use tempfile::TempDir;

mod local {
    lakesync_client::transport_conformance!(super::in_process);
}

mod grpc {
    lakesync_client::transport_conformance!(super::socket);
}

/// A server with a data directory of its own.
struct Running {
    reach: Box<dyn Fn(Token) -> Arc<dyn Transport> + Send + Sync>,
    token: String,
    /// A server that nobody holds stops.
    _app: Option<App>,
    _data: TempDir,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

impl Server for Running {
    fn reach(&self, token: Token) -> Arc<dyn Transport> {
        (self.reach)(token)
    }

    fn token(&self) -> String {
        self.token.clone()
    }
}

async fn start() -> (App, String, TempDir) {
    let data = tempfile::tempdir().expect("a folder");
    let mut config = Texts::defaults().parse().expect("the defaults");
    config.data = data.path().join("data");
    config.listen = "127.0.0.1:0".parse().expect("an address");
    config.ops_listen = None;
    let app = App::start(config).await.expect("starts");
    let grant = Grant {
        subject: "tester".to_owned(),
        scope: "sync admin".to_owned(),
        gateways: Vec::new(),
        claims: Default::default(),
        ttl: Duration::from_secs(3_600),
    };
    let token = grant.sign(app.secret(), SystemClock.now_ms()).expect("signs");
    (app, token, data)
}

async fn in_process() -> Running {
    let (app, token, data) = start().await;
    let service = app.local();
    let reach = move |token| -> Arc<dyn Transport> {
        Arc::new(transport::local(service.clone(), Some(token)))
    };
    Running { reach: Box::new(reach), token, _app: Some(app), _data: data }
}

async fn socket() -> Running {
    let (app, token, data) = start().await;
    let url = format!("http://{}", app.address());
    tokio::spawn(app.run(std::future::pending()));
    let reach = move |token| -> Arc<dyn Transport> {
        Arc::new(transport::connect(&url, Some(token)).expect("a good URL"))
    };
    Running { reach: Box::new(reach), token, _app: None, _data: data }
}

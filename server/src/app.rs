//! The server: built once in order, run, and drained in reverse.
//!
//! Sockets are bound before anything is said to be ready, and health tells the truth: it says
//! SERVING only while calls can succeed.

mod chores;
mod descriptors;
pub mod listener;
mod ops;
mod settings;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lakesync::clock::{SystemClock, WallClock};
use lakesync::proto::DESCRIPTORS;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::ServiceBuilder;

use self::descriptors::Shares;
use self::listener::{Bounds, Liveness, Places};
use crate::auth::{Authenticator, KeyError, Policy, SECRET_FILES, Secret};
use crate::config::Config;
use crate::flush::backends::{self, BadBackend};
use crate::flush::{Backend, Flush};
use crate::gateway::{Gateways, Planted, Settings};
use crate::service::{AuthorizeLayer, Requests, Services};
use crate::store::embedded::{EmbeddedStore, OpenError, Options};
use crate::store::{Store, StoreError};

/// How long the store may take to close, however little time there is to drain: it syncs once more,
/// and waits for threads that write tables.
const CLOSE_MIN: Duration = Duration::from_secs(5);

/// A server that is ready to run.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    ops_address: Option<SocketAddr>,
    listener: TcpListener,
    ops_listener: Option<TcpListener>,
    config: Config,
    secret: Secret,
    store: Arc<dyn Store>,
    gateways: Arc<Gateways>,
    flush: Arc<Flush>,
    auth: Arc<Authenticator>,
    clock: Arc<dyn WallClock>,
    health: HealthReporter,
    stop: watch::Sender<bool>,
    places: Arc<Places>,
    requests: Arc<Requests>,
}

/// Why a server did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory can't be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The secret can't be used.
    #[error(transparent)]
    Secret(#[from] KeyError),
    /// A backend can't be used as configured.
    #[error(transparent)]
    Backend(#[from] BadBackend),
    /// An address can't be listened on.
    #[error("{setting} = {address}: {source}{}", way_out(.source, .setting))]
    Bind {
        /// Which setting gave the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// What to do about an address that can't be listened on, if that is known.
fn way_out(error: &io::Error, setting: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let flag = setting.replace('_', "-");
            format!("; stop whoever listens there, or use --{flag} with another address")
        }
        _ => String::new(),
    }
}

/// Why a running server stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store failed. A restart recovers what is on the disk.
    #[error("stopped: {0}")]
    Store(StoreError),
    /// The store did not close in time: a disk hangs.
    #[error(
        "stopped, but the data directory was not closed within {} s: its disk hangs, or is slow; \
         nothing that was answered is lost", .0.as_secs()
    )]
    Hangs(Duration),
    /// The listener failed.
    #[error("stopped listening: {0}")]
    Listener(String),
}

/// What a server is made of beside its settings.
#[derive(Debug)]
pub struct Parts {
    /// Where gateways are kept.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn WallClock>,
    /// What gateways are flushed to.
    pub backends: Vec<Backend>,
    /// A bug to suffer from, if any.
    pub planted: Option<Arc<Planted>>,
}

/// The bound addresses.
struct Sockets {
    listener: TcpListener,
    ops_listener: Option<TcpListener>,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        let listener = bind("listen", config.listen).await?;
        let ops_listener = match config.ops_listen {
            Some(address) => Some(bind("ops_listen", address).await?),
            None => None,
        };
        Ok(Self { listener, ops_listener })
    }
}

/// Why a listener that was not told to stop has ended.
fn ending(served: Result<(), tokio::task::JoinError>) -> String {
    match served {
        Ok(()) => "it ended by itself".to_owned(),
        Err(error) => error.to_string(),
    }
}

impl App {
    /// Opens the data directory and binds the addresses.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        descriptors::raise();
        let options = Options {
            table_files: Shares::of_process().table_files,
            disk_reserve_bytes: config.disk_reserve_bytes,
            // `lakesync token` may have been here before the first start.
            companions: SECRET_FILES.map(str::to_owned).into(),
            ..Options::default()
        };
        // What can fail without a trace comes first: a taken port must not make a directory.
        let clock: Arc<dyn WallClock> = Arc::new(SystemClock);
        let backends = backends::build(&config.backends, &clock)?;
        let sockets = Sockets::bind(&config).await?;
        Secret::load(&config.data)?;
        let data = config.data.clone();
        let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&data, options));
        let store = opened.await.expect("BUG: opening the store panicked")?;
        let parts = Parts { store: Arc::new(store), clock, backends, planted: None };
        let app = Self::build(config, sockets, parts)?;
        app.flush.greet().await;
        Ok(app)
    }

    /// Like [`start`](App::start), of parts of the caller's.
    pub async fn start_of(config: Config, parts: Parts) -> Result<Self, StartError> {
        let sockets = Sockets::bind(&config).await?;
        Self::build(config, sockets, parts)
    }

    fn build(config: Config, sockets: Sockets, parts: Parts) -> Result<Self, StartError> {
        let Parts { store, clock, backends, planted } = parts;
        let Sockets { listener, ops_listener } = sockets;
        let secret = Secret::load_or_create(&config.data)?;
        let Config { auth_audience: audience, auth_issuer: issuer, .. } = config.clone();
        let auth = Authenticator::new(&secret, &Policy { audience, issuer }, Arc::clone(&clock));
        let flush = Arc::new(Flush::new(backends, Arc::clone(&clock)));
        let (backends, capacity) = (flush.names(), flush.capacity());
        let settings = Settings { planted, backends, capacity, ..settings::of_gateways(&config) };
        let gateways = Arc::new(Gateways::new(Arc::clone(&store), Arc::clone(&clock), settings));
        // Before anybody can open a gateway: one that opens earlier would not be flushed.
        flush.attach(&gateways);
        let places = Places::new(bounds(&config));
        let requests_bytes = usize::try_from(config.requests_bytes_max).unwrap_or(usize::MAX);
        let requests = Requests::new(requests_bytes, config.request_stall_max);
        let bound = |listener: &TcpListener| {
            listener.local_addr().expect("BUG: a bound listener has an address")
        };
        Ok(Self {
            address: bound(&listener),
            ops_address: ops_listener.as_ref().map(bound),
            listener,
            ops_listener,
            config,
            secret,
            store,
            gateways,
            flush,
            auth: Arc::new(auth),
            clock,
            health: HealthReporter::new(),
            stop: watch::Sender::new(false),
            places: Arc::new(places),
            requests: Arc::new(requests),
        })
    }

    /// Where the gRPC services listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the operators' pages listen, if anywhere.
    pub fn ops_address(&self) -> Option<SocketAddr> {
        self.ops_address
    }

    /// All gateways.
    pub fn gateways(&self) -> Arc<Gateways> {
        Arc::clone(&self.gateways)
    }

    /// The secret that signs development tokens.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Our services behind their authorization, as one tower service: what the listener serves, for
    /// callers in the same process.
    pub fn local(&self) -> crate::service::Authorize<Routes> {
        tower::Layer::layer(&self.authorize(), self.services().routes())
    }

    /// Serves until `signal`, then drains: streams end, calls under way finish, all is durable. An
    /// error means that the server could not go on; what was answered is durable all the same.
    pub async fn run(self, signal: impl Future<Output = ()>) -> Result<(), RunError> {
        let routes = self.routes().await;
        let service = ServiceBuilder::new()
            .layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked))
            .layer(self.authorize())
            .service(routes.prepare());
        let liveness = Liveness {
            ping_interval: self.config.ping_interval,
            ping_timeout: self.config.ping_timeout,
        };
        let (places, stopping) = (Arc::clone(&self.places), self.stop.subscribe());
        let serving = listener::serve(self.listener, service, places, liveness, stopping);
        let mut serving = tokio::spawn(serving);
        let ops = self.ops_listener.map(|listener| {
            let figures = ops::Figures {
                gateways: Arc::clone(&self.gateways),
                places: Arc::clone(&self.places),
                requests: Arc::clone(&self.requests),
            };
            tokio::spawn(ops::serve(listener, figures, self.stop.subscribe()))
        });
        self.flush.resume(&self.gateways);
        let chores = tokio::spawn(chores::run(Arc::clone(&self.gateways), self.stop.subscribe()));

        let outcome = tokio::select! {
            () = signal => Ok(()),
            error = self.store.failed() => Err(RunError::Store(error)),
            served = &mut serving => Err(RunError::Listener(ending(served))),
        };
        tracing::info!("stopping");
        set_health(&self.health, ServingStatus::NotServing).await;
        // One deadline for all of it.
        let deadline = Instant::now() + self.config.drain_max;
        self.stop.send_replace(true);
        if !serving.is_finished() && timeout_at(deadline, &mut serving).await.is_err() {
            tracing::warn!("calls were still under way when the time to drain ran out");
            serving.abort();
        }
        if let Some(ops) = ops {
            ops.abort();
        }
        // A write to a backend that is cut off here is settled when flushing begins again.
        let _ = timeout_at(deadline, self.flush.stop()).await;
        if outcome.is_ok() {
            // A store that failed has nothing more to make durable.
            let _ = timeout_at(deadline, self.gateways.close()).await;
        }
        chores.abort();
        outcome.and(close(self.store.as_ref(), deadline).await)
    }

    fn authorize(&self) -> AuthorizeLayer {
        AuthorizeLayer::new(Arc::clone(&self.auth), Arc::clone(&self.requests))
    }

    async fn routes(&self) -> Routes {
        set_health(&self.health, ServingStatus::Serving).await;
        let health = tonic_health::server::HealthService::from_health_reporter(self.health.clone());
        let health = tonic_health::pb::health_server::HealthServer::new(health);
        let routes = self.services().routes().add_service(health);
        if !self.config.reflection {
            return routes;
        }
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // What stands in the details of every refusal: ErrorInfo, RetryInfo, BadRequest.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let broken = "BUG: our own descriptors do not parse";
        routes
            .add_service(describe().build_v1().expect(broken))
            .add_service(describe().build_v1alpha().expect(broken))
    }

    fn services(&self) -> Services {
        Services {
            gateways: Arc::clone(&self.gateways),
            flush: Arc::clone(&self.flush),
            clock: Arc::clone(&self.clock),
            limits: settings::limits(&self.config),
            shutdown: self.stop.subscribe(),
        }
    }
}

/// Closes the store. What hangs now was never answered; whoever waits for this process must not hang
/// as well.
async fn close(store: &dyn Store, deadline: Instant) -> Result<(), RunError> {
    let began = Instant::now();
    let deadline = deadline.max(began + CLOSE_MIN);
    match timeout_at(deadline, store.close()).await {
        Ok(closed) => closed.map_err(RunError::Store),
        Err(_) => Err(RunError::Hangs(deadline - began)),
    }
}

/// How many connections are accepted.
fn bounds(config: &Config) -> Bounds {
    let all = Shares::of_process().connections(config.connections_max);
    let each_address = match usize::try_from(config.address_connections_max) {
        Ok(0) => all.div_ceil(2),
        Ok(wanted) => wanted.min(all),
        Err(_) => all,
    };
    tracing::info!("connections: {all} at most, {each_address} from one address");
    Bounds { all, each_address }
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Bind { setting, address, source })
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    use lakesync::proto::admin::v1::admin_service_server::SERVICE_NAME as ADMIN;
    let sync = lakesync::proto::v1::sync_service_server::SERVICE_NAME;
    for name in ["", sync, ADMIN] {
        health.set_service_status(name, status).await;
    }
}

/// A handler that panicked answers like any other bug; the others go on.
fn panicked(cause: Box<dyn std::any::Any + Send>) -> http::Response<tonic::body::Body> {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let cause = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    tracing::error!(cause, "a handler panicked");
    lakesync::status::to_status(&Panicked).into_http()
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct Panicked;

impl lakesync::error::Classify for Panicked {
    fn reason(&self) -> lakesync::error::Reason {
        lakesync::error::Reason::Bug
    }
}

#[cfg(test)]
mod tests;

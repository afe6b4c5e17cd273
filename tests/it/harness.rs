//! A server for each test, with a store, a clock and settings of its own, and raw clients that talk
//! to it over real gRPC.
//!
//! Time stands still at [`NOW_MS`] unless a test turns the clock: nothing here waits for time.

pub(crate) mod backend;
pub(crate) mod changes;
pub(crate) mod client;
pub(crate) mod counting;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod replica;
pub(crate) mod slow;
pub(crate) mod state;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lakesync::adapter::Adapter;
use lakesync::clock::{ManualClock, WallClock};
use lakesync::name::Gateway;
use lakesync_server::app::{App, Parts, RunError};
use lakesync_server::auth::{Grant, Secret};
use lakesync_server::config::{Config, Texts};
use lakesync_server::flush::{Backend, Policy, backends};
use lakesync_server::gateway::{Bug, Planted};
use lakesync_server::store::Store;
use lakesync_server::store::embedded::{EmbeddedStore, Options};
use serde_json::Map;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) use client::Client;
pub(crate) use replica::Replica;

/// What time it is.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;
/// The gateway that tests use.
pub(crate) const MAIN: &str = "main";
/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What servers of one test share, so that one can follow another.
pub(crate) struct Setup {
    dir: Arc<TempDir>,
    store: Option<Arc<dyn Store>>,
    pub(crate) clock: Arc<ManualClock>,
    settings: Vec<(&'static str, String)>,
    tuned: Vec<Tuning>,
    planted: Option<Arc<Planted>>,
    backends: Vec<Backend>,
    check_every: Duration,
}

/// A change of settings.
type Tuning = Box<dyn Fn(&mut Config) + Send + Sync>;

/// A server that runs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    clock: Arc<ManualClock>,
    secret: Secret,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), RunError>>,
    /// The data directory stays for as long as anybody may use it.
    _dir: Arc<TempDir>,
}

impl Setup {
    /// A fresh data directory, in which the embedded engine keeps its state.
    pub(crate) fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let (settings, tuned) = (Vec::new(), Vec::new());
        let (backends, check_every) = (Vec::new(), Policy::default().check_every);
        Self { dir, store: None, clock, settings, tuned, planted: None, backends, check_every }
    }

    /// The same data directory and settings, and no backend.
    pub(crate) fn again(other: &Self) -> Self {
        let (dir, clock) = (Arc::clone(&other.dir), Arc::clone(&other.clock));
        Self { dir, clock, settings: other.settings.clone(), ..Self::new() }
    }

    /// From now on servers keep their state in `store`.
    pub(crate) fn on(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// A setting, as a flag would give it.
    pub(crate) fn set(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    /// A setting beyond what a flag may give, so that a test reaches a limit soon.
    pub(crate) fn tune(mut self, change: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        self.tuned.push(Box::new(change));
        self
    }

    /// A bug for servers to suffer from.
    pub(crate) fn plant(mut self, bug: Bug) -> Self {
        self.planted = Some(Arc::new(Planted::new(bug)));
        self
    }

    /// How often the backends that follow are asked how far they are while nothing is pushed.
    pub(crate) fn checking_every(self, check_every: Duration) -> Self {
        Self { check_every, ..self }
    }

    /// A backend that servers flush every gateway to, at once.
    pub(crate) fn flush_to(self, name: &str, adapter: impl Adapter + Clone) -> Self {
        self.flush_each_to(name, move |_| adapter.clone())
    }

    /// The same, with an adapter for each gateway.
    pub(crate) fn flush_each_to<A: Adapter>(
        mut self,
        name: &str,
        open: impl Fn(&Gateway) -> A + Send + Sync + 'static,
    ) -> Self {
        let check_every = self.check_every;
        let policy = Policy { age: Duration::ZERO, check_every, ..Policy::default() };
        self.backends.push(Backend::new(name, policy, move |gateway| Ok(Arc::new(open(gateway)))));
        self
    }

    /// The backends of these settings, as a file would have them.
    pub(crate) fn flush_to_settings(mut self, toml: &str) -> Self {
        let file = self.dir.path().join("lakesync.toml");
        std::fs::write(&file, toml).expect("written");
        let texts = Texts::defaults().file(&file).expect("a good file");
        let config = texts.parse().expect("good settings").backends;
        let clock: Arc<dyn WallClock> = Arc::clone(&self.clock) as Arc<dyn WallClock>;
        self.backends.extend(backends::build(&config, &clock).expect("good backends"));
        self
    }

    /// Starts a server on what the last one left.
    pub(crate) async fn start(&self) -> Server {
        let config = self.config();
        let store = match &self.store {
            Some(store) => Arc::clone(store),
            None => open(&config.data, config.disk_reserve_bytes).await,
        };
        let clock = Arc::clone(&self.clock);
        let (backends, planted) = (self.backends.clone(), self.planted.clone());
        let app = App::start_of(config, Parts { store, clock, backends, planted }).await;
        let app = app.expect("a server that starts");
        let (address, secret) = (app.address(), app.secret().clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(app.run(async move {
            // A test that ends without a word stops its server as well.
            let _ = stopped.await;
        }));
        let (clock, dir) = (Arc::clone(&self.clock), Arc::clone(&self.dir));
        Server { address, clock, secret, stop, running, _dir: dir }
    }

    /// Starts a server and makes the gateway [`MAIN`] with the tables of [`changes::tables`].
    pub(crate) async fn start_with_tables(&self) -> Server {
        let server = self.start().await;
        let mut admin = server.client("operator").await;
        admin.create_gateway(MAIN).await.expect("created");
        admin.put_schema(changes::tables()).await.expect("installed");
        server
    }

    /// Where the servers keep their state.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn config(&self) -> Config {
        let data = self.data().display().to_string();
        let own = [("listen", "127.0.0.1:0".to_owned()), ("data", data)];
        let given = own.into_iter().chain(self.settings.clone());
        let flags = given.map(|(name, value)| (name, Some(value)));
        let parsed = Texts::defaults().flags(flags).and_then(|texts| texts.parse());
        let mut config = parsed.expect("legal settings");
        self.tuned.iter().for_each(|change| change(&mut config));
        config
    }
}

/// Opens the embedded engine on a directory.
pub(crate) async fn open(data: &Path, disk_reserve_bytes: u64) -> Arc<dyn Store> {
    let data = data.to_owned();
    let options = Options { disk_reserve_bytes, ..Options::default() };
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&data, options));
    Arc::new(opened.await.expect("no panic").expect("a directory that opens"))
}

impl Server {
    /// A replica's connection, with all rights on all gateways. Its subject is its id.
    pub(crate) async fn client(&self, id: &str) -> Client {
        Client::connect(self.address, id, &self.token(&grant(id, "sync admin"))).await
    }

    /// A connection that shows `token`.
    pub(crate) async fn client_with(&self, id: &str, token: &str) -> Client {
        Client::connect(self.address, id, token).await
    }

    /// Signs a token.
    pub(crate) fn token(&self, grant: &Grant) -> String {
        grant.sign(&self.secret, self.clock.now_ms()).expect("a token")
    }

    /// Tells the server to stop, and waits until it has.
    pub(crate) async fn stop(self) -> Result<(), RunError> {
        // One that failed has stopped already.
        let _ = self.stop.send(());
        within(self.running).await.expect("no panic")
    }

    /// Waits for a server that stops by itself.
    pub(crate) async fn stopped(self) -> Result<(), RunError> {
        within(self.running).await.expect("no panic")
    }
}

/// What a token grants: `scope`, on all gateways, for an hour.
pub(crate) fn grant(subject: &str, scope: &str) -> Grant {
    Grant {
        subject: subject.to_owned(),
        scope: scope.to_owned(),
        gateways: Vec::new(),
        claims: Map::new(),
        ttl: Duration::from_secs(60 * 60),
    }
}

/// A grant that opens one gateway only.
pub(crate) fn grant_for(subject: &str, scope: &str, gateway: &str) -> Grant {
    let gateway: Gateway = gateway.parse().expect("a legal name");
    Grant { gateways: vec![gateway], ..grant(subject, scope) }
}

/// What `work` comes to. A test fails rather than hang.
#[track_caller]
pub(crate) fn within<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(output) => output,
            Err(_) => panic!("nothing within {PATIENCE:?} at {caller}"),
        }
    }
}

/// Waits until something is so that nobody announces.
#[track_caller]
pub(crate) fn until(so: impl Fn() -> bool) -> impl Future<Output = ()> {
    within(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        while !so() {
            ticks.tick().await;
        }
    })
}

/// Whether what this machine lacks is a failure: it is where nothing may be skipped.
pub(crate) fn is_required() -> bool {
    std::env::var("LAKESYNC_TEST_REQUIRED").is_ok_and(|value| value == "1")
}

/// Says that a test did not run, and fails where nothing may be skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn skip(why: &str) {
    assert!(!is_required(), "required, and missing: {why}");
    eprintln!("skipped: {why}");
}

/// The code and the reason of a refusal. Each carries one `ErrorInfo` of our domain.
#[track_caller]
pub(crate) fn refusal(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "lakesync", "{status:?}");
    (status.code(), info.reason.clone())
}

/// Checks what a call was refused with.
#[track_caller]
pub(crate) fn assert_refused<T>(answer: Result<T, Status>, code: Code, reason: &str) -> Status {
    let Err(status) = answer else { panic!("{reason} was wanted; it was let through") };
    assert_eq!(refusal(&status), (code, reason.to_owned()), "{status:?}");
    status
}

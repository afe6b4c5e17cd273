//! Draining takes the time it was given, once, and says what did not end.

use lakesync::clock::ManualClock;
use lakesync::name::Gateway;

use super::*;
use crate::config::Texts;
use crate::store::memory::MemoryStore;

/// What a server on `store` says when it is stopped, and how long that took. Time is virtual.
async fn stopped(store: &MemoryStore, drain_max: &str) -> (Result<(), RunError>, Duration) {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().display().to_string();
    let given = [("data", &*data), ("listen", "127.0.0.1:0"), ("drain_max", drain_max)];
    let flags = given.map(|(name, value)| (name, Some(value.to_owned())));
    let config = Texts::defaults().flags(flags).and_then(|texts| texts.parse()).expect("settings");
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let parts =
        Parts { store: Arc::new(store.clone()), clock, backends: Vec::new(), planted: None };
    let app = App::start_of(config, parts).await.expect("a server");
    let name: Gateway = "main".parse().expect("a name");
    app.gateways().create(&name).await.expect("created");
    let gateway = app.gateways().get(&name).await.expect("open");
    let began = Instant::now();
    let outcome = app
        .run(async {
            // A change that waits for the disk when the server is told to stop.
            tokio::spawn(async move { gateway.put_schema(vec![table()], false).await });
            tokio::task::yield_now().await;
        })
        .await;
    (outcome, began.elapsed())
}

fn table() -> lakesync::schema::Proposal {
    lakesync::schema::Proposal {
        table: "todos".parse().expect("legal"),
        key: "id".parse().expect("legal"),
        columns: Vec::new(),
        primary_key: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthy_server_stops_well_in_no_time() {
    let (outcome, took) = stopped(&MemoryStore::new(), "0s").await;
    outcome.expect("stopped as asked");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_keeps_a_stopping_server_once() {
    for (drain_max, expected) in [("0s", 5), ("20s", 25), ("1m", 65)] {
        let store = MemoryStore::new();
        let hangs = store.clone();
        let stopping = stopped(&store, drain_max);
        let held = async move {
            // Once the gateway is open, nothing becomes durable any more.
            let name: Gateway = "main".parse().expect("a name");
            while hangs.gateway(&name).await.expect("asked").is_none() {
                tokio::task::yield_now().await;
            }
            hangs.hold();
        };
        let ((outcome, took), ()) = tokio::join!(stopping, held);
        let Err(RunError::Hangs(waited)) = outcome else { panic!("{drain_max}: {outcome:?}") };
        assert_eq!(waited, Duration::from_secs(5), "{drain_max}");
        assert_eq!(took.as_secs(), expected, "{drain_max}");
    }
}

#[test]
fn a_busy_address_says_what_to_do() {
    let address = SocketAddr::from(([127, 0, 0, 1], 7461));
    let error = |setting, kind: io::ErrorKind| {
        StartError::Bind { setting, address, source: kind.into() }.to_string()
    };
    let busy = error("ops_listen", io::ErrorKind::AddrInUse);
    assert!(busy.ends_with("or use --ops-listen with another address"), "{busy}");
    assert!(!error("listen", io::ErrorKind::PermissionDenied).contains(';'));
}

//! Gateways in one process: opened on demand and closed when idle, thousands of them, and never with
//! two writers, whatever happens to one at the same moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use lakesync::clock::ManualClock;
use lakesync::name::{Gateway as Name, LogId, Position};
use lakesync::schema::Proposal;
use lakesync::wire::Offer;
use lakesync_server::gateway::{Caller, Gateway, Gateways, PushError, Settings};
use lakesync_server::store::memory::MemoryStore;
use lakesync_server::store::{Store, StoreError};
use tokio::task::JoinSet;

use crate::harness::changes::{at, upsert};
use crate::harness::{NOW_MS, within};

fn on(store: &MemoryStore) -> Arc<Gateways> {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    Arc::new(Gateways::new(Arc::new(store.clone()), clock, Settings::default()))
}

fn name(nth: usize) -> Name {
    format!("g-{nth}").parse().expect("a legal name")
}

async fn create(gateways: &Gateways, name: &Name) {
    gateways.create(name).await.expect("created");
    let column = ("title".parse().expect("legal"), lakesync::schema::ColumnType::String);
    let proposal = Proposal {
        table: "todos".parse().expect("legal"),
        key: "id".parse().expect("legal"),
        columns: vec![column],
        primary_key: Vec::new(),
    };
    let gateway = gateways.get(name).await.expect("open");
    // It may be deleted again by now.
    let _ = gateway.put_schema(vec![proposal], false).await;
}

/// Pushes one change of a row that no other push changes.
async fn push(gateway: &Gateway, client: &str, nth: u64) -> Result<Position, PushError> {
    let delta = upsert(client, at(nth), &format!("todos/{client}-{nth}"), &[("title", "x")]);
    let offer = Offer { table: 0, row: 0, delta: Ok(delta) };
    let client = client.parse().expect("legal");
    let ack = gateway.push(&Caller::of("ann"), client, vec![offer], false, 100).await?;
    Ok(ack.position)
}

/// How many gateways; ten thousand take some seconds.
fn many() -> usize {
    let wished = std::env::var("LAKESYNC_GATEWAYS").ok();
    wished.map_or(10_000, |text| text.parse().expect("LAKESYNC_GATEWAYS is a number"))
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a figure for whoever asks for more of them")]
async fn ten_thousand_gateways_open_on_demand_and_close_when_idle() {
    let (store, many, began) = (MemoryStore::new(), many(), Instant::now());
    let gateways = on(&store);
    for nth in 0..many {
        create(&gateways, &name(nth)).await;
    }
    assert_eq!(gateways.usage().open, many);
    let used = gateways.get(&name(many / 2)).await.expect("open");
    gateways.close_idle().await;
    assert_eq!(gateways.usage().open, 1, "only the one in use stays");
    drop(used);
    gateways.close_idle().await;
    assert_eq!(gateways.usage().open, 0);
    for nth in 0..many {
        let gateway = gateways.get(&name(nth)).await.expect("opened on demand");
        assert_eq!(push(&gateway, "ann", 1).await.expect("answered"), Position(1));
        if nth % 100 == 99 {
            drop(gateway);
            gateways.close_idle().await;
            assert_eq!(gateways.usage().open, 0, "after {nth}");
        }
    }
    gateways.close().await;
    // All of it is there for whoever opens them next.
    let gateways = on(&store);
    for nth in (0..many).step_by(97) {
        let stats = gateways.get(&name(nth)).await.expect("open").stats().expect("figures");
        assert_eq!((stats.head, stats.rows), (Position(1), 1), "gateway {nth}");
    }
    eprintln!("{many} gateways: {:.1?}", began.elapsed());
}

/// What was answered, by the life of the log that answered.
type Answered = HashMap<LogId, BTreeSet<Position>>;

const PUSHERS: usize = 6;
const PUSHES: u64 = 250;
/// Gateways that stay, and those that are deleted and made again all the time.
const KEPT: usize = 2;
const VOLATILE: usize = 2;

/// Pushes until enough was answered. Others close and delete gateways meanwhile.
async fn push_on(gateways: Arc<Gateways>, nth: usize) -> Answered {
    let (client, mut answered, mut row) = (format!("p{nth}"), Answered::new(), 0);
    while row < PUSHES {
        row += 1;
        let target = name((row as usize + nth) % (KEPT + VOLATILE));
        let Ok(gateway) = gateways.get(&target).await else { continue };
        match push(&gateway, &client, row).await {
            // A change that was refused, because the new life has no tables yet, has no position.
            Ok(Position::START) => {}
            Ok(position) => {
                let life = answered.entry(gateway.record().log_id).or_default();
                assert!(life.insert(position), "{client} was told {position} twice");
            }
            Err(PushError::Stopped | PushError::Store(StoreError::NotFound)) => {}
            Err(error) => panic!("{target}: {error}"),
        }
    }
    answered
}

/// Does something again and again until it is told to stop.
fn again<F: Future + Send + 'static>(
    stop: &Arc<AtomicBool>,
    mut step: impl FnMut() -> F + Send + 'static,
) -> tokio::task::JoinHandle<()>
where
    F::Output: Send,
{
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            step().await;
            tokio::task::yield_now().await;
        }
    })
}

/// Pushes, closing, deleting and creating race for the same gateways. A second writer would give a
/// position out twice, or trip over the store's own check that entries follow the head.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_races_no_gateway_has_two_writers_and_nothing_answered_is_lost() {
    let store = MemoryStore::new();
    let gateways = on(&store);
    for nth in 0..KEPT + VOLATILE {
        create(&gateways, &name(nth)).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut others = Vec::new();
    for _ in 0..2 {
        let gateways = Arc::clone(&gateways);
        others.push(again(&stop, move || {
            let gateways = Arc::clone(&gateways);
            async move { gateways.close_idle().await }
        }));
    }
    for nth in KEPT..KEPT + VOLATILE {
        let gateways = Arc::clone(&gateways);
        others.push(again(&stop, move || {
            let gateways = Arc::clone(&gateways);
            async move {
                gateways.delete(&name(nth)).await.expect("deleted");
                create(&gateways, &name(nth)).await;
            }
        }));
    }
    let mut pushing = JoinSet::new();
    for nth in 0..PUSHERS {
        pushing.spawn(push_on(Arc::clone(&gateways), nth));
    }
    let mut answered = Answered::new();
    for (life, positions) in within(pushing.join_all()).await.into_iter().flatten() {
        for position in positions {
            let new = answered.entry(life).or_default().insert(position);
            assert!(new, "{position} of {life:?} was given out twice");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for other in others {
        within(other).await.expect("no panic");
    }
    assert!(10 < answered.len(), "too few lives: {}", answered.len());
    check(&store, &answered).await;
}

/// Whoever opens the gateways next finds everything that was answered in the lives that go on.
async fn check(store: &MemoryStore, answered: &Answered) {
    let gateways = on(store);
    for nth in 0..KEPT + VOLATILE {
        let gateway = gateways.get(&name(nth)).await.expect("open");
        let record = gateway.record();
        let log = store.log(record.id, Position::START, usize::MAX).await.expect("read");
        let log: BTreeSet<_> = log.into_iter().map(|entry| entry.position).collect();
        let told = answered.get(&record.log_id).cloned().unwrap_or_default();
        assert!(told.is_subset(&log), "gateway {nth} lost {:?}", told.difference(&log));
        // Nobody gave up a push to a gateway that stays, so each was answered.
        assert!(nth >= KEPT || told == log, "gateway {nth} holds what nobody was told of");
        assert_eq!(gateway.stats().expect("figures").rows, log.len() as u64);
    }
}

//! The gateway on the in-memory store: durability before visibility, paging, following, resuming.

use std::collections::HashSet;
use std::task::Poll;

use futures_util::StreamExt;
use lakesync::clock::ManualClock;
use lakesync::delta::Delta;
use lakesync::name::{ColumnName, RowId, TableName};
use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{PullResponse, checkpoint_response};
use lakesync::row::Row;
use lakesync::schema::ColumnType;
use lakesync::testing;
use lakesync::wire::{Arrival, Incoming, decode_changes};

use super::cursor::CursorError;
use super::*;
use crate::store::memory::MemoryStore;

mod kept;
mod readers;
mod rules;
mod scope;
mod whole;

const WALL_MS: u64 = 1_700_000_000_000;

fn caller() -> Caller {
    Caller::of("ann")
}

struct Bench {
    gateways: Gateways,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    stop: watch::Sender<bool>,
}

impl Bench {
    async fn new(settings: Settings) -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::at(WALL_MS));
        let gateways =
            Gateways::new(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&clock) as _, settings);
        gateways.create(&"main".parse().expect("legal")).await.expect("created");
        let bench = Self { gateways, store, clock, stop: watch::Sender::new(false) };
        let column = |name: &str| (ColumnName::parse(name).expect("legal"), ColumnType::String);
        let proposal = Proposal {
            table: "todos".parse().expect("legal"),
            key: "id".parse().expect("legal"),
            columns: vec![column("title"), column("done")],
            primary_key: Vec::new(),
        };
        bench.main().await.put_schema(vec![proposal], false).await.expect("installed");
        bench
    }

    async fn main(&self) -> Gateway {
        self.gateways.get(&"main".parse().expect("legal")).await.expect("open")
    }

    fn stopped(&self) -> Stopped {
        Stopped { expires_ms: WALL_MS + 3_600_000, shutdown: self.stop.subscribe() }
    }

    async fn push(&self, client: &str, deltas: &[Delta]) -> Result<Ack, PushError> {
        let offers =
            (0..).zip(deltas).map(|(row, delta)| Offer { table: 0, row, delta: Ok(delta.clone()) });
        let client = client.parse().expect("legal");
        self.main().await.push(&caller(), client, offers.collect(), false, 100).await
    }

    async fn pull(&self, options: PullOptions) -> Result<Answers<PullResponse>, ReadError> {
        self.main().await.pull(&caller(), options, self.stopped()).await
    }

    /// Pulls to the head: the rows that arrived, and the last cursor.
    async fn pull_all(&self, cursor: &str) -> (Vec<Arrival>, String) {
        let options = PullOptions { cursor: cursor.to_owned(), ..PullOptions::default() };
        let (mut arrivals, mut cursor) = (Vec::new(), cursor.to_owned());
        let mut answers = self.pull(options).await.expect("a good cursor");
        while let Some(answer) = answers.next().await {
            match answer.expect("no failure").event.expect("an event") {
                Event::Page(page) => arrivals.extend(decode_changes(page.tables).expect("whole")),
                Event::CaughtUp(caught_up) => cursor = caught_up.cursor,
                Event::Heartbeat(_) => {}
            }
        }
        (arrivals, cursor)
    }
}

/// A change of the row `id`, from the short form of the fixtures, whose times count from now.
fn change(id: &str, text: &str) -> Delta {
    let mut delta = testing::delta(text);
    delta.row_id = id.parse().expect("legal");
    delta.stamp.hlc = Hlc(Hlc::from_ms(WALL_MS).0 + delta.stamp.hlc.0);
    delta
}

fn shown(arrivals: &[Arrival]) -> Vec<String> {
    let mut rows = std::collections::BTreeMap::<RowId, Row>::new();
    for arrival in arrivals {
        let Incoming::Join(part) = &arrival.what else { panic!("no exit was sent") };
        rows.entry(arrival.row_id.clone()).or_default().join(part);
    }
    rows.iter().map(|(id, row)| format!("{id}: {}", testing::shown(row))).collect()
}

#[tokio::test]
async fn the_queue_counts_what_pushes_take_in_memory() {
    let settings = Settings { queue_bytes_max: 16 << 20, ..Settings::default() };
    let bench = Bench::new(settings).await;
    bench.store.hold();
    let rows: Vec<_> = (0..5_000).map(|nth| change(&nth.to_string(), "ann@1 title=milk")).collect();
    let offers = rows.iter().map(|delta| Offer { table: 0, row: 0, delta: Ok(delta.clone()) });
    let memory: usize = offers.map(|offer| offer.memory_bytes()).sum();
    // The table's name is shared; all else is each change's own.
    let least = size_of::<Offer>() + size_of::<lakesync::delta::Cell>();
    assert!(5_000 * least < memory, "{memory}");
    let mut pushes = Vec::new();
    // The bench says that each request has a hundred bytes.
    loop {
        let gateway = bench.main().await;
        let offers: Vec<_> = (0..)
            .zip(&rows)
            .map(|(row, delta)| Offer { table: 0, row, delta: Ok(delta.clone()) })
            .collect();
        let push = async move {
            gateway.push(&caller(), "ann".parse().expect("legal"), offers, false, 100).await
        };
        let mut push = Box::pin(push);
        match std::future::poll_fn(|context| Poll::Ready(push.as_mut().poll(context))).await {
            Poll::Pending => pushes.push(push),
            Poll::Ready(answer) => {
                assert!(matches!(answer, Err(PushError::Full)), "{answer:?}");
                break;
            }
        }
    }
    // A gateway's share is half of this small queue.
    let expected = (8 << 20) / memory;
    assert!(pushes.len() <= expected && !pushes.is_empty(), "{} of {expected}", pushes.len());
    assert!(pushes.len() * memory <= bench.gateways.usage().queued_bytes + (1 << 20));
}

#[tokio::test]
async fn nothing_is_answered_or_shown_before_it_is_durable() {
    let bench = Bench::new(Settings::default()).await;
    bench.store.hold();
    let deltas = [change("a", "ann@1 title=milk")];
    let push = bench.push("ann", &deltas);
    tokio::pin!(push);
    assert!(futures_util::poll!(&mut push).is_pending());
    tokio::task::yield_now().await;
    let repeated = bench.push("ann", &deltas);
    tokio::pin!(repeated);
    for _ in 0..20 {
        assert!(futures_util::poll!(&mut push).is_pending(), "answered before it was durable");
        assert!(
            futures_util::poll!(&mut repeated).is_pending(),
            "its repetition was answered first"
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.pull_all("").await.0, [], "shown before it was durable");
    bench.store.release();
    assert_eq!(push.await.expect("durable").position, Position(1));
    assert_eq!(repeated.await.expect("durable").position, Position::START);
    assert_eq!(shown(&bench.pull_all("").await.0), ["a: title=milk"]);
}

#[tokio::test]
async fn a_reader_goes_on_where_it_stopped() {
    let bench = Bench::new(Settings::default()).await;
    bench.push("ann", &[change("a", "ann@5 title=milk")]).await.expect("durable");
    let (first, cursor) = bench.pull_all("").await;
    assert_eq!(first.len(), 1);
    // Older by its clock, newer in the log: it is delivered all the same.
    bench.push("bob", &[change("a", "bob@1 done=yes")]).await.expect("durable");
    let (second, cursor) = bench.pull_all(&cursor).await;
    assert_eq!(shown(&second), ["a: done=yes"]);
    assert_eq!(bench.pull_all(&cursor).await.0, []);
}

#[tokio::test]
async fn a_follower_sees_others_commits_and_not_its_own() {
    let bench = Bench::new(Settings::default()).await;
    bench.push("ann", &[change("a", "ann@1 title=early")]).await.expect("durable");
    let client = Some("ann".parse().expect("legal"));
    let options = PullOptions { follow: true, client, ..PullOptions::default() };
    let mut answers = bench.pull(options).await.expect("a good cursor");
    let mut next = async || answers.next().await.expect("open").expect("no failure").event;
    assert!(
        matches!(next().await, Some(Event::Page(page)) if page.position == 1),
        "its own, from before"
    );
    assert!(matches!(next().await, Some(Event::CaughtUp(_))));
    bench.push("ann", &[change("b", "ann@2 title=mine")]).await.expect("durable");
    bench.push("bob", &[change("c", "bob@2 title=theirs")]).await.expect("durable");
    loop {
        match next().await {
            Some(Event::CaughtUp(at)) if at.position < 3 => {}
            Some(Event::Page(page)) => {
                let arrivals = decode_changes(page.tables).expect("whole");
                assert_eq!(shown(&arrivals), ["c: title=theirs"]);
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_beat_and_end_with_the_token_or_the_server() {
    let bench = Bench::new(Settings::default()).await;
    let follow = || PullOptions { follow: true, ..PullOptions::default() };
    let mut answers = bench.pull(follow()).await.expect("a good cursor");
    assert!(matches!(
        answers.next().await,
        Some(Ok(PullResponse { event: Some(Event::CaughtUp(_)) }))
    ));
    for _ in 0..3 {
        let beat = answers.next().await.expect("open").expect("no failure");
        assert!(matches!(beat.event, Some(Event::Heartbeat(_))));
    }
    let last = loop {
        match answers.next().await.expect("a last word") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(last, ReadError::TokenExpired), "{last}");
    assert!(answers.next().await.is_none());

    let mut answers = bench.pull(follow()).await.expect("a good cursor");
    assert!(answers.next().await.expect("open").is_ok());
    bench.stop.send_replace(true);
    assert!(matches!(answers.next().await, Some(Err(ReadError::ShuttingDown))));
}

#[tokio::test]
async fn a_checkpoint_and_a_pull_are_everything_wherever_it_resumes() {
    let bench = Bench::new(Settings::default()).await;
    let filler = "x".repeat(700_000);
    for at in 1..=6 {
        let text = format!("ann@{at} title={filler}{at}");
        bench.push("ann", &[change(&format!("r{at}"), &text)]).await.expect("durable");
    }
    bench.push("ann", &[change("r1", "ann@7 delete")]).await.expect("durable");
    let (mut arrivals, mut resume, mut chunks) = (Vec::new(), String::new(), 0);
    let cursor = 'done: loop {
        let options = CheckpointOptions { resume: resume.clone(), ..CheckpointOptions::default() };
        let mut answers =
            bench.main().await.checkpoint(&caller(), options, bench.stopped()).await.expect("good");
        match answers.next().await.expect("open").expect("no failure").event.expect("an event") {
            checkpoint_response::Event::End(end) => {
                assert_eq!(end.rows, 5);
                assert!(end.complete);
                break 'done end.cursor;
            }
            checkpoint_response::Event::Chunk(chunk) => {
                arrivals.extend(decode_changes(chunk.rows.into_iter().collect()).expect("whole"));
                resume = chunk.resume;
                chunks += 1;
            }
        }
        // Written behind the scan's back: only the pull can bring it.
        bench
            .push("bob", &[change("r2", &format!("bob@{chunks} done=yes"))])
            .await
            .expect("durable");
    };
    assert!(1 < chunks, "the stream was broken {chunks} times");
    let (tail, _) = bench.pull_all(&cursor).await;
    arrivals.extend(tail);
    let (log, _) = bench.pull_all("").await;
    let live = |rows: Vec<String>| {
        rows.into_iter().filter(|row| !row.ends_with("gone")).collect::<Vec<_>>()
    };
    assert_eq!(live(shown(&arrivals)), live(shown(&log)));
}

#[tokio::test]
async fn tombstones_go_at_the_horizon_and_nothing_returns_from_beyond_it() {
    let bench = Bench::new(Settings::default()).await;
    let at = |ms: u64, text: &str| {
        let mut delta = change("a", text);
        delta.stamp.hlc = Hlc::from_ms(ms);
        delta
    };
    bench.push("ann", &[at(WALL_MS, "ann@0 title=milk")]).await.expect("durable");
    bench.push("ann", &[at(WALL_MS + 1, "ann@0 delete")]).await.expect("durable");
    let id = bench.main().await.record().id;
    let key =
        keys::row(&TableName::parse("todos").expect("legal"), &RowId::parse("a").expect("legal"));
    let there = async || {
        bench.store.rows(id, std::slice::from_ref(&key), usize::MAX).await.expect("healthy")[0]
            .is_some()
    };
    assert!(there().await, "a tombstone is kept");
    let offline_ms = u64::try_from(limits::OFFLINE_MAX.as_millis()).expect("fits");
    bench.clock.advance(offline_ms + 2);
    bench.push("bob", &[change("z", "bob@1 title=x")]).await.expect("answered");
    assert!(!there().await, "a tombstone is forgotten at the horizon");
    let ack = bench.push("bob", &[at(WALL_MS, "bob@0 done=yes")]).await.expect("answered");
    assert_eq!(ack.outcomes[0].reason, "TOO_OLD");
}

#[tokio::test]
async fn a_client_id_belongs_to_its_first_subject() {
    let bench = Bench::new(Settings::default()).await;
    let client: ClientId = "phone".parse().expect("legal");
    let offers = || vec![Offer { table: 0, row: 0, delta: Ok(change("a", "phone@1 title=x")) }];
    let main = bench.main().await;
    main.push(&Caller::of("ann"), client.clone(), offers(), false, 1).await.expect("hers");
    let taken = main.push(&Caller::of("bob"), client.clone(), offers(), false, 1).await;
    assert!(matches!(taken, Err(PushError::ClientIdTaken(_))), "{taken:?}");
    drop(main);
    bench.gateways.close_idle().await;
    let taken = bench.main().await.push(&Caller::of("bob"), client, offers(), false, 1).await;
    assert!(matches!(taken, Err(PushError::ClientIdTaken(_))), "remembered: {taken:?}");
}

#[tokio::test]
async fn what_a_gateway_knows_survives_closing() {
    let bench = Bench::new(Settings::default()).await;
    bench
        .push("ann", &[change("a", "ann@1 title=x"), change("b", "ann@2 title=y")])
        .await
        .expect("durable");
    let before = bench.main().await.stats().expect("healthy");
    assert_eq!((before.rows, before.head), (2, Position(1)));
    bench.gateways.close_idle().await;
    assert_eq!(bench.gateways.usage().open, 0);
    let after = bench.main().await;
    assert_eq!(after.stats().expect("healthy"), before);
    assert_eq!(after.schema().tables().len(), 1);
    let skip = HashSet::from([Position(1)]);
    let mut answers =
        bench.pull(PullOptions { skip, ..PullOptions::default() }).await.expect("good");
    let first = answers.next().await.expect("open").expect("no failure").event;
    assert!(matches!(first, Some(Event::CaughtUp(at)) if at.position == 1), "skipped as asked");
}

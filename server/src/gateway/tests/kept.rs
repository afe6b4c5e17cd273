//! What is kept: a log within its bound, a cursor's commit, and rows as many as are counted.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use lakesync::error::Reason;

use super::*;
use crate::store::{Group, LogEntry};

/// How large a log may grow here.
const LIMIT: u64 = 1 << 20;
/// What a group of pushes may add, and one more.
const GROUP: u64 = (8 << 20) + (1 << 20);

impl Bench {
    /// The same bench on another store.
    async fn on(self, store: MemoryStore) -> Self {
        self.gateways.close().await;
        let store = Arc::new(store);
        let (kept, clock) = (Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&self.clock));
        let gateways = Gateways::new(kept, clock, Settings::default());
        Self { gateways, store, ..self }
    }
}

/// A burst is much larger than the log may be. Then nobody pushes any more.
#[tokio::test]
async fn a_log_comes_within_its_bound_while_nobody_pushes() {
    let settings = Settings { log_bytes_max: LIMIT, ..Settings::default() };
    let bench = Bench::new(settings).await;
    let main = bench.main().await;
    let text = "x".repeat(700_000);
    let push = |nth: u64| {
        let delta = change(&format!("r{nth}"), &format!("ann@{nth} title={text}"));
        let offer = Offer { table: 0, row: 0, delta: Ok(delta) };
        let (main, client) = (&main, "ann".parse().expect("legal"));
        async move {
            main.push(&caller(), client, vec![offer], false, 700_000).await.expect("durable");
            main.stats().expect("healthy").log_bytes
        }
    };
    let seen = join_all((1..=40).map(push)).await;
    let most = seen.into_iter().max().expect("some");
    assert!(most <= LIMIT + LIMIT / 8 + GROUP, "{most} bytes under load");
    let trimmed = async {
        while LIMIT < main.stats().expect("healthy").log_bytes {
            tokio::task::yield_now().await;
        }
    };
    let last = async || main.stats().expect("healthy");
    let outcome = tokio::time::timeout(Duration::from_secs(30), trimmed).await;
    assert!(outcome.is_ok(), "it stays at {:?}", last().await);
    assert_eq!(last().await.rows, 40, "rows went with the log");
}

/// Parts in an index must go before their commits. The disk is full when they are to.
#[tokio::test(start_paused = true)]
async fn what_can_not_be_forgotten_at_once_is_counted_once() {
    let settings = Settings { log_bytes_max: LIMIT, ..Settings::default() };
    let bench = Bench::new(settings).await;
    let main = bench.main().await;
    main.put_rules(super::rules::draft()).await.expect("legal rules");
    let claims = serde_json::json!({"done": "x"}).as_object().expect("an object").clone();
    let ann = Caller { claims: Arc::new(claims), ..caller() };
    let text = "x".repeat(300_000);
    let push = async |nth: u64| {
        let delta = change(&format!("r{nth}"), &format!("ann@{nth} done=x title={text}"));
        let offers = vec![Offer { table: 0, row: 0, delta: Ok(delta) }];
        let client = "ann".parse().expect("legal");
        let ack = main.push(&ann, client, offers, false, 300_000).await.expect("durable");
        assert_eq!(ack.outcomes, []);
        tokio::time::sleep(Duration::from_secs(30)).await;
    };
    bench.store.set_keeping(true);
    for nth in 1..=10 {
        push(nth).await;
    }
    let id = main.record().id;
    assert_eq!(bench.store.trimmed(id).await.expect("healthy"), Position(0), "it was full");
    bench.store.set_keeping(false);
    push(11).await;
    let trimmed = bench.store.trimmed(id).await.expect("healthy");
    assert!(Position(0) < trimmed, "nothing was forgotten");
    let left = bench.store.log(id, trimmed, 1 << 30).await.expect("healthy");
    let bytes: u64 = left.iter().map(|entry| entry.commit.len() as u64).sum();
    assert_eq!(main.stats().expect("healthy").log_bytes, bytes);
}

/// A volume goes back to an earlier state, and the log goes on from there: its positions are given out
/// again. Nothing in the store says so.
#[tokio::test]
async fn a_cursor_names_its_commit_and_not_only_its_number() {
    let bench = Bench::new(Settings::default()).await;
    for nth in 1..=3 {
        let delta = change("a", &format!("ann@{nth} title=t{nth}"));
        bench.push("ann", &[delta]).await.expect("durable");
    }
    let (_, before) = bench.pull_all("").await;
    bench.store.backup(Path::new("snapshot")).await.expect("copied");
    for nth in 4..=6 {
        let delta = change("a", &format!("ann@{nth} title=t{nth}"));
        bench.push("ann", &[delta]).await.expect("durable");
    }
    let (_, after) = bench.pull_all(&before).await;
    let rolled_back = bench.store.rolled_back(Path::new("snapshot")).expect("there");
    let bench = bench.on(rolled_back).await;
    let replaced = async |cursor: &str| {
        let options = PullOptions { cursor: cursor.to_owned(), ..PullOptions::default() };
        let error = bench.pull(options).await.map(|_| ()).expect_err("another past");
        assert!(matches!(error, ReadError::Cursor(CursorError::OtherLog)), "{error}");
    };
    replaced(&after).await;
    for nth in 1..=5 {
        let delta = change(&format!("b{nth}"), &format!("bob@{nth} title=t{nth}"));
        bench.push("bob", &[delta]).await.expect("durable");
        // The commits at its position and further on are others.
        replaced(&after).await;
        let (arrived, _) = bench.pull_all(&before).await;
        assert_eq!(arrived.len(), nth, "what came before is the same");
    }
    // Not at hand any more, but in the store.
    bench.gateways.close_idle().await;
    replaced(&after).await;
    assert_eq!(bench.pull_all(&before).await.0.len(), 5);
}

/// What a replica pushed into the past that is gone has a number that is another's commit now.
#[tokio::test]
async fn a_skipped_position_is_skipped_if_the_commit_is_the_readers() {
    let bench = Bench::new(Settings::default()).await;
    bench.push("ann", &[change("a", "ann@1 title=hers")]).await.expect("durable");
    bench.push("bob", &[change("b", "bob@1 title=his")]).await.expect("durable");
    let pulled = async |client: Option<&str>| {
        let skip = HashSet::from([Position(1), Position(2)]);
        let client = client.map(|client| client.parse().expect("legal"));
        let options = PullOptions { skip, client, ..PullOptions::default() };
        let mut answers = bench.pull(options).await.expect("a good cursor");
        let mut arrivals = Vec::new();
        while let Some(answer) = answers.next().await {
            if let Some(Event::Page(page)) = answer.expect("no failure").event {
                arrivals.extend(decode_changes(page.tables).expect("whole"));
            }
        }
        shown(&arrivals)
    };
    assert_eq!(pulled(Some("ann")).await, ["b: title=his"]);
    assert_eq!(pulled(None).await, [] as [&str; 0], "who does not say who it is, is believed");
}

/// A store that lost rows, and does not know.
#[tokio::test]
async fn a_checkpoint_is_not_complete_without_all_rows_that_are_counted() {
    let bench = Bench::new(Settings::default()).await;
    for nth in 1..=3 {
        let delta = change(&format!("r{nth}"), &format!("ann@{nth} title=x"));
        bench.push("ann", &[delta]).await.expect("durable");
    }
    let end = async |resume: &str| {
        let options =
            CheckpointOptions { resume: resume.to_owned(), ..CheckpointOptions::default() };
        let main = bench.main().await;
        let mut answers = main.checkpoint(&caller(), options, bench.stopped()).await.expect("good");
        let mut last = None;
        let mut resume = String::new();
        while let Some(answer) = answers.next().await {
            if let Ok(checkpoint_response::Event::Chunk(chunk)) =
                answer.as_ref().map(|answer| answer.event.clone().expect("an event"))
            {
                resume = chunk.resume;
            }
            last = Some(answer);
        }
        (last.expect("an end").map(|_| ()), resume)
    };
    let (whole, resume) = end("").await;
    whole.expect("all are there");
    let id = bench.main().await.record().id;
    let key = [b"todos\0".as_slice(), b"r2"].concat();
    let group = Group { rows: vec![(Bytes::from(key), None)], ..Group::default() };
    bench.store.commit(id, group).await.expect("lost");
    let error = end("").await.0.expect_err("a row is missing");
    assert_eq!(lakesync::error::Classify::reason(&error), Reason::Corruption, "{error}");
    end(&resume).await.0.expect("it was sent before");
}

/// A log of one day with the figures of another, as a mixture of two copies would be.
#[tokio::test]
async fn a_log_that_its_figures_do_not_tell_of_is_not_opened() {
    let bench = Bench::new(Settings::default()).await;
    bench.push("ann", &[change("a", "ann@1 title=x")]).await.expect("durable");
    let id = bench.main().await.record().id;
    bench.gateways.close_idle().await;
    let log = bench.store.log(id, Position::START, 0).await.expect("read");
    let commit = [&log[0].commit[..], b"x"].concat().into();
    let log = vec![LogEntry { position: Position(2), commit }];
    bench.store.commit(id, Group { log, ..Group::default() }).await.expect("kept");
    let opened = bench.gateways.get(&"main".parse().expect("legal")).await;
    assert!(matches!(opened, Err(StoreError::Corrupt(_))), "{opened:?}");
}

#[tokio::test]
async fn old_commits_go_when_the_log_outgrows_its_limit_and_cursors_say_so() {
    let settings = Settings { log_bytes_max: 4_000, ..Settings::default() };
    let bench = Bench::new(settings).await;
    let (_, cursor) = bench.pull_all("").await;
    for at in 1..100 {
        let text = format!("ann@{at} title={}", "x".repeat(100));
        bench.push("ann", &[change("a", &text)]).await.expect("durable");
    }
    let stats = bench.main().await.stats().expect("healthy");
    assert!(stats.log_bytes <= 4_500, "{stats:?}");
    assert!(Position::START < stats.tail && stats.tail < stats.head, "{stats:?}");
    let options = PullOptions { cursor, ..PullOptions::default() };
    let expired = bench.pull(options).await.expect_err("trimmed");
    assert!(matches!(expired, ReadError::Cursor(CursorError::Expired(_))), "{expired}");
    assert!(bench.pull(PullOptions::default()).await.is_err(), "the beginning is gone as well");
}

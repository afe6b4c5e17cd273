//! P-12: a clock can't poison others.

use lakesync::hlc::Hlc;
use lakesync::proto::v1::GetServerInfoRequest;
use lakesync::proto::v1::outcome::Kind;
use tonic::Code;

use crate::harness::changes::{at, at_ms, delete, upsert};
use crate::harness::state::State;
use crate::harness::{Client, NOW_MS, Replica, Setup, assert_refused, within};

/// The clock as a push is told it that changes nothing.
async fn told(client: &Client) -> Hlc {
    Hlc(client.push([]).await.expect("answered").server_hlc)
}

#[tokio::test]
async fn p12_a_stamp_too_far_ahead_is_refused_with_the_servers_time() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    for (ahead_ms, admitted) in [
        (0, true),
        (5_000, true),
        (5_001, false),
        (60_000, false),
        (100 * 365 * 24 * 60 * 60 * 1_000, false),
    ] {
        let row = format!("todos/{ahead_ms}");
        let answer = ann.push([upsert("ann", at_ms(ahead_ms), &row, &[("title", "x")])]).await;
        let answer = answer.expect("answered");
        if admitted {
            assert_eq!(answer.outcomes, [], "{ahead_ms} ms ahead");
            continue;
        }
        assert_eq!(answer.outcomes[0].kind(), Kind::Rejected);
        assert_eq!(answer.outcomes[0].reason, "CLOCK_DRIFT", "{ahead_ms} ms ahead");
        // The drift that was admitted may show; what was refused never does.
        assert!(Hlc(answer.server_hlc).ms() <= NOW_MS + 5_000, "{answer:?}");
    }
    let last = upsert("ann", Hlc(u64::MAX), "todos/last", &[("title", "x")]);
    let answer = ann.push([last]).await.expect("answered");
    assert_eq!(answer.outcomes[0].reason, "CLOCK_DRIFT", "the end of time");
}

#[tokio::test]
async fn p12_a_refused_stamp_moves_nobodys_clock() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let (bad, good) = (server.client("bad").await, server.client("good").await);
    good.push([upsert("good", at_ms(0), "todos/a", &[("title", "x")])]).await.expect("answered");
    let before = State::of(&good).await;
    let ahead = || upsert("bad", at_ms(3_600_000), "todos/a", &[("title", "from tomorrow")]);
    for _ in 0..5 {
        bad.push([ahead()]).await.expect("answered");
        let refused = bad.push_atomic([ahead()]).await;
        assert_refused(refused, Code::FailedPrecondition, "CLOCK_DRIFT");
    }
    assert_eq!(State::of(&good).await, before);
    assert_eq!(told(&good).await.ms(), NOW_MS, "the server's clock follows the bad one");
    let pulled = good.pull("").await.expect("pulled").caught_up.expect("the head");
    assert_eq!(Hlc(pulled.server_hlc).ms(), NOW_MS);
    let info = within(good.sync.clone().get_server_info(GetServerInfoRequest::default())).await;
    assert_eq!(Hlc(info.expect("answered").into_inner().server_hlc).ms(), NOW_MS);

    // Honest clients go on, and win against what was refused; so they do after a restart.
    server.stop().await.expect("drained");
    let server = setup.start().await;
    let good = server.client("good").await;
    let answer = good.push([upsert("good", at_ms(1), "todos/a", &[("title", "honest")])]).await;
    assert_eq!(answer.expect("answered").outcomes, []);
    let read = Replica::by_pull(&good).await.expect("pulled");
    assert_eq!(read.text("todos/a", "title").as_deref(), Some("honest"));
}

#[tokio::test]
async fn p12_the_server_observes_what_it_admits() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let stamp = at_ms(4_000);
    let answer = ann.push([upsert("ann", stamp, "todos/a", &[("title", "x")])]).await.unwrap();
    assert!(stamp < Hlc(answer.server_hlc), "a client that observes it could lose to itself");
    let mut last = Hlc(answer.server_hlc);
    for _ in 0..3 {
        let next = told(&ann).await;
        assert!(last < next, "{last:?}, then {next:?}");
        last = next;
    }
    server.stop().await.expect("drained");

    // After a restart readings go on from where they were.
    let server = setup.start().await;
    let ann = server.client("ann").await;
    assert!(stamp < told(&ann).await, "the clock began anew");
}

#[tokio::test]
async fn p12_a_server_whose_clock_was_wrong_locks_nobody_out() {
    let setup = Setup::new();
    setup.clock.set(NOW_MS + 3_600_000);
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([upsert("ann", at_ms(3_600_000), "todos/a", &[("title", "x")])]).await.unwrap();
    server.stop().await.expect("drained");

    // Somebody set the clock right, an hour back.
    setup.clock.set(NOW_MS);
    let server = setup.start().await;
    let (ann, bob) = (server.client("ann").await, server.client("bob").await);
    for client in [&ann, &bob] {
        let time = told(client).await;
        let next = upsert(&client.id, Hlc(time.0 + 1), &format!("todos/{}", client.id), &[]);
        let answer = client.push([next]).await.expect("answered");
        assert_eq!(answer.outcomes, [], "a clock set by the server's is refused by the server");
    }
    // What counts as drift is judged by the wall, so that the error of the past heals.
    let ahead = upsert("ann", at_ms(3_600_000), "todos/b", &[("title", "x")]);
    assert_eq!(ann.push([ahead]).await.unwrap().outcomes[0].reason, "CLOCK_DRIFT");
}

#[tokio::test]
async fn p12_the_limit_is_the_settings() {
    let server = Setup::new().set("clock_drift_max", "1h").start_with_tables().await;
    let ann = server.client("ann").await;
    let info = within(ann.sync.clone().get_server_info(GetServerInfoRequest::default())).await;
    let limits = info.expect("answered").into_inner().limits.expect("limits");
    assert_eq!(limits.max_clock_drift.expect("a limit").seconds, 3_600);
    for (ahead_ms, outcomes) in [(3_600_000, 0), (3_600_001, 1)] {
        let delta = upsert("ann", at_ms(ahead_ms), &format!("todos/{ahead_ms}"), &[]);
        assert_eq!(ann.push([delta]).await.unwrap().outcomes.len(), outcomes, "{ahead_ms}");
    }
}

/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

#[tokio::test]
async fn p12_what_a_server_admitted_while_it_was_a_day_ahead_holds_nobody_back() {
    let setup = Setup::new();
    setup.clock.advance(DAY_MS);
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let of = |row: &str| upsert("ann", tomorrow(0), row, &[("title", "tomorrow")]);
    ann.push([of("todos/a"), of("todos/b")]).await.expect("answered");

    // Set right while it runs.
    setup.clock.set(NOW_MS);
    // Her token was issued tomorrow, which is refused by now.
    let ann = server.client("ann").await;
    assert_held_back_by_nothing(&ann, 0).await;
    server.stop().await.expect("drained");
    // The gateway's clock is kept, and so is the past.
    let server = setup.start().await;
    assert_held_back_by_nothing(&server.client("ann").await, 1).await;
    server.stop().await.expect("drained");
}

/// Ticks above the stamp of the rows that were written while the server's clock was ahead.
fn tomorrow(ticks: u64) -> Hlc {
    Hlc(Hlc::from_ms(NOW_MS + DAY_MS).0 + ticks)
}

/// Other rows are written by the wall clock, and the row from the future by ticks; nothing else.
async fn assert_held_back_by_nothing(ann: &Client, round: u64) {
    let time = told(ann).await;
    assert!(time.ms() <= NOW_MS + 5_000, "what is stamped by {time} would be refused");
    let other = format!("todos/other{round}");
    let answer = ann.push([upsert("ann", at(100 * round), &other, &[("title", "now")])]).await;
    assert_eq!(answer.expect("answered").outcomes, [], "another row, by the wall");

    // Who knows the row's stamp can edit the row, delete it, and make it again.
    let tick = |nth: u64| tomorrow(10 * round + nth);
    for change in [
        upsert("ann", tick(1), "todos/a", &[("title", "edited")]),
        delete("ann", tick(2), "todos/a"),
        upsert("ann", tick(3), "todos/a", &[("title", "again")]),
    ] {
        let answer = ann.push([change]).await.expect("answered");
        assert_eq!(answer.outcomes, []);
        assert!(Hlc(answer.server_hlc).ms() <= NOW_MS + 5_000, "a tick moves no clock");
    }
    let read = Replica::by_pull(ann).await.expect("pulled");
    assert_eq!(read.text("todos/a", "title").as_deref(), Some("again"));
    assert_eq!(read.text(&other, "title").as_deref(), Some("now"));

    // Nothing else of the future is taken: no other row, and no stamp further on that row.
    for (stamp, row) in
        [(tick(4), "todos/fresh"), (tick(4), other.as_str()), (tomorrow(1 << 20), "todos/a")]
    {
        let answer = ann.push([upsert("ann", stamp, row, &[("title", "no")])]).await;
        let answer = answer.expect("answered");
        assert_eq!(answer.outcomes.len(), 1, "{stamp} of {row}");
        assert_eq!(answer.outcomes[0].reason, "CLOCK_DRIFT", "{stamp} of {row}");
    }
}

//! Following: both sides in step, through every fault.

use std::time::{Duration, Instant};

use lakesync::error::Reason;
use lakesync_client::{Event, Pace, Phase, Replica};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fake::{Call, Fake, Fault};
use crate::site::{PATIENCE, Site, config, first, gateway, title};

/// A follower in the background, until it is told to stop.
struct Following {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn follow(site: &Site) -> Following {
    let replica: Replica = site.replica.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let task =
        tokio::spawn(async move { replica.follow(async { stopped.await.unwrap_or(()) }).await });
    Following { stop, task }
}

impl Following {
    async fn stop(self) {
        self.stop.send(()).expect("still following");
        self.task.await.expect("no panic");
    }
}

async fn in_step(site: &Site) {
    site.is(|status| status.following).await;
}

#[tokio::test]
async fn commits_and_edits_travel_as_they_happen() {
    let fake = gateway();
    let (mut ann, bob) = (Site::new(&fake).await, Site::new(&fake).await);
    let following = [follow(&ann), follow(&bob)];
    in_step(&ann).await;
    in_step(&bob).await;
    ann.run("INSERT INTO todos VALUES ('a', 'milk', 1)").await;
    bob.shows(&["a=milk"]).await;
    fake.write("other", "b", &title("oats"));
    ann.shows(&["a=milk", "b=oats"]).await;
    bob.shows(&["a=milk", "b=oats"]).await;
    for site in [&ann, &bob] {
        let status = site.is(|status| status.position.0 == 2 && status.pending == 0).await;
        assert_eq!(status.lag(u64::MAX), Some(Duration::ZERO));
    }
    assert_eq!(fake.count(Call::Push), 1, "what was applied is not pushed back");
    for follower in following {
        follower.stop().await;
    }
    assert_eq!(ann.status().phase, Phase::Idle);
}

#[tokio::test]
async fn every_fault_is_waited_out() {
    for (call, fault) in [
        (Call::Info, Fault::Refuse(Reason::ShuttingDown)),
        (Call::Schema, Fault::Refuse(Reason::Overloaded)),
        (Call::Checkpoint, Fault::BreakAfter(0)),
        (Call::Pull, Fault::BreakAfter(0)),
        (Call::Follow, Fault::Refuse(Reason::StoreUnavailable)),
        (Call::Follow, Fault::BreakAfter(0)),
        (Call::Follow, Fault::BreakAfter(1)),
        (Call::Follow, Fault::SilentAfter(0)),
        (Call::Follow, Fault::SilentAfter(1)),
        (Call::Push, Fault::LoseReply),
        (Call::Push, Fault::Refuse(Reason::Bug)),
    ] {
        let fake = gateway();
        fake.world().heartbeat = Duration::from_millis(10);
        fake.fail(call, fault);
        let mut site = Site::new(&fake).await;
        let following = follow(&site);
        site.shows(&[]).await;
        in_step(&site).await;
        site.run("INSERT INTO todos VALUES ('a', 'mine', 1)").await;
        fake.write("other", "b", &title("theirs"));
        site.shows(&["a=mine", "b=theirs"]).await;
        fake.has_commits(2).await;
        site.is(|status| status.pending == 0 && status.last_error.is_none()).await;
        assert!(2 <= fake.count(call), "{call:?} {fault:?} was tried again");
        assert_eq!(fake.world().rows.len(), 2, "{call:?} {fault:?}");
        following.stop().await;
    }
}

#[tokio::test]
async fn a_restored_gateway_is_followed_after_a_checkpoint() {
    let fake = gateway();
    let site = Site::new(&fake).await;
    fake.write("other", "a", &title("milk"));
    fake.fail(Call::Follow, Fault::BreakAfter(1));
    fake.restore();
    let following = follow(&site);
    in_step(&site).await;
    fake.restore();
    fake.fail(Call::Follow, Fault::Refuse(Reason::CursorExpired));
    fake.write("other", "b", &title("oats"));
    site.shows(&["a=milk", "b=oats"]).await;
    following.stop().await;
}

#[tokio::test]
async fn what_needs_a_person_is_told_and_tried_again_when_asked() {
    let fake = gateway();
    let site = Site::new(&fake).await;
    fake.fail(Call::Schema, Fault::Refuse(Reason::ScopeMissing));
    let following = follow(&site);
    let status = site.is(|status| status.phase == Phase::Waiting).await;
    assert!(status.last_error.expect("told").contains("SCOPE_MISSING"));
    site.replica.sync().await.expect("the follower tries at once");
    in_step(&site).await;
    following.stop().await;
}

#[tokio::test]
async fn downloads_do_not_wait_for_uploads_that_are_refused() {
    let fake = gateway();
    let mut site = Site::new(&fake).await;
    let following = follow(&site);
    in_step(&site).await;
    fake.fail(Call::Push, Fault::Refuse(Reason::ScopeMissing));
    site.run("INSERT INTO todos VALUES ('a', 'mine', 1)").await;
    site.is(|status| status.last_error.is_some()).await;
    fake.write("other", "b", &title("theirs"));
    site.shows(&["a=mine", "b=theirs"]).await;
    assert_eq!((fake.count(Call::Push), fake.count(Call::Follow)), (1, 1));
    site.replica.sync().await.expect("the right was granted");
    assert_eq!(fake.head(), 2);
    following.stop().await;
}

#[tokio::test]
async fn rounds_are_run_by_the_follower_while_there_is_one() {
    let fake = gateway();
    let mut site = Site::new(&fake).await;
    let following = follow(&site);
    in_step(&site).await;
    site.run("INSERT INTO todos VALUES ('a', 'milk', 1)").await;
    site.replica.sync().await.expect("a round");
    assert_eq!((fake.head(), site.status().pending), (1, 0));
    let (one, two) = tokio::join!(site.replica.sync(), site.replica.sync());
    one.and(two).expect("rounds");
    in_step(&site).await;
    following.stop().await;
    site.run("INSERT INTO todos VALUES ('b', 'oats', 1)").await;
    site.replica.sync().await.expect("a round of one's own");
    assert_eq!(fake.head(), 2);
}

#[tokio::test]
async fn a_position_can_be_waited_for() {
    let fake = gateway();
    let site = Site::new(&fake).await;
    let following = follow(&site);
    in_step(&site).await;
    let position = lakesync::name::Position(fake.write("other", "a", &title("milk")));
    site.replica.wait_for(position).await;
    let mut site = site;
    assert_eq!(site.todos().await, ["a=milk"], "seen is applied");
    following.stop().await;
}

#[tokio::test]
async fn a_column_that_appears_while_following_is_taken_over() {
    let fake = gateway();
    let site = Site::new(&fake).await;
    let following = follow(&site);
    in_step(&site).await;
    let mut events = site.events();
    let mut grown = crate::site::todos();
    grown.columns.push(("note".parse().expect("a name"), grown.columns[0].1));
    fake.declare(&[grown]);
    let mut cells = title("milk").to_vec();
    cells[0].column = "note".parse().expect("a name");
    fake.write("other", "a", &cells);
    let added = first(&mut events, |event| match event {
        Event::Migrated(migration) => Some(migration.added),
        _ => None,
    });
    assert_eq!(added.await[0].1.as_str(), "note");
    site.shows(&["a=NULL"]).await;
    assert_eq!(fake.count(Call::Follow), 1, "without a break");
    following.stop().await;
}

#[tokio::test]
async fn nothing_is_asked_of_a_gateway_that_is_in_step() {
    let fake: Fake = gateway();
    let site = Site::new(&fake).await;
    let following = follow(&site);
    in_step(&site).await;
    let before = fake.world().calls.len();
    fake.write("other", "a", &title("milk"));
    site.shows(&["a=milk"]).await;
    assert_eq!(fake.world().calls.len(), before);
    following.stop().await;
}

#[tokio::test]
async fn a_clock_found_ahead_is_corrected_and_its_changes_sent_again() {
    let fake = gateway();
    let mut site = Site::new(&fake).await;
    let following = follow(&site);
    in_step(&site).await;
    let mut events = site.events();
    site.run(
        "BEGIN;
         UPDATE _lakesync_clock SET offset_ms = offset_ms + 3600000;
         INSERT INTO todos VALUES ('a', 'milk', 1);
         COMMIT",
    )
    .await;
    fake.has_commits(1).await;
    let offset_ms = first(&mut events, |event| match event {
        Event::ClockCorrected { offset_ms } => Some(offset_ms),
        _ => None,
    });
    assert!(offset_ms.await.abs() < 5_000, "both clocks are the same");
    let (pushes, streams) = (fake.count(Call::Push), fake.count(Call::Follow));
    assert!(pushes <= 2 && streams == 1, "{pushes} pushes over {streams} streams");
    assert_eq!(site.replica.rejected().await.expect("a list"), []);
    following.stop().await;
}

#[tokio::test]
async fn a_change_that_fits_no_schema_is_refused_after_looking_again() {
    let fake = gateway();
    let mut site = Site::new(&fake).await;
    let following = follow(&site);
    in_step(&site).await;
    let mut events = site.events();
    let mut grown = crate::site::todos();
    grown.columns.push(("note".parse().expect("a name"), grown.columns[0].1));
    fake.declare(&[grown]);
    let schemas = fake.count(Call::Schema);
    site.run("INSERT INTO todos VALUES ('a', 'milk', 'no number'), ('b', 'oats', 2)").await;
    let rejected = first(&mut events, |event| match event {
        Event::Rejected(rejected) => Some(rejected),
        _ => None,
    });
    let rejected = rejected.await;
    assert_eq!((rejected.row_id.as_str(), rejected.reason.as_str()), ("a", "SCHEMA_MISMATCH"));
    site.shows(&["b=oats"]).await;
    assert_eq!((fake.head(), fake.count(Call::Push)), (1, 2));
    assert_eq!(fake.count(Call::Schema), schemas + 1);
    following.stop().await;
}

#[tokio::test]
async fn a_change_whose_stamp_stays_ahead_ends_no_following() {
    let fake = gateway();
    let pace = Pace { slow: Duration::from_millis(50), ..Pace::default() };
    let mut site = Site::with(config(&fake).with_pace(pace)).await;
    fake.world().drifting = ["b".to_owned()].into();
    let following = follow(&site);
    in_step(&site).await;
    for id in ["a", "b", "c"] {
        site.run(&format!("INSERT INTO todos VALUES ('{id}', 'x', 1)")).await;
    }
    let status = site.is(|status| status.last_error.is_some() && status.pending == 1).await;
    assert!(status.following, "{status:?}");
    fake.write("other", "z", &title("theirs"));
    site.shows(&["a=x", "b=x", "c=x", "z=theirs"]).await;
    fake.world().drifting.clear();
    site.is(|status| status.pending == 0 && status.last_error.is_none()).await;
    following.stop().await;
}

#[tokio::test]
async fn a_change_whose_stamp_stays_ahead_waits_long_and_later_ones_do_not() {
    let fake = gateway();
    let mut site = Site::new(&fake).await;
    fake.world().drifting = ["a".to_owned()].into();
    let following = follow(&site);
    in_step(&site).await;
    site.run("INSERT INTO todos VALUES ('a', 'x', 1)").await;
    site.is(|status| status.last_error.is_some()).await;
    let pushes = fake.count(Call::Push);
    for (count, id) in ["b", "c"].into_iter().enumerate() {
        site.run(&format!("INSERT INTO todos VALUES ('{id}', 'x', 1)")).await;
        fake.has_commits(count as u64 + 1).await;
    }
    // Many times as long as the pause after a fault that may pass.
    let mut versions = Vec::new();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let version = sqlx::query_scalar::<_, i64>("PRAGMA data_version");
        versions.push(version.fetch_one(&mut site.app).await.expect("a version"));
    }
    assert_eq!(versions[0], versions[1], "looking writes nothing");
    assert_eq!(fake.count(Call::Push), pushes + 2, "it is not sent along");
    assert!(site.status().last_error.is_some() && site.status().following, "{:?}", site.status());
    fake.world().drifting.clear();
    site.replica.sync().await.expect("a round sends everything");
    assert_eq!((fake.head(), site.status().pending), (3, 0));
    following.stop().await;
}

#[tokio::test]
async fn streams_that_end_at_once_because_the_token_ran_out_are_begun_ever_more_slowly() {
    const EXPIRIES: u32 = 8;
    let pause = Duration::from_millis(8);
    let fake = gateway();
    for _ in 0..EXPIRIES {
        fake.fail(Call::Follow, Fault::ExpireAfter(1));
    }
    let pace = Pace { first: pause, max: PATIENCE, slow: PATIENCE };
    // As long as a pause may be, each time.
    let site = Site::with(config(&fake).with_pace(pace).with_random(|| u64::MAX)).await;
    let began = Instant::now();
    let following = follow(&site);
    let mut status = site.replica.status();
    let all = || fake.count(Call::Follow) == EXPIRIES as usize + 1;
    while !all() {
        status.changed().await.expect("the replica is open");
    }
    // 8 ms, 16 ms, … 1024 ms; a pause of 8 ms each time would be 64 ms.
    assert!(pause * (1 << (EXPIRIES - 1)) <= began.elapsed(), "{:?}", began.elapsed());
    following.stop().await;
}

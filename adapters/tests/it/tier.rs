//! A tier: rows move when they are old, and come back when they are written.

use std::sync::Arc;
use std::time::Duration;

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::clock::ManualClock;
use lakesync::name::Position;
use lakesync::testing::id;
use lakesync_adapters::memory::Memory;
use lakesync_adapters::tier::Tier;

use crate::flaky::{Faults, Flaky, Mode, When};
use crate::texts::{LOG, batch, contents, rows, shown, tables};

const AFTER_MS: u64 = 1_000;

#[derive(Default)]
struct House {
    hot: Memory,
    cold: Memory,
    faults: Faults,
    clock: Arc<ManualClock>,
}

impl House {
    fn open(&self) -> Tier {
        let hot = Flaky::around(self.hot.clone(), &self.faults);
        let cold = Flaky::around(self.cold.clone(), &self.faults);
        Tier::new(hot, cold, Duration::from_millis(AFTER_MS), Arc::clone(&self.clock) as _)
    }

    /// A look that no fault disturbs or counts.
    fn view(&self) -> Tier {
        let (hot, cold) = (Arc::new(self.hot.clone()), Arc::new(self.cold.clone()));
        Tier::new(hot, cold, Duration::MAX, Arc::clone(&self.clock) as _)
    }

    async fn prepared(&self) -> Tier {
        let tier = self.open();
        tier.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
        tier
    }

    /// What each of the two holds of `todos`.
    async fn todos(&self) -> (Vec<String>, Vec<String>) {
        (shown(&self.hot, "todos").await, shown(&self.cold, "todos").await)
    }
}

/// Enough steps to look at every row.
async fn age(tier: &Tier) {
    for _ in 0..9 {
        tier.advance().await.expect("advance");
    }
}

#[tokio::test]
async fn rows_move_when_they_are_old() {
    let house = House::default();
    let tier = house.prepared().await;
    let all = ["todos/a@0 a=1", "todos/b@500 a=2", "todos/c@1 delete", "notes/n@0 a=3"];
    tier.write(&batch(1, &all)).await.expect("write");
    let before = contents(&tier).await;
    house.clock.set(AFTER_MS - 1);
    age(&tier).await;
    assert_eq!(shown(&house.hot, "todos").await.len(), 3, "none is old");
    house.clock.set(AFTER_MS + 1);
    age(&tier).await;
    let moved = (vec!["b: a=2".to_owned()], vec!["a: a=1".to_owned(), "c: gone".to_owned()]);
    assert_eq!(house.todos().await, moved);
    assert_eq!(shown(&house.cold, "notes").await, ["n: a=3"]);
    assert_eq!(contents(&tier).await, before);
    // Of a row that is written, the newest stamp counts.
    tier.write(&batch(2, &["todos/b@1400 b=2"])).await.expect("write");
    house.clock.set(AFTER_MS + 900);
    age(&tier).await;
    assert_eq!(shown(&house.hot, "todos").await, ["b: a=2 b=2"]);
}

#[tokio::test]
async fn a_write_brings_back_the_whole_row() {
    let house = House::default();
    let tier = house.prepared().await;
    tier.write(&batch(1, &["todos/a@1 a=1"])).await.expect("write");
    house.clock.set(5_000);
    age(&tier).await;
    tier.write(&batch(2, &["todos/a@4900 b=2"])).await.expect("write");
    assert_eq!(shown(&house.hot, "todos").await, ["a: a=1 b=2"]);
    tier.join(&id("todos"), &rows(&house.cold, "todos").await).await.expect("join");
    assert_eq!(shown(&tier, "todos").await, ["a: a=1 b=2"]);
}

/// Neither when the tombstone moves, nor when it is forgotten.
#[tokio::test]
async fn a_deleted_row_does_not_come_back() {
    for tombstone_moves in [false, true] {
        let house = House::default();
        let tier = house.prepared().await;
        tier.write(&batch(1, &["todos/a@1 a=1"])).await.expect("write");
        house.clock.set(5_000);
        age(&tier).await;
        tier.write(&batch(2, &["todos/a@4900 delete"])).await.expect("write");
        assert_eq!(shown(&tier, "todos").await, ["a: gone"]);
        assert_eq!(shown(&house.cold, "todos").await, ["a: a=1"], "it was not asked to");
        if tombstone_moves {
            house.clock.set(9_000);
            age(&tier).await;
            assert_eq!(shown(&house.hot, "todos").await, [""; 0]);
        }
        let found = tier.find(&id("todos"), &[id("a")]).await.expect("find");
        assert_eq!(lakesync::testing::shown(&found[0].1), "gone");
        let tombstone = rows(&tier, "todos").await;
        tier.forget(&id("todos"), &tombstone).await.expect("forget");
        assert_eq!(house.todos().await, (Vec::new(), Vec::new()));
    }
}

/// Step by step, and at each step dead: nothing is lost, doubled or raised from the dead.
#[tokio::test]
async fn a_crash_between_any_two_steps_is_harmless() {
    for when in [When::Before, When::After] {
        for nth in 1.. {
            if !died_at(nth, when).await {
                assert!(60 < nth, "died at {nth} calls only");
                break;
            }
        }
    }
}

/// Runs a life of a few rows and dies once in it; whether it got that far.
async fn died_at(nth: usize, when: When) -> bool {
    let house = House::default();
    let expected = Memory::default();
    expected.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
    let mut tier = house.prepared().await;
    house.faults.set(Mode::DiesAt(nth, when));
    let life: [(u64, &[&str]); 6] = [
        (10, &["todos/a@1 a=1", "todos/b@2 a=2", "notes/n@3 a=3"]),
        (2_000, &["todos/c@2000 a=1"]),
        (2_500, &["todos/a@2500 b=2", "todos/b@2400 delete"]),
        (6_000, &["todos/c@5900 b=9"]),
        (6_500, &["todos/a@6400 delete", "todos/d@6500 a=4", "notes/n@6500 b=1"]),
        (9_000, &["todos/b@8900 b=8"]),
    ];
    let mut fired = false;
    for (position, (now, deltas)) in (1..).zip(life) {
        house.clock.set(now);
        let batch = batch(position, deltas);
        expected.write(&batch).await.expect("write");
        if tier.write(&batch).await.is_err() {
            fired |= house.faults.fired();
            house.faults.set(Mode::Working);
            tier = house.open();
            tier.write(&batch).await.expect("again");
        }
        for _ in 0..7 {
            if tier.advance().await.is_err() {
                fired |= house.faults.fired();
                house.faults.set(Mode::Working);
                tier = house.open();
            }
        }
        check(&house, &expected, &format!("{when:?} {nth}, position {position}")).await;
    }
    fired
}

async fn check(house: &House, expected: &Memory, at: &str) {
    assert_eq!(contents(&house.view()).await, contents(expected).await, "{at}");
    for (row_id, row) in rows(&house.hot, "todos").await {
        let whole = expected.find(&id("todos"), &[row_id]).await.expect("find");
        assert_eq!(row, whole[0].1, "the hot backend shows whole rows: {at}");
    }
}

/// The tombstone of a row whose older state is in the cold backend.
#[tokio::test]
async fn forgetting_may_break_off_anywhere() {
    for when in [When::Before, When::After] {
        for nth in 1.. {
            let house = House::default();
            let tier = house.prepared().await;
            tier.write(&batch(1, &["todos/a@1 a=1", "todos/b@1 a=1"])).await.expect("write");
            house.clock.set(5_000);
            age(&tier).await;
            tier.write(&batch(2, &["todos/a@4900 delete"])).await.expect("write");
            let tombstone = rows(&tier, "todos").await[..1].to_vec();
            house.faults.set(Mode::DiesAt(nth, when));
            let forgotten = tier.forget(&id("todos"), &tombstone).await;
            let fired = house.faults.fired();
            house.faults.set(Mode::Working);
            let left = shown(&tier, "todos").await;
            assert!(!left.contains(&"a: a=1".to_owned()), "{when:?} {nth}: {left:?}");
            let tier = house.open();
            tier.forget(&id("todos"), &tombstone).await.expect("again");
            assert_eq!(shown(&tier, "todos").await, ["b: a=1"]);
            if !fired {
                forgotten.expect("nothing failed");
                assert!(3 < nth, "failed at {nth} calls only");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_few_rows_move_at_a_time() {
    let house = House::default();
    let tier = house.prepared().await;
    let many: Vec<_> = (0..3_000).map(|nth| format!("todos/r{nth:04}@1 a=1")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    tier.write(&batch(1, &many)).await.expect("write");
    house.clock.set(5_000);
    let mut left = 3_000;
    for step in 0.. {
        tier.advance().await.expect("advance");
        let now = rows(&house.hot, "todos").await.len();
        assert!(left <= now + 256, "{} rows moved at once", left - now);
        left = now;
        if left == 0 {
            break;
        }
        assert!(step < 50, "{left} rows are left");
    }
    assert_eq!(rows(&tier, "todos").await.len(), 3_000);
}

/// Rows that are there are written; of others nobody can tell.
#[tokio::test]
async fn without_the_cold_backend_known_rows_are_written() {
    let house = House::default();
    let faults = Faults::default();
    let cold = Flaky::around(house.cold.clone(), &faults);
    let after = Duration::from_millis(AFTER_MS);
    let tier = Tier::new(Arc::new(house.hot.clone()), cold, after, Arc::clone(&house.clock) as _);
    tier.prepare(&tables(&["todos"])).await.expect("prepare");
    tier.write(&batch(1, &["todos/a@1 a=1"])).await.expect("write");
    house.clock.set(5_000);
    faults.set(Mode::Away);
    tier.write(&batch(2, &["todos/a@2 a=2"])).await.expect("write");
    tier.prepare(&tables(&["todos"])).await.expect("nothing to prepare");
    let newer = tier.prepare(&tables(&["todos", "notes"])).await;
    assert!(matches!(newer, Err(AdapterError::Unavailable(_))), "{newer:?}");
    while tier.advance().await.is_ok() {}
    assert!(matches!(tier.failed(), Some(AdapterError::Unavailable(_))));
    let unknown = tier.write(&batch(3, &["todos/b@2 a=2"])).await;
    assert!(matches!(unknown, Err(AdapterError::Unavailable(_))), "{unknown:?}");
    assert_eq!(tier.watermark(LOG).await, Ok(Position(2)));
    faults.set(Mode::Working);
    tier.write(&batch(3, &["todos/b@2 a=2"])).await.expect("write");
    tier.advance().await.expect("moved");
    assert_eq!(tier.failed(), None);
}

/// Whatever the cold backend does with rows that move, who writes does not wait for it.
#[tokio::test]
async fn rows_are_written_while_others_and_they_themselves_move() {
    let house = House::default();
    let faults = Faults::default();
    let cold = Flaky::around(house.cold.clone(), &faults);
    let after = Duration::from_millis(AFTER_MS);
    let tier = Tier::new(Arc::new(house.hot.clone()), cold, after, Arc::clone(&house.clock) as _);
    tier.prepare(&tables(&["todos"])).await.expect("prepare");
    tier.write(&batch(1, &["todos/a@1 a=1", "todos/b@1 a=1"])).await.expect("write");
    house.clock.set(5_000);
    faults.set(Mode::SlowAt("join", Duration::from_millis(300)));
    let write = async {
        while faults.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        tier.write(&batch(2, &["todos/a@4900 b=2"])).await.expect("write");
        assert_eq!(faults.calls(), ["join"], "rows are on their way");
        shown(&house.hot, "todos").await
    };
    let (step, hot) = tokio::join!(tier.advance(), write);
    assert_eq!(hot, ["a: a=1 b=2", "b: a=1"]);
    assert!(step.expect("moved").worked >= Duration::from_millis(300));
    let (hot, cold) = house.todos().await;
    assert_eq!((hot, cold), (vec!["a: a=1 b=2".into()], vec!["a: a=1".into(), "b: a=1".into()]));
    assert_eq!(shown(&tier, "todos").await, ["a: a=1 b=2", "b: a=1"]);

    faults.set(Mode::Hangs);
    house.clock.set(9_000);
    let write = async {
        while faults.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        let batch = batch(3, &["todos/a@9000 b=3"]);
        let written = tokio::time::timeout(Duration::from_secs(10), tier.write(&batch));
        written.await.expect("nobody waits")
    };
    tokio::select! {
        step = async { tier.advance().await.and(tier.advance().await) } => panic!("it hangs: {step:?}"),
        written = write => written.expect("write"),
    }
}

/// A step is given up, or its process ends, while the hot backend is about to let go of a row: who
/// writes that row next writes all of it.
#[tokio::test]
async fn a_row_that_is_being_forgotten_is_written_whole() {
    for is_opened_anew in [false, true] {
        let house = House::default();
        let hot = Flaky::around(house.hot.clone(), &house.faults);
        let open = || {
            let (hot, cold) = (Arc::clone(&hot), Arc::new(house.cold.clone()));
            let after = Duration::from_millis(AFTER_MS);
            Tier::new(hot, cold, after, Arc::clone(&house.clock) as _)
        };
        let mut tier = open();
        tier.prepare(&tables(&["todos"])).await.expect("prepare");
        tier.write(&batch(1, &["todos/a@1 a=1"])).await.expect("write");
        house.clock.set(5_000);
        house.faults.set(Mode::ForgetsLate);
        let step = async || tokio::time::timeout(Duration::from_millis(50), tier.advance()).await;
        for _ in 0..3 {
            let _ = step().await;
        }
        assert_eq!(house.todos().await.0.len(), 1, "it is at it");
        if is_opened_anew {
            tier = open();
        }
        tier.write(&batch(2, &["todos/a@4900 b=2"])).await.expect("write");
        assert_eq!(shown(&house.hot, "todos").await, ["a: a=1 b=2"]);
    }
}

/// What comes late and is old already does not pass through the hot backend.
#[tokio::test]
async fn old_rows_are_joined_where_they_belong() {
    let house = House::default();
    let tier = house.prepared().await;
    let source = Memory::default();
    source.prepare(&tables(&["todos"])).await.expect("prepare");
    let all = ["todos/a@1 a=1", "todos/b@4500 a=1", "todos/c@1 a=1"];
    source.write(&batch(1, &all)).await.expect("write");
    house.clock.set(1);
    tier.write(&batch(1, &["todos/c@1 b=1"])).await.expect("write");
    house.clock.set(5_000);
    tier.join(&id("todos"), &rows(&source, "todos").await).await.expect("join");
    let (hot, cold) = house.todos().await;
    assert_eq!((hot, cold), (vec!["b: a=1".into(), "c: a=1 b=1".into()], vec!["a: a=1".into()]));
    assert_eq!(shown(&tier, "todos").await.len(), 3);
}

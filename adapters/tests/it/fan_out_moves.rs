//! What a fan-out is given without a batch: followers come to hold of it what the primary holds,
//! wherever it breaks off, and those that missed nothing are not refilled for others.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lakesync::adapter::{Adapter, AdapterError, Change, Place};
use lakesync::name::{Position, RowId};
use lakesync::row::Row;
use lakesync::schema::{ColumnType, Schema};
use lakesync::testing::id;
use lakesync_adapters::fan_out::{FanOut, Lag};
use lakesync_adapters::memory::Memory;

use crate::fan_out::{HASTY, in_step};
use crate::flaky::{Faults, Flaky, Mode, When};
use crate::texts::{LOG, batch, contents, delta, rows, shown, table, tables};

/// One of its backends, which may fail.
struct Room {
    memory: Memory,
    faults: Faults,
    flaky: Arc<dyn Adapter>,
}

impl Default for Room {
    fn default() -> Self {
        let (memory, faults) = (Memory::default(), Faults::default());
        let flaky = Flaky::around(memory.clone(), &faults);
        Self { memory, faults, flaky }
    }
}

#[derive(Default)]
struct House {
    primary: Room,
    one: Room,
    two: Room,
}

impl House {
    /// What is under way in a backend goes on there.
    fn open(&self) -> FanOut {
        let followers = [("one", &self.one), ("two", &self.two)]
            .map(|(name, room)| (name.to_owned(), Arc::clone(&room.flaky)));
        FanOut::new(Arc::clone(&self.primary.flaky), followers.to_vec(), HASTY)
    }

    /// Two rows, which all of them have.
    async fn filled(&self) -> FanOut {
        let fan_out = self.open();
        fan_out.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
        in_step(&fan_out).await;
        fan_out.write(&batch(1, &["todos/a@1 a=1", "todos/b@1 a=1"])).await.expect("write");
        in_step(&fan_out).await;
        for room in [&self.primary, &self.one, &self.two] {
            room.faults.set(Mode::Working);
        }
        fan_out
    }

    async fn check(&self, at: &str) {
        let primary = contents(&self.primary.memory).await;
        for follower in [&self.one, &self.two] {
            assert_eq!(contents(&follower.memory).await, primary, "{at}");
        }
    }

    /// Only a refill looks through what a follower holds.
    fn assert_not_refilled(&self, at: &str) {
        for follower in [&self.one, &self.two] {
            assert!(!follower.faults.calls().contains(&"rows"), "{at}: it was refilled");
        }
    }

    async fn todos(&self) -> Vec<(RowId, Row)> {
        rows(&self.primary.memory, "todos").await
    }

    /// A follower is behind, and is found to be: it is refilled beside what is under way.
    async fn have_refilled(&self, fan_out: &FanOut) {
        self.primary.memory.write(&batch(2, &["notes/n@2 a=1"])).await.expect("write");
        fan_out.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
    }
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

/// Drops what is under way as soon as `moment` has come.
async fn broken_off(call: impl Future, moment: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = moment => (),
        _ = call => (),
    }
}

/// What the primary refuses is nothing that followers could have missed.
#[tokio::test]
async fn nobody_is_refilled_for_what_the_primary_refuses() {
    let house = House::default();
    let fan_out = house.filled().await;
    let numbers = Schema::from_stored([table("numbers", ColumnType::Int64)]);
    fan_out.prepare(&numbers).await.expect("prepare");
    let unfit = delta("numbers/c@5 a=text");
    let mut row = Row::default();
    row.merge(&unfit);
    for _ in 0..3 {
        let refused = fan_out.join(&id("numbers"), &[(unfit.row_id.clone(), row.clone())]).await;
        assert!(matches!(refused, Err(AdapterError::Unfit { .. })), "{refused:?}");
    }
    in_step(&fan_out).await;
    house.check("after it was refused").await;
    house.assert_not_refilled("after it was refused");
}

#[tokio::test]
async fn the_others_are_not_refilled_for_one_that_is_away() {
    let house = House::default();
    let fan_out = house.filled().await;
    house.two.faults.set(Mode::Away);
    let todos = house.todos().await;
    for _ in 0..40 {
        fan_out.forget(&id("todos"), &todos).await.expect("forget");
        fan_out.join(&id("todos"), &todos).await.expect("join");
        let place = Place { log: LOG, position: Position(1), index: 0 };
        let change = Change { place, delta: delta("todos/a@1 a=1") };
        fan_out.record(&[change]).await.expect("record");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    house.two.faults.set(Mode::Working);
    in_step(&fan_out).await;
    house.check("after it was away").await;
    assert!(!house.one.faults.calls().contains(&"rows"), "it missed nothing");
}

/// Neither one that was just opened, nor one that is prepared anew, takes for missed what is on its way.
#[tokio::test]
async fn what_is_on_its_way_is_not_missed() {
    for turns in 0..60 {
        let house = House::default();
        let mut fan_out = house.filled().await;
        let todos = house.todos().await;
        for reopened in [true, false] {
            if reopened {
                drop(fan_out);
                fan_out = house.open();
            } else {
                fan_out.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
            }
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            fan_out.forget(&id("todos"), &todos[..1]).await.expect("forget");
            fan_out.join(&id("todos"), &todos[..1]).await.expect("join");
            fan_out.forget(&id("todos"), &todos[1..]).await.expect("forget");
            in_step(&fan_out).await;
            let at = format!("{turns} turns, reopened: {reopened}");
            house.check(&at).await;
            house.assert_not_refilled(&at);
        }
    }
}

/// The primary does it and can't say so, or what makes it known fails.
#[tokio::test]
async fn what_failed_may_be_done_all_the_same() {
    let faults = ["forget", "join", "write", "watermark"].map(|name| {
        [When::Before, When::After].map(|when| [(name, when, false), (name, when, true)])
    });
    for (name, when, restart) in faults.into_iter().flatten().flatten() {
        for (forgets, away) in [(true, false), (false, false), (true, true), (false, true)] {
            let house = House::default();
            let mut fan_out = house.filled().await;
            let todos = house.todos().await;
            if !forgets {
                fan_out.forget(&id("todos"), &todos).await.expect("forget");
                in_step(&fan_out).await;
            }
            if away {
                house.two.faults.set(Mode::Away);
            }
            house.primary.faults.set(Mode::Refuses(name, when));
            let _ = match forgets {
                true => fan_out.forget(&id("todos"), &todos[..1]).await,
                false => fan_out.join(&id("todos"), &todos[..1]).await,
            };
            if restart {
                drop(fan_out);
                fan_out = house.open();
            }
            house.primary.faults.set(Mode::Working);
            house.two.faults.set(Mode::Working);
            in_step(&fan_out).await;
            let what = if forgets { "forgotten" } else { "joined" };
            let at = format!("{what}, {name} {when:?}, away: {away}, restart: {restart}");
            house.check(&at).await;
        }
    }
}

/// The caller gives up, or its process ends, and the primary goes on with it for a while.
#[tokio::test]
async fn what_was_given_up_may_be_done_later() {
    for restart in [false, true] {
        let house = House::default();
        let mut fan_out = house.filled().await;
        let todos = house.todos().await;
        house.primary.faults.set(Mode::ForgetsLate);
        let told = until(|| house.primary.faults.calls().contains(&"forget"));
        broken_off(fan_out.forget(&id("todos"), &todos), told).await;
        house.primary.faults.set(Mode::Working);
        if restart {
            drop(fan_out);
            fan_out = house.open();
        }
        in_step(&fan_out).await;
        fan_out.write(&batch(2, &["notes/n@2 a=1"])).await.expect("write");
        in_step(&fan_out).await;
        house.check(&format!("restart: {restart}")).await;
        assert_eq!(shown(&house.one.memory, "todos").await, [""; 0]);
    }
}

/// The primary has let go of it; its followers have not heard of that.
#[tokio::test]
async fn what_was_given_up_when_it_was_done_is_not_lost() {
    for restart in [false, true] {
        let house = House::default();
        let mut fan_out = house.filled().await;
        let todos = house.todos().await;
        house.one.faults.set(Mode::Hangs);
        let gone = async {
            while !house.todos().await.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        broken_off(fan_out.forget(&id("todos"), &todos), gone).await;
        if restart {
            drop(fan_out);
            fan_out = house.open();
        }
        house.one.faults.set(Mode::Working);
        in_step(&fan_out).await;
        house.check(&format!("restart: {restart}")).await;
    }
}

/// A follower that still looks for a row to let go of does not take one that has come back.
#[tokio::test]
async fn a_row_that_comes_back_meanwhile_stays() {
    let house = House::default();
    let fan_out = house.filled().await;
    let todos = house.todos().await;
    house.one.faults.set(Mode::SlowAt("find", HASTY.answer / 4));
    let looks = async || until(|| house.one.faults.calls().contains(&"find")).await;
    broken_off(fan_out.forget(&id("todos"), &todos[..1]), looks()).await;
    looks().await;
    fan_out.join(&id("todos"), &todos[..1]).await.expect("join");
    tokio::time::sleep(HASTY.answer / 2).await;
    in_step(&fan_out).await;
    house.check("after it came back").await;
    assert_eq!(house.todos().await, todos);
}

/// The refill does not see yet what the primary is given meanwhile, which can't say that it has it.
#[tokio::test]
async fn a_refill_beside_a_join_that_fails_is_not_enough() {
    let house = House::default();
    let fan_out = house.filled().await;
    let todos = house.todos().await;
    fan_out.forget(&id("todos"), &todos).await.expect("forget");
    in_step(&fan_out).await;
    house.primary.faults.set(Mode::LostAfter("join", HASTY.answer / 2));
    let table = id("todos");
    let joined = async {
        fan_out.join(&table, &todos).await.expect_err("it fails");
        house.primary.faults.set(Mode::Working);
    };
    let refilled = async {
        until(|| house.primary.faults.calls().contains(&"join")).await;
        house.have_refilled(&fan_out).await;
    };
    tokio::join!(joined, refilled);
    in_step(&fan_out).await;
    house.check("after the refill").await;
    assert_eq!(house.todos().await, todos);
}

/// A refill that began and ended while the primary was to let go of something has not seen it done.
#[tokio::test]
async fn a_refill_beside_what_is_forgotten_is_not_enough() {
    let house = House::default();
    let fan_out = house.filled().await;
    let todos = house.todos().await;
    house.primary.faults.set(Mode::SlowAt("forget", Duration::from_secs(60)));
    let refilled = async {
        until(|| house.primary.faults.calls().contains(&"forget")).await;
        house.have_refilled(&fan_out).await;
        let has = |lag: &Lag| !lag.refilling && lag.watermarks[&LOG] == Position(2);
        until(|| fan_out.lags().iter().all(has)).await;
    };
    broken_off(fan_out.forget(&id("todos"), &todos), refilled).await;
    drop(fan_out);
    // What the process that has ended had asked for.
    house.primary.memory.forget(&id("todos"), &todos).await.expect("forget");
    in_step(&house.open()).await;
    house.check("after a restart").await;
    assert_eq!(shown(&house.one.memory, "todos").await, [""; 0]);
}

/// It is away for a while in the midst of its refill, and what does not find room is not looked at.
#[tokio::test]
async fn what_a_refill_misses_makes_it_begin_again() {
    let house = House::default();
    let fan_out = house.filled().await;
    let many: Vec<_> = (0..2_000).map(|nth| format!("todos/r{nth:04}@1 a=1")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    house.primary.memory.write(&batch(2, &many)).await.expect("write");
    fan_out.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
    let table = id("todos");
    let joins = || house.one.faults.calls().iter().filter(|call| **call == "join").count();
    until(|| 5 < joins()).await;
    let todos = house.todos().await;
    let early = |nth: usize| [(id(&format!("a{nth:02}")), todos[0].1.clone())];
    house.one.faults.set(Mode::Away);
    for nth in 0..40 {
        fan_out.join(&table, &early(nth)).await.expect("join");
    }
    house.one.faults.set(Mode::Working);
    for nth in 40..60 {
        fan_out.join(&table, &early(nth)).await.expect("join");
    }
    in_step(&fan_out).await;
    house.check("after the refill").await;
}

/// Each counts for its own followers: none is refilled for another's, and what one misses is seen.
#[tokio::test]
async fn one_within_another_counts_for_itself() {
    let (primary, follower, plain) = (House::default(), House::default(), Room::default());
    let open = || {
        let inner = [&primary, &follower].map(|house| Arc::new(house.open()));
        let [first, second] = inner.clone();
        let followers = vec![
            ("fan_out".to_owned(), second as Arc<dyn Adapter>),
            ("plain".to_owned(), Arc::clone(&plain.flaky)),
        ];
        (FanOut::new(first, followers, HASTY), inner)
    };
    let all_in_step = async |(outer, inner): &(FanOut, [Arc<FanOut>; 2])| {
        in_step(outer).await;
        for inner in inner {
            in_step(inner).await;
        }
    };
    let mut opened = open();
    opened.0.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
    all_in_step(&opened).await;
    opened.0.write(&batch(1, &["todos/a@1 a=1", "todos/b@1 a=1"])).await.expect("write");
    all_in_step(&opened).await;
    let todos = primary.todos().await;
    let rooms = [&plain, &primary.one, &primary.two, &follower.one, &follower.two];
    for room in rooms {
        room.faults.set(Mode::Working);
    }
    for _ in 0..5 {
        opened.0.forget(&id("todos"), &todos).await.expect("forget");
        opened.0.join(&id("todos"), &todos[..1]).await.expect("join");
    }
    all_in_step(&opened).await;
    assert_eq!(opened.0.logs().await, Ok(vec![LOG]), "callers do not see the log of marks");
    for room in rooms {
        assert_eq!(shown(&room.memory, "todos").await, ["a: a=1"]);
        assert!(!room.faults.calls().contains(&"rows"), "it was refilled");
    }
    for away in rooms {
        away.faults.set(Mode::Away);
        opened.0.join(&id("todos"), &todos).await.expect("join");
        opened.0.forget(&id("todos"), &todos[1..]).await.expect("forget");
        drop(opened);
        away.faults.set(Mode::Working);
        opened = open();
        all_in_step(&opened).await;
        for room in rooms {
            assert_eq!(shown(&room.memory, "todos").await, ["a: a=1"]);
        }
    }
}

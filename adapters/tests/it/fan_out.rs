//! A fan-out: followers come to hold what the primary holds, whatever happens to them.

use std::fmt;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::conformance::Backend;
use lakesync::adapter::{Adapter, AdapterError, Batch, Capacity, Change, Commit, Place};
use lakesync::delta::{Cell, Delta, Op};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::{ColumnType, Schema};
use lakesync::testing::id;
use lakesync::value::Value;
use lakesync_adapters::fan_out::{FanOut, Patience};
use lakesync_adapters::memory::Memory;

use crate::flaky::{Faults, Flaky, Mode, When};
use crate::texts::{LOG, batch, contents, delta, rows, shown, stretch, table, tables};

/// Real time, but little of it: nothing here waits for an answer that comes.
pub(crate) const HASTY: Patience = Patience {
    answer: Duration::from_millis(100),
    pause_min: Duration::from_millis(1),
    pause_max: Duration::from_millis(4),
    check_every: Duration::from_millis(500),
};

#[derive(Default)]
pub(crate) struct House {
    pub(crate) primary: Memory,
    pub(crate) follower: Memory,
    pub(crate) faults: Faults,
}

impl House {
    fn open(&self) -> FanOut {
        let follower = Flaky::around(self.follower.clone(), &self.faults);
        FanOut::new(Arc::new(self.primary.clone()), vec![("copy".to_owned(), follower)], HASTY)
    }

    pub(crate) async fn prepared(&self) -> FanOut {
        let fan_out = self.open();
        fan_out.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
        in_step(&fan_out).await;
        fan_out
    }

    /// The follower holds all that the primary does, and nothing else.
    pub(crate) async fn check(&self, at: &str) {
        assert_eq!(contents(&self.follower).await, contents(&self.primary).await, "{at}");
    }
}

pub(crate) async fn in_step(fan_out: &FanOut) {
    let all = tokio::time::timeout(Duration::from_secs(20), fan_out.in_step()).await;
    let all = all.unwrap_or_else(|_| panic!("not in step: {:?}", fan_out.lags()));
    all.expect("the primary answers");
}

/// The follower, as if it were the backend: reads wait until it is in step.
#[derive(Debug)]
struct Follower {
    fan_out: FanOut,
    /// Alone, without what its own marks are counted in.
    follower: FanOut,
}

macro_rules! forward {
    ($($to:ident.$name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)+) => {
        #[async_trait]
        impl Adapter for Follower {
            fn capacity(&self) -> Capacity {
                self.fan_out.capacity()
            }

            $(async fn $name(&self, $($arg: $kind),*) -> Result<$out, AdapterError> {
                in_step(&self.fan_out).await;
                self.$to.$name($($arg),*).await
            })+
        }
    };
}

forward! {
    fan_out.prepare(schema: &Schema) -> ();
    follower.schema() -> Schema;
    fan_out.write(batch: &Batch) -> ();
    follower.watermark(log: LogId) -> Position;
    follower.logs() -> Vec<LogId>;
    fan_out.join(table: &TableName, rows: &[(RowId, Row)]) -> ();
    fan_out.overwrite(table: &TableName, rows: &[(RowId, Option<Row>)]) -> ();
    fan_out.fence() -> ();
    follower.rows(table: &TableName, after: Option<&RowId>, limit: usize) -> Vec<(RowId, Row)>;
    follower.find(table: &TableName, row_ids: &[RowId]) -> Vec<(RowId, Row)>;
    follower.shown(table: &TableName, after: Option<&RowId>, limit: usize) -> Vec<RowId>;
    follower.misshown(table: &TableName, rows: &[(RowId, Row)]) -> Vec<RowId>;
    fan_out.forget(table: &TableName, rows: &[(RowId, Row)]) -> ();
    follower.history(after: Option<&Place>, limit: usize) -> Vec<Change>;
    fan_out.record(changes: &[Change]) -> ();
    follower.health() -> ();
}

impl fmt::Display for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fan_out.fmt(f)
    }
}

#[async_trait]
impl Backend for House {
    async fn open(&self) -> Box<dyn Adapter> {
        let follower = FanOut::new(Arc::new(self.follower.clone()), Vec::new(), HASTY);
        Box::new(Follower { fan_out: House::open(self), follower })
    }
}

/// A follower passes for its primary.
mod a_follower {
    async fn empty() -> super::House {
        super::House::default()
    }

    lakesync::adapter_conformance!(empty);
}

#[tokio::test]
async fn one_that_was_away_is_refilled() {
    let house = House::default();
    let fan_out = house.prepared().await;
    fan_out.write(&batch(1, &["todos/a@1 a=1", "todos/b@1 a=1"])).await.expect("write");
    in_step(&fan_out).await;
    house.faults.set(Mode::Away);
    fan_out.prepare(&tables(&["late"])).await.expect("prepare");
    for position in 2..100 {
        let note = format!("notes/n{position}@{position} a=1");
        fan_out.write(&batch(position, &[&note, "late/l@3 b=1"])).await.expect("write");
    }
    fan_out.write(&batch(100, &["todos/a@100 delete", "todos/b@100 b=2"])).await.expect("write");
    let tombstone = rows(&house.primary, "todos").await[..1].to_vec();
    fan_out.forget(&id("todos"), &tombstone).await.expect("forget");
    tokio::task::yield_now().await;
    house.faults.set(Mode::Working);
    in_step(&fan_out).await;
    assert_eq!(shown(&house.follower, "todos").await, ["b: a=1 b=2"]);
    house.check("after it was away").await;
    let [lag] = &fan_out.lags()[..] else { panic!("one follower") };
    assert_eq!((lag.name.as_str(), &lag.error, lag.refilling), ("copy", &None, false));
    assert_eq!(lag.watermarks[&LOG], Position(100));
}

#[tokio::test]
async fn one_that_hangs_holds_nobody_up() {
    let house = House::default();
    let fan_out = house.prepared().await;
    house.faults.set(Mode::Hangs);
    let began = tokio::time::Instant::now();
    for position in 1..200 {
        let row = format!("todos/r{position}@1 a=1");
        fan_out.write(&batch(position, &[&row])).await.expect("write");
    }
    fan_out.join(&id("todos"), &[]).await.expect("join");
    fan_out.health().await.expect("the primary's");
    assert!(began.elapsed() < HASTY.answer * 4, "{:?}", began.elapsed());
    assert_eq!(fan_out.watermark(LOG).await, Ok(Position(199)));
    assert_eq!(fan_out.lags()[0].watermarks.get(&LOG), None);
    let error = fan_out.lags()[0].error.clone().expect("an error").to_string();
    assert_eq!(error, "the backend is unavailable: no answer within 100ms");
    house.faults.set(Mode::Working);
    in_step(&fan_out).await;
    house.check("after it hung").await;
}

/// A write that nobody follows up: the follower must not wait for the next one.
#[tokio::test]
async fn one_that_a_restart_finds_behind_catches_up_by_itself() {
    let house = House::default();
    let fan_out = house.prepared().await;
    house.faults.set(Mode::Away);
    fan_out.write(&batch(1, &["todos/a@1 a=1"])).await.expect("write");
    drop(fan_out);
    house.faults.set(Mode::Working);
    in_step(&house.open()).await;
    house.check("after a restart").await;
}

/// No watermark tells of rows that were joined, and of changes that were recorded.
#[tokio::test]
async fn one_that_missed_what_has_no_watermark_is_refilled() {
    for restart in [false, true] {
        let house = House::default();
        let mut fan_out = house.prepared().await;
        let source = Memory::default();
        source.prepare(&tables(&["todos"])).await.expect("prepare");
        source.write(&batch(7, &[])).await.expect_err("beyond");
        source.write(&stretch(1, 6, Vec::new())).await.expect("write");
        source.write(&batch(7, &["todos/a@1 a=1", "todos/b@1 a=1"])).await.expect("write");

        house.faults.set(Mode::Away);
        fan_out.join(&id("todos"), &rows(&source, "todos").await).await.expect("join");
        let history = source.history(None, 9).await.expect("history");
        fan_out.record(&history).await.expect("record");
        if restart {
            drop(fan_out);
            fan_out = house.open();
        }
        house.faults.set(Mode::Working);
        // To the follower, this connects.
        fan_out.write(&stretch(1, 7, Vec::new())).await.expect("write");
        in_step(&fan_out).await;
        house.check("after a migration").await;
        assert_eq!(shown(&house.follower, "todos").await.len(), 2);
        assert_eq!(fan_out.logs().await, Ok(vec![LOG]), "callers do not see the log of marks");
    }
}

#[tokio::test]
async fn one_that_refuses_a_table_lags_and_says_why() {
    let house = House::default();
    let clash = Schema::from_stored([table("todos", ColumnType::Int64)]);
    house.follower.prepare(&clash).await.expect("prepare");
    let fan_out = house.open();
    let wished = lakesync::schema::TableSchema { version: 2, ..table("todos", ColumnType::Date) };
    fan_out.prepare(&Schema::from_stored([wished])).await.expect("the primary is free");
    fan_out.write(&batch(1, &[])).await.expect("write");
    let mismatch = |error: &Option<AdapterError>| matches!(error, Some(AdapterError::Mismatch(_)));
    while !mismatch(&fan_out.lags()[0].error) {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.follower.watermark(LOG).await, Ok(Position::START));
}

/// Whatever call of the follower fails, and whether or not it was done, all arrives.
#[tokio::test]
async fn a_fault_at_any_call_is_made_good() {
    for (restart, when) in [(false, When::Before), (false, When::After), (true, When::After)] {
        for nth in 1.. {
            let house = House::default();
            let fan_out = house.prepared().await;
            fan_out.write(&batch(1, &["todos/a@1 a=1", "notes/a@1 a=1"])).await.expect("write");
            drop(fan_out);
            house.primary.write(&batch(2, &["todos/a@2 delete"])).await.expect("write");
            house.faults.set(Mode::FailsAt(nth, when));
            let mut fan_out = house.open();
            let joined = rows(&house.primary, "todos").await;
            for position in 3..6 {
                let new = format!("todos/r{position}@{position} b=2");
                fan_out.write(&batch(position, &[&new])).await.expect("write");
                fan_out.join(&id("todos"), &joined).await.expect("join");
                if restart {
                    drop(fan_out);
                    fan_out = house.open();
                }
            }
            let gone = rows(&house.primary, "todos").await[..1].to_vec();
            fan_out.forget(&id("todos"), &gone).await.expect("forget");
            in_step(&fan_out).await;
            house.check(&format!("{when:?} call {nth}")).await;
            if !house.faults.fired() {
                assert!(12 < nth, "failed at {nth} calls only");
                break;
            }
        }
    }
}

/// The primary is prepared first, and what it is given may come to a follower before its schema.
#[tokio::test]
async fn one_that_a_newer_row_comes_to_is_prepared_first() {
    let house = House::default();
    let fan_out = house.prepared().await;
    let mut wider = table("todos", ColumnType::Any);
    wider.version = 2;
    let source = Memory::default();
    for adapter in [&house.primary, &source] {
        adapter.prepare(&Schema::from_stored([wider.clone()])).await.expect("prepare");
    }
    let cells = vec![Cell { column: id("a"), value: Value::Int64(7) }];
    let number = Delta { op: Op::Upsert(cells), ..delta("todos/n@1 a=1") };
    let commits = vec![Commit { position: Position(1), deltas: vec![number] }];
    source.write(&stretch(1, 1, commits)).await.expect("write");
    fan_out.join(&id("todos"), &rows(&source, "todos").await).await.expect("join");
    in_step(&fan_out).await;
    house.check("after a wider type").await;
}

/// A large table takes its time.
#[tokio::test]
async fn preparing_may_take_longer_than_an_answer() {
    let house = House::default();
    house.faults.set(Mode::SlowAt("prepare", HASTY.answer * 3));
    let fan_out = house.open();
    fan_out.prepare(&tables(&["todos"])).await.expect("prepare");
    fan_out.write(&batch(1, &["todos/a@1 a=1"])).await.expect("write");
    in_step(&fan_out).await;
    house.check("after it was prepared").await;
}

/// Rows are joined and forgotten all the time, as under a tier: a refill comes to its end.
#[tokio::test]
async fn a_refill_ends_whatever_is_joined_and_forgotten_meanwhile() {
    let house = House::default();
    let many: Vec<_> = (0..2_000).map(|nth| format!("todos/r{nth:04}@1 a=1")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let source = Memory::default();
    for adapter in [&house.primary, &source] {
        adapter.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
        adapter.write(&batch(1, &many)).await.expect("write");
    }
    source.write(&batch(2, &["todos/z@1 b=1", "todos/a@1 b=1"])).await.expect("write");
    let all = rows(&source, "todos").await;
    let (first, last) = (all[0].clone(), all[all.len() - 1].clone());
    let fan_out = house.open();
    while !fan_out.lags()[0].refilling {
        tokio::task::yield_now().await;
    }
    let mut rounds = 0;
    while fan_out.lags()[0].refilling {
        rounds += 1;
        assert!(rounds < 5_000, "it never ends");
        for row in [&first, &last, &all[1 + rounds % 2_000]] {
            fan_out.join(&id("todos"), from_ref(row)).await.expect("join");
        }
        fan_out.forget(&id("todos"), from_ref(&first)).await.expect("forget");
        if rounds % 2 == 0 {
            fan_out.forget(&id("todos"), from_ref(&last)).await.expect("forget");
        }
    }
    assert!(10 < rounds, "{rounds} rounds during the refill");
    in_step(&fan_out).await;
    house.check("after the refill").await;
    let looks = house.faults.calls().iter().filter(|call| **call == "rows").count();
    assert!(looks < 20, "it was refilled more than once: {looks} pages");
}

/// What is queued for a follower writes a row that the primary has let go of since.
#[tokio::test]
async fn what_is_queued_does_not_bring_back_what_was_forgotten() {
    let house = House::default();
    let fan_out = house.prepared().await;
    house.faults.set(Mode::Working);
    for position in 1..9 {
        let row = format!("todos/r{position}@1 a=1");
        fan_out.write(&batch(position, &[&row])).await.expect("write");
    }
    let gone = rows(&house.primary, "todos").await;
    fan_out.forget(&id("todos"), &gone).await.expect("forget");
    in_step(&fan_out).await;
    house.check("after the queue").await;
    assert!(!house.faults.calls().contains(&"rows"), "it missed nothing");
}

/// Batches go on to come while a follower is refilled, more than the queue holds: one refill is
/// enough, and none of them is lost.
#[tokio::test]
async fn what_comes_during_a_refill_is_not_lost() {
    let house = House::default();
    let many: Vec<_> = (0..2_000).map(|nth| format!("todos/r{nth:04}@1 a=1")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    house.primary.prepare(&tables(&["notes", "todos"])).await.expect("prepare");
    house.primary.write(&batch(1, &many)).await.expect("write");
    let fan_out = house.open();
    while !fan_out.lags()[0].refilling {
        tokio::task::yield_now().await;
    }
    let mut during = 0;
    for position in 2..200 {
        during += usize::from(fan_out.lags()[0].refilling);
        let change = format!("todos/r{:04}@2 b={position}", (position * 769) % 2_000);
        fan_out.write(&batch(position, &[&change])).await.expect("write");
        tokio::task::yield_now().await;
    }
    assert!(16 < during, "{during} batches came during the refill");
    in_step(&fan_out).await;
    house.check("after the refill").await;
    let calls = house.faults.calls();
    assert!(!calls.contains(&"forget"), "nothing was there to be forgotten");
    let looks = calls.iter().filter(|call| **call == "rows").count();
    assert!(looks < 100, "it was refilled more than once: {looks} pages");
}

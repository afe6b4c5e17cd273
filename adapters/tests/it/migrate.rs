//! A migration: all of it arrives, whatever it is interrupted by, and what did not is found.

use std::ops::ControlFlow;

use futures_util::FutureExt;
use lakesync::adapter::{Adapter, Batch, Commit};
use lakesync::name::{LogId, Position};
use lakesync::schema::{Column, ColumnType, Schema};
use lakesync::testing::id;
use lakesync_adapters::memory::Memory;
use lakesync_adapters::migrate::{Checkpoint, MigrateError, Progress, Report, Step, migrate};

use crate::flaky::{Faults, Flaky, Mode, When};
use crate::texts::{batch, contents, delta, rows, table, tables};

/// Keeps each checkpoint as text, as a program would, and stops at the n-th.
#[derive(Default)]
struct Keeper {
    steps: usize,
    stop_at: Option<usize>,
    last: Option<String>,
    told: Vec<String>,
}

impl Progress for Keeper {
    fn done(&mut self, step: Step<'_>, at: &Checkpoint) -> ControlFlow<()> {
        self.steps += 1;
        self.last = Some(at.to_string());
        self.told.push(match step {
            Step::Begun => "begun".to_owned(),
            Step::Rows(table, done) => format!("{table} {done}"),
            Step::Changes(done) => format!("changes {done}"),
            Step::Copied => "copied".to_owned(),
            Step::Verified(table, done) => format!("{table} {done} verified"),
        });
        if self.stop_at == Some(self.steps) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Keeper {
    fn checkpoint(&self) -> Option<Checkpoint> {
        self.last.as_ref().map(|text| text.parse().expect("what was kept"))
    }

    async fn go(
        &mut self,
        source: &dyn Adapter,
        target: &dyn Adapter,
    ) -> Result<Report, MigrateError> {
        migrate(source, target, self.checkpoint(), self).await
    }
}

/// Two logs, a history, deleted rows, and tables of several pages.
async fn source() -> Memory {
    let source = Memory::default();
    source.prepare(&tables(&["empty", "notes", "todos"])).await.expect("prepare");
    let many = (0..100).map(|nth| delta(&format!("todos/é{nth:03}@1 a=1")));
    let deltas = many.chain([delta("notes/n@1 a=1"), delta("notes/m@2 delete")]).collect();
    let commits = vec![Commit { position: Position(3), deltas }];
    let old = Batch::new(LogId([9; 16]), Position(1), Position(4), commits).expect("a batch");
    source.write(&old).await.expect("write");
    source.write(&batch(1, &["todos/é007@7 delete"])).await.expect("write");
    source.write(&batch(2, &["todos/é008@7 b=2"])).await.expect("write");
    source
}

#[tokio::test]
async fn all_of_a_backend_arrives() {
    let (source, target) = (source().await, Memory::default());
    let mut keeper = Keeper::default();
    let report = keeper.go(&source, &target).await.expect("migrate");
    assert_eq!(contents(&target).await, contents(&source).await);
    assert_eq!(target.schema().await, source.schema().await);
    let counts: Vec<_> =
        report.tables.iter().map(|(table, tally)| (table.as_str(), tally.count)).collect();
    assert_eq!(counts, [("empty", 0), ("notes", 2), ("todos", 100)]);
    assert_eq!((report.history.count, report.moved), (104, false));
    let told: Vec<_> = keeper.told.iter().map(String::as_str).collect();
    let rows = ["begun", "notes 2", "todos 16", "todos 48", "todos 100"];
    assert_eq!(told[..5], rows);
    assert_eq!(told[told.len() - 2..], ["notes 2 verified", "todos 100 verified"]);
    let digests: Vec<_> = report.tables.iter().map(|(_, tally)| tally.digest).collect();
    assert!(digests[0] != digests[1] && digests[1] != digests[2], "{digests:?}");
}

/// Gives the source a column, a wider type and a table once the first rows are copied.
struct Grower<'s>(&'s Memory, bool);

impl Progress for Grower<'_> {
    fn done(&mut self, step: Step<'_>, _: &Checkpoint) -> ControlFlow<()> {
        if matches!(step, Step::Rows(..)) && !std::mem::replace(&mut self.1, true) {
            let mut todos = table("todos", ColumnType::Any);
            todos.version = 2;
            let note = Column { name: id("note"), kind: ColumnType::String, field_id: 3 };
            todos.columns.push(note);
            let grown = Schema::from_stored([todos, table("young", ColumnType::String)]);
            let changes = batch(3, &["todos/é099@8 note=new", "young/y@8 a=1"]);
            self.0.prepare(&grown).now_or_never().expect("memory").expect("prepare");
            self.0.write(&changes).now_or_never().expect("memory").expect("write");
        }
        ControlFlow::Continue(())
    }
}

#[tokio::test]
async fn a_source_may_grow_meanwhile() {
    let (source, target) = (source().await, Memory::default());
    let report = migrate(&source, &target, None, &mut Grower(&source, false)).await;
    let report = report.expect("migrate");
    assert!(report.moved);
    assert_eq!(rows(&target, "todos").await, rows(&source, "todos").await);
}

/// A target that says it took the history, and holds none of it.
#[tokio::test]
async fn a_history_that_was_lost_is_found() {
    let (source, target) = (source().await, Memory::default());
    let mut keeper = Keeper::default();
    keeper.go(&source, &target).await.expect("migrate");
    let lost = Memory::default();
    lost.prepare(&source.schema().await.expect("schema")).await.expect("prepare");
    for table in ["notes", "todos"] {
        lost.join(&id(table), &rows(&source, table).await).await.expect("join");
    }
    let error = keeper.go(&source, &lost).await.expect_err("it has no history");
    assert!(matches!(&error, MigrateError::Differs(d) if d.table.is_none()), "{error:?}");
}

#[tokio::test]
async fn it_resumes_wherever_it_was_stopped() {
    let source = source().await;
    for stop_at in 1.. {
        let target = Memory::default();
        let mut keeper = Keeper { stop_at: Some(stop_at), ..Keeper::default() };
        let stopped = keeper.go(&source, &target).await;
        if keeper.steps < stop_at {
            stopped.expect("nobody stopped it");
            assert!(9 < stop_at, "stopped {stop_at} times only");
            break;
        }
        assert_eq!(stopped, Err(MigrateError::Stopped));
        let before = keeper.told.len();
        keeper.go(&source, &target).await.expect("resume");
        assert_eq!(contents(&target).await, contents(&source).await);
        let again =
            keeper.told[before..].iter().filter(|told| keeper.told[..before].contains(told));
        let again: Vec<_> =
            again.filter(|told| told.starts_with("todos") && !told.contains("ver")).collect();
        assert!(again.is_empty(), "copied twice: {again:?}");
    }
}

#[tokio::test]
async fn it_resumes_whatever_call_failed() {
    let source = source().await;
    for when in [When::Before, When::After] {
        for nth in 1.. {
            let (target, faults) = (Memory::default(), Faults::default());
            let sides = [&source, &target].map(|side| Flaky::around(side.clone(), &faults));
            faults.set(Mode::FailsAt(nth, when));
            let mut keeper = Keeper::default();
            let failed = keeper.go(&*sides[0], &*sides[1]).await;
            if faults.fired() {
                let told = failed.expect_err("a call failed").to_string();
                assert!(told.contains("the source failed") || told.contains("the target failed"));
                keeper.go(&*sides[0], &*sides[1]).await.expect("resume");
            }
            assert_eq!(contents(&target).await, contents(&source).await, "{when:?} {nth}");
            if !faults.fired() {
                assert!(40 < nth, "failed at {nth} calls only");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_target_that_holds_anything_is_refused() {
    let source = source().await;
    for what in ["a log", "a row", "a history"] {
        let target = Memory::default();
        target.prepare(&tables(&["others"])).await.expect("prepare");
        let other = batch(1, &["others/r@1 a=1"]);
        let whole = Memory::default();
        whole.prepare(&tables(&["others"])).await.expect("prepare");
        whole.write(&other).await.expect("write");
        let told = match what {
            "a log" => {
                target.write(&batch(1, &[])).await.expect("write");
                "rows of 1 log"
            }
            "a row" => {
                let rows = rows(&whole, "others").await;
                target.join(&id("others"), &rows).await.expect("join");
                "rows in table others"
            }
            _ => {
                let history = whole.history(None, 9).await.expect("history");
                target.record(&history).await.expect("record");
                "a history"
            }
        };
        let before = contents(&target).await;
        let mut keeper = Keeper::default();
        let refused = keeper.go(&source, &target).await.expect_err("it is not empty").to_string();
        assert_eq!(
            refused,
            format!(
                "the target already holds {told}: choose an empty one, such as another schema, \
                 database or prefix, or resume the migration that filled it from its checkpoint"
            )
        );
        assert_eq!(contents(&target).await, before);
        assert_eq!(keeper.steps, 0);
    }
}

#[tokio::test]
async fn what_the_target_dropped_is_found() {
    let source = source().await;
    for what in ["row", "change"] {
        let target = Memory::default();
        let mut keeper = Keeper::default();
        keeper.go(&source, &target).await.expect("migrate");
        if what == "row" {
            let lost = rows(&target, "todos").await[42..43].to_vec();
            target.forget(&id("todos"), &lost).await.expect("forget");
        } else {
            let history = source.history(None, 3).await.expect("history");
            let change = lakesync::adapter::Change {
                place: lakesync::adapter::Place { index: 999, ..history[2].place },
                ..history[2].clone()
            };
            target.record(&[change]).await.expect("record");
        }
        let found = keeper.go(&source, &target).await;
        let Err(MigrateError::Differs(found)) = found else { panic!("{found:?}") };
        let expected = if what == "row" {
            "table todos from row \"é042\" on; the source has 100 of them and the target 99"
        } else {
            "the history from change 999 of position 3 on; the source has 104 of them and the \
             target 105"
        };
        assert_eq!(found.to_string(), expected);
    }
}

/// A value that differs counts, not only a row that is missing.
#[tokio::test]
async fn a_row_in_another_state_is_found() {
    let (source, target) = (source().await, Memory::default());
    let mut keeper = Keeper::default();
    keeper.go(&source, &target).await.expect("migrate");
    let other = Memory::default();
    other.prepare(&tables(&["todos"])).await.expect("prepare");
    other.write(&batch(1, &["todos/é050@9 a=2"])).await.expect("write");
    target.join(&id("todos"), &rows(&other, "todos").await).await.expect("join");
    let found = keeper.go(&source, &target).await;
    assert!(matches!(found, Err(MigrateError::Differs(_))), "{found:?}");
}

/// What was written meanwhile is the gateway's to write to the target, from the old watermark on.
#[tokio::test]
async fn a_source_that_moved_is_told() {
    let (source, target) = (source().await, Memory::default());
    let mut keeper = Keeper { stop_at: Some(4), ..Keeper::default() };
    keeper.go(&source, &target).await.expect_err("stopped");
    let new = batch(3, &["todos/é000@9 a=9", "todos/new@9 a=9"]);
    source.write(&new).await.expect("write");
    let report = keeper.go(&source, &target).await.expect("resume");
    assert!(report.moved);
    assert_eq!(report.behind.len(), 1, "{:?}", report.behind);
    assert_eq!(target.watermark(new.log()).await, Ok(Position(2)));
    target.write(&new).await.expect("the gateway's flush");
    assert_eq!(contents(&target).await, contents(&source).await);
}

/// A page takes as many rows as fit it, once the first one has shown how large they are.
#[tokio::test]
async fn rows_of_two_mebibytes_are_copied_one_by_one() {
    let source = Memory::default();
    source.prepare(&tables(&["todos"])).await.expect("prepare");
    let large = "x".repeat(1 << 20);
    let deltas = (0..60).map(|nth| delta(&format!("todos/r{nth:02}@1 a={large} b={large}")));
    for (position, delta) in (1..).zip(deltas) {
        let commits = vec![Commit { position: Position(position), deltas: vec![delta] }];
        let batch = Batch::new(LogId([1; 16]), Position(position), Position(position), commits);
        source.write(&batch.expect("a batch")).await.expect("write");
    }
    let target = Memory::default();
    let mut keeper = Keeper::default();
    keeper.go(&source, &target).await.expect("migrate");
    let pages: Vec<_> = keeper.told.iter().filter(|told| told.starts_with("todos")).collect();
    assert_eq!(pages[..3], ["todos 16", "todos 17", "todos 18"]);
}

//! A route: each table in its own backend, and one log for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lakesync::adapter::{Adapter, AdapterError, Batch, Commit, Place};
use lakesync::name::{LogId, Position};
use lakesync::schema::{ColumnType, Schema};
use lakesync::testing::id;
use lakesync_adapters::memory::Memory;
use lakesync_adapters::route::Route;

use crate::flaky::{Faults, Flaky, Mode, When};
use crate::texts::{LOG, batch, contents, delta, shown, stretch, table, tables};

#[derive(Default)]
struct House {
    default: Memory,
    lake: Memory,
    faults: Faults,
}

impl House {
    fn open(&self) -> Route {
        let lake = Flaky::around(self.lake.clone(), &self.faults);
        let default = Flaky::around(self.default.clone(), &self.faults);
        let tables = [(id("events"), Arc::clone(&lake)), (id("clicks"), lake)];
        Route::new(default, BTreeMap::from(tables))
    }
}

/// Two backends with a part of each commit, in turn.
fn batches() -> Vec<Batch> {
    vec![
        batch(1, &["events/a@1 a=1", "todos/x@1 a=1", "events/b@1 b=2"]),
        batch(2, &["todos/x@2 b=2", "Events2/q@2 a=5"]),
        batch(3, &["clicks/c@3 a=1"]),
        batch(4, &["events/a@4 delete", "clicks/c@4 b=7", "todos/y@4 a=9"]),
        stretch(5, 8, Vec::new()),
    ]
}

fn schema() -> Schema {
    tables(&["events", "todos", "clicks", "Events2"])
}

#[tokio::test]
async fn each_table_is_where_its_route_leads() {
    let house = House::default();
    let route = house.open();
    route.prepare(&schema()).await.expect("prepare");
    for batch in batches() {
        route.write(&batch).await.expect("write");
    }
    let names = |schema: Schema| -> Vec<String> {
        schema.tables().map(|table| table.table.to_string()).collect()
    };
    assert_eq!(names(house.lake.schema().await.expect("schema")), ["clicks", "events"]);
    assert_eq!(names(house.default.schema().await.expect("schema")), ["Events2", "todos"]);
    assert_eq!(shown(&house.lake, "events").await, ["a: gone", "b: b=2"]);
    assert_eq!(shown(&house.default, "todos").await, ["x: a=1 b=2", "y: a=9"]);
    for part in [&house.lake, &house.default] {
        assert_eq!(part.watermark(LOG).await, Ok(Position(8)));
    }
    assert_eq!(route.to_string(), "route to memory, clicks to memory, events to memory");
}

/// As one backend would, places in the history included.
#[tokio::test]
async fn a_crash_between_the_parts_is_settled_by_writing_again() {
    let expected = Memory::default();
    expected.prepare(&schema()).await.expect("prepare");
    for batch in batches() {
        expected.write(&batch).await.expect("write");
    }
    let expected = contents(&expected).await;
    for when in [When::Before, When::After] {
        for nth in 1.. {
            let house = House::default();
            house.faults.set(Mode::DiesAt(nth, when));
            let mut route = house.open();
            let mut died = false;
            if route.prepare(&schema()).await.is_err() {
                died = true;
                house.faults.set(Mode::Working);
                route = house.open();
                route.prepare(&schema()).await.expect("prepare");
            }
            for batch in batches() {
                if route.write(&batch).await.is_err() {
                    died = true;
                    house.faults.set(Mode::Working);
                    route = house.open();
                    route.write(&batch).await.expect("again");
                }
            }
            house.faults.set(Mode::Working);
            assert_eq!(contents(&route).await, expected, "died {when:?} call {nth}");
            if !died {
                assert!(20 < nth, "died at {nth} calls only");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_one_part_would_refuse_reaches_none() {
    let house = House::default();
    let route = house.open();
    route.prepare(&schema()).await.expect("prepare");
    let stranger = batch(1, &["todos/x@1 a=1", "events/a@1 c=1"]);
    let refused = route.write(&stranger).await;
    assert!(matches!(refused, Err(AdapterError::UnknownColumn { .. })), "{refused:?}");
    assert_eq!(shown(&house.default, "todos").await, [""; 0]);
    assert_eq!(route.watermark(LOG).await, Ok(Position::START));

    // One is ahead: what connects to it does not connect to all.
    house.lake.write(&stretch(1, 3, Vec::new())).await.expect("write");
    let gap = AdapterError::Gap { watermark: Position::START, first: Position(4) };
    assert_eq!(route.write(&batch(4, &["events/a@1 a=1"])).await, Err(gap));
    assert_eq!(shown(&house.lake, "events").await, [""; 0]);
}

#[tokio::test]
async fn what_one_part_would_refuse_prepares_none() {
    let house = House::default();
    let route = house.open();
    route.prepare(&tables(&["events"])).await.expect("prepare");
    let clash = table("events", ColumnType::Int64);
    let clash = lakesync::schema::TableSchema { version: 2, ..clash };
    let wished = Schema::from_stored([table("todos", ColumnType::String), clash]);
    let refused = route.prepare(&wished).await;
    assert!(matches!(refused, Err(AdapterError::Mismatch(_))), "{refused:?}");
    assert_eq!(house.default.schema().await, Ok(Schema::default()));
}

/// A reader that goes on from what it was told must not miss what comes before that.
#[tokio::test]
async fn a_commit_is_told_when_all_of_it_is_there() {
    let house = House::default();
    let route = house.open();
    route.prepare(&schema()).await.expect("prepare");
    let first = batch(1, &["todos/x@1 a=1", "events/a@1 a=1"]);
    route.write(&first).await.expect("write");
    let deltas = ["todos/x@2 a=2", "events/a@2 a=2"].map(delta).to_vec();
    let second = stretch(2, 2, vec![Commit { position: Position(2), deltas }]);
    house.lake.write(&second.only(|delta| delta.table.as_str() == "events")).await.expect("write");
    let told = contents(&route).await.history;
    assert_eq!(told.len(), 2, "{told:?}");
    // What was recorded of other logs is told all the same, behind it.
    let log = LogId([9; 16]);
    let place = Place { log, position: Position(1), index: 0 };
    let elsewhere = lakesync::adapter::Change { place, delta: delta("todos/x@1 a=0") };
    route.record(&[elsewhere]).await.expect("record");
    assert_eq!(contents(&route).await.history.len(), 3);
    route.write(&second).await.expect("write");
    assert_eq!(contents(&route).await.history.len(), 5);
}

/// A table whose route has changed is looked for where it leads now, and only there.
#[tokio::test]
async fn a_new_route_shows_what_was_migrated() {
    let house = House::default();
    let before = Route::new(Arc::new(house.default.clone()), BTreeMap::new());
    before.prepare(&schema()).await.expect("prepare");
    before.write(&batch(1, &["events/a@1 a=1", "todos/x@1 a=1"])).await.expect("write");
    let route = house.open();
    let rows = route.rows(&id("events"), None, 9).await;
    assert_eq!(rows, Err(AdapterError::UnknownTable(id("events"))));
    assert_eq!(route.watermark(LOG).await, Ok(Position::START), "the lake has nothing yet");
}

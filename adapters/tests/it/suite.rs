//! The shared suite: each adapter alone, and wrappers around wrappers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::Adapter;
use lakesync::adapter::conformance::Backend;
use lakesync::clock::{ManualClock, SystemClock};
use lakesync::testing::id;
use lakesync_adapters::fan_out::{FanOut, Patience};
use lakesync_adapters::memory::Memory;
use lakesync_adapters::route::Route;
use lakesync_adapters::tier::Tier;

use crate::moving::Moving;

/// Opens an adapter on a backend that outlives it.
type Open = Box<dyn Fn() -> Box<dyn Adapter> + Send + Sync>;

/// A backend that is opened by calling what it holds.
struct Opened(Open);

#[async_trait]
impl Backend for Opened {
    async fn open(&self) -> Box<dyn Adapter> {
        (self.0)()
    }
}

fn memory() -> Open {
    let memory = Memory::default();
    Box::new(move || Box::new(memory.clone()))
}

/// `todos` and what the suite's other checks write, in backends of their own.
fn route(part: fn() -> Open) -> Open {
    let (default, todos, others) = (part(), part(), part());
    Box::new(move || {
        let others: Arc<dyn Adapter> = others().into();
        let mut tables = BTreeMap::new();
        tables.insert(id("TODOS"), todos().into());
        for table in ["more", "numbers", "select", "order", "extremes"] {
            tables.insert(id(table), Arc::clone(&others));
        }
        Box::new(Route::new(default().into(), tables))
    })
}

fn fan_out(part: fn() -> Open) -> Open {
    let (primary, one, two) = (part(), part(), part());
    Box::new(move || {
        let followers = vec![("one".to_owned(), one().into()), ("two".to_owned(), two().into())];
        Box::new(FanOut::new(primary().into(), followers, Patience::default()))
    })
}

/// Everything is old: what is written moves with the same call.
fn old(part: fn() -> Open) -> Open {
    let (hot, cold) = (part(), part());
    Box::new(move || {
        let (hot, cold) = (hot().into(), cold().into());
        Box::new(Moving(Tier::new(hot, cold, Duration::ZERO, Arc::new(SystemClock))))
    })
}

/// Nothing is old: what is written stays.
fn young(part: fn() -> Open) -> Open {
    let (hot, cold) = (part(), part());
    Box::new(move || {
        let (hot, cold) = (hot().into(), cold().into());
        let clock = Arc::new(ManualClock::at(0));
        Box::new(Tier::new(hot, cold, Duration::from_secs(1), clock))
    })
}

macro_rules! suites {
    ($($name:ident: $open:expr;)+) => {$(
        mod $name {
            #[allow(clippy::wildcard_imports, reason = "the expression may name any of them")]
            use super::*;

            async fn empty() -> impl Backend {
                Opened($open)
            }

            lakesync::adapter_conformance!(empty);
        }
    )+};
}

suites! {
    memory_alone: memory();
    a_route: route(memory);
    a_fan_out: fan_out(memory);
    a_tier_of_old_rows: old(memory);
    a_tier_of_new_rows: young(memory);
    a_route_of_fan_outs: route(|| fan_out(memory));
    a_fan_out_of_routes: fan_out(|| route(memory));
    a_tier_of_routes: old(|| route(memory));
    a_tier_of_fan_outs: old(|| fan_out(memory));
    a_fan_out_of_fan_outs: fan_out(|| fan_out(memory));
    a_fan_out_of_tiers: fan_out(|| old(memory));
}

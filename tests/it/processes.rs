//! The real binary as its users run it: how it starts, how it stops, and how it dies.

mod admin;
mod bomb;
mod descriptors;
mod dev;
mod kill;
mod reader;
mod refusals;
mod serve;
mod stalled;
mod syncs;
mod token;

use lakesync::clock::{SystemClock, WallClock};
use lakesync::hlc::Hlc;

use crate::harness::{Client, MAIN, changes};

/// The gateway and its tables, as far as they are not there yet.
pub(crate) async fn set_up(operator: &Client) {
    let mut operator = operator.clone();
    // Somebody may have been here before.
    let _ = operator.create_gateway(MAIN).await;
    operator.put_schema(changes::tables()).await.expect("installed");
}

/// What a clock reads: the real one, as the process under test has.
pub(crate) fn hlc_now() -> Hlc {
    Hlc::from_ms(SystemClock.now_ms())
}

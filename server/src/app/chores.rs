//! What a server does beside its calls: once at its start, and then once a minute.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::Gateways;
use crate::service::REFUSALS;

/// How often gateways that nobody uses are closed, and the rest of the refusals is logged.
const EVERY: Duration = Duration::from_secs(60);

/// Says which gateways hold stamps from the future, then closes gateways that nobody uses and logs
/// what was refused, until the server stops.
pub(super) async fn run(gateways: Arc<Gateways>, stopping: watch::Receiver<bool>) {
    gateways.look_for_future_stamps().await;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stopping.borrow() {
        ticks.tick().await;
        gateways.close_idle().await;
        REFUSALS.say_rest();
    }
}

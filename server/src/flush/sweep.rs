//! Gateways that were behind when the process ended are opened when it starts: nobody else may come
//! to use them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::gateway::{Gateway, Gateways, Progress};
use crate::store::StoreError;

/// How many gateways are listed at a time.
const PAGE: usize = 100;
/// How many may be behind of a backend that has not been tried yet.
const BEHIND_MAX: usize = 64;
/// How often we look whether they were.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Opens each gateway that a backend is behind of, a few at a time.
pub(super) async fn open_behind(gateways: Arc<Gateways>, backends: Vec<Arc<str>>) {
    let (mut after, mut behind) = (None, Vec::<Gateway>::new());
    loop {
        let listed = match gateways.list(after.as_ref(), PAGE).await {
            Ok(listed) => listed,
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::error!(%error, "can't list gateways to flush");
                return;
            }
        };
        let Some(last) = listed.last() else { break };
        after = Some(last.name.clone());
        for record in listed {
            while BEHIND_MAX <= behind.len() {
                sleep(LOOK_EVERY).await;
                behind.retain(is_fresh);
            }
            match gateways.is_behind(&record, &backends).await {
                Ok(false) => {}
                Ok(true) => match gateways.get(&record.name).await {
                    // Once it is open, flushing keeps it so until it has caught up.
                    Ok(gateway) => behind.push(gateway),
                    Err(error) => {
                        tracing::error!(gateway = %record.name, %error, "can't be opened to be flushed")
                    }
                },
                Err(error) => tracing::error!(gateway = %record.name, %error, "can't be looked at"),
            }
        }
    }
}

/// Whether a backend was not tried yet, though the gateway is behind.
fn is_fresh(gateway: &Gateway) -> bool {
    let untried = |progress: &Progress| progress.attempts == 0;
    gateway.is_behind() && gateway.backends().iter().any(|(_, seen)| untried(&seen.borrow()))
}

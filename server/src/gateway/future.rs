//! Stamps from the future: a gateway whose server's clock was once ahead holds rows that were stamped
//! then. Other rows are not affected, and these rows can be edited (see docs/PROTOCOL.md, Stamps);
//! but an edit by a client that does not know the row's stamp loses until the time has come. So the
//! server says it.

use std::time::Duration;

use lakesync::hlc::{Clock, Hlc};
use lakesync::name;

use super::recover::{self, Counters};
use super::{Gateways, Settings};
use crate::store::{GatewayId, GatewayRecord, StoreError};

/// How many gateways are looked at between two requests to the store's list.
const PAGE: usize = 100;

/// How far the newest stamp of a gateway is ahead of `wall_ms`, if that is further than a stamp may
/// be.
pub(super) fn ahead(counters: &Counters, settings: &Settings, wall_ms: u64) -> Option<Duration> {
    let ahead = Duration::from_millis(Hlc(counters.newest).ms().saturating_sub(wall_ms));
    (settings.clock_drift_max < ahead).then_some(ahead)
}

/// The clock reading that clients may take over at wall time `wall_ms`.
pub(super) fn told(last: Hlc, wall_ms: u64, settings: &Settings) -> Hlc {
    let drift_ms = u64::try_from(settings.clock_drift_max.as_millis()).unwrap_or(u64::MAX);
    let wall = Hlc::from_ms(wall_ms);
    if wall_ms.saturating_add(drift_ms) < last.ms() { wall } else { last.max(wall) }
}

/// Lets the gateway's clock follow a wall clock that was set back, and says that it was.
pub(super) fn settle(clock: &mut Clock, wall_ms: u64, gateway: GatewayId) {
    if let Some(drift) = clock.settle(wall_ms) {
        let (gateway, ahead_ms) = (gateway.0, drift.ahead_ms);
        tracing::warn!(gateway, ahead_ms, "the server's clock was ahead, and was set back since");
    }
}

/// Says that a gateway holds such stamps.
pub(super) fn warn(record: &GatewayRecord, ahead: Duration) {
    tracing::warn!(
        gateway = %record.name,
        ahead_s = ahead.as_secs(),
        "rows have stamps from the future: the server's clock was ahead once, or clock_drift_max was \
         larger"
    );
}

impl Gateways {
    /// Looks at every gateway, open or not, and says how many hold stamps from the future and which
    /// holds the furthest.
    pub async fn look_for_future_stamps(&self) {
        match self.find_future_stamps().await {
            Ok((_, None)) | Err(StoreError::Closed) => {}
            Ok((count, Some((ahead, gateway)))) => tracing::warn!(
                gateways = count,
                furthest = %gateway,
                ahead_s = ahead.as_secs(),
                "gateways hold stamps from the future: the server's clock was ahead once, or \
                 clock_drift_max was larger"
            ),
            Err(error) => {
                tracing::error!(%error, "gateways can't be looked at for stamps from the future");
            }
        }
    }

    /// How many gateways hold stamps from the future, and the one that holds the furthest.
    async fn find_future_stamps(
        &self,
    ) -> Result<(u64, Option<(Duration, name::Gateway)>), StoreError> {
        let (mut after, mut count, mut furthest) = (None, 0, None);
        loop {
            let listed = self.list(after.as_ref(), PAGE).await?;
            let Some(last) = listed.last() else { return Ok((count, furthest)) };
            after = Some(last.name.clone());
            for record in listed {
                let counters = match recover::counters(&*self.store, record.id).await {
                    Ok(counters) => counters,
                    // It was deleted meanwhile.
                    Err(StoreError::NotFound) => continue,
                    Err(error) => return Err(error),
                };
                if let Some(ahead) = ahead(&counters, &self.settings, self.clock.now_ms()) {
                    count += 1;
                    furthest = furthest.max(Some((ahead, record.name)));
                }
            }
        }
    }
}

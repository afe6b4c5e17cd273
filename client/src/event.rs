//! What happens to a replica, as a stream for whoever listens.
//!
//! Listening is optional: the queue is bounded and nothing waits for a listener. One that falls
//! behind is told how many events it missed.

use futures_util::stream::{BoxStream, unfold};
use lakesync::name::{Position, RowId, TableName};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::db::{Migration, Parked, Rejected, Superseded};

/// Events a listener may be behind.
const EVENTS_MAX: usize = 1_024;

/// Something that happened to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Rows of these tables changed, because others changed them.
    Applied {
        /// The tables.
        tables: Vec<TableName>,
    },
    /// Local changes are durable at the gateway.
    Pushed {
        /// The commit, unless nothing changed.
        position: Option<Position>,
        /// How many there were.
        rows: usize,
    },
    /// A local write had lost to a newer one; the newer is shown.
    Superseded(Superseded),
    /// The gateway refused a local change: it was taken back and is kept in `_lakesync_rejected`.
    Rejected(Rejected),
    /// A row arrived that a constraint of the local table refuses. It waits in `_lakesync_parked`.
    Parked(Parked),
    /// A row that waited is in its table.
    Unparked {
        /// The row's table.
        table: TableName,
        /// The row.
        row_id: RowId,
    },
    /// Rows of a checkpoint arrived.
    CheckpointProgress {
        /// Rows so far.
        done: u64,
        /// Rows expected.
        total: u64,
    },
    /// A checkpoint ended.
    CheckpointEnded {
        /// Rows that were removed from their tables here. The gateway has deleted them, or the token
        /// does not open them any more; a checkpoint does not tell which.
        removed: usize,
        /// Rows that are sent again: the gateway, restored or made anew, had lost them.
        restored: usize,
    },
    /// The gateway's schema was taken over.
    Migrated(Migration),
    /// The local clock was off; unsent changes were stamped again.
    ClockCorrected {
        /// How much is added to the local clock now, in milliseconds.
        offset_ms: i64,
    },
    /// This listener fell behind.
    Missed {
        /// How many events it missed.
        count: u64,
    },
}

/// Where events are told.
#[derive(Debug)]
pub(crate) struct Bell(broadcast::Sender<Event>);

impl Bell {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(EVENTS_MAX))
    }

    /// Tells all listeners; without any, nothing happens.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.0.send(event);
    }

    /// The events from now on. Ends when the replica is closed.
    pub(crate) fn listen(&self) -> BoxStream<'static, Event> {
        Box::pin(unfold(self.0.subscribe(), |mut events| async {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(count)) => Event::Missed { count },
                Err(RecvError::Closed) => return None,
            };
            Some((event, events))
        }))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_missed() {
        let bell = Bell::new();
        let mut events = bell.listen();
        let extra = 3;
        for done in 0..(EVENTS_MAX as u64 + extra) {
            bell.tell(Event::CheckpointProgress { done, total: 0 });
        }
        drop(bell);
        assert_eq!(events.next().await, Some(Event::Missed { count: extra }));
        assert_eq!(events.next().await, Some(Event::CheckpointProgress { done: extra, total: 0 }));
        assert_eq!(events.count().await, EVENTS_MAX - 1);
    }
}

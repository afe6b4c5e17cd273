//! What a replica knows of its gateway while it is open: the server's limits, and the schema as
//! last installed. Never stored: it is asked for again.

use std::sync::PoisonError;
use std::time::Duration;

use lakesync::limits::{
    CLOCK_DRIFT_MAX, HEARTBEAT, OFFLINE_MAX, PROTOCOL_MAX, PROTOCOL_MIN, PUSH_ROWS_MAX,
};
use lakesync::schema::TableSchema;
use tokio::time::Instant;

use super::{Core, SyncError};
use crate::db::Migration;
use crate::event::Event;
use crate::transport::{ServerInfo, Shape};

/// Heartbeats that may fail to come before a stream is given up.
const HEARTBEATS_MISSED_MAX: u32 = 3;

/// What is known of the gateway.
#[derive(Debug, Default)]
pub(super) struct Session {
    info: Option<ServerInfo>,
    tables: Vec<TableSchema>,
    migration: Migration,
}

impl Session {
    /// Whether every table and column of `shape` is installed, as the writer knew it or newer.
    fn knows(&self, shape: &Shape) -> bool {
        let table = self.tables.iter().find(|table| table.table == shape.table);
        table.is_some_and(|table| {
            shape.version <= table.version
                && shape.columns.iter().all(|column| table.column(column).is_some())
        })
    }
}

impl Core {
    /// Makes sure, once, that both sides speak one protocol.
    pub(super) async fn greet(&self) -> Result<(), SyncError> {
        if self.session().info.is_some() {
            return Ok(());
        }
        let began = Instant::now();
        let info = self.transport.server_info().await?;
        self.sizing.greeted(began.elapsed());
        let (server_min, server_max) = info.protocol;
        if PROTOCOL_MAX < server_min || server_max < PROTOCOL_MIN {
            return Err(SyncError::Protocol { server_min, server_max });
        }
        // Its wall clock, exactly: what it says later may be ahead of that by the drift limit.
        self.observe_within(info.server_hlc, Duration::ZERO).await?;
        self.session().info = Some(info);
        Ok(())
    }

    /// How far ahead of the server's wall clock its readings may be.
    pub(super) fn clock_drift_max(&self) -> Duration {
        self.session().info.as_ref().map_or(CLOCK_DRIFT_MAX, |info| info.clock_drift_max)
    }

    /// Greets again next time: behind a fault there may be another server.
    pub(super) fn forget_server(&self) {
        self.session().info = None;
    }

    /// Fetches the schema and takes it over. Whether the gateway has changed it.
    pub(super) async fn refresh_schema(&self) -> Result<bool, SyncError> {
        let tables = self.transport.schema(&self.gateway).await?;
        // Only now: a name that was mistyped must not bind the file to a gateway that is not there.
        self.db.bind(&self.gateway).await?;
        // Installed even if it is the same: the application may have added a missing column.
        let migration = self.db.install_schema(&tables).await?;
        let mut session = self.session();
        let changed = session.tables != tables;
        session.tables = tables;
        if session.migration != migration {
            session.migration = migration.clone();
            self.bell.tell(Event::Migrated(migration));
        }
        Ok(changed)
    }

    /// Fetches the schema if what arrived was written against a newer one.
    pub(super) async fn keep_up(&self, shapes: &[Shape]) -> Result<(), SyncError> {
        let known = {
            let session = self.session();
            shapes.iter().all(|shape| session.knows(shape))
        };
        if !known {
            self.refresh_schema().await?;
        }
        Ok(())
    }

    /// How long a stream may be silent.
    pub(super) fn silence_max(&self) -> Duration {
        let heartbeat = self.session().info.as_ref().map_or(HEARTBEAT, |info| info.heartbeat);
        heartbeat.saturating_mul(HEARTBEATS_MISSED_MAX)
    }

    /// How many changes one push may hold.
    pub(super) fn push_rows_max(&self) -> usize {
        let stated = self.session().info.as_ref().map_or(PUSH_ROWS_MAX, |info| info.push_rows_max);
        stated.clamp(1, PUSH_ROWS_MAX)
    }

    /// How long a replica may stay away and still push everything it wrote.
    pub(super) fn offline_max(&self) -> Duration {
        self.session().info.as_ref().map_or(OFFLINE_MAX, |info| info.offline_max)
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! One round: take what others wrote, send what was written here, take again.

use std::time::Duration;

use lakesync::hlc::Hlc;
use lakesync::name::Position;

use super::{Core, SyncError};
use crate::db::{Applied, DbError, Reading};
use crate::event::Event;
use crate::status::Phase;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Changes and rows that arrived.
    pub pulled: usize,
    /// Whether every row was received anew: on first contact, or after a long absence.
    pub checkpoint: bool,
    /// Rows that a checkpoint did not contain, and that were removed from their tables here. The
    /// gateway has deleted them, or the token does not open them any more.
    pub removed: usize,
    /// Rows that were sent again because the gateway, restored or made anew, had lost them.
    pub restored: usize,
    /// Changes that were sent and are durable now, or were already.
    pub accepted: usize,
    /// Changes that lost to newer ones, wholly or in some columns.
    pub superseded: usize,
    /// Changes that the gateway refused.
    pub rejected: usize,
    /// Changes that wait, because the gateway finds their stamps ahead of its clock although the
    /// clock was corrected by it. They are sent again with the next round.
    pub drifted: usize,
    /// The commit up to which the replica has seen everything.
    pub position: Position,
}

impl Core {
    /// Runs one round. The caller holds the desk.
    pub(super) async fn round(&self) -> Result<Round, SyncError> {
        let outcome = self.try_round().await;
        let last_error = outcome.as_ref().err().map(ToString::to_string);
        if last_error.is_some() {
            self.forget_server();
        }
        self.board.note(|status| {
            status.phase = Phase::Idle;
            status.last_error = last_error;
        });
        outcome
    }

    /// Pulling first lets the clock observe the newest stamps before anything is pushed. Every
    /// step may be repeated, so a failed round needs no clean-up.
    async fn try_round(&self) -> Result<Round, SyncError> {
        let mut round = Round::default();
        self.catch_up(&mut round).await?;
        let mut waiting = Vec::new();
        let sent = self.push_all(&mut waiting, &mut round).await?;
        if sent.outrun || !sent.committed.is_empty() {
            self.pull_to_head(&sent.committed, &mut round).await?;
        }
        round.drifted = waiting.len();
        self.count().await?;
        round.position = self.board.read().position;
        Ok(round)
    }

    /// Takes everything that others wrote by now.
    pub(super) async fn catch_up(&self, round: &mut Round) -> Result<(), SyncError> {
        self.board.enter(Phase::Connecting);
        self.greet().await?;
        self.refresh_schema().await?;
        self.pull_to_head(&[], round).await?;
        self.retry_parked().await?;
        Ok(())
    }

    /// Corrects the clock by the server's. Never while a push is under way: unsent changes may be
    /// stamped again.
    pub(super) async fn observe(&self, server_hlc: Hlc) -> Result<(), DbError> {
        self.observe_within(server_hlc, self.clock_drift_max()).await
    }

    /// Corrects the clock by a reading that is ahead of the server's wall clock by `slack` at most.
    pub(super) async fn observe_within(
        &self,
        server_hlc: Hlc,
        slack: Duration,
    ) -> Result<(), DbError> {
        let change = self.db.observe_clock(Reading { hlc: server_hlc, slack }).await?;
        if 0 < change.restamped {
            self.bell.tell(Event::ClockCorrected { offset_ms: change.offset_ms });
        }
        Ok(())
    }

    /// Tells what applying changed.
    pub(super) async fn tell_applied(&self, applied: Applied) -> Result<(), DbError> {
        let recount = !applied.parked.is_empty() || !applied.unparked.is_empty();
        if !applied.tables.is_empty() {
            self.bell.tell(Event::Applied { tables: applied.tables });
        }
        for parked in applied.parked {
            self.bell.tell(Event::Parked(parked));
        }
        for (table, row_id) in applied.unparked {
            self.bell.tell(Event::Unparked { table, row_id });
        }
        if recount {
            self.count().await?;
        }
        Ok(())
    }

    /// Tries the parked rows again.
    pub(super) async fn retry_parked(&self) -> Result<(), DbError> {
        let applied = self.db.retry_parked().await?;
        self.tell_applied(applied).await
    }
}

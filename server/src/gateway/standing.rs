//! Where a reader stands: what it may see, whether its cursor is good, and whether what it is to see
//! is durable.

use std::sync::atomic::Ordering;

use lakesync::name::{Position, TableName};

use super::allowance::{Quota, Stream};
use super::commit::Chain;
use super::cursor::{Cursor, CursorError, Seal, Selection, View};
use super::lens::{Caller, Lens};
use super::{Bug, Gateway, ReadError, Revoked, recover};
use crate::store::StoreError;

impl Gateway {
    /// What the caller may see, and the cursor of whoever has seen all of it. The rules first: a head
    /// that is read after them is not from before they came into force.
    pub(super) fn standing(
        &self,
        caller: &Caller,
        tables: &[TableName],
    ) -> Result<(Option<Lens>, Cursor), ReadError> {
        self.admit(caller)?;
        let planted = self.0.settings.suffers(Bug::ClaimsCached);
        let cached = planted.map(|planted| planted.with_first_claims(caller));
        let caller = cached.as_ref().unwrap_or(caller);
        let lens = Lens::of(self.0.in_force.borrow().index.as_ref(), caller)?;
        let (log_id, (position, chain)) = (self.0.record.log_id, self.0.tail.newest()?);
        let (tables, view) = (Selection::of(tables), View::of(lens.as_ref()));
        Ok((lens, Cursor { log_id, position, chain, tables, view }))
    }

    /// What seals this gateway's cursors.
    pub(super) fn seal(&self) -> Seal {
        Seal::of(&self.0.record)
    }

    /// Refuses whose token counts no longer.
    pub fn admit(&self, caller: &Caller) -> Result<(), Revoked> {
        match self.0.revoked.has(caller) {
            true => Err(Revoked),
            false => Ok(()),
        }
    }

    /// A place among the streams under way.
    pub(super) fn place(&self, caller: &Caller) -> Result<Stream, Quota> {
        self.0.allowances.stream(&caller.subject, self.0.clock.now_ms())
    }

    /// Where a reader with this cursor goes on.
    pub(super) async fn start(&self, cursor: &str, now: &Cursor) -> Result<Cursor, ReadError> {
        let at = if !cursor.is_empty() {
            let cursor = Cursor::decode(cursor, &self.seal())?;
            cursor.check(now)?;
            cursor
        } else if now.view == View::default() {
            Cursor { position: Position::START, chain: Chain::default(), ..now.clone() }
        } else {
            // The log from its beginning tells of rows that left the scope before this reader came.
            let first = "where there are sync rules, a reader begins with a checkpoint";
            return Err(CursorError::Expired(first).into());
        };
        self.check_commit(&at).await?;
        Ok(at)
    }

    /// Refuses a cursor whose successors the log no longer holds, and one of another past: what came
    /// to the gateway up to its position is not what it has seen.
    pub(super) async fn check_commit(&self, cursor: &Cursor) -> Result<(), ReadError> {
        let known = match self.check_held(cursor.position) {
            Ok(()) => self.chain(cursor.position).await? == cursor.chain,
            Err(ReadError::Cursor(CursorError::OtherLog)) => false,
            Err(error) => return Err(error),
        };
        if known {
            return Ok(());
        }
        // This log gave it out, for it is sealed; and yet the log lacks what it names.
        if !self.0.gauges.is_rolled_back.swap(true, Ordering::Relaxed) {
            tracing::error!(
                gateway = %self.0.record.name,
                position = cursor.position.0,
                "a reader has seen a commit of this log that the log does not have: its volume was \
                 rolled back. Replicas that were further learn of it and give back what they hold. If \
                 there are backends, stop the server, create the file RESTORED in its data directory \
                 and start it again"
            );
        }
        Err(CursorError::OtherLog.into())
    }

    /// The chain at a position of the log, whose next commit is not trimmed.
    pub(super) async fn chain(&self, at: Position) -> Result<Chain, ReadError> {
        if at == Position::START {
            return Ok(Chain::default());
        }
        if let Some(chain) = self.0.tail.chain(at) {
            return Ok(chain);
        }
        let found = recover::chain(&*self.0.store, self.0.record.id, at).await;
        // Asked after the reading, whatever came of it: a trim under way may have taken the commit.
        self.check_held(at)?;
        let lost = || StoreError::Corrupt(format!("the log has no commit after {at}"));
        Ok(found?.ok_or_else(lost)?)
    }

    /// Refuses a position whose successors the log no longer holds, or never gave out.
    pub(super) fn check_held(&self, at: Position) -> Result<(), ReadError> {
        if at < self.0.gauges.trimmed() {
            let gone = "commits after the cursor are no longer kept";
            return Err(CursorError::Expired(gone).into());
        }
        if self.0.tail.head()? < at {
            // Only another life of the log can have given it out.
            return Err(CursorError::OtherLog.into());
        }
        Ok(())
    }

    /// Waits until all that was read from the store is durable: a row may be newer than the disk.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        let inner = &self.0;
        // The head moves together with the rows, so it is that of the newest row read at least.
        let newest = inner.store.head(inner.record.id).await?;
        let mut head = inner.tail.subscribe();
        let durable = head.wait_for(|head| head.as_ref().map_or(true, |head| newest <= *head));
        match durable.await.as_deref() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.clone()),
            Err(_) => Err(StoreError::Closed),
        }
    }
}

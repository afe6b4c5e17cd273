//! Our own tables: made once, of one form, and locked by whoever writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::backend::Backend;
use super::catalogue::Catalogue;
use super::error::{Failure, corrupt};
use super::names::META;
use super::read::{Reads, check_format};

/// How a database makes and locks our own tables.
#[async_trait]
pub(crate) trait Installs: Reads {
    /// The database's own time. Generations are times, so that none comes twice, not even after a
    /// backup was put back.
    const NOW_MICROS: &'static str;

    /// Makes our tables and what holds them, as far as they are missing.
    async fn install(&self) -> Result<(), Failure>;

    /// The form of our tables and the generation of what was prepared, locked until the transaction
    /// ends.
    async fn lock(&self, connection: &mut Self::Connection) -> Result<Option<(i32, i64)>, Failure>;
}

impl<E: Installs> Backend<E> {
    /// Makes our own tables, unless they were seen before.
    pub(super) async fn ensure_installed(&self) -> Result<(), Failure> {
        // Who may not create tables may use those that somebody else made.
        if !self.is_installed().await? {
            self.engine.install().await?;
            self.installed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits until no other writer is at work, and tells what was prepared.
    pub(crate) async fn lock(
        &self,
        connection: &mut E::Connection,
    ) -> Result<Arc<Catalogue>, Failure> {
        let locked = self.engine.lock(connection).await;
        if locked.as_ref().is_err_and(|failure| failure.database().is_some_and(E::is_absence)) {
            // The next call begins anew.
            self.note_drop();
        }
        let (format, generation) = locked?.ok_or_else(|| corrupt(format!("{META} is empty")))?;
        check_format(format)?;
        if let Some(catalogue) = self.cached(generation) {
            return Ok(catalogue);
        }
        let catalogue = Arc::new(self.read_catalogue(connection).await?);
        let mut prepared = self.prepared.lock().expect("BUG: nothing panics under this lock");
        *prepared = Some((generation, Arc::clone(&catalogue)));
        Ok(catalogue)
    }

    fn cached(&self, generation: i64) -> Option<Arc<Catalogue>> {
        let prepared = self.prepared.lock().expect("BUG: nothing panics under this lock");
        let (known, catalogue) = prepared.as_ref()?;
        (*known == generation).then(|| Arc::clone(catalogue))
    }
}

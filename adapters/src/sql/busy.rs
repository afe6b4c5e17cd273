//! Others who hold what LakeSync needs: how long it waits for them, and what is said of them.
//!
//! Who waits to alter a table keeps everybody waiting behind it, readers too. So LakeSync waits for a
//! moment only, gives up, lets the others pass, and comes again.

use std::time::Duration;

use lakesync::adapter::AdapterError;
use tokio::time::timeout;

use super::backend::Backend;
use super::engine::Engine;
use super::error::Failure;

/// How long to wait for rows and tables that are to be written.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long to wait for a table that is to be altered.
pub(crate) const ALTER_WAIT: Duration = Duration::from_secs(2);
/// How long to ask who holds something, or whether anybody answers.
pub(super) const ASK_WAIT: Duration = Duration::from_secs(2);

impl<E: Engine> Backend<E> {
    /// What a failure means. Of somebody else's lock it says whose it is.
    pub(super) async fn explained(&self, failure: Failure) -> AdapterError {
        if !failure.database().is_some_and(E::is_locked_out) {
            return failure.adapter_error(E::said);
        }
        let Some(table) = failure.table() else {
            return AdapterError::Busy(
                "another server, or another step of this one, writes to this schema; it is tried \
                 again"
                    .to_owned(),
            );
        };
        let asked = timeout(ASK_WAIT, async {
            let mut session = self.engine.session().await?;
            let holders = self.engine.holders(&mut session, table).await?;
            session.end();
            Ok::<_, Failure>(holders)
        });
        // Whether we may ask is the database's to say, and the answer is an extra.
        let holders = asked.await.ok().and_then(Result::ok).unwrap_or_default();
        let held = match holders.as_slice() {
            [] => "somebody holds it in an open transaction, and LakeSync's user may not know who"
                .to_owned(),
            holders => format!("open transactions there: {}", holders.join("; ")),
        };
        AdapterError::Busy(format!(
            "table {table} can't be written or altered now: {held}. It is tried again; end the \
             transaction if it stays"
        ))
    }
}

/// A session as people find it again.
pub(crate) fn session_text(
    number: i64,
    user: Option<String>,
    program: Option<String>,
    age_s: Option<i64>,
) -> String {
    let mut text = format!("session {number}");
    if let Some(user) = user.filter(|user| !user.is_empty()) {
        text += &format!(" of user {user}");
    }
    if let Some(program) = program.filter(|program| !program.is_empty()) {
        text += &format!(" ({program})");
    }
    if let Some(seconds) = age_s {
        text += &format!(", for {seconds} s");
    }
    text
}

//! The task behind the writer: it waits for each group in turn, shows it, and answers.
//!
//! Durable, then visible, then acknowledged: the one place where the three meet.

use std::sync::Arc;

use lakesync::schema::Schema;
use tokio::sync::{mpsc, oneshot, watch};

use super::commit::Commit;
use super::followers::Tail;
use super::recover::Counters;
use super::ruling::InForce;
use super::{Ack, Gauges, PushError, Room, RulesChangeError, SchemaChangeError};
use crate::store::{Receipt, StoreError};

/// What a push is answered.
pub(super) type PushAnswer = Result<Ack, PushError>;
/// What a change of sync rules is answered.
pub(super) type RulesAnswer = Result<(), RulesChangeError>;
/// What a change of schema is answered.
pub(super) type SchemaAnswer = Result<Arc<Schema>, SchemaChangeError>;

/// A group on its way to the disk, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    pub(super) receipt: Option<Receipt>,
    pub(super) commits: Vec<Arc<Commit>>,
    pub(super) answers: Vec<Answer>,
    /// The counters with this group, if it changed any.
    pub(super) counters: Option<Counters>,
    pub(super) schema: Option<(Arc<Schema>, oneshot::Sender<SchemaAnswer>)>,
    /// The rules in force from here on, if they changed.
    pub(super) in_force: Option<InForce>,
    /// Who waits to hear that they are.
    pub(super) rules: Vec<oneshot::Sender<RulesAnswer>>,
}

/// An answer that waits for its group.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: oneshot::Sender<PushAnswer>,
    pub(super) what: PushAnswer,
    /// The push's room in the queue.
    pub(super) _room: Room,
}

impl InFlight {
    /// Nothing of the batch was kept: whoever was told of an effect is told this instead.
    pub(super) fn refuse(&mut self, error: &StoreError) {
        self.commits.clear();
        for Answer { what, .. } in &mut self.answers {
            if what.is_ok() {
                *what = Err(error.clone().into());
            }
        }
    }
}

/// Waits for each group in turn, shows it, and answers. Ends when the writer does, or at the first
/// failure: then nobody is answered, because nobody knows what is on the disk.
pub(super) async fn publish_all(
    mut groups: mpsc::Receiver<InFlight>,
    tail: Arc<Tail>,
    gauges: Arc<Gauges>,
    schema: watch::Sender<Arc<Schema>>,
    in_force: watch::Sender<Arc<InForce>>,
) {
    let guard = FailOnPanic(Arc::clone(&tail));
    while let Some(group) = groups.recv().await {
        if let Some(receipt) = group.receipt
            && let Err(error) = receipt.durable().await
        {
            tail.fail(error);
            break;
        }
        if let Some(counters) = &group.counters {
            gauges.show(counters);
        }
        // First the rules: who sees a commit past their beginning sees them as well.
        if let Some(rules) = group.in_force {
            in_force.send_replace(Arc::new(rules));
        }
        tail.publish(group.commits);
        for Answer { reply, what, .. } in group.answers {
            // A caller that hung up learns nothing; its changes are durable all the same.
            let _ = reply.send(what);
        }
        if let Some((installed, reply)) = group.schema {
            schema.send_replace(Arc::clone(&installed));
            let _ = reply.send(Ok(installed));
        }
        for reply in group.rules {
            let _ = reply.send(Ok(()));
        }
    }
    drop(guard);
}

/// Ends every reader and pusher if the task that holds it panics: nobody would serve them again.
pub(super) struct FailOnPanic(pub(super) Arc<Tail>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(StoreError::Failed("the gateway's task panicked".to_owned()));
        }
    }
}

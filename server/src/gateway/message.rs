//! What a gateway asks of its writer, one message a time.

use std::sync::Arc;

use lakesync::name::ClientId;
use lakesync::rules::Draft;
use lakesync::schema::Proposal;
use lakesync::wire::Offer;
use tokio::sync::oneshot;

use super::Room;
use super::flushed::Mark;
use super::lens::{Caller, Lens};
use super::publisher::{PushAnswer, RulesAnswer, SchemaAnswer};

/// What a gateway asks of its writer.
#[derive(Debug)]
pub(super) enum Message {
    Push(Push),
    PutSchema {
        proposals: Vec<Proposal>,
        dry_run: bool,
        reply: oneshot::Sender<SchemaAnswer>,
    },
    PutRules {
        draft: Draft,
        reply: oneshot::Sender<RulesAnswer>,
    },
    DeleteRules {
        reply: oneshot::Sender<RulesAnswer>,
    },
    Revoke {
        subject: String,
        before_ms: u64,
        reply: oneshot::Sender<RulesAnswer>,
    },
    Flushed {
        name: Arc<str>,
        mark: Mark,
    },
    /// What trimming waits for has moved.
    Retain,
}

/// One push in the queue.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) caller: Caller,
    /// What the caller may do under the rules that were in force when it called.
    pub(super) lens: Option<Lens>,
    pub(super) client: ClientId,
    pub(super) offers: Vec<Offer>,
    pub(super) atomic: bool,
    /// The size of the request.
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<PushAnswer>,
    /// Given back when it has been answered.
    pub(super) room: Room,
}

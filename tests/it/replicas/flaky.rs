//! A connection that fails by the dice: requests that never arrive, replies that never come back,
//! streams that break in the middle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lakesync::error::ErrorKind;
use lakesync::name::Gateway;
use lakesync::schema::{Proposal, TableSchema};
use lakesync::status::Problem;
use lakesync_client::Transport;
use lakesync_client::transport::{
    Checkpoint, CheckpointStream, Pull, PullStream, Push, Pushed, ServerInfo,
};

use super::dice::Dice;

/// A call in this many goes wrong, each way.
const ONE_IN: u64 = 6;

/// A transport with faults. Clones fail together.
#[derive(Clone, Debug)]
pub(crate) struct Flaky {
    inner: Arc<dyn Transport>,
    dice: Dice,
    healed: Arc<AtomicBool>,
    loses_reply: Arc<AtomicBool>,
}

impl Flaky {
    pub(crate) fn new(inner: Arc<dyn Transport>, dice: Dice) -> Self {
        Self { inner, dice, healed: Arc::default(), loses_reply: Arc::default() }
    }

    /// The answer to the next push is lost, whatever else.
    pub(crate) fn lose_reply(&self) {
        self.loses_reply.store(true, Ordering::Relaxed);
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    fn fails(&self) -> bool {
        !self.healed.load(Ordering::Relaxed) && self.dice.one_in(ONE_IN)
    }

    fn pass(&self, where_: &str) -> Result<(), Problem> {
        if self.fails() { Err(lost(where_)) } else { Ok(()) }
    }

    /// The stream, broken off after a few events or at its end.
    fn broken<E: Send + 'static>(
        &self,
        stream: BoxStream<'static, Result<E, Problem>>,
    ) -> BoxStream<'static, Result<E, Problem>> {
        if !self.fails() {
            return stream;
        }
        let end = futures_util::stream::iter([Err(lost("stream"))]);
        stream.take(self.dice.below(3) as usize).chain(end).boxed()
    }
}

fn lost(what: &str) -> Problem {
    let message = format!("the dice took the {what}");
    Problem {
        kind: ErrorKind::Unavailable,
        reason: None,
        message,
        retry_after: None,
        facts: BTreeMap::new(),
    }
}

#[async_trait]
impl Transport for Flaky {
    async fn server_info(&self) -> Result<ServerInfo, Problem> {
        self.pass("request")?;
        self.inner.server_info().await
    }

    async fn schema(&self, gateway: &Gateway) -> Result<Vec<TableSchema>, Problem> {
        self.pass("request")?;
        self.inner.schema(gateway).await
    }

    async fn push(&self, push: Push<'_>) -> Result<Pushed, Problem> {
        self.pass("request")?;
        let pushed = self.inner.push(push).await?;
        if self.loses_reply.swap(false, Ordering::Relaxed) {
            return Err(lost("reply"));
        }
        self.pass("reply")?;
        Ok(pushed)
    }

    async fn pull(&self, pull: Pull<'_>) -> Result<PullStream, Problem> {
        self.pass("request")?;
        Ok(self.broken(self.inner.pull(pull).await?))
    }

    async fn checkpoint(&self, checkpoint: Checkpoint<'_>) -> Result<CheckpointStream, Problem> {
        self.pass("request")?;
        Ok(self.broken(self.inner.checkpoint(checkpoint).await?))
    }

    fn bytes_moved(&self) -> u64 {
        self.inner.bytes_moved()
    }

    async fn create_gateway(&self, gateway: &Gateway) -> Result<(), Problem> {
        self.inner.create_gateway(gateway).await
    }

    async fn put_schema(
        &self,
        gateway: &Gateway,
        tables: &[Proposal],
    ) -> Result<Vec<TableSchema>, Problem> {
        self.inner.put_schema(gateway, tables).await
    }
}

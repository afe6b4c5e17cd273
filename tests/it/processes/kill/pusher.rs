//! A client that pushes one commit after another, and repeats what was not answered.

use lakesync::delta::Delta;
use lakesync::hlc::Hlc;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::hlc_now;
use crate::harness::Client;
use crate::harness::changes::upsert;

/// Rows that a push makes, beside the one that all pushes of a client write.
const ROWS: u64 = 3;

/// A client over all lives of the server.
pub(super) struct Pusher {
    pub(super) id: String,
    began: Hlc,
    /// How much the shared row holds beside the tag, in bytes.
    padding: usize,
    /// How many pushes were answered; the next one may have been sent already.
    pub(super) answered: u64,
}

/// What a client was told.
pub(super) struct Acknowledged {
    /// The commit's position; zero if it had been committed before.
    pub(super) position: u64,
    pub(super) tag: String,
}

impl Pusher {
    pub(super) fn new(nth: usize) -> Self {
        Self::heavy(nth, 0)
    }

    /// One that writes `padding` bytes with every push, and not for long before it writes them over.
    pub(super) fn heavy(nth: usize, padding: usize) -> Self {
        Self { id: format!("p{nth}"), began: hlc_now(), padding, answered: 0 }
    }

    /// Pushes until the server no longer answers.
    pub(super) async fn push_until_it_fails(
        mut self,
        client: Client,
        said: mpsc::Sender<Acknowledged>,
    ) -> Self {
        while let Ok(acknowledged) = self.push_pending(&client).await {
            said.send(acknowledged).await.expect("somebody listens");
        }
        self
    }

    /// Pushes what was not answered yet: for the first time, or again.
    pub(super) async fn push_pending(&mut self, client: &Client) -> Result<Acknowledged, Status> {
        let answer = client.push(self.deltas(self.answered)).await?;
        let tag = self.tag(self.answered);
        let replayed = |outcome: &lakesync::proto::v1::Outcome| outcome.reason == "REPLAYED";
        assert!(answer.outcomes.iter().all(replayed), "{tag}: {answer:?}");
        self.answered += 1;
        Ok(Acknowledged { position: answer.position, tag })
    }

    /// The changes of the `nth` push.
    pub(super) fn deltas(&self, nth: u64) -> Vec<Delta> {
        let mut deltas = self.own(nth);
        let text = format!("{} {}", self.tag(nth), "x".repeat(self.padding));
        let row = format!("notes/{}", self.id);
        deltas.push(upsert(&self.id, self.hlc(nth, ROWS), &row, &[("body", &text)]));
        deltas
    }

    /// The changes of all answered pushes but those that a later one overwrote.
    pub(super) fn standing(&self) -> Vec<Delta> {
        let last = self.answered.checked_sub(1);
        let earlier = (0..last.unwrap_or(0)).flat_map(|nth| self.own(nth));
        earlier.chain(last.into_iter().flat_map(|nth| self.deltas(nth))).collect()
    }

    /// The changes of the `nth` push to rows that no other push writes.
    fn own(&self, nth: u64) -> Vec<Delta> {
        let tag = self.tag(nth);
        let row = |row| {
            let name = format!("todos/{tag}-{row}");
            upsert(&self.id, self.hlc(nth, row), &name, &[("title", &tag)])
        };
        (0..ROWS).map(row).collect()
    }

    fn hlc(&self, nth: u64, step: u64) -> Hlc {
        Hlc(self.began.0 + nth * (ROWS + 1) + step)
    }

    fn tag(&self, nth: u64) -> String {
        format!("{}-{nth}", self.id)
    }
}

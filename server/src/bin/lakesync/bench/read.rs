//! A turn of reading: everything there is, from the start, decoded as any reader must.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use indicatif::ProgressBar;
use lakesync::proto::v1::{
    CheckpointRequest, CheckpointResponse, PullRequest, PullResponse, checkpoint_response,
    pull_response,
};
use prost::Message;
use tokio::task::JoinSet;

use super::link::{CHECKPOINT, Link, PULL, Target, failed};
use super::turn::{Latencies, TURN_MAX, Turn};
use crate::exit::Exit;

/// A way to read everything.
pub(super) trait Reading: Message + Default + 'static {
    const METHOD: &'static str;
    type Request: Message;

    /// Asks for everything in `gateway`.
    fn request(gateway: &str) -> Self::Request;

    /// The rows that this answer carries.
    fn rows(&self) -> usize;
}

impl Reading for PullResponse {
    const METHOD: &'static str = PULL;
    type Request = PullRequest;

    fn request(gateway: &str) -> PullRequest {
        PullRequest { gateway: gateway.to_owned(), ..PullRequest::default() }
    }

    fn rows(&self) -> usize {
        match &self.event {
            Some(pull_response::Event::Page(page)) => {
                page.tables.iter().map(|table| table.rows.len()).sum()
            }
            _ => 0,
        }
    }
}

impl Reading for CheckpointResponse {
    const METHOD: &'static str = CHECKPOINT;
    type Request = CheckpointRequest;

    fn request(gateway: &str) -> CheckpointRequest {
        CheckpointRequest { gateway: gateway.to_owned(), ..CheckpointRequest::default() }
    }

    fn rows(&self) -> usize {
        match &self.event {
            Some(checkpoint_response::Event::Chunk(chunk)) => {
                chunk.rows.as_ref().map_or(0, |table| table.rows.len())
            }
            _ => 0,
        }
    }
}

/// Lets `readers` read everything at once.
pub(super) async fn turn<T: Reading>(
    target: &Target,
    readers: usize,
    gateway: &str,
    bar: &ProgressBar,
) -> Result<Turn, Exit> {
    let mut links = Vec::with_capacity(readers);
    for _ in 0..readers {
        links.push(target.connect().await?);
    }
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for link in links {
        tasks.spawn(read::<T>(link, Arc::from(gateway), start, bar.clone()));
    }
    let (mut items, mut latencies) = (0, Latencies::new());
    while let Some(done) = tasks.join_next().await {
        let (rows, took) = done.map_err(Exit::unavailable)??;
        items += rows;
        latencies.add(&took);
    }
    Ok(Turn { items, elapsed: start.elapsed(), cpu: None, latencies })
}

async fn read<T: Reading>(
    link: Link,
    gateway: Arc<str>,
    start: Instant,
    bar: ProgressBar,
) -> Result<(u64, Latencies), Exit> {
    let (mut items, mut latencies) = (0, Latencies::new());
    let mut waiting = Instant::now();
    let mut answers = link.read::<T>(T::METHOD, &T::request(&gateway)).await?;
    while let Some(answer) = answers.message().await.map_err(failed)? {
        latencies.record(waiting);
        let rows = answer.message.rows() as u64;
        items += rows;
        bar.inc(rows);
        if TURN_MAX < start.elapsed() {
            break;
        }
        waiting = Instant::now();
    }
    Ok((items, latencies))
}

/// The answers of one reader as they came, for the yardstick to stream.
pub(super) async fn record<T: Reading>(target: &Target, gateway: &str) -> Result<Vec<Bytes>, Exit> {
    let link = target.connect().await?;
    let mut answers = link.read::<T>(T::METHOD, &T::request(gateway)).await?;
    let mut recorded = Vec::new();
    while let Some(answer) = answers.message().await.map_err(failed)? {
        recorded.push(answer.bytes);
    }
    Ok(recorded)
}

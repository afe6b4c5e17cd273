//! A turn of pushes: every client pushes its share in order, each push after the answer to the last.

use std::sync::Arc;
use std::time::Instant;

use indicatif::ProgressBar;
use tokio::task::JoinSet;

use super::codec::Frame;
use super::link::{Link, Target};
use super::rows::Load;
use super::turn::{Latencies, TURN_MAX, Turn};
use crate::exit::Exit;

/// Pushes `load` to `gateway`. A change that does not simply take effect ends the run.
pub(super) async fn turn(
    target: &Target,
    load: &Arc<Load>,
    gateway: &str,
    bar: &ProgressBar,
) -> Result<Turn, Exit> {
    let mut links = Vec::with_capacity(load.clients.len());
    for _ in &load.clients {
        links.push(target.connect().await?);
    }
    let mut clients = JoinSet::new();
    let start = Instant::now();
    for (at, link) in links.into_iter().enumerate() {
        let client = Client { at, link, load: Arc::clone(load), gateway: gateway.to_owned() };
        clients.spawn(client.push(start, bar.clone()));
    }
    let (mut items, mut latencies) = (0, Latencies::new());
    while let Some(done) = clients.join_next().await {
        let (pushed, took) = done.map_err(Exit::unavailable)??;
        items += pushed;
        latencies.add(&took);
    }
    Ok(Turn { items, elapsed: start.elapsed(), cpu: None, latencies })
}

struct Client {
    at: usize,
    link: Link,
    load: Arc<Load>,
    gateway: String,
}

impl Client {
    async fn push(self, start: Instant, bar: ProgressBar) -> Result<(u64, Latencies), Exit> {
        let client = &self.load.clients[self.at];
        let head = client.head(&self.gateway);
        let (mut items, mut latencies) = (0, Latencies::new());
        for push in &client.pushes {
            if TURN_MAX < start.elapsed() {
                break;
            }
            let sent = Instant::now();
            let answer = self.link.push(Frame(head.clone(), push.body.clone())).await?;
            latencies.record(sent);
            if let Some(outcome) = answer.outcomes.first() {
                let what = format!("a push had the outcome {} {}", outcome.reason, outcome.message);
                return Err(Exit::unavailable(what));
            }
            items += push.changes as u64;
            bar.inc(push.changes as u64);
        }
        Ok((items, latencies))
    }
}

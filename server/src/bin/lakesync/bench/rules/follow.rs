//! Whether a commit reaches its followers without touching the others: a follower for each of many
//! owners, and single commits in turn.

use std::time::{Duration, Instant};

use lakesync::clock::{SystemClock, WallClock};
use lakesync::proto::v1::{PullRequest, PullResponse, pull_response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::codec::Frame;
use super::super::link::{Link, failed};
use super::super::read::Reading;
use super::super::rows::{Client, one_row};
use super::super::turn::Latencies;
use super::own::cursor;
use super::{Bench, GATEWAY};
use crate::exit::Exit;

/// Streams on one connection: as many as the server allows, but one.
const STREAMS: usize = 99;
/// Followers that are let in at once.
const AT_ONCE: usize = 50;
const COMMITS: u64 = 500;
/// When a commit is given up that reached nobody.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// What a follower heard: whose it is, and when.
type Heard = (u64, Instant);

/// Lets owners follow, and times single commits.
pub(super) async fn measure(bench: &Bench) -> Result<Value, Exit> {
    let followers = bench.options.followers.min(bench.options.owners) as u64;
    let (told, mut heard) = mpsc::channel::<Heard>(1_024);
    let mut tasks = JoinSet::new();
    let mut link = bench.service.connect().await?;
    let mut ready = JoinSet::new();
    for owner in 0..followers {
        if (owner as usize).is_multiple_of(STREAMS) {
            link = bench.service.connect().await?;
        }
        let target = bench.owner(owner)?;
        let (link, told) = (link.with(&target), told.clone());
        ready.spawn(async move { Ok::<_, Exit>((owner, cursor(&target).await?, link, told)) });
        while AT_ONCE <= ready.len() || owner + 1 == followers && !ready.is_empty() {
            let Some(done) = ready.join_next().await else { break };
            let (owner, cursor, link, told) = done.map_err(Exit::unavailable)??;
            tasks.spawn(follow(owner, cursor, link, told));
        }
    }
    // Each says once that it has caught up.
    for _ in 0..followers {
        timeout(ARRIVAL_MAX, heard.recv()).await.map_err(|_| Exit::unavailable("no follower"))?;
    }
    let (mut latencies, mut strays) = (Latencies::new(), 0_u64);
    let pusher = bench.service.connect().await?;
    let head = Client::head_of("bench-single", GATEWAY);
    for nth in 0..COMMITS {
        let owner = nth * 7_919 % followers;
        let push = one_row(bench.owners(), owner, nth, SystemClock.now_ms());
        let sent = Instant::now();
        pusher.push(Frame(head.clone(), push.body)).await?;
        loop {
            let arrival = timeout(ARRIVAL_MAX, heard.recv()).await;
            let arrival = arrival.map_err(|_| Exit::unavailable("a commit reached nobody"))?;
            match arrival {
                Some((whose, at)) if whose == owner => {
                    latencies.took(at.saturating_duration_since(sent));
                    break;
                }
                Some(_) => strays += 1,
                None => return Err(Exit::unavailable("the followers have gone")),
            }
        }
    }
    tasks.shutdown().await;
    Ok(json!({
        "followers": followers,
        "commits": COMMITS,
        "p50_ms": latencies.ms(50.0),
        "p99_ms": latencies.ms(99.0),
        "strays": strays,
    }))
}

/// Says when it has caught up, and from then on when a page comes.
async fn follow(
    owner: u64,
    cursor: String,
    link: Link,
    told: mpsc::Sender<Heard>,
) -> Result<(), Exit> {
    let gateway = GATEWAY.to_owned();
    let request = PullRequest { gateway, cursor, follow: true, ..PullRequest::default() };
    let mut answers = link.read::<PullResponse>(PullResponse::METHOD, &request).await?;
    let mut caught_up = false;
    while let Some(answer) = answers.message().await.map_err(failed)? {
        let is_news = match answer.message.event {
            Some(pull_response::Event::Page(_)) => true,
            Some(pull_response::Event::CaughtUp(_)) => !std::mem::replace(&mut caught_up, true),
            _ => false,
        };
        if is_news && told.send((owner, Instant::now())).await.is_err() {
            break;
        }
    }
    Ok(())
}

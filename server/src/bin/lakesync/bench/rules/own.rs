//! Whether a reader pays for its own rows only: one owner's against everything, in turns.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use lakesync::proto::v1::{
    CheckpointRequest, CheckpointResponse, PullRequest, PullResponse, checkpoint_response,
};
use serde_json::{Value, json};

use super::super::link::{Target, failed};
use super::super::push;
use super::super::read::Reading;
use super::super::report::median;
use super::super::rows::Whose;
use super::{Bench, GATEWAY};
use crate::exit::Exit;

/// The owner who reads.
const OWNER: u64 = 7;

/// Fills a gateway under rules, and times readers of a part and of the whole.
pub(super) async fn measure(bench: &Bench) -> Result<Value, Exit> {
    bench.gateway(GATEWAY, true).await?;
    let own = bench.owner(OWNER % bench.owners())?;
    // Where both stand before anything is there: what they pull is all that is pushed.
    let own_cursor = cursor(&own).await?;
    let all_cursor = cursor(&bench.service).await?;
    let load = bench.load(Whose::Mixed(bench.owners()), bench.options.changes);
    let filled = push::turn(&bench.service, &load, GATEWAY, &ProgressBar::hidden()).await?;
    if filled.items != load.changes as u64 {
        let what = format!("only {} changes could be pushed in time", filled.items);
        return Err(Exit::unavailable(what));
    }
    let mut figures = Figures::default();
    for pair in 0..=bench.options.pairs {
        bench.child.rest().await;
        let own_rows = read::<CheckpointResponse>(&own, &checkpoint()).await?;
        let all_rows = read::<CheckpointResponse>(&bench.service, &checkpoint()).await?;
        let own_pulled = read::<PullResponse>(&own, &pull(&own_cursor)).await?;
        let all_pulled = read::<PullResponse>(&bench.service, &pull(&all_cursor)).await?;
        // The first pair warms up.
        if 0 < pair {
            figures.checkpoints.push((own_rows.took, all_rows.took));
            figures.pulls.push((own_pulled.took, all_pulled.took));
        }
        (figures.own_rows, figures.all_rows) = (own_rows.rows, all_rows.rows);
    }
    Ok(json!({
        "owners": bench.options.owners,
        "changes": load.changes,
        "own_rows": figures.own_rows,
        "all_rows": figures.all_rows,
        "own_share": figures.own_rows as f64 / figures.all_rows as f64,
        "checkpoint": times(&figures.checkpoints),
        "pull": times(&figures.pulls),
    }))
}

#[derive(Default)]
struct Figures {
    own_rows: usize,
    all_rows: usize,
    checkpoints: Vec<(Duration, Duration)>,
    pulls: Vec<(Duration, Duration)>,
}

fn times(pairs: &[(Duration, Duration)]) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "own_ms": median(pairs.iter().map(|(own, _)| ms(*own))),
        "all_ms": median(pairs.iter().map(|(_, all)| ms(*all))),
        "of_all": median(pairs.iter().map(|(own, all)| own.as_secs_f64() / all.as_secs_f64())),
    })
}

fn checkpoint() -> CheckpointRequest {
    CheckpointRequest { gateway: GATEWAY.to_owned(), ..CheckpointRequest::default() }
}

fn pull(cursor: &str) -> PullRequest {
    let (gateway, cursor) = (GATEWAY.to_owned(), cursor.to_owned());
    PullRequest { gateway, cursor, ..PullRequest::default() }
}

struct Read {
    rows: usize,
    took: Duration,
}

/// Reads all that there is for a token.
async fn read<T: Reading>(target: &Target, request: &T::Request) -> Result<Read, Exit> {
    let link = target.connect().await?;
    let start = Instant::now();
    let mut answers = link.read::<T>(T::METHOD, request).await?;
    let mut rows = 0;
    while let Some(answer) = answers.message().await.map_err(failed)? {
        rows += answer.message.rows();
    }
    Ok(Read { rows, took: start.elapsed() })
}

/// Where a token stands that has seen all there is now.
pub(super) async fn cursor(target: &Target) -> Result<String, Exit> {
    let link = target.connect().await?;
    let method = CheckpointResponse::METHOD;
    let mut answers = link.read::<CheckpointResponse>(method, &checkpoint()).await?;
    while let Some(answer) = answers.message().await.map_err(failed)? {
        if let Some(checkpoint_response::Event::End(end)) = answer.message.event {
            return Ok(end.cursor);
        }
    }
    Err(Exit::unavailable("a checkpoint ended early"))
}

//! Clients who push at a constant rate, whatever happens.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lakesync::clock::{SystemClock, WallClock};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::super::codec::Frame;
use super::super::link::{Link, Target};
use super::super::rows::{Client, Source, Whose};
use super::super::turn::Latencies;
use super::report::Phase;
use crate::exit::Exit;

/// How often each client pushes.
const PUSH_EVERY: Duration = Duration::from_millis(100);

/// Clients at work.
pub(super) struct Pushing {
    clients: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    phase: AtomicUsize,
    over: AtomicBool,
    changes: AtomicU64,
    // Held for one entry, never across an await.
    pushed: Mutex<Pushed>,
}

/// What came of the pushes.
pub(super) struct Pushed {
    /// How long they took, by phase.
    pub(super) latencies: Vec<Latencies>,
    pub(super) pushes: u64,
    pub(super) refused: u64,
    /// Why the first one was refused.
    pub(super) why: Option<String>,
}

impl Pushing {
    /// Starts `clients`, who push `rate` changes a second together.
    pub(super) async fn start(
        target: &Target,
        gateway: &str,
        clients: usize,
        rate: usize,
    ) -> Result<Self, Exit> {
        let latencies = Phase::ALL.map(|_| Latencies::new()).into();
        let shared = Arc::new(Shared {
            phase: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            pushed: Mutex::new(Pushed { latencies, pushes: 0, refused: 0, why: None }),
        });
        let mut tasks = JoinSet::new();
        for at in 0..clients {
            let link = target.connect().await?;
            let source = Source::new(Whose::Nobodys, at, SystemClock.now_ms());
            // What does not divide is spread: each client has a share of every second.
            let each = rate as f64 * PUSH_EVERY.as_secs_f64() / clients as f64;
            tasks.spawn(push(link, source, gateway.to_owned(), each, Arc::clone(&shared)));
        }
        Ok(Self { clients: tasks, shared })
    }

    /// What is pushed from now on is pushed in this phase.
    pub(super) fn enter(&self, phase: Phase) {
        self.shared.phase.store(phase as usize, Ordering::Release);
    }

    /// Changes that were taken so far.
    pub(super) fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Acquire)
    }

    /// Ends all pushing.
    pub(super) async fn stop(mut self) -> Result<Pushed, Exit> {
        self.shared.over.store(true, Ordering::Release);
        while let Some(done) = self.clients.join_next().await {
            done.map_err(Exit::software)?;
        }
        let shared = Arc::into_inner(self.shared).expect("BUG: a client that ended holds on");
        Ok(shared.pushed.into_inner().expect("BUG: nothing panics under this lock"))
    }
}

async fn push(link: Link, mut source: Source, gateway: String, each: f64, shared: Arc<Shared>) {
    let head = Client::head_of(&source.id(), &gateway);
    let mut ticks = interval(PUSH_EVERY);
    let mut due = 0.0;
    while !shared.over.load(Ordering::Acquire) {
        // A tick that was missed is made up for: the rate is constant.
        ticks.tick().await;
        due += each;
        let changes = due as usize;
        if changes == 0 {
            continue;
        }
        due -= changes as f64;
        let push = source.push(changes);
        let sent = Instant::now();
        let answer = link.try_push(Frame(head.clone(), push.body)).await;
        let phase = shared.phase.load(Ordering::Acquire);
        let mut pushed = shared.pushed.lock().expect("BUG: nothing panics under this lock");
        pushed.pushes += 1;
        let refusal = match answer {
            Ok(answer) => answer.outcomes.first().map(|outcome| outcome.message.clone()),
            Err(status) => Some(format!("{:?}: {}", status.code(), status.message())),
        };
        match refusal {
            None => {
                pushed.latencies[phase].record(sent);
                shared.changes.fetch_add(changes as u64, Ordering::AcqRel);
            }
            Some(why) => {
                pushed.refused += 1;
                pushed.why.get_or_insert(why);
            }
        }
    }
}

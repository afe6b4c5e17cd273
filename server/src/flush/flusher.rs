//! One backend of one gateway: waits until enough has gathered, writes it, and begins again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use lakesync::adapter::Batch;
use lakesync::clock::WallClock;
use lakesync::name::{self, Position};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use super::failpoint;
use super::fill::Fill;
use super::policy::Backoff;
use super::session::{Reach, Session};
use super::tend::{PANIC_PAUSE, Tended, tend_all};
use super::{Backend, Failure, Place};
use crate::gateway::{Backlog, Gateway, Growth, Mark, Needs, Progress, Stretch, WeakGateway};

/// Flushes one gateway to one backend.
pub(super) struct Flusher {
    pub(super) backend: Backend,
    /// Those of its members that are tended.
    members: Vec<Arc<Tended>>,
    tasks: TaskTracker,
    pub(super) place: Arc<Place>,
    /// What it is called in the server's log.
    name: name::Gateway,
    gateway: WeakGateway,
    growth: Growth,
    progress: watch::Sender<Progress>,
    clock: Arc<dyn WallClock>,
    /// What is known of the backend; nothing before it was reached, and after it failed.
    session: Option<Session>,
    /// How far filling it has come, if that broke off.
    fill: Option<Fill>,
    /// Whether the last attempt failed.
    is_failing: bool,
    /// What the log had been given when all of it had been flushed.
    flushed_total: (u64, u64),
    /// When the backend was last asked how far it has come.
    looked_at: Instant,
}

/// What is to be done next.
enum Due {
    /// To write what the backend does not have yet.
    Round(Gateway),
    /// To ask the backend how far it has come, though it has everything.
    Look,
}

impl Flusher {
    /// A flusher of `gateway`; none if the gateway has no backend of that name. What runs beside it
    /// is in `tasks`.
    pub(super) fn new(
        gateway: &Gateway,
        backend: &Backend,
        clock: Arc<dyn WallClock>,
        tasks: TaskTracker,
    ) -> Option<Self> {
        let progress = gateway.progress(&backend.name)?;
        let (name, mut members) = (gateway.record().name.clone(), Vec::new());
        let adapter = (backend.open)(&name, &mut members);
        let tended = |member| Tended::new(member, &name, &backend.name);
        Some(Self {
            place: Arc::new(Place { adapter, turn: Default::default() }),
            members: members.into_iter().map(tended).collect(),
            tasks,
            backend: backend.clone(),
            name,
            gateway: gateway.downgrade(),
            growth: gateway.growth(),
            progress,
            clock,
            session: None,
            fill: None,
            is_failing: false,
            flushed_total: (0, 0),
            looked_at: Instant::now(),
        })
    }

    /// Flushes until the gateway has closed or failed.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut tending = None;
        loop {
            let Some(due) = self.due().await else { return };
            let mut growth = self.growth.clone();
            let asked = self.progress.borrow().asked;
            let done = async {
                match &due {
                    Due::Round(gateway) => self.round(gateway).await,
                    Due::Look => self.look().await,
                }
            };
            let done = tokio::select! {
                biased;
                () = growth.ended() => return,
                // A panic is no reason never to flush again.
                done = AssertUnwindSafe(done).catch_unwind() => {
                    done.unwrap_or(Err(Failure::Panicked))
                }
            };
            match done {
                // The backend is not where it was left. What that means, the next round finds out.
                Ok(()) if self.session.is_none() => {}
                Ok(()) => {
                    backoff.reset();
                    self.succeeded(asked);
                    // Not before it was seen whose rows are there.
                    tending
                        .get_or_insert_with(|| tend_all(&self.members, PANIC_PAUSE, &self.tasks));
                }
                Err(failure) => {
                    if failure.is_foreign() {
                        tending = None;
                    }
                    self.failed(&failure);
                    // What has nothing to give may be closed as idle meanwhile.
                    let _held = match due {
                        Due::Round(gateway) => Some(gateway).filter(Gateway::is_behind),
                        Due::Look => None,
                    };
                    let wait = backoff.next(random()).max(failure.rest());
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = self.is_asked(|now| asked < now.asked) => {}
                        () = growth.ended() => return,
                    }
                }
            }
        }
    }

    /// Waits until something is due; none if the gateway has gone.
    async fn due(&mut self) -> Option<Due> {
        let Some(Session { mark, prepared }) = &self.session else {
            return self.gateway.upgrade().map(Due::Round);
        };
        let (at, prepared) = (mark.position, Arc::clone(prepared));
        let mut progress = self.progress.subscribe();
        while self.growth.head().ok()? == at {
            if !Arc::ptr_eq(&self.growth.schema(), &prepared) {
                return self.gateway.upgrade().map(Due::Round);
            }
            let asked = async {
                let _ = progress.wait_for(|now| now.looked < now.asked).await;
            };
            tokio::select! {
                moved = self.growth.moved() => if !moved { return None },
                () = asked => return Some(Due::Look),
                () = sleep_until(self.looked_at + self.backend.policy.check_every) => {
                    return Some(Due::Look);
                }
            }
        }
        // Held from here to the end of the round: what is behind is not closed as idle.
        let gateway = self.gateway.upgrade()?;
        let deadline = Instant::now() + self.backend.policy.age;
        self.progress.send_modify(|progress| {
            progress.oldest_ms.get_or_insert(self.clock.now_ms());
        });
        let mut growth = gateway.growth();
        loop {
            let (changes, bytes) = growth.total();
            let waiting = (
                changes.saturating_sub(self.flushed_total.0),
                bytes.saturating_sub(self.flushed_total.1),
            );
            if self.backend.policy.is_enough(waiting.0, waiting.1) {
                return Some(Due::Round(gateway));
            }
            tokio::select! {
                moved = growth.moved() => if !moved { return None },
                () = self.is_asked(|now| now.looked < now.asked) => break,
                () = sleep_until(deadline) => break,
            }
        }
        Some(Due::Round(gateway))
    }

    /// Asks the backend how far it has come. If that is not where it was left, nothing is known of it
    /// any more.
    async fn look(&mut self) -> Result<(), Failure> {
        let Some(session) = &self.session else { return Ok(()) };
        let left = session.mark;
        let adapter = self.place.adapter.clone().map_err(Failure::Unusable)?;
        let found = adapter.watermark(left.log).await?;
        self.looked_at = Instant::now();
        if found != left.position {
            let (gateway, backend, left) = (&self.name, &self.backend.name, left.position);
            tracing::warn!(
                %gateway, %backend, %left, %found,
                "the backend is not where it was left; it was emptied or put back, or somebody else \
                 writes to it"
            );
            self.session = None;
        }
        Ok(())
    }

    /// Writes all that is durable when it begins.
    async fn round(&mut self, gateway: &Gateway) -> Result<(), Failure> {
        self.notice(gateway).await?;
        let adapter = self.place.adapter.clone().map_err(Failure::Unusable)?;
        let is_asked = |progress: &Progress| progress.looked < progress.asked;
        if is_asked(&self.progress.borrow()) {
            self.look().await?;
        }
        let (backend, progress) = (&self.backend, &self.progress);
        let reach =
            Reach { gateway, backend, adapter: &*adapter, turn: &self.place.turn, progress };
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::begin(reach, &mut self.fill).await?,
        };
        let session = self.session.insert(session);
        session.prepare(reach).await?;
        let total = self.growth.total();
        let target = gateway.head()?;
        let mut own_turn = None;
        let mut next = None;
        while session.mark.position < target {
            // Other gateways may wait for a turn: a long backlog is not to starve them.
            drop(own_turn.take());
            own_turn = self.backend.free_turn();
            if own_turn.is_none() {
                // As what was read ahead would lie about for as long as they write.
                next = None;
                own_turn = Some(self.backend.turn().await);
            }
            if next.is_none() {
                next = read(gateway, &self.backend, session.mark.position, target).await?;
            }
            let Some(backlog) = next.take() else {
                // The log was trimmed past the mark: all rows are written, once we begin again.
                self.session = None;
                return Err(Failure::Trimmed);
            };
            if !session.is_prepared(gateway) {
                // Tables may take long to be altered, and others write meanwhile. Then it is read anew.
                drop((own_turn.take(), backlog));
                session.prepare(reach).await?;
                continue;
            }
            let (mark, flushed) =
                (after(&session.mark, &backlog), (backlog.changes, backlog.bytes as u64));
            self.progress.send_modify(|progress| progress.oldest_ms = Some(backlog.made_ms));
            let first = session.mark.position.next();
            let batch = Batch::new(mark.log, first, mark.position, backlog.commits)
                .expect("BUG: a log whose positions do not ascend");
            failpoint::reach("before-write");
            // A batch that is written connects to what the backend has.
            let asked = self.progress.borrow().asked;
            let writing = self.place.turn.lock().await;
            // While the backend writes, the next is read.
            let (written, read) = tokio::join!(
                adapter.write(&batch),
                read(gateway, &self.backend, mark.position, target),
            );
            written?;
            failpoint::reach("after-write");
            session.mark = mark;
            self.progress.send_modify(|progress| {
                progress.mark = Some(mark);
                // With the mark, which ends a Flush: its caller is told of no earlier error.
                progress.error = None;
                progress.looked = progress.looked.max(asked);
                progress.floor = Needs::After(mark.position);
                progress.flushed.0 += flushed.0;
                progress.flushed.1 += flushed.1;
            });
            drop(writing);
            gateway.remember(&self.backend.name, mark).await?;
            failpoint::reach("after-mark");
            next = read?;
        }
        self.flushed_total = total;
        if gateway.head()? == target {
            session.mark.changes = total.0;
            let mark = session.mark;
            self.progress.send_modify(|progress| {
                progress.mark = Some(mark);
                progress.error = None;
            });
        }
        Ok(())
    }

    /// Since when the backend has been behind, unless that is known.
    async fn notice(&self, gateway: &Gateway) -> Result<(), Failure> {
        let (oldest_ms, floor) = {
            let progress = self.progress.borrow();
            (progress.oldest_ms, progress.floor.after())
        };
        let through = gateway.head()?;
        if oldest_ms.is_none()
            && let Some(after) = floor.filter(|floor| *floor < through)
        {
            let first = Stretch { after, through, changes_max: 0, bytes_max: 0 };
            let made_ms = gateway.backlog(first).await?.map(|backlog| backlog.made_ms);
            self.progress.send_modify(|progress| progress.oldest_ms = made_ms);
        }
        Ok(())
    }

    /// Resolves once somebody has asked for a flush as `wanted` has it.
    async fn is_asked(&self, wanted: impl FnMut(&Progress) -> bool) {
        // We hold the sender, so it is never gone.
        let _ = self.progress.subscribe().wait_for(wanted).await;
    }

    /// Remembers that the backend has everything, as it said after `asked` requests to flush.
    fn succeeded(&mut self, asked: u64) {
        self.looked_at = Instant::now();
        let (gateway, backend) = (&self.name, &self.backend.name);
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(%gateway, %backend, "it is flushed again");
        }
        let now_ms = self.clock.now_ms();
        let troubles: Vec<String> =
            self.members.iter().filter_map(|member| member.trouble()).collect();
        if self.progress.borrow().troubles != troubles {
            match troubles.is_empty() {
                true => tracing::info!(%gateway, %backend, "all members are well again"),
                false => {
                    let troubles = troubles.join("; ");
                    tracing::warn!(%gateway, %backend, troubles, "members are in trouble");
                }
            }
        }
        self.progress.send_modify(|progress| {
            progress.error = None;
            progress.troubles = troubles;
            progress.looked = progress.looked.max(asked);
            progress.attempts += 1;
            progress.done_ms = Some(now_ms);
            progress.oldest_ms = None;
        });
    }

    /// Remembers why, and that nothing is known of the backend any more.
    fn failed(&mut self, failure: &Failure) {
        (self.session, self.is_failing) = (None, true);
        let (error, now_ms) = (failure.to_string(), self.clock.now_ms());
        self.progress.send_modify(|progress| {
            // Once a failure, and not once an attempt: a backend may be away for a day.
            if progress.error.as_ref() != Some(&error) {
                let (gateway, backend) = (&self.name, &self.backend.name);
                tracing::warn!(%gateway, %backend, %error, "can't flush; it is tried again");
            }
            progress.attempts += 1;
            progress.oldest_ms.get_or_insert(now_ms);
            progress.error = Some(error);
        });
    }
}

/// The next batch after a position.
async fn read(
    gateway: &Gateway,
    backend: &Backend,
    after: Position,
    through: Position,
) -> Result<Option<Backlog>, Failure> {
    if through <= after {
        return Ok(None);
    }
    let policy = backend.policy;
    let bytes_max = usize::try_from(policy.bytes).unwrap_or(usize::MAX);
    let stretch = Stretch { after, through, changes_max: policy.changes, bytes_max };
    Ok(gateway.backlog(stretch).await?)
}

/// The mark after a backlog.
fn after(mark: &Mark, backlog: &Backlog) -> Mark {
    let last = backlog.commits.last().expect("BUG: a backlog without commits");
    Mark { position: last.position, changes: mark.changes + backlog.changes, ..*mark }
}

/// Any number. Without randomness the waits are their shortest.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

//! How much a caller may take of a gateway, and all its callers together: calls, rows and bytes a
//! second, and streams at a time. Who takes more is told when to come again, and others go on.
//!
//! A rate is a level that rises with time, up to a second's worth, and falls with what is taken. It
//! may fall below zero: what is larger than a second's worth is let through, and paid off afterwards,
//! so that nothing is ever refused for good. Time is an argument.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lakesync::error::{Classify, Reason};

/// What may be taken. Zero is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Pushes, pulls and checkpoints a second.
    pub calls: u64,
    /// Pushed changes a second.
    pub rows: u64,
    /// Pushed bytes a second.
    pub bytes: u64,
    /// Pulls and checkpoints under way.
    pub streams: u64,
}

/// Why a caller has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{whose} may take {limit} {what} and took more; come again in {} ms", .wait.as_millis())]
pub struct Quota {
    whose: &'static str,
    limit: u64,
    what: &'static str,
    wait: Duration,
}

impl Classify for Quota {
    fn reason(&self) -> Reason {
        Reason::Quota
    }

    fn retry_after(&self) -> Option<Duration> {
        Some(self.wait)
    }
}

/// When to come again at the earliest. What is not taken meanwhile is kept, so nobody gets less for it;
/// but who asks again at once is refused again, and that has its price as well.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// How many subjects are remembered; beyond, those who took nothing for a while are forgotten.
const SUBJECTS_MAX: usize = 10_000;
/// When to ask again for a stream: nobody knows when another ends.
const STREAM_RETRY: Duration = Duration::from_secs(5);

/// What callers of one gateway have taken.
#[derive(Debug)]
pub(super) struct Allowances {
    each: Allowance,
    all: Allowance,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: Levels,
    subjects: HashMap<Arc<str>, Levels>,
}

/// What one call takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Take {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// A stream under way; its place is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Stream {
    allowances: Arc<Allowances>,
    subject: Arc<str>,
}

/// What is left, of everything that is bounded. In thousandths: levels rise by the millisecond.
#[derive(Clone, Copy, Debug, Default)]
struct Levels {
    calls: Level,
    rows: Level,
    bytes: Level,
    streams: u64,
}

/// How much was taken beyond what had been given back until then.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    owed: u64,
    at_ms: u64,
}

impl Level {
    /// What is owed at `now_ms`, in thousandths.
    fn owed(self, rate: u64, now_ms: u64) -> u64 {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        self.owed.saturating_sub(rate.saturating_mul(passed_ms))
    }

    /// How long to wait before anything may be taken.
    fn wait(self, rate: u64, now_ms: u64) -> Option<Duration> {
        let (owed, full) = (self.owed(rate, now_ms), rate.saturating_mul(1_000));
        let over = (rate != 0).then(|| owed.saturating_sub(full)).filter(|_| full <= owed)?;
        Some(Duration::from_millis(1 + over / rate))
    }

    fn take(&mut self, rate: u64, amount: u64, now_ms: u64) {
        if rate != 0 {
            *self = Self {
                owed: self.owed(rate, now_ms).saturating_add(amount.saturating_mul(1_000)),
                at_ms: now_ms,
            };
        }
    }
}

impl Levels {
    fn check(
        &self,
        whose: &'static str,
        allowed: &Allowance,
        stream: bool,
        now_ms: u64,
    ) -> Result<(), Quota> {
        // Who owes for what it pushed may still read.
        let rate = |limit: u64| if stream { 0 } else { limit };
        for (level, limit, what) in [
            (self.calls, allowed.calls, "calls a second"),
            (self.rows, rate(allowed.rows), "rows a second"),
            (self.bytes, rate(allowed.bytes), "bytes a second"),
        ] {
            if let Some(wait) = level.wait(limit, now_ms) {
                return Err(Quota { whose, limit, what, wait: wait.max(RETRY_MIN) });
            }
        }
        let limit = allowed.streams;
        if stream && limit != 0 && limit <= self.streams {
            return Err(Quota { whose, limit, what: "streams at a time", wait: STREAM_RETRY });
        }
        Ok(())
    }

    fn take(&mut self, allowed: &Allowance, take: Take, now_ms: u64) {
        self.calls.take(allowed.calls, 1, now_ms);
        self.rows.take(allowed.rows, take.rows, now_ms);
        self.bytes.take(allowed.bytes, take.bytes, now_ms);
    }

    /// A clock that was set back must not make anybody wait until it is where it was.
    fn follow_clock(&mut self, now_ms: u64) {
        for level in [&mut self.calls, &mut self.rows, &mut self.bytes] {
            level.at_ms = level.at_ms.min(now_ms);
        }
    }

    fn is_idle(&self, allowed: &Allowance, now_ms: u64) -> bool {
        let levels =
            [(self.calls, allowed.calls), (self.rows, allowed.rows), (self.bytes, allowed.bytes)];
        self.streams == 0 && levels.iter().all(|(level, rate)| level.owed(*rate, now_ms) == 0)
    }
}

impl Allowances {
    /// What each subject may take, and all of them together.
    pub(super) fn new(each: Allowance, all: Allowance) -> Self {
        Self { each, all, taken: Mutex::default() }
    }

    /// Takes what a push needs.
    pub(super) fn push(&self, subject: &Arc<str>, take: Take, now_ms: u64) -> Result<(), Quota> {
        self.take(subject, take, false, now_ms)
    }

    /// Takes what a stream needs, for as long as it lasts.
    pub(super) fn stream(
        self: &Arc<Self>,
        subject: &Arc<str>,
        now_ms: u64,
    ) -> Result<Stream, Quota> {
        self.take(subject, Take { rows: 0, bytes: 0 }, true, now_ms)?;
        Ok(Stream { allowances: Arc::clone(self), subject: Arc::clone(subject) })
    }

    fn take(&self, subject: &Arc<str>, take: Take, stream: bool, now_ms: u64) -> Result<(), Quota> {
        let mut taken = self.taken();
        if SUBJECTS_MAX <= taken.subjects.len() && !taken.subjects.contains_key(subject) {
            taken.subjects.retain(|_, levels| !levels.is_idle(&self.each, now_ms));
        }
        let Taken { all, subjects } = &mut *taken;
        let own = subjects.entry(Arc::clone(subject)).or_default();
        own.follow_clock(now_ms);
        all.follow_clock(now_ms);
        own.check("a subject", &self.each, stream, now_ms)?;
        all.check("a gateway", &self.all, stream, now_ms)?;
        for (levels, allowed) in [(own, &self.each), (all, &self.all)] {
            levels.take(allowed, take, now_ms);
            levels.streams += u64::from(stream);
        }
        Ok(())
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut taken = self.allowances.taken();
        taken.all.streams = taken.all.streams.saturating_sub(1);
        if let Some(own) = taken.subjects.get_mut(&self.subject) {
            own.streams = own.streams.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn rows(rows: u64) -> Take {
        Take { rows, bytes: 0 }
    }

    #[test]
    fn who_takes_more_waits_until_it_is_paid_off_and_others_do_not() {
        let each = Allowance { rows: 100, ..Allowance::default() };
        let allowances = Allowances::new(each, Allowance::default());
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        for _ in 0..2 {
            allowances.push(&ann, rows(50), NOW_MS).expect("a second's worth");
        }
        let told = allowances.push(&ann, rows(1), NOW_MS).expect_err("it is used up");
        assert_eq!(told.retry_after(), Some(RETRY_MIN));
        allowances.push(&bob, rows(100), NOW_MS).expect("his own");
        // More than a second's worth is let through once, and paid off.
        allowances.push(&ann, rows(1_000), NOW_MS + 1).expect("it is larger than any allowance");
        let told = allowances.push(&ann, rows(1), NOW_MS + 1).expect_err("owed");
        let wait = told.retry_after().expect("a time");
        assert!(wait.as_millis() > 9_000 && wait.as_millis() < 11_000, "{wait:?}");
        let later = NOW_MS + 1 + u64::try_from(wait.as_millis()).expect("short");
        allowances.push(&ann, rows(1), later).expect("as it was told");
    }

    #[test]
    fn all_together_have_a_limit_too_and_streams_give_their_place_back() {
        let one = Allowance { streams: 1, ..Allowance::default() };
        let two = Allowance { streams: 2, calls: 3, ..Allowance::default() };
        let allowances = Arc::new(Allowances::new(one, two));
        let subject = |name: &str| -> Arc<str> { name.into() };
        let first = allowances.stream(&subject("ann"), NOW_MS).expect("the first");
        allowances.stream(&subject("ann"), NOW_MS).expect_err("her second");
        let _second = allowances.stream(&subject("bob"), NOW_MS).expect("his first");
        allowances.stream(&subject("cyd"), NOW_MS).expect_err("the gateway's third");
        drop(first);
        let _third = allowances.stream(&subject("cyd"), NOW_MS).expect("a place was given back");
        let told = allowances.push(&subject("dan"), rows(1), NOW_MS).expect_err("the fourth call");
        assert!(told.to_string().contains("a gateway may take 3 calls a second"), "{told}");
    }

    #[test]
    fn without_limits_nothing_is_refused_and_subjects_are_forgotten() {
        let allowances = Allowances::new(Allowance::default(), Allowance::default());
        for nth in 0..=SUBJECTS_MAX + 10 {
            allowances.push(&nth.to_string().into(), rows(u64::MAX), NOW_MS).expect("no limit");
        }
        assert!(allowances.taken().subjects.len() <= SUBJECTS_MAX);
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing_away_and_stops_nobody() {
        let each = Allowance { calls: 1, ..Allowance::default() };
        let allowances = Allowances::new(each, Allowance::default());
        let ann: Arc<str> = "ann".into();
        allowances.push(&ann, rows(1), NOW_MS).expect("the first");
        let back_ms = NOW_MS - 60_000;
        allowances.push(&ann, rows(1), back_ms).expect_err("used up all the same");
        allowances.push(&ann, rows(1), back_ms + 1).expect("as it was told");
    }
}

//! What was refused, counted by reason: whole calls and single changes. The metric moves at once; the
//! log has one line for each reason a minute at most.
//!
//! Neither names a caller, a row, a value or a token: a reason is a word of a fixed list.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use lakesync::error::{ErrorKind, Reason};
use lakesync::proto::v1::{Outcome, outcome};
use tokio::time::Instant;

/// How often one reason is logged at most.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// The refusals of this process.
pub(crate) static REFUSALS: LazyLock<Refusals> = LazyLock::new(Refusals::default);

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// A whole call, or what is left of a stream.
    Call,
    /// A single change of a push; the others may have taken effect.
    Change,
}

/// Counts of refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    calls: Vec<Count>,
    changes: Vec<Count>,
}

/// The refusals for one reason.
#[derive(Debug, Default)]
struct Count {
    total: AtomicU64,
    said: Mutex<Said>,
}

/// What the log knows of.
#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    total: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        let counts = || Reason::ALL.iter().map(|_| Count::default()).collect();
        Self { calls: counts(), changes: counts() }
    }
}

impl Refusals {
    /// Notes that a call was refused.
    pub(crate) fn call(&self, reason: Reason) {
        self.note(Of::Call, reason, 1);
    }

    /// Notes the changes of a push that were refused.
    pub(crate) fn changes(&self, outcomes: &[Outcome]) {
        for reason in Reason::ALL {
            let is_refused = |outcome: &&Outcome| {
                outcome.kind() == outcome::Kind::Rejected && outcome.reason == reason.as_str()
            };
            match outcomes.iter().filter(is_refused).count() {
                0 => {}
                count => self.note(Of::Change, *reason, count as u64),
            }
        }
    }

    fn note(&self, of: Of, reason: Reason, count: u64) {
        let counted = self.of(of, reason);
        counted.total.fetch_add(count, Ordering::Relaxed);
        counted.say(of, reason, Instant::now());
    }

    fn of(&self, of: Of, reason: Reason) -> &Count {
        let counts = match of {
            Of::Call => &self.calls,
            Of::Change => &self.changes,
        };
        let at = Reason::ALL.iter().position(|known| *known == reason);
        &counts[at.expect("BUG: a reason that the list of all lacks")]
    }

    /// Logs what was refused since its reason was last logged, where that is a minute ago: the end of
    /// a burst must not wait for the next one.
    pub(crate) fn say_rest(&self) {
        for of in [Of::Call, Of::Change] {
            for reason in Reason::ALL {
                self.of(of, *reason).say(of, *reason, Instant::now());
            }
        }
    }

    /// The counters in Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        let name = "lakesync_refusals_total";
        let mut text = format!(
            "# HELP {name} Calls, and single changes of pushes, that were refused.\n\
             # TYPE {name} counter\n"
        );
        for (of, word) in [(Of::Call, "call"), (Of::Change, "change")] {
            for reason in Reason::ALL {
                let total = self.of(of, *reason).total.load(Ordering::Relaxed);
                if 0 < total {
                    writeln!(text, "{name}{{reason=\"{reason}\",of=\"{word}\"}} {total}")
                        .expect("BUG: a text takes all that is written to it");
                }
            }
        }
        text
    }
}

impl Count {
    /// Logs what the log does not know of yet, unless it was told within the last minute.
    fn say(&self, of: Of, reason: Reason, now: Instant) {
        let Some(count) = self.unsaid(now) else { return };
        let reason_word = reason.as_str();
        match of {
            Of::Call if is_worth_a_warning(reason) => {
                tracing::warn!(reason = reason_word, count, "calls were refused");
            }
            Of::Call => tracing::debug!(reason = reason_word, count, "calls were refused"),
            Of::Change => tracing::warn!(reason = reason_word, count, "changes were refused"),
        }
    }

    /// How many refusals the log is to be told of now.
    fn unsaid(&self, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let total = self.total.load(Ordering::Relaxed);
        let count = total - said.total;
        let is_due = said.at.is_none_or(|at| SAID_EVERY <= now.saturating_duration_since(at));
        if count == 0 || !is_due {
            return None;
        }
        *said = Said { at: Some(now), total };
        Some(count)
    }
}

/// Whether somebody may have to mend something. A cursor that expired or a gateway that is not there yet
/// is the daily course of things; what is the server's own fault has a line of its own.
fn is_worth_a_warning(reason: Reason) -> bool {
    matches!(
        reason.kind(),
        ErrorKind::Invalid
            | ErrorKind::Unauthenticated
            | ErrorKind::Denied
            | ErrorKind::Precondition
            | ErrorKind::Exhausted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(reason: &str) -> Outcome {
        let kind = outcome::Kind::Rejected.into();
        Outcome { kind, reason: reason.to_owned(), ..Outcome::default() }
    }

    #[test]
    fn the_metric_counts_each_reason_of_calls_and_changes() {
        let refusals = Refusals::default();
        refusals.call(Reason::Quota);
        refusals.call(Reason::Quota);
        let superseded = Outcome { kind: outcome::Kind::Superseded.into(), ..rejected("") };
        refusals.changes(&[rejected("CLOCK_DRIFT"), superseded, rejected("CLOCK_DRIFT")]);
        refusals.changes(&[rejected("QUOTA"), rejected("a word of no list")]);
        let text = refusals.metrics();
        let figures: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let wanted = [
            "lakesync_refusals_total{reason=\"QUOTA\",of=\"call\"} 2",
            "lakesync_refusals_total{reason=\"CLOCK_DRIFT\",of=\"change\"} 2",
            "lakesync_refusals_total{reason=\"QUOTA\",of=\"change\"} 1",
        ];
        assert_eq!(figures, wanted);
    }

    #[test]
    fn the_log_hears_of_a_reason_at_once_and_then_once_a_minute_with_the_count() {
        let count = Count::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let refuse = |times| count.total.fetch_add(times, Ordering::Relaxed);
        assert_eq!(count.unsaid(at(0)), None, "nothing was refused");
        refuse(1);
        assert_eq!(count.unsaid(at(0)), Some(1));
        refuse(40);
        assert_eq!(count.unsaid(at(59)), None);
        refuse(2);
        assert_eq!(count.unsaid(at(60)), Some(42));
        assert_eq!(count.unsaid(at(600)), None, "nothing since");
    }
}

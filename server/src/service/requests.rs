//! The memory of requests that are not answered yet: one bound for all of them.
//!
//! A request counts from its first byte until its answer begins: first the bytes that have come, then
//! what the message takes once it is read. Callers without a token share an eighth of the bound, and
//! one subject may hold half of it, so that nobody shuts out all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lakesync::error::{Classify, Reason};

/// How long a caller waits until others have been answered.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The parts of the bound that callers without a token, and that one subject may hold.
const PUBLIC_PART: usize = 8;
const SUBJECT_PART: usize = 2;

/// What all requests of a process hold.
#[derive(Debug)]
pub struct Requests {
    bytes_max: usize,
    /// How long a request may bring no byte.
    stall_max: Duration,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// By subject; `None` are callers without a token.
    callers: HashMap<Option<Arc<str>>, usize>,
}

/// What one request holds. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    requests: Arc<Requests>,
    caller: Option<Arc<str>>,
    bytes: Mutex<usize>,
}

/// Why a request is refused: others hold what there is.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{whose} hold as much memory as they may; try again shortly")]
pub(super) struct Crowded {
    whose: &'static str,
}

impl Classify for Crowded {
    fn reason(&self) -> Reason {
        Reason::Overloaded
    }

    fn retry_after(&self) -> Option<Duration> {
        Some(RETRY_AFTER)
    }
}

impl Requests {
    /// Bounds what all requests hold, and how long one may bring nothing.
    pub fn new(bytes_max: usize, stall_max: Duration) -> Self {
        Self { bytes_max, stall_max, held: Mutex::default() }
    }

    /// What all requests hold now.
    pub fn bytes(&self) -> usize {
        self.lock().all
    }

    pub(super) fn stall_max(&self) -> Duration {
        self.stall_max
    }

    /// Begins a request of a subject, or of a caller without a token.
    pub(super) fn begin(self: &Arc<Self>, subject: Option<&str>) -> Arc<Reservation> {
        let (requests, caller) = (Arc::clone(self), subject.map(Arc::from));
        Arc::new(Reservation { requests, caller, bytes: Mutex::default() })
    }

    fn take(&self, caller: &Option<Arc<str>>, more: usize) -> Result<(), Crowded> {
        let mut held = self.lock();
        let of_caller = held.callers.get(caller).copied().unwrap_or(0) + more;
        let (part, whose) = match caller {
            None => (PUBLIC_PART, "callers without a token"),
            Some(_) => (SUBJECT_PART, "unfinished requests of this subject"),
        };
        if self.bytes_max / part < of_caller {
            return Err(Crowded { whose });
        }
        if self.bytes_max < held.all + more {
            return Err(Crowded { whose: "unfinished requests" });
        }
        held.all += more;
        held.callers.insert(caller.clone(), of_caller);
        Ok(())
    }

    fn give_back(&self, caller: &Option<Arc<str>>, bytes: usize) {
        let mut held = self.lock();
        held.all -= bytes;
        if let Some(of_caller) = held.callers.get_mut(caller) {
            *of_caller -= bytes;
            if *of_caller == 0 {
                held.callers.remove(caller);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Takes more.
    pub(super) fn add(&self, more: usize) -> Result<(), Crowded> {
        if more == 0 {
            return Ok(());
        }
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.requests.take(&self.caller, more)?;
        *bytes += more;
        Ok(())
    }

    /// Takes as much more as makes `bytes` in all.
    pub(super) fn grow_to(&self, bytes: usize) -> Result<(), Crowded> {
        let held = *self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.add(bytes.saturating_sub(held))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        if bytes != 0 {
            self.requests.give_back(&self.caller, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Arc<Requests> {
        Arc::new(Requests::new(800, Duration::from_secs(1)))
    }

    #[test]
    fn nobody_shuts_out_all_others() {
        let requests = requests();
        let public = requests.begin(None);
        public.add(100).expect("an eighth");
        requests.begin(None).add(1).expect_err("of all without a token together");
        let ann = [requests.begin(Some("ann")), requests.begin(Some("ann"))];
        ann[0].add(300).expect("less than half");
        ann[1].add(101).expect_err("more than half");
        let bob = requests.begin(Some("bob"));
        bob.grow_to(400).expect("half");
        requests.begin(Some("eve")).add(1).expect_err("all is taken");
        assert_eq!(requests.bytes(), 800);
        drop(bob);
        requests.begin(Some("eve")).add(1).expect("there is room again");
    }

    #[test]
    fn what_was_taken_is_given_back_once() {
        let requests = requests();
        let ann = requests.begin(Some("ann"));
        ann.add(100).expect("room");
        ann.grow_to(50).expect("it holds more than that");
        ann.grow_to(150).expect("room");
        ann.add(1_000).expect_err("too much");
        assert_eq!(requests.bytes(), 150);
        drop(ann);
        assert_eq!(requests.bytes(), 0);
        assert!(requests.lock().callers.is_empty());
    }
}

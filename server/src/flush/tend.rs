//! What members of a backend do by themselves, beside flushing and never in its way: a task each, for
//! as long as they are tended.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use lakesync::name::Gateway;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::Member;

/// How long a member that panicked is left alone.
pub(super) const PANIC_PAUSE: Duration = Duration::from_secs(300);

/// A member, and how tending it ended the last time.
pub(super) struct Tended {
    member: Arc<dyn Member>,
    /// The gateway and the backend that it is for.
    whose: (Gateway, Arc<str>),
    has_panicked: AtomicBool,
}

impl Tended {
    pub(super) fn new(member: Arc<dyn Member>, gateway: &Gateway, backend: &Arc<str>) -> Arc<Self> {
        let whose = (gateway.clone(), Arc::clone(backend));
        Arc::new(Self { member, whose, has_panicked: AtomicBool::new(false) })
    }

    /// What is wrong with it, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        match self.has_panicked.load(Ordering::Relaxed) {
            true => Some("a bug stops it; the server's log tells more".to_owned()),
            false => self.member.trouble(),
        }
    }

    /// Does a little, and says after how long to go on; none if there is nothing to do.
    async fn tend(&self, panic_pause: Duration) -> Option<Duration> {
        let done = AssertUnwindSafe(self.member.tend()).catch_unwind().await;
        self.has_panicked.store(done.is_err(), Ordering::Relaxed);
        done.unwrap_or_else(|_| {
            let (gateway, backend) = &self.whose;
            tracing::error!(%gateway, %backend, "BUG: tending panicked; it is tried again later");
            Some(panic_pause)
        })
    }
}

/// Tends members until what is returned is dropped, each on its own: one that hangs holds up none.
/// `tracker` knows when their tasks have ended.
pub(super) fn tend_all(
    members: &[Arc<Tended>],
    panic_pause: Duration,
    tracker: &TaskTracker,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for member in members {
        let member = Arc::clone(member);
        let tend = async move {
            while let Some(pause) = member.tend(panic_pause).await {
                sleep(pause).await;
            }
        };
        tasks.spawn(tracker.track_future(tend));
    }
    tasks
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use async_trait::async_trait;
    use tokio::time::timeout;

    use super::*;

    /// Counts how often it is tended, and does so as it is made.
    #[derive(Default)]
    struct Counted {
        count: AtomicU64,
        hangs: bool,
        panics: bool,
        ends: bool,
    }

    #[async_trait]
    impl Member for Counted {
        fn trouble(&self) -> Option<String> {
            None
        }

        async fn tend(&self) -> Option<Duration> {
            let count = self.count.fetch_add(1, Ordering::SeqCst);
            if self.hangs {
                std::future::pending::<()>().await;
            }
            assert!(!self.panics || count != 0, "as it was made");
            (!self.ends).then_some(Duration::from_millis(1))
        }
    }

    fn tended_as(member: Arc<Counted>) -> Arc<Tended> {
        Tended::new(member, &Gateway::parse("main").expect("legal"), &"a".into())
    }

    #[tokio::test]
    async fn each_member_goes_on_whatever_the_others_do() {
        let hangs = Arc::new(Counted { hangs: true, ..Counted::default() });
        let panics = Arc::new(Counted { panics: true, ..Counted::default() });
        let ends = Arc::new(Counted { ends: true, ..Counted::default() });
        let counts = || [&hangs, &panics, &ends].map(|part| part.count.load(Ordering::SeqCst));
        let members = [&hangs, &panics, &ends].map(|member| tended_as(Arc::clone(member)));
        let tracker = TaskTracker::new();
        let tasks = tend_all(&members, Duration::from_millis(1), &tracker);
        let busy = async {
            while counts()[1] < 20 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), busy).await.expect("it is tended on and on");
        assert_eq!((counts()[0], counts()[2]), (1, 1));
        assert_eq!(members[1].trouble(), None, "it is well again");
        drop((tasks, members));
        tracker.close();
        timeout(Duration::from_secs(10), tracker.wait()).await.expect("their tasks end");
        assert_eq!((Arc::strong_count(&hangs), Arc::strong_count(&panics)), (1, 1));
    }

    #[tokio::test]
    async fn a_member_that_panics_is_in_trouble() {
        let panics = Arc::new(Counted { panics: true, ..Counted::default() });
        let member = tended_as(panics);
        let pause = member.tend(PANIC_PAUSE).await;
        assert_eq!(pause, Some(PANIC_PAUSE));
        let trouble = member.trouble().expect("trouble");
        assert!(trouble.contains("a bug stops it"), "{trouble}");
        assert_ne!(member.tend(PANIC_PAUSE).await, Some(PANIC_PAUSE));
        assert_eq!(member.trouble(), None);
    }
}

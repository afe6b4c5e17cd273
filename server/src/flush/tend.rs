//! What parts of a backend do by themselves, beside flushing and never in its way: a task each, for as
//! long as their flusher is there.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Part;

/// How long a part that panicked is left alone.
pub(super) const PANIC_PAUSE: Duration = Duration::from_secs(300);

/// Tends parts until what is returned is dropped, each on its own: one that hangs holds up none.
pub(super) fn tended(parts: &[Arc<dyn Part>], panic_pause: Duration) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for part in parts {
        tasks.spawn(tend(Arc::clone(part), panic_pause));
    }
    tasks
}

async fn tend(part: Arc<dyn Part>, panic_pause: Duration) {
    loop {
        let pause = match AssertUnwindSafe(part.tend()).catch_unwind().await {
            Ok(Some(pause)) => pause,
            Ok(None) => return,
            Err(_) => {
                tracing::error!("BUG: a part of a backend panicked; it is tended again later");
                panic_pause
            }
        };
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;

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
    impl Part for Counted {
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

    #[tokio::test]
    async fn each_part_goes_on_whatever_the_others_do() {
        let hangs = Arc::new(Counted { hangs: true, ..Counted::default() });
        let panics = Arc::new(Counted { panics: true, ..Counted::default() });
        let ends = Arc::new(Counted { ends: true, ..Counted::default() });
        let counts = || [&hangs, &panics, &ends].map(|part| part.count.load(Ordering::SeqCst));
        let parts = [&hangs, &panics, &ends].map(|part| Arc::clone(part) as Arc<dyn Part>);
        let tasks = tended(&parts, Duration::from_millis(1));
        while counts()[1] < 20 {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!((counts()[0], counts()[2]), (1, 1));
        drop((tasks, parts));
        while 1 < Arc::strong_count(&hangs) || 1 < Arc::strong_count(&panics) {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

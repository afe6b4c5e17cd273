//! P-14: what a backend has is asked, not remembered.

use std::time::Duration;

use lakesync::adapter::{Adapter, Batch};
use lakesync::name::Position;
use tonic::Code;

use super::p14_flush::{assert_equal, push};
use crate::harness::backend::{Backend, Fares};
use crate::harness::{Setup, assert_refused, until, within};

/// A backend that was up to date is emptied while nothing is pushed. Flush asks it, and so does an
/// idle flusher every so often.
#[tokio::test]
async fn p14_a_backend_that_is_emptied_while_idle_is_noticed_and_filled() {
    for is_asked in [true, false] {
        let backend = Backend::default();
        let pause = if is_asked { Duration::from_secs(3_600) } else { Duration::from_millis(20) };
        let setup = Setup::new().checking_every(pause).flush_to("emptied", backend.clone());
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        push(&ann, 1).await;
        push(&ann, 2).await;
        ann.flush().await.expect("flushed");
        let written = backend.stretches.lock().expect("no panic").len();
        backend.memory.clear();
        if is_asked {
            ann.flush().await.expect("flushed");
        } else {
            until(|| written < backend.stretches.lock().expect("no panic").len()).await;
        }
        assert_equal(&backend, &ann).await;
        // Put back to a state from before the second push.
        let stretches = backend.stretches.lock().expect("no panic").len();
        let log = backend.memory.logs().await.expect("logs")[0];
        backend.memory.clear();
        let schema = lakesync::schema::Schema::default();
        backend.memory.prepare(&schema).await.expect("prepared");
        let early = Batch::new(log, Position(1), Position(1), Vec::new()).expect("a batch");
        backend.memory.write(&early).await.expect("written");
        if is_asked {
            assert_eq!(ann.flush().await.expect("flushed").position, 2);
        } else {
            until(|| stretches < backend.stretches.lock().expect("no panic").len()).await;
        }
        let log = backend.memory.logs().await.expect("logs")[0];
        assert_eq!(backend.memory.watermark(log).await, Ok(Position(2)));
        assert!(!backend.all("notes").await.is_empty(), "the second push is there again");
        server.stop().await.expect("stopped");
    }
}

/// Nothing is pushed, and still what became of a backend is told: that it is away, or that another
/// server has written to it.
#[tokio::test]
async fn p14_what_becomes_of_a_backend_is_told_while_nothing_is_pushed() {
    let backend = Backend::default();
    let setup = Setup::new().checking_every(Duration::from_millis(20));
    let setup = setup.flush_to("watched", backend.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    push(&ann, 1).await;
    ann.flush().await.expect("flushed");
    let error = async |says: &str| {
        within(async {
            loop {
                let stats = ann.stats().await.expect("figures");
                let error = stats.flush_errors.get("watched").cloned().unwrap_or_default();
                if error.is_empty() == says.is_empty() && error.contains(says) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    backend.fare(Fares::Away);
    error("it is away").await;
    assert_refused(ann.flush().await, Code::Unavailable, "BACKEND_UNAVAILABLE");
    backend.fare(Fares::Well);
    error("").await;
    let log = backend.memory.logs().await.expect("logs")[0];
    let other = Batch::new(log, Position(2), Position(4), Vec::new()).expect("a batch");
    backend.memory.write(&other).await.expect("another server's");
    error("another server").await;
    let status = assert_refused(ann.flush().await, Code::Unavailable, "BACKEND_UNAVAILABLE");
    assert!(status.message().contains("another server"), "{status:?}");
    server.stop().await.expect("stopped");
}

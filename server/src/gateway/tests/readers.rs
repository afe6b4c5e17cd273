//! When a reader is cut: it takes nothing, and no byte of what it was sent leaves.

use futures_util::{FutureExt, StreamExt};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_cut() {
    let bench = Bench::new(Settings::default()).await;
    let mut answers =
        bench.pull(PullOptions { follow: true, ..PullOptions::default() }).await.expect("good");
    // Heartbeats alone fill what may wait for it.
    tokio::time::sleep(Settings::default().stall_max * 5).await;
    let mut last = None;
    while let Some(answer) = answers.next().await {
        last = Some(answer);
    }
    assert!(matches!(last, Some(Err(ReadError::SlowConsumer(_)))), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_not_cut_while_bytes_of_a_message_leave() {
    let bench = Bench::new(Settings::default()).await;
    let mut answers =
        bench.pull(PullOptions { follow: true, ..PullOptions::default() }).await.expect("good");
    let (sending, stall_max) = (answers.sending(), Settings::default().stall_max);
    for _ in 0..20 {
        // It asks for nothing, for what it was given is still on its way.
        tokio::time::sleep(stall_max / 2).await;
        sending.moved();
    }
    let mut heard = 0;
    while let Some(answer) = answers.next().now_or_never().flatten() {
        assert!(answer.is_ok(), "{answer:?}");
        heard += 1;
    }
    assert!(0 < heard);
    sending.moved();
    tokio::time::sleep(stall_max * 2).await;
    let last = loop {
        match answers.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("it ended without a word"),
        }
    };
    assert!(matches!(last, ReadError::SlowConsumer(_)), "{last}");
}

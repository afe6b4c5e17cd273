//! The one place between a reader's task and the transport: an answer waits here until it is taken.
//!
//! The reader learns when the place is free, and when the transport has asked for the next answer in
//! vain. An answer that nobody takes can be withdrawn, so that it holds no memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

use super::ReadError;
use super::flight::Kept;

/// What the transport does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// It has not asked since it took the last answer.
    Nothing,
    /// It asked for an answer, and none was there.
    Next,
}

#[derive(Debug)]
struct State<T> {
    answer: Option<(T, Option<Kept>)>,
    /// Whether the giver has gone, and why it ended.
    ended: Option<Option<ReadError>>,
    waker: Option<Waker>,
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct Giver<T> {
    state: Arc<Mutex<State<T>>>,
    wants: watch::Receiver<Wants>,
}

/// The transport's end.
#[derive(Debug)]
pub(super) struct Taker<T> {
    state: Arc<Mutex<State<T>>>,
    wants: watch::Sender<Wants>,
}

/// The transport has gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

pub(super) fn slot<T>() -> (Giver<T>, Taker<T>) {
    let state = Arc::new(Mutex::new(State { answer: None, ended: None, waker: None }));
    let (sender, wants) = watch::channel(Wants::Nothing);
    (Giver { state: Arc::clone(&state), wants }, Taker { state, wants: sender })
}

fn locked<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Giver<T> {
    /// Resolves once the last answer was taken; with `asked`, once the next one was asked for as well.
    pub(super) async fn free(&self, asked: bool) -> Result<(), Gone> {
        let mut wants = self.wants.clone();
        let free = |wants: &Wants| {
            (!asked || *wants == Wants::Next) && locked(&self.state).answer.is_none()
        };
        wants.wait_for(free).await.map(drop).map_err(|_| Gone)
    }

    /// Resolves once the transport has gone.
    pub(super) async fn gone(&self) {
        // Nothing that it may want ends the wait: only its end does.
        let _ = self.wants.clone().wait_for(|_| false).await;
    }

    /// Puts an answer into the place, which must be free. `kept` is let go when it is taken.
    pub(super) fn put(&self, answer: T, kept: Option<Kept>) {
        let mut state = locked(&self.state);
        state.answer = Some((answer, kept));
        wake(state);
    }

    /// Withdraws an answer that was not taken.
    pub(super) fn withdraw(&self) {
        let answer = locked(&self.state).answer.take();
        drop(answer);
    }

    /// Ends the stream: `error` follows what has yet to be taken.
    pub(super) fn end(&self, error: ReadError) {
        locked(&self.state).ended = Some(Some(error));
    }
}

fn wake<T>(mut state: MutexGuard<'_, State<T>>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        state.ended.get_or_insert(None);
        wake(state);
    }
}

impl<T> Taker<T> {
    /// The next answer, or why there is none any more.
    pub(super) fn poll_take(&self, context: &Context<'_>) -> Poll<Option<Result<T, ReadError>>> {
        let mut state = locked(&self.state);
        let (taken, wants) = match (state.answer.take(), &mut state.ended) {
            (Some((answer, _)), _) => (Poll::Ready(Some(Ok(answer))), Wants::Nothing),
            (None, Some(error)) => return Poll::Ready(error.take().map(Err)),
            (None, None) => {
                state.waker = Some(context.waker().clone());
                (Poll::Pending, Wants::Next)
            }
        };
        drop(state);
        self.wants.send_replace(wants);
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use futures_util::FutureExt;
    use futures_util::task::noop_waker;

    use super::*;

    fn take(taker: &Taker<u8>) -> Poll<Option<Result<u8, String>>> {
        let waker = noop_waker();
        let taken = taker.poll_take(&Context::from_waker(&waker));
        taken.map(|answer| answer.map(|answer| answer.map_err(|error| error.to_string())))
    }

    #[test]
    fn the_giver_learns_what_was_taken_and_what_is_asked_for() {
        let (giver, taker) = slot();
        let free = |asked| giver.free(asked).now_or_never();
        assert_eq!((free(false), free(true)), (Some(Ok(())), None));
        assert!(take(&taker).is_pending());
        assert_eq!(free(true), Some(Ok(())), "it asked in vain");
        giver.put(1, None);
        assert_eq!((free(false), free(true)), (None, None));
        assert_eq!(take(&taker), Poll::Ready(Some(Ok(1))));
        assert_eq!((free(false), free(true)), (Some(Ok(())), None), "it has one to send first");
        drop(taker);
        assert_eq!(free(true), Some(Err(Gone)));
        assert_eq!(giver.gone().now_or_never(), Some(()));
    }

    #[test]
    fn the_end_follows_the_last_answer() {
        let (giver, taker) = slot();
        giver.put(1, None);
        giver.end(ReadError::ShuttingDown);
        drop(giver);
        assert_eq!(take(&taker), Poll::Ready(Some(Ok(1))));
        let end = ReadError::ShuttingDown.to_string();
        assert_eq!(take(&taker), Poll::Ready(Some(Err(end))));
        assert_eq!(take(&taker), Poll::Ready(None));
    }

    #[test]
    fn an_answer_that_is_withdrawn_is_not_sent() {
        let (giver, taker) = slot();
        giver.put(1, None);
        giver.withdraw();
        drop(giver);
        assert_eq!(take(&taker), Poll::Ready(None));
    }
}

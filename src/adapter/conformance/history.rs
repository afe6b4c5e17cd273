//! The history: every change that took effect, once, in its place.

use super::{Backend, LOG, batch, opened, shown, stretch, write};
use crate::adapter::{Adapter, Change, Place};
use crate::delta::Delta;
use crate::name::{LogId, Position};
use crate::testing::delta;

/// Commits that come twice are told once, in order; what is recorded stands among them.
pub async fn a_history_tells_each_change_once(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let first = [delta("ann@1 title=milk done=no"), delta("bob@2 delete")];
    let second = [delta("bob@3 title=oats")];
    write(&*adapter, &batch(1, first.to_vec())).await;
    let both = vec![(1, first.to_vec()), (2, second.to_vec())];
    write(&*adapter, &stretch(LOG, 1, 2, both)).await;
    let other = LogId([0; 16]);
    let elsewhere = change(other, 9, 1, delta("zoë@9 done=yes"));
    let again = change(LOG, 1, 0, delta("ann@1 title=milk done=no"));
    let rows = adapter.rows(&again.delta.table, None, 9).await;
    for _ in 0..2 {
        adapter.record(&[elsewhere.clone(), again.clone()]).await.expect("record");
    }
    assert_eq!(adapter.rows(&again.delta.table, None, 9).await, rows, "no row is touched");

    let [created, deleted] = first;
    let mut expected = vec![
        elsewhere,
        change(LOG, 1, 0, created),
        change(LOG, 1, 1, deleted),
        change(LOG, 2, 0, second[0].clone()),
    ];
    if !backend.keeps_history() {
        expected.clear();
    }
    assert_eq!(history(&*adapter).await, expected);
    assert_eq!(history(&*backend.open().await).await, expected);
}

/// A backend that gets some tables only keeps the places that changes had among all.
pub async fn a_part_of_a_commit_keeps_its_places(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let deltas = ["ann@1 title=milk", "bob@2 title=oats", "bob@3 done=yes"].map(delta);
    let whole = batch(1, deltas.to_vec());
    write(&*adapter, &whole.only(|delta| delta.stamp.client.as_str() == "bob")).await;
    let [_, second, third] = deltas;
    let expected = [change(LOG, 1, 1, second), change(LOG, 1, 2, third)];
    let expected = if backend.keeps_history() { &expected[..] } else { &[] };
    assert_eq!(history(&*adapter).await, expected);
}

/// A history that was copied may tell already what is written later.
pub async fn what_was_recorded_is_written_all_the_same(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let known = delta("ann@1 title=milk");
    adapter.record(&[change(LOG, 1, 0, known.clone())]).await.expect("record");
    let new = delta("bob@2 done=yes");
    write(&*adapter, &batch(1, vec![known.clone(), new.clone()])).await;
    assert_eq!(shown(&*adapter).await, ["done=yes title=milk"]);
    let expected = [change(LOG, 1, 0, known), change(LOG, 1, 1, new)];
    let expected = if backend.keeps_history() { &expected[..] } else { &[] };
    assert_eq!(history(&*adapter).await, expected);
}

fn change(log: LogId, position: u64, index: u32, delta: Delta) -> Change {
    Change { place: Place { log, position: Position(position), index }, delta }
}

/// All of the history, two changes at a time.
async fn history(adapter: &dyn Adapter) -> Vec<Change> {
    let mut all: Vec<Change> = Vec::new();
    loop {
        let after = all.last().map(|change| change.place);
        let page = adapter.history(after.as_ref(), 2).await.expect("history");
        assert!(page.len() <= 2, "{} changes where 2 were asked for", page.len());
        if page.is_empty() {
            return all;
        }
        for change in page {
            assert!(all.last().is_none_or(|last| last.place < change.place), "{change:?}");
            all.push(change);
        }
    }
}

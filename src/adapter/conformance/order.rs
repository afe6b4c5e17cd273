//! Batches: exactly once, in order, whole or not at all.

use super::{Backend, LOG, all, batch, opened, shown, stretch, upsert, watermark, write};
use crate::adapter::AdapterError;
use crate::name::{LogId, Position};
use crate::testing::delta;
use crate::value::Value;

/// A caller that lost the answer writes again. So does one that is far behind.
pub async fn a_batch_written_again_changes_nothing(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let first = batch(1, vec![delta("ann@1 title=milk done=no")]);
    let second = batch(2, vec![delta("bob@2 title=oats"), delta("bob@2 done=yes")]);
    write(&*adapter, &first).await;
    write(&*adapter, &second).await;
    let rows = all(&*adapter, "todos", 9).await;
    for again in [&second, &first, &second] {
        write(&*adapter, again).await;
        assert_eq!(all(&*adapter, "todos", 9).await, rows);
        assert_eq!(watermark(&*adapter).await, Position(2), "a watermark never goes back");
    }
}

/// Batches are cut anew after a restart, so the known part of one is passed over. The backend
/// goes by positions: what it was given for position 1 stays, whatever a caller says now.
pub async fn a_batch_that_overlaps_is_written_from_the_watermark_on(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    write(&*adapter, &batch(1, vec![delta("ann@1 title=milk")])).await;
    let commits = vec![(1, vec![delta("ann@9 title=never")]), (2, vec![delta("ann@2 done=yes")])];
    write(&*adapter, &stretch(LOG, 1, 2, commits)).await;
    assert_eq!(shown(&*adapter).await, ["done=yes title=milk"]);
    assert_eq!(watermark(&*adapter).await, Position(2));
}

/// A skipped commit would never be missed by anybody.
pub async fn a_batch_beyond_the_watermark_is_refused(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let beyond = batch(2, vec![delta("ann@1 title=milk")]);
    let gap = AdapterError::Gap { watermark: Position::START, first: Position(2) };
    assert_eq!(adapter.write(&beyond).await, Err(gap));
    assert_eq!(watermark(&*adapter).await, Position::START);
    assert_eq!(all(&*adapter, "todos", 9).await, []);

    write(&*adapter, &stretch(LOG, 1, 4, vec![(3, vec![delta("ann@1 title=milk")])])).await;
    let gap = AdapterError::Gap { watermark: Position(4), first: Position(6) };
    assert_eq!(adapter.write(&batch(6, vec![delta("ann@2 title=oats")])).await, Err(gap));
    assert_eq!(shown(&*adapter).await, ["title=milk"]);
}

/// One bad change late in a batch takes back all that went before it.
pub async fn a_refused_batch_leaves_no_trace(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    write(&*adapter, &batch(1, vec![delta("ann@1 title=milk")])).await;
    let good = || delta("ann@2 title=oats");
    let stranger = upsert("strangers", "r", 3, &[("title", Value::Null)]);
    let commits = vec![(2, vec![good()]), (3, vec![good(), stranger])];
    let refused = adapter.write(&stretch(LOG, 2, 3, commits)).await;
    assert!(matches!(refused, Err(AdapterError::UnknownTable(_))), "{refused:?}");
    assert_eq!(shown(&*adapter).await, ["title=milk"]);
    assert_eq!(watermark(&*adapter).await, Position(1));
    write(&*adapter, &batch(2, vec![good()])).await;
    assert_eq!(shown(&*adapter).await, ["title=oats"]);
}

/// Rows and watermark are the backend's: a new process finds both, and goes on from there.
pub async fn what_was_written_is_there_after_a_restart(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    write(&*adapter, &batch(1, vec![delta("ann@1 title=milk")])).await;
    let rows = all(&*adapter, "todos", 9).await;
    drop(adapter);

    let adapter = backend.open().await;
    assert_eq!(watermark(&*adapter).await, Position(1));
    assert_eq!(all(&*adapter, "todos", 9).await, rows);
    let adapter = opened(backend).await;
    write(&*adapter, &batch(1, vec![delta("ann@1 title=milk")])).await;
    assert_eq!(all(&*adapter, "todos", 9).await, rows);
    write(&*adapter, &batch(2, vec![delta("ann@2 title=oats")])).await;
    assert_eq!(shown(&*adapter).await, ["title=oats"]);
}

/// A restored gateway counts anew. Its first commits are not those that the backend has seen.
pub async fn logs_have_watermarks_of_their_own(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let restored = LogId([2; 16]);
    write(&*adapter, &stretch(LOG, 1, 8, vec![(8, vec![delta("ann@1 title=milk")])])).await;
    assert_eq!(adapter.watermark(restored).await, Ok(Position::START));
    let commits = vec![(3, vec![delta("bob@2 title=oats")])];
    write(&*adapter, &stretch(restored, 1, 3, commits)).await;
    assert_eq!(shown(&*adapter).await, ["title=oats"]);
    assert_eq!(adapter.watermark(restored).await, Ok(Position(3)));
    assert_eq!(watermark(&*adapter).await, Position(8));
}

/// Commits that hold nothing for this backend are done with, all the same.
pub async fn positions_without_commits_move_the_watermark(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    write(&*adapter, &stretch(LOG, 1, 5, Vec::new())).await;
    assert_eq!(watermark(&*adapter).await, Position(5));
    write(&*adapter, &batch(6, Vec::new())).await;
    assert_eq!(watermark(&*adapter).await, Position(6));
    assert_eq!(all(&*adapter, "todos", 9).await, []);
}

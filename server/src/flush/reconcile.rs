//! What becomes of one row of a backend once it is compared with the gateway's. Pure.
//!
//! A backend that missed deletes holds rows, or cells of rows, that the gateway no longer knows of.
//! They can be told from what only the backend holds: the gateway forgets a delete only after
//! `offline_max`, and knows before which time it may have forgotten some. What a row has that is as
//! old as that was deleted. What is newer the gateway never had, as where it was restored from an
//! older copy; that is kept.

use lakesync::hlc::Hlc;
use lakesync::name::RowId;
use lakesync::row::Row;
use lakesync::stamp::Stamp;

/// How a backend's row stands to the gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are the same.
    Same,
    /// The backend lacks some of what the gateway has, and has nothing else: merging brings it.
    Behind,
    /// The backend has what was deleted, by a delete that the gateway has forgotten since: the
    /// gateway's row takes the place of the backend's.
    Outdated,
    /// The backend has what the gateway never had.
    Beyond,
}

/// Compares a row. Deletes before `forgotten` may have been forgotten by the gateway.
pub(super) fn judge(wanted: Option<&Row>, held: Option<&Row>, forgotten: Hlc) -> Verdict {
    let (wanted, held) = match (wanted, held) {
        (None, None) => return Verdict::Same,
        (Some(_), None) => return Verdict::Behind,
        (None, Some(held)) => {
            let newest = held.written().max(held.deleted());
            return match newest.is_none_or(|stamp| stamp.hlc < forgotten) {
                true => Verdict::Outdated,
                false => Verdict::Beyond,
            };
        }
        (Some(wanted), Some(held)) => (wanted, held),
    };
    if wanted == held {
        return Verdict::Same;
    }
    let mut joined = held.clone();
    joined.join(wanted);
    match joined == *wanted {
        true => Verdict::Behind,
        false if surplus_is_forgotten(wanted, held, forgotten) => Verdict::Outdated,
        false => Verdict::Beyond,
    }
}

/// Whether all that `held` has beyond `wanted` is from before `forgotten`.
fn surplus_is_forgotten(wanted: &Row, held: &Row, forgotten: Hlc) -> bool {
    let is_old = |stamp: &Stamp| stamp.hlc < forgotten;
    let fits =
        |wanted: Option<&Stamp>, held: Option<&Stamp>| held <= wanted || held.is_some_and(is_old);
    let cells_fit = held.cells().iter().all(|cell| {
        let own = wanted.cell(&cell.column);
        let is_covered = own.is_some_and(|own| own == cell || cell.stamp < own.stamp)
            || Some(&cell.stamp) <= wanted.deleted();
        is_covered || is_old(&cell.stamp)
    });
    fits(wanted.written(), held.written()) && fits(wanted.deleted(), held.deleted()) && cells_fit
}

/// A row id, the gateway's row and the backend's, of which one may be missing.
pub(super) type Pair<'r> = (&'r RowId, Option<&'r Row>, Option<&'r Row>);

/// Rows of both sides by id. Both are in the order of their ids.
pub(super) fn pairs<'r>(wanted: &'r [(RowId, Row)], held: &'r [(RowId, Row)]) -> Vec<Pair<'r>> {
    let (mut wanted, mut held) = (wanted.iter().peekable(), held.iter().peekable());
    let mut pairs = Vec::new();
    while let Some(row_id) =
        [wanted.peek(), held.peek()].into_iter().flatten().map(|(row_id, _)| row_id).min()
    {
        let own = wanted.next_if(|(own, _)| own == row_id).map(|(_, row)| row);
        let theirs = held.next_if(|(theirs, _)| theirs == row_id).map(|(_, row)| row);
        pairs.push((row_id, own, theirs));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use lakesync::testing::{delta, fold};

    use super::*;

    fn row(texts: &[&str]) -> Row {
        fold(&texts.iter().map(|text| delta(text)).collect::<Vec<_>>())
    }

    #[test]
    fn what_was_deleted_is_told_from_what_the_gateway_never_had() {
        // Deletes before 10 may have been forgotten.
        for (wanted, held, verdict) in [
            (None, None, Verdict::Same),
            (Some(&["ann@1 a=1"][..]), None, Verdict::Behind),
            (Some(&["ann@1 a=1"]), Some(&["ann@1 a=1"][..]), Verdict::Same),
            (Some(&["ann@1 a=1", "ann@9 delete"]), Some(&["ann@1 a=1"]), Verdict::Behind),
            (Some(&["ann@1 a=1", "ann@20 a=2"]), Some(&["ann@1 a=1"]), Verdict::Behind),
            (None, Some(&["ann@1 a=1"]), Verdict::Outdated),
            (None, Some(&["ann@1 a=1", "bob@9 delete"]), Verdict::Outdated),
            (None, Some(&["ann@10 a=1"]), Verdict::Beyond),
            (None, Some(&["ann@1 a=1", "bob@12 delete"]), Verdict::Beyond),
            // The row was deleted, the delete was forgotten, and the row was made anew.
            (Some(&["ann@20 a=2"]), Some(&["ann@1 a=1 b=1"]), Verdict::Outdated),
            (Some(&["ann@20 a=2"]), Some(&["ann@1 b=1", "ann@5 delete"]), Verdict::Outdated),
            (Some(&["ann@20 a=2"]), Some(&["ann@15 b=1"]), Verdict::Beyond),
            (Some(&["ann@20 a=2"]), Some(&["ann@20 a=2", "ann@25 delete"]), Verdict::Beyond),
            (Some(&["ann@20 a=2"]), Some(&["ann@1 b=1", "ann@15 c=1"]), Verdict::Beyond),
            // What the gateway's own delete hides is no surplus.
            (Some(&["ann@15 delete", "ann@20 a=2"]), Some(&["ann@12 b=1"]), Verdict::Behind),
        ] {
            let (own, theirs) = (wanted.map(row), held.map(row));
            let judged = judge(own.as_ref(), theirs.as_ref(), Hlc(10));
            assert_eq!(judged, verdict, "{wanted:?} and {held:?}");
        }
    }

    #[test]
    fn rows_are_paired_by_id() {
        let rows = |ids: &[&str]| -> Vec<(RowId, Row)> {
            ids.iter().map(|id| (id.parse().expect("legal"), row(&["ann@1 a=1"]))).collect()
        };
        let (wanted, held) = (rows(&["b", "c", "e"]), rows(&["a", "c", "d", "f"]));
        let told: Vec<_> = pairs(&wanted, &held)
            .into_iter()
            .map(|(row_id, own, theirs)| (row_id.as_str(), own.is_some(), theirs.is_some()))
            .collect();
        let told_of = [
            ("a", false, true),
            ("b", true, false),
            ("c", true, true),
            ("d", false, true),
            ("e", true, false),
            ("f", false, true),
        ];
        assert_eq!(told, told_of);
        assert!(pairs(&[], &[]).is_empty());
    }
}

//! The laws of merge as properties, and cases that read `client@time column=value …` or
//! `client@time delete`.

use proptest::prelude::*;

use super::*;
use crate::testing::{delta, deltas, fold, shown};

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(
        (all, shuffled) in deltas().prop_flat_map(|all| {
            let twice: Vec<_> = all.iter().chain(&all).cloned().collect();
            (Just(all), Just(twice).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(fold(&all), fold(&shuffled));
    }

    #[test]
    fn join_is_merge_of_everything(left in deltas(), right in deltas()) {
        let mut joined = fold(&left);
        joined.join(&fold(&right));
        let all: Vec<_> = left.into_iter().chain(right).collect();
        prop_assert_eq!(joined, fold(&all));
    }

    #[test]
    fn merging_again_changes_nothing(all in deltas()) {
        let mut row = fold(&all);
        for delta in &all {
            let again = row.merge(delta);
            prop_assert!(!again.changed && !again.effective, "{:?}", again);
        }
    }

    /// Leaving out ineffective deltas is what the gateway does: nobody may ever see a difference.
    #[test]
    fn ineffective_deltas_never_matter(all in deltas(), later in deltas()) {
        let (mut full, mut lean) = (Row::default(), Row::default());
        for delta in &all {
            full.merge(delta);
            let before = lean.clone();
            if !lean.merge(delta).effective {
                lean = before;
            }
        }
        for delta in &later {
            full.merge(delta);
            lean.merge(delta);
        }
        prop_assert_eq!(shown(&full), shown(&lean));
        prop_assert_eq!(full.cells(), lean.cells());
    }
}

#[test]
fn the_later_edit_of_a_column_wins() {
    check(&["ann@1 title=milk", "bob@2 done=yes"], "done=yes title=milk");
    check(&["ann@1 title=milk", "bob@2 title=oats"], "title=oats");
    check(&["ann@1 title=milk", "bob@1 title=oats"], "title=oats");
    check(&["ann@1 title=milk", "ann@1 title=milk"], "title=milk");
}

#[test]
fn a_delete_hides_what_was_written_before_it_and_only_that() {
    check(&["ann@1 title=milk", "bob@2 delete"], "gone");
    check(&["ann@2 title=milk", "ann@2 delete"], "gone");
    check(&["ann@1 title=milk", "bob@2 delete", "ann@3 done=yes"], "done=yes");
    check(&["ann@1 title=milk", "bob@2 delete", "ann@3 done=yes", "bob@4 delete"], "gone");
}

#[test]
fn an_effect_tells_what_lost_and_what_was_there() {
    let mut row = fold(&[delta("ann@2 title=milk"), delta("ann@5 done=no")]);
    let effect = row.merge(&delta("ann@2 title=milk"));
    assert_eq!((effect.effective, effect.tied.len(), effect.lost.len()), (false, 1, 0));
    let effect = row.merge(&delta("bob@3 done=yes title=oats"));
    assert_eq!((effect.effective, effect.tied.len(), effect.lost.len()), (true, 0, 1));
    assert_eq!(effect.lost[0].as_str(), "done");
}

/// Merges `texts` in every order and expects the same row each time.
#[track_caller]
fn check(texts: &[&str], expected: &str) {
    for order in crate::testing::permutations(texts) {
        let all: Vec<_> = order.iter().map(|text| delta(text)).collect();
        assert_eq!(shown(&fold(&all)), expected, "merged as {order:?}");
    }
}

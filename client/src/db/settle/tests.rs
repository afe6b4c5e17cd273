//! What a change that lost leaves behind.

use lakesync::testing::{delta, fold, shown};

use super::*;

#[test]
fn what_took_effect_of_a_change_that_lost_is_known() {
    for (text, lost, left) in [
        ("ann@5 a=2 b=2", &["a"][..], "a=1 b=2"),
        ("ann@5 a=2 b=2", &[], "a=1 b=1"),
        ("ann@5 a=2 b=2", &["a", "b"], "a=1 b=1"),
        // A delete hides what was before it, whatever outlived it.
        ("ann@5 delete", &[], "gone"),
    ] {
        let lost: Vec<_> = lost.iter().map(|name| name.parse().expect("a legal name")).collect();
        let (winner, event) = superseded(&delta(text), &lost);
        let mut known = fold(&[delta("bob@1 a=1 b=1")]);
        winner.iter().for_each(|winner| _ = known.merge(winner));
        assert_eq!(shown(&known), left, "{text}, of which {lost:?} lost");
        assert_eq!(event.row_id.as_str(), "r");
    }
}

#[test]
fn a_row_that_outlived_its_delete_comes_back_as_it_is_upstream() {
    let (bob, ann) = (delta("bob@1 a=1 b=1"), delta("ann@5 delete"));
    let newer = delta("eve@9 a=2");
    let upstream = fold(&[bob.clone(), newer.clone(), ann.clone()]);
    let (winner, _) = superseded(&ann, &[]);
    let known = fold(&[bob, winner.expect("it hides b"), newer]);
    assert_eq!(known, upstream);
    assert_eq!(shown(&known), "a=2");
}

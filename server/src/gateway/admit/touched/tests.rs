//! Room and memory: what fits does so however it arrives, and nothing hidden comes back.

use lakesync::testing;
use lakesync::value::Value;
use proptest::prelude::*;

use super::*;

fn text(column: usize, hlc: u64, bytes: usize) -> Delta {
    let column = format!("c{column}").parse().expect("legal");
    let op = Op::Upsert(vec![Cell { column, value: Value::String("x".repeat(bytes)) }]);
    let mut delta = Delta { op, ..testing::delta("ann@1 a=b") };
    delta.stamp.hlc = Hlc(hlc);
    delta
}

/// Merges what fits, and says whether all did.
fn put(touched: &mut Touched, delta: &Delta) -> bool {
    let fits = touched.make_room(delta).is_ok();
    if fits {
        touched.row.merge(delta);
        let stored = touched.row.encode().len();
        assert!(stored <= touched.bytes, "{stored} bytes stored, {} counted", touched.bytes);
    }
    fits
}

#[test]
fn a_full_row_takes_what_does_not_grow_it() {
    let mut touched = Touched::default();
    assert!(put(&mut touched, &text(0, 1, ROW_BYTES_MAX / 2)));
    assert!(put(&mut touched, &text(1, 2, ROW_BYTES_MAX / 2 - 1_000)));
    assert!(put(&mut touched, &text(1, 3, ROW_BYTES_MAX / 2 - 500)), "a little more");
    assert!(!put(&mut touched, &text(2, 4, 1_000)), "too much");
    assert!(put(&mut touched, &text(0, 0, ROW_BYTES_MAX)), "what loses takes no room");
    assert!(put(&mut touched, &text(0, 5, 10)), "a shorter text");
    assert!(put(&mut touched, &text(2, 6, ROW_BYTES_MAX / 4)), "there is room again");
    assert!(touched.row.encode().len() <= ROW_BYTES_MAX);
}

#[test]
fn whether_a_change_fits_does_not_depend_on_the_batch() {
    let mut full = Touched::default();
    for nth in 0..30 {
        assert!(put(&mut full, &text(nth, 1_000 + nth as u64, 69_000)));
    }
    let mut both = std::collections::HashSet::new();
    for last_bytes in (0..12_000).step_by(500) {
        // Counted up change by change, or loaded from the store.
        let mut counted = full.clone();
        let (row, bytes) = (full.row.clone(), full.row.encode().len());
        let mut loaded = Touched { row, bytes, ..Touched::default() };
        let last = text(300, 9_000, 19_000 + last_bytes);
        let fits = put(&mut counted, &last);
        assert_eq!(fits, put(&mut loaded, &last), "{last_bytes}");
        both.insert(fits);
    }
    assert_eq!(both.len(), 2, "the limit is not among these");
}

proptest! {
    /// Whoever remembers every delete sees what the forgetful gateway shows, after all changes that
    /// are admitted late.
    #[test]
    fn what_is_admitted_late_is_what_memory_would_show(
        before in testing::deltas(), since in testing::deltas(), late in testing::deltas(),
    ) {
        let horizon = Hlc(6);
        let mut whole = testing::fold(&before);
        let mut touched = Touched { row: whole.clone(), ..Touched::default() };
        if !touched.row.is_live() {
            touched.row = Row::default();
        }
        for mut delta in since {
            delta.stamp.hlc.0 += horizon.0;
            touched.row.merge(&delta);
            whole.merge(&delta);
        }
        for delta in late {
            if touched.remember(&delta, horizon).is_ok() {
                touched.row.merge(&delta);
                whole.merge(&delta);
            }
            prop_assert_eq!(testing::shown(&touched.row), testing::shown(&whole));
        }
    }
}

#[test]
fn late_changes_are_admitted_where_nothing_can_be_hidden() {
    for (row, late, admitted) in [
        (&[][..], "bob@4 title=x", false),
        (&["ann@20 title=y"], "bob@4 title=x", true),
        (&["ann@20 title=y"], "bob@4 title=x done=yes", false),
        (&["ann@20 title=y"], "bob@4 done=yes", false),
        (&["ann@20 title=y"], "bob@4 delete", true),
        (&["ann@3 title=y"], "bob@4 done=yes", true),
        (&["ann@3 title=y", "ann@20 title=z"], "bob@4 done=yes", false),
        (&["ann@3 title=y", "ann@20 done=no"], "bob@4 a=b", true),
        (&["ann@5 delete", "ann@20 title=y"], "bob@4 done=yes", true),
        (&["ann@5 delete", "ann@20 title=y"], "bob@6 done=yes", false),
        (&["ann@5 delete"], "bob@6 done=yes", false),
    ] {
        let deltas: Vec<_> = row.iter().map(|text| testing::delta(text)).collect();
        let touched = Touched { row: testing::fold(&deltas), ..Touched::default() };
        let got = touched.remember(&testing::delta(late), Hlc(10));
        assert_eq!(got.is_ok(), admitted, "{late} on {row:?}: {got:?}");
    }
}

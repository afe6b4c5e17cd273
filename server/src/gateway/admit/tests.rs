//! What takes effect, what is refused, and what an atomic push leaves behind.

use lakesync::adapter::Capacity;
use lakesync::delta::Cell;
use lakesync::limits::{NAME_BYTES_MAX, PUSH_ROWS_MAX, ROW_BYTES_MAX, ROW_ID_BYTES_MAX};
use lakesync::schema::Proposal;
use lakesync::testing;
use lakesync::value::Value;
use proptest::prelude::*;

use super::*;

const WALL_MS: u64 = 1_700_000_000_000;

fn long_name() -> ColumnName {
    "k".repeat(NAME_BYTES_MAX).parse().expect("legal")
}

/// The table that the fixtures' changes are of, with a column of every type they use; and one with a
/// key of the longest name.
fn schema() -> Schema {
    let names = ["title", "done", "a", "b", "Z", "_d"];
    let column = |name: &&str| (ColumnName::parse(name).expect("legal"), ColumnType::Any);
    let mut columns: Vec<_> = names.iter().map(column).collect();
    columns.push(("count".parse().expect("legal"), ColumnType::Int64));
    let (table, key) = ("todos".parse().expect("legal"), "id".parse().expect("legal"));
    let todos = Proposal { table, key, columns, primary_key: Vec::new() };
    let title = ("title".parse().expect("legal"), ColumnType::Any);
    let keyed = Proposal {
        table: "keyed".parse().expect("legal"),
        key: "_id".parse().expect("legal"),
        columns: vec![(long_name(), ColumnType::String), title],
        primary_key: vec![long_name()],
    };
    Schema::default().evolve(&[todos, keyed]).expect("new tables")
}

fn run(rows: &mut Rows, deltas: &[Delta], atomic: bool, horizon: Hlc) -> Result<Admitted, Refusal> {
    let schema = schema();
    let clock = Clock::new(lakesync::limits::CLOCK_DRIFT_MAX);
    let (access, indexes, position) = (Access::Everything, &[][..], Position(1));
    let wall_ms = WALL_MS;
    let rules = Rules {
        schema: &schema,
        capacity: Capacity::ALL,
        clock: &clock,
        wall_ms,
        horizon,
        access,
        indexes,
        position,
    };
    let offer = |(row, delta): (u32, &Delta)| Offer { table: 0, row, delta: Ok(delta.clone()) };
    admit(&rules, rows, (0..).zip(deltas).map(offer).collect(), atomic)
}

/// Admits without a horizon, and says what was said: the row and the reason or kind.
fn said(rows: &mut Rows, texts: &[&str]) -> Vec<(u32, String)> {
    let deltas: Vec<_> = texts.iter().map(|text| testing::delta(text)).collect();
    let admitted = run(rows, &deltas, false, Hlc(0)).expect("not atomic");
    let word = |outcome: &Outcome| match outcome.reason.as_str() {
        "" => outcome.kind().as_str_name().to_owned(),
        reason => reason.to_owned(),
    };
    admitted.outcomes.iter().map(|outcome| (outcome.row, word(outcome))).collect()
}

fn stored(rows: &Rows) -> Vec<Row> {
    let changed = rows.changed().into_iter();
    let decode = |(key, row): (Bytes, Option<Bytes>)| {
        stored::decode(&key, &row.expect("kept")).expect("whole").1
    };
    changed.map(decode).collect()
}

proptest! {
    /// What the log keeps is all that a reader needs: its cells alone make the same rows.
    #[test]
    fn effective_cells_make_the_same_row(deltas in testing::deltas()) {
        let mut rows = Rows::default();
        let admitted = run(&mut rows, &deltas, false, Hlc(0)).expect("not atomic");
        let (full, reader) = (testing::fold(&deltas), testing::fold(&admitted.effective));
        prop_assert_eq!(testing::shown(&reader), testing::shown(&full));
        prop_assert_eq!(reader.cells(), full.cells());
        prop_assert_eq!(admitted.rows_gained, i64::from(full.is_live()));
    }

    #[test]
    fn a_push_repeated_changes_nothing(deltas in testing::deltas()) {
        let mut rows = Rows::default();
        run(&mut rows, &deltas, false, Hlc(0)).expect("not atomic");
        let before = stored(&rows);
        let again = run(&mut rows, &deltas, false, Hlc(0)).expect("not atomic");
        prop_assert_eq!(again.effective, vec![]);
        prop_assert_eq!(again.outcomes.len(), deltas.len());
        prop_assert_eq!(stored(&rows), before);
    }

    #[test]
    fn a_refused_atomic_push_leaves_no_trace(first in testing::deltas(), second in testing::deltas()) {
        let mut rows = Rows::default();
        run(&mut rows, &first, true, Hlc(0)).expect("all good");
        let before = stored(&rows);
        let mut spoiled = second;
        spoiled.push(testing::delta("ann@9 nowhere=x"));
        let refusal = run(&mut rows, &spoiled, true, Hlc(0)).expect_err("spoiled");
        prop_assert_eq!(refusal.reason, Reason::SchemaMismatch);
        prop_assert_eq!(stored(&rows), before);
    }
}

#[test]
fn outcomes_tell_a_lost_conflict_from_a_repeated_push() {
    let mut rows = Rows::default();
    assert_eq!(said(&mut rows, &["ann@5 title=milk done=no"]), []);
    let replayed = (0, "REPLAYED".to_owned());
    assert_eq!(said(&mut rows, &["ann@5 title=milk done=no"]), std::slice::from_ref(&replayed));
    let lost = (0, "KIND_SUPERSEDED".to_owned());
    assert_eq!(said(&mut rows, &["bob@4 title=oats"]), std::slice::from_ref(&lost));
    assert_eq!(said(&mut rows, &["bob@6 title=oats"]), []);
    let partly = (0, "KIND_PARTLY_SUPERSEDED".to_owned());
    assert_eq!(said(&mut rows, &["ann@5 title=milk done=no"]), [partly], "one lost, one was there");
    assert_eq!(said(&mut rows, &["ann@7 delete"]), []);
    assert_eq!(said(&mut rows, &["ann@7 delete"]), [replayed]);
    assert_eq!(
        said(&mut rows, &["bob@6 title=oats"]),
        std::slice::from_ref(&lost),
        "the row was deleted since"
    );
    assert_eq!(said(&mut rows, &["bob@9 title=oats"]), []);
    for delete in ["ann@8 delete", "ann@8 delete", "ann@6 delete"] {
        assert_eq!(said(&mut rows, &[delete]), std::slice::from_ref(&lost), "the row is there");
    }
}

#[test]
fn columns_are_named_where_some_of_them_lost_only() {
    let mut rows = Rows::default();
    said(&mut rows, &["ann@5 a=1 title=milk"]);
    for (text, named) in [
        ("bob@4 a=2 b=2 done=no", &["a"][..]),
        ("bob@4 title=oats a=2", &[]),
        ("bob@6 a=3", &[]),
        ("bob@5 a=2 title=tea Z=9", &["a"]),
    ] {
        let admitted = run(&mut rows, &[testing::delta(text)], false, Hlc(0)).expect("not atomic");
        let columns: Vec<_> =
            admitted.outcomes.iter().flat_map(|outcome| outcome.columns.clone()).collect();
        assert_eq!(columns, named, "{text}");
    }
}

#[test]
fn an_atomic_push_keeps_one_image_of_each_row() {
    let (mut rows, mut undo) = (Rows::default(), Undo::default());
    let key = Bytes::from_static(b"todos\0r");
    for text in ["ann@1 a=1", "ann@2 a=2", "ann@3 a=3"] {
        undo.keep(&key, &rows);
        let (position, grave) = (Position::START, Grave::default());
        let row = testing::fold(&[testing::delta(text)]);
        rows.load(key.clone(), Stored { position, grave, row }, 0);
    }
    assert_eq!(undo.0.len(), 1, "large rows would be copied for every change of theirs");
    rows.restore(undo);
    assert!(rows.0.is_empty(), "the first image is that of no row");
}

#[test]
fn one_bad_change_never_blocks_the_rest() {
    let mut rows = Rows::default();
    let mut wrong_type = testing::delta("ann@2 title=x");
    wrong_type.op = Op::Upsert(vec![Cell {
        column: "count".parse().expect("legal"),
        value: Value::String("many".into()),
    }]);
    let mut early = testing::delta("ann@3 title=x");
    early.stamp.hlc = Hlc::from_ms(WALL_MS + 5_001);
    let mut elsewhere = testing::delta("ann@4 title=x");
    elsewhere.table = "lists".parse().expect("legal");
    let mut large = testing::delta("ann@5 title=x");
    large.op = Op::Upsert(vec![Cell {
        column: "title".parse().expect("legal"),
        value: Value::String("x".repeat(ROW_BYTES_MAX)),
    }]);
    let deltas = [testing::delta("ann@1 title=milk"), wrong_type, early, elsewhere, large];
    let admitted = run(&mut rows, &deltas, false, Hlc(0)).expect("not atomic");
    let reasons: Vec<_> = admitted.outcomes.iter().map(|outcome| outcome.reason.as_str()).collect();
    assert_eq!(reasons, ["SCHEMA_MISMATCH", "CLOCK_DRIFT", "SCHEMA_MISMATCH", "TOO_LARGE"]);
    assert_eq!(admitted.effective.len(), 1);
    assert_eq!(testing::shown(&stored(&rows)[0]), "title=milk");
    assert_eq!(admitted.newest, Hlc(1), "a refused stamp does not move the clock");
}

#[test]
fn a_change_from_before_the_horizon_can_change_a_row_but_not_raise_one() {
    let mut rows = Rows::default();
    let check = |rows: &mut Rows, text: &str, refused: bool| {
        let got = run(rows, &[testing::delta(text)], true, Hlc(10));
        assert_eq!(
            got.err().map(|refusal| refusal.reason),
            refused.then_some(Reason::TooOld),
            "{text}"
        );
    };
    check(&mut rows, "ann@9 title=milk", true);
    check(&mut rows, "ann@9 delete", true);
    check(&mut rows, "ann@10 title=milk", false);
    check(&mut rows, "bob@9 title=oats", false);
    check(&mut rows, "bob@9 done=yes", true);
    check(&mut rows, "ann@11 delete", false);
    check(&mut rows, "bob@9 done=yes", true);
}

/// What is said of a change of the row `row` with this stamp, where the row `a` has a stamp of
/// tomorrow: its reason, or nothing.
fn said_after(stamp: Hlc, row: &str) -> (Option<String>, Admitted) {
    let mut stored = testing::delta("ann@5 title=milk");
    stored.row_id = "a".parse().expect("legal");
    stored.stamp.hlc = tomorrow();
    let mut rows = Rows::default();
    let (position, grave, row_of) =
        (Position(1), Grave::default(), testing::fold(&[stored.clone()]));
    let key = keys::row(&stored.table, &stored.row_id);
    rows.load(key, Stored { position, grave, row: row_of }, 100);
    let mut delta = testing::delta("bob@5 title=oats");
    (delta.row_id, delta.stamp.hlc) = (row.parse().expect("legal"), stamp);
    let admitted = run(&mut rows, &[delta], false, Hlc(0)).expect("not atomic");
    (admitted.outcomes.first().map(|outcome| outcome.reason.clone()), admitted)
}

fn tomorrow() -> Hlc {
    Hlc(Hlc::from_ms(WALL_MS + 86_400_000).0 + 7)
}

#[test]
fn a_stamp_of_tomorrow_is_followed_by_ticks_on_its_own_row_only() {
    let ahead = |ticks: u64| Hlc(tomorrow().0 + ticks);
    for (stamp, row, reason) in [
        (ahead(1), "a", None),
        (ahead(1_024), "a", None),
        (ahead(1_025), "a", Some("CLOCK_DRIFT")),
        (Hlc(u64::MAX), "a", Some("CLOCK_DRIFT")),
        (ahead(0), "b", Some("CLOCK_DRIFT")),
        (ahead(1), "b", Some("CLOCK_DRIFT")),
        (Hlc::from_ms(WALL_MS), "b", None),
    ] {
        let (said, admitted) = said_after(stamp, row);
        assert_eq!(said.as_deref(), reason, "{stamp} of {row}");
        let is_ahead = WALL_MS + 5_000 < stamp.ms();
        assert_eq!(
            admitted.newest != Hlc(0),
            reason.is_none() && !is_ahead,
            "what moves the clock"
        );
        assert_eq!(admitted.furthest, if reason.is_none() { stamp } else { Hlc(0) });
    }
}

#[test]
fn no_push_takes_a_row_further_than_ticks_above_where_it_was() {
    let mut stored = testing::delta("ann@5 title=milk");
    stored.stamp.hlc = tomorrow();
    let mut rows = Rows::default();
    let key = keys::row(&stored.table, &stored.row_id);
    let row = testing::fold(&[stored]);
    rows.load(key, Stored { position: Position(1), grave: Grave::default(), row }, 100);
    let change = |ticks: u64| {
        let mut delta = testing::delta("bob@5 title=oats");
        delta.stamp.hlc = Hlc(tomorrow().0 + ticks);
        delta
    };
    let admitted = run(&mut rows, &[change(1_000), change(2_000)], false, Hlc(0));
    let outcomes = admitted.expect("not atomic").outcomes;
    assert_eq!(outcomes.iter().map(|outcome| outcome.row).collect::<Vec<_>>(), [1], "{outcomes:?}");
}

/// Somebody pushes as fast as there are groups, each time as far ahead as a stamp may be.
#[test]
fn no_rows_stamp_runs_away_from_the_wall_clock() {
    let limit = Hlc(Hlc::from_ms(WALL_MS + 5_001).0 - 1);
    let beyond = Hlc(limit.0 + 1);
    for (first, last_max) in [
        (Hlc::from_ms(WALL_MS), limit),
        (limit, limit),
        (beyond, Hlc(Hlc::from_ms(beyond.ms() + 5_000 / 64).0 + (1 << 16))),
    ] {
        let mut stored = testing::delta("ann@5 title=milk");
        stored.stamp.hlc = first;
        let key = keys::row(&stored.table, &stored.row_id);
        let mut newest = first;
        for _ in 0..5_000 {
            let mut rows = Rows::default();
            stored.stamp.hlc = newest;
            let row = testing::fold(std::slice::from_ref(&stored));
            rows.load(
                key.clone(),
                Stored { position: Position(1), grave: Grave::default(), row },
                100,
            );
            let change = |ticks: u64| {
                let mut delta = testing::delta("bob@5 title=oats");
                delta.stamp.hlc = Hlc(newest.0 + ticks);
                delta
            };
            let changes = [1, 1 << 10, 1 << 16].map(change);
            let admitted = run(&mut rows, &changes, false, Hlc(0)).expect("not atomic");
            newest = newest.max(admitted.furthest);
        }
        assert!(newest <= last_max, "from {first:?} to {newest:?}");
    }
}

/// A replica changed all rows of a large table, which somebody else deleted meanwhile.
#[test]
fn every_change_of_a_full_push_may_take_its_key_from_its_id() {
    let changes: Vec<_> = (0..PUSH_ROWS_MAX)
        .map(|nth| {
            let mut delta = testing::delta("ann@5 title=milk");
            delta.table = "keyed".parse().expect("legal");
            delta.row_id =
                format!("{nth:0width$}", width = ROW_ID_BYTES_MAX).parse().expect("legal");
            delta
        })
        .collect();
    let admitted = run(&mut Rows::default(), &changes, false, Hlc(0)).expect("not atomic");
    assert_eq!(admitted.outcomes, []);
    assert_eq!(admitted.effective.len(), PUSH_ROWS_MAX);
}

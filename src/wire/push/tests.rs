//! Pushes round-trip, and each malformed change is refused for itself.

use proptest::prelude::*;

use super::*;
use crate::testing;

fn ann() -> ClientId {
    "ann".parse().expect("an id")
}

proptest! {
    #[test]
    fn pushes_round_trip(mut deltas in testing::deltas()) {
        for delta in &mut deltas {
            delta.stamp.client = ann();
        }
        let offers = decode_push(encode_push(deltas.clone()), &ann());
        let decoded: Result<Vec<_>, _> = offers.into_iter().map(|offer| offer.delta).collect();
        prop_assert_eq!(decoded, Ok(deltas));
    }
}

#[test]
fn a_bad_change_is_refused_and_its_neighbours_are_not() {
    type Spoil = fn(&mut proto::RowChange);
    let cases: [(Reason, Spoil); 12] = [
        (Reason::InvalidRequest, |change| change.row_id.clear()),
        (Reason::InvalidRequest, |change| change.row_id = "x".repeat(257)),
        (Reason::InvalidRequest, |change| change.stamp = None),
        (Reason::InvalidRequest, |change| change.stamp = Some(proto::Stamp { hlc: 1, client: 1 })),
        (Reason::InvalidRequest, |change| change.kind = 0),
        (Reason::InvalidRequest, |change| change.kind = ChangeKind::ScopeExit.into()),
        (Reason::InvalidRequest, |change| change.kind = ChangeKind::Delete.into()),
        (Reason::InvalidRequest, |change| change.cells[0].column = 7),
        (Reason::InvalidRequest, |change| change.cells.push(change.cells[0].clone())),
        (Reason::InvalidRequest, |change| change.cells[0].value = None),
        (Reason::InvalidRequest, |change| change.cells[0].stamp = change.stamp),
        (Reason::Corruption, |change| change.delta_id = vec![7; 32].into()),
    ];
    for (at, (reason, spoil)) in cases.into_iter().enumerate() {
        let good = testing::delta("ann@1 title=milk");
        let mut tables = encode_push([good.clone(), good.clone(), good]);
        spoil(&mut tables[0].rows[1]);
        let offers = decode_push(tables, &ann());
        assert!(offers[0].delta.is_ok() && offers[2].delta.is_ok(), "case {at}");
        let refusal = offers[1].delta.as_ref().expect_err("spoiled");
        assert_eq!(refusal.reason, reason, "case {at}: {refusal:?}");
    }
}

#[test]
fn a_matching_delta_id_is_welcome() {
    let delta = testing::delta("ann@1 title=milk done=yes");
    let mut tables = encode_push([delta.clone()]);
    tables[0].rows[0].delta_id = delta.id().0.to_vec().into();
    assert_eq!(decode_push(tables, &ann())[0].delta, Ok(delta));
}

#[test]
fn an_illegal_table_name_refuses_its_own_changes_only() {
    let delta = testing::delta("ann@1 title=milk");
    let mut tables = encode_push([delta.clone()]);
    tables.extend(encode_push([delta]));
    tables[0].table = "a\"; DROP TABLE x".into();
    let offers = decode_push(tables, &ann());
    assert_eq!(offers[0].delta.as_ref().expect_err("illegal").reason, Reason::InvalidRequest);
    assert!(offers[1].delta.is_ok());
}

#[test]
fn a_long_illegal_column_is_not_repeated_for_every_change_of_it() {
    let mut tables = encode_push((0..3).map(|_| testing::delta("ann@1 title=milk")));
    tables[0].columns[0] = "é".repeat(1 << 20);
    for offer in decode_push(tables, &ann()) {
        let refusal = offer.delta.expect_err("illegal");
        assert_eq!(refusal.columns, ["é".repeat(31)]);
        assert!(refusal.message.len() < 400, "{} bytes", refusal.message.len());
    }
}

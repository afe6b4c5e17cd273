//! What is measured is never less than what readers and callers get.

use super::*;
use crate::delta::{Cell, Delta, Op};
use crate::limits::CLIENT_ID_BYTES_MAX;
use crate::name::ClientId;
use crate::proto::v1::{Outcome, Page, outcome};
use crate::testing;
use crate::value::Value;
use crate::wire::{decode_push, encode_commit, encode_push};

fn request(tables: Vec<TableChanges>) -> PushRequest {
    let (gateway, client_id) = ("main".to_owned(), "é".repeat(CLIENT_ID_BYTES_MAX / 2));
    PushRequest { gateway, client_id, tables, atomic: false }
}

/// A change of many columns, which it lists from `first` on.
fn wide(row: usize, columns: usize, first: usize, name_bytes: usize) -> Delta {
    let cell = |nth: usize| Cell {
        column: format!("{:x<name_bytes$}", format!("c{:04}", (first + nth) % columns))
            .parse()
            .expect("a legal name"),
        value: Value::Null,
    };
    let row_id = format!("{row:x<120}").parse().expect("a legal id");
    let op = Op::Upsert((0..columns).map(cell).collect());
    Delta { row_id, op, ..testing::delta("ann@1 a=b") }
}

#[test]
fn a_commit_is_no_larger_than_was_measured() {
    let check = |deltas: Vec<Delta>, grouped: bool| {
        let tables = match grouped {
            true => encode_push(deltas),
            // Each change in a group of its own, with a dictionary in its own order.
            false => deltas.into_iter().flat_map(|delta| encode_push([delta])).collect(),
        };
        let request = request(tables);
        let client: ClientId = request.client_id.parse().expect("a legal id");
        let offers = decode_push(request.tables.clone(), &client);
        let deltas = offers.into_iter().map(|offer| offer.delta.expect("well-formed"));
        let page = Page { tables: encode_commit(&client, deltas), ..Page::default() };
        let size = request.encoded_len();
        let named = request.tables.len() * (request.client_id.len() + GROUP_OVERHEAD_BYTES);
        let gained: usize = request.tables.iter().map(gained).sum();
        let sent = page.encoded_len();
        assert!(sent <= size + named + gained, "{sent} bytes of {size} + {named} + {gained}");
    };
    for columns in [1, 2, 16, 129, 400] {
        for grouped in [true, false] {
            check((0..20).map(|row| wide(row, columns, row * 7, 9)).collect(), grouped);
            // The first lists all columns, so that those of later ones stand far behind.
            let mut deltas = vec![wide(0, columns, columns / 2, 9)];
            deltas.extend((1..20).map(|row| wide(row, columns.min(2), 0, 9)));
            check(deltas, grouped);
        }
    }
}

#[test]
fn what_may_lose_its_columns_can_be_answered() {
    let answer_to = |rows: usize, columns: usize, name_bytes: usize| {
        let delta = |row| wide(row, columns, 0, name_bytes);
        let outcome = |row| Outcome {
            table: 9_999,
            row,
            kind: outcome::Kind::PartlySuperseded.into(),
            reason: "PROTOCOL_UNSUPPORTED".to_owned(),
            message: "é".repeat(1_000),
            columns: match delta(0).op {
                Op::Upsert(cells) => cells.iter().map(|cell| cell.column.to_string()).collect(),
                Op::Delete => Vec::new(),
            },
        };
        let outcomes = (0..rows).map(|row| outcome(u32::try_from(row).expect("few"))).collect();
        let mut answer = PushResponse { position: u64::MAX, outcomes, server_hlc: u64::MAX };
        fit_answer(&mut answer);
        (measure_push(&request(encode_push((0..rows).map(delta)))), answer)
    };
    for (rows, columns, name_bytes, good) in [
        (1_000, 40, 8, true),
        (1_000, 40, 63, true),
        (2_000, 40, 63, false),
        (10_000, 2, 63, true),
        (10_000, 20, 5, true),
        (10_000, 1, 5, true),
    ] {
        let (measured, answer) = answer_to(rows, columns, name_bytes);
        let fits = answer.encoded_len() <= MESSAGE_BYTES_MAX;
        assert_eq!(measured.is_ok(), good, "{rows} of {columns}: {measured:?}");
        assert!(fits || !good, "{rows} of {columns}: {} bytes", answer.encoded_len());
        assert!(answer.outcomes.iter().all(|outcome| outcome.columns.len() == columns));
    }
}

#[test]
fn counts_are_checked_before_anything_is_understood() {
    let group = |columns: usize, clients: usize, rows: usize| TableChanges {
        columns: vec![String::new(); columns],
        clients: vec![String::new(); clients],
        rows: vec![RowChange::default(); rows],
        ..TableChanges::default()
    };
    let few = || group(1_000, 0, 10_000);
    for (tables, expected) in [
        (vec![few()], Ok(())),
        (vec![TableChanges::default(); 10_000], Ok(())),
        (vec![TableChanges::default(); 10_001], Err(Oversized::Groups { count: 10_001 })),
        (vec![few(), group(0, 0, 1)], Err(Oversized::Changes { count: 10_001 })),
        (vec![few(), group(1_001, 0, 0)], Err(Oversized::Columns { at: 1, count: 1_001 })),
        (vec![group(0, 1, 0)], Err(Oversized::Clients { at: 0, count: 1 })),
    ] {
        let request = PushRequest { tables, ..PushRequest::default() };
        assert_eq!(measure_push(&request).map(|_| ()), expected);
    }
}

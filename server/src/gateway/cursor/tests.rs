//! Cursors and resume tokens as text, and what is refused.

use lakesync::limits::CURSOR_BYTES_MAX;
use lakesync::testing;

use super::*;
use crate::store::{GatewayId, GatewayRecord, LogSecret};

/// The seal of the log whose id is all sevens.
fn seal(secret: u8) -> Seal {
    let (name, id) = (testing::id("main"), GatewayId(1));
    let (log_id, secret) = (LogId([7; 16]), LogSecret([secret; 32]));
    Seal::of(&GatewayRecord { name, id, log_id, secret, created_ms: 0 })
}

fn instance(byte: u8) -> Instance {
    Instance::from_bytes(&[byte; Instance::BYTES])
}

fn cursor(view: View) -> Cursor {
    let tables = Selection::of(&[testing::id("todos")]);
    Cursor { log_id: LogId([7; 16]), position: Position(42), chain: Chain(43), tables, view }
}

fn plain() -> Cursor {
    cursor(View::default())
}

fn scoped(count: u8) -> Cursor {
    let held = (0..count).map(instance).collect();
    cursor(View { generation: 5, scope: [9; 8], held })
}

fn entry(after: usize) -> Place {
    let (instance, after) = (instance(3), vec![0xff; after]);
    Place::Entry(Entry { since: [8; 8], instance, after })
}

#[test]
fn cursors_and_resume_tokens_round_trip() {
    let row = Place::Row(testing::id("todos"), b"todos\0r\xff".to_vec());
    for (start, place) in [(plain(), row), (scoped(0), entry(0)), (scoped(3), entry(9))] {
        assert_eq!(Cursor::decode(&start.encode(&seal(1)), &seal(1)), Ok(start.clone()));
        let resume = Resume { start, changes: 8, rows_done: 9, place };
        assert_eq!(Resume::decode(&resume.encode(&seal(1)), &seal(1)), Ok(resume));
    }
}

#[test]
fn the_longest_token_is_within_its_bound() {
    let start = scoped(u8::try_from(HELD_MAX).expect("small"));
    let longest =
        Resume { start, changes: u64::MAX, rows_done: u64::MAX, place: entry(63 + 1 + 256) };
    assert_eq!(Resume::decode(&longest.encode(&seal(1)), &seal(1)), Ok(longest));
}

#[test]
fn mangled_text_is_refused() {
    let place = Place::Row(testing::id("t"), Vec::new());
    let other = Resume { start: plain(), changes: 0, rows_done: 0, place }.encode(&seal(1));
    let long = "A".repeat(CURSOR_BYTES_MAX + 1);
    for text in [plain(), scoped(2)].map(|cursor| cursor.encode(&seal(1))) {
        for bad in [&text[1..], &text[..text.len() - 1], "", "§", &other, &long] {
            let decoded = Cursor::decode(bad, &seal(1));
            assert_eq!(decoded, Err(CursorError::Malformed("cursor")), "{bad:?}");
        }
        for at in 0..text.len() {
            let mut mangled = text.clone().into_bytes();
            mangled[at] = if mangled[at] == b'A' { b'B' } else { b'A' };
            let mangled = String::from_utf8(mangled).expect("ascii");
            assert!(Cursor::decode(&mangled, &seal(1)).is_err(), "{mangled}");
        }
    }
}

#[test]
fn a_made_up_cursor_is_refused_and_one_of_another_log_known_for_what_it_is() {
    let malformed = |field| Err(CursorError::Malformed(field));
    let made_up = scoped(2).encode(&seal(2));
    assert_eq!(Cursor::decode(&made_up, &seal(1)), malformed("cursor"));
    let resume = Resume { start: scoped(1), changes: 0, rows_done: 1, place: entry(3) };
    assert_eq!(
        Resume::decode(&resume.encode(&seal(2)), &seal(1)),
        Err(CursorError::Malformed("resume"))
    );
    let other = Cursor { log_id: LogId([8; 16]), ..plain() };
    let opened = Cursor::decode(&other.encode(&seal(2)), &seal(1)).expect("it opens");
    assert_eq!(opened.check(&plain()), Err(CursorError::OtherLog));
}

#[test]
fn what_a_cursor_was_made_for_must_still_be_so() {
    let now = scoped(2);
    let with = |change: &dyn Fn(&mut Cursor)| {
        let mut cursor = now.clone();
        change(&mut cursor);
        cursor.check(&now)
    };
    assert_eq!(with(&|cursor| cursor.position = Position(1)), Ok(()));
    assert_eq!(with(&|cursor| cursor.log_id = LogId([8; 16])), Err(CursorError::OtherLog));
    for change in [
        &(|cursor: &mut Cursor| cursor.tables = Selection::of(&[])) as &dyn Fn(&mut Cursor),
        &|cursor| cursor.view.generation = 6,
        &|cursor| cursor.view.scope = [1; 8],
        &|cursor| cursor.view = View::default(),
    ] {
        assert!(matches!(with(change), Err(CursorError::Expired(_))));
    }
    assert!(!now.view.is_listed(), "the fingerprint is not of these instances");
}

#[test]
fn a_selection_is_a_set() {
    let (a, b): (TableName, TableName) = (testing::id("a"), testing::id("b"));
    let one = Selection::of(&[a.clone(), b.clone()]);
    assert_eq!(one, Selection::of(&[b, a.clone(), a.clone()]));
    assert_ne!(one, Selection::of(&[a]));
}

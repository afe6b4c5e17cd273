//! Cursors and resume tokens as text, and what is refused.

use lakesync::testing;

use super::*;

fn instance(byte: u8) -> Instance {
    Instance::from_bytes(&[byte; Instance::BYTES])
}

fn cursor(view: View) -> Cursor {
    let tables = Selection::of(&[testing::id("todos")]);
    Cursor { log_id: LogId([7; 16]), position: Position(42), tables, view }
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
        assert_eq!(Cursor::decode(&start.encode()), Ok(start.clone()));
        let resume = Resume { start, rows_done: 9, place };
        assert_eq!(Resume::decode(&resume.encode()), Ok(resume));
    }
}

#[test]
fn the_longest_token_is_within_its_bound() {
    let start = scoped(u8::try_from(HELD_MAX).expect("small"));
    let longest = Resume { start, rows_done: u64::MAX, place: entry(63 + 1 + 256) };
    assert_eq!(Resume::decode(&longest.encode()), Ok(longest));
}

#[test]
fn mangled_text_is_refused() {
    let place = Place::Row(testing::id("t"), Vec::new());
    let other = Resume { start: plain(), rows_done: 0, place }.encode();
    let long = "A".repeat(CURSOR_BYTES_MAX + 1);
    for text in [plain().encode(), scoped(2).encode()] {
        for bad in [&text[1..], &text[..text.len() - 1], "", "§", &other, &long] {
            assert_eq!(Cursor::decode(bad), Err(CursorError::Malformed("cursor")), "{bad:?}");
        }
        for at in 0..text.len() {
            let mut mangled = text.clone().into_bytes();
            mangled[at] = if mangled[at] == b'A' { b'B' } else { b'A' };
            let mangled = String::from_utf8(mangled).expect("ascii");
            assert!(Cursor::decode(&mangled).is_err(), "{mangled}");
        }
    }
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

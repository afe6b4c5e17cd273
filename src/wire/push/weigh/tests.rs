//! What is weighed is at least what reading allocates, and only what says nothing weighs too much.

use prost::Message;

use super::*;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::proto::v1::PushRequest;
use crate::testing;
use crate::wire::encode_push;

/// A message field: its tag, its length and its content.
fn nested(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![tag << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut field);
    [&field[..], content].concat()
}

/// A push of one group.
fn push(group: &[u8]) -> Vec<u8> {
    [nested(1, b"main"), nested(2, b"ann"), nested(3, group)].concat()
}

/// The memory that a read push takes, vectors as long as they are full.
fn held(request: &PushRequest) -> usize {
    let row = |row: &RowChange| size_of::<RowChange>() + row.cells.len() * size_of::<Cell>();
    let group = |group: &TableChanges| {
        let texts = group.columns.len() + group.clients.len();
        let rows: usize = group.rows.iter().map(row).sum();
        size_of::<TableChanges>() + texts * size_of::<String>() + rows
    };
    request.encoded_len() + request.tables.iter().map(group).sum::<usize>()
}

#[test]
fn what_is_weighed_is_what_is_read() {
    let deltas = ["ann@1 a=b", "ann@2 a=c", "ann@3 x", "ann@4 a=1"].map(testing::delta);
    let request = PushRequest {
        gateway: "main".to_owned(),
        client_id: "ann".to_owned(),
        tables: encode_push(deltas),
        atomic: true,
    };
    let bytes = request.encode_to_vec();
    assert_eq!(weigh_push(&bytes), Ok(held(&request)));
    // Fields that a later version may add are passed over, whatever their type.
    for unknown in [&[0x78, 0x01][..], &[0x7a, 0x01, 0xff], &[0x7b, 0x2a, 0x00, 0x7c]] {
        let more = [unknown, &bytes].concat();
        assert_eq!(PushRequest::decode(&more[..]).as_ref(), Ok(&request));
        assert_eq!(weigh_push(&more), Ok(held(&request) + unknown.len()));
    }
}

#[test]
fn a_bomb_is_told_before_it_is_read() {
    let cells = |count: usize| push(&nested(5, &[0x22, 0x00].repeat(count)));
    let groups =
        |columns: usize, count: usize| nested(3, &[0x1a, 0x00].repeat(columns)).repeat(count);
    for (what, message, expected) in [
        ("rows", push(&[0x2a, 0x00].repeat(2_000_000)), Oversized::Changes { count: 10_001 }),
        ("groups", [0x1a, 0x00].repeat(2_000_000), Oversized::Groups { count: 10_001 }),
        ("columns", groups(1_001, 1), Oversized::Columns { at: 0, count: 1_001 }),
        ("clients", push(&[0x22, 0x00]), Oversized::Clients { at: 0, count: 1 }),
    ] {
        assert!(message.len() <= MESSAGE_BYTES_MAX, "{what}");
        assert_eq!(weigh_push(&message), Err(expected), "{what}");
    }
    for (what, message) in [
        ("cells", cells(2_000_000)),
        ("cells before what can't be read", [cells(2_000_000), vec![0xff]].concat()),
    ] {
        assert!(message.len() <= MESSAGE_BYTES_MAX, "{what}");
        let weighed = weigh_push(&message);
        let Err(Oversized::Memory { bytes }) = weighed else { panic!("{what}: {weighed:?}") };
        // Refused at the limit, not after all was counted.
        assert!(bytes < 4 * MESSAGE_MEMORY_BYTES_MAX, "{what}: {bytes}");
    }
}

/// The smallest cell that says something is a null in the first column: even a message full of them
/// passes.
#[test]
fn the_densest_push_that_says_something_is_within_the_limit() {
    let cell = nested(4, &nested(2, &[0x08, 0x00]));
    let row = [nested(1, b"a"), cell.repeat(1_000)].concat();
    let row = nested(5, &row);
    let message = push(&row.repeat((MESSAGE_BYTES_MAX - 100) / row.len()));
    assert!(MESSAGE_BYTES_MAX - 10_000 < message.len() && message.len() <= MESSAGE_BYTES_MAX);
    let request = PushRequest::decode(&message[..]).expect("a push");
    assert_eq!(weigh_push(&message), Ok(held(&request)));
}

#[test]
fn what_can_not_be_read_is_no_matter_of_weight() {
    let endless = [0xff; 32];
    for bytes in [&[0x1a][..], &[0x1a, 0x05, 0x2a], &endless, &[0x02, 0x01, 0x00], &[0x0c]] {
        assert_eq!(weigh_push(bytes), Ok(bytes.len()), "{bytes:?}");
        assert!(PushRequest::decode(bytes).is_err(), "{bytes:?}");
    }
}

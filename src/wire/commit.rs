//! A commit as bytes, written straight from its deltas: what [`encode_commit`] makes, encoded,
//! without a message in between. The writer of a gateway does this for every change there is.
//!
//! [`encode_commit`]: crate::wire::encode_commit

use std::borrow::Borrow;

use prost::encoding::{WireType, encode_key, encode_varint};

use crate::delta::{Cell, Delta, Op};
use crate::name::{ClientId, ColumnName};
use crate::proto::v1::ChangeKind;
use crate::value::Value;
use crate::wire::dictionary::Dictionary;

/// Appends what `client` wrote, as the `tables` of a `lakesync.v1.Page`.
pub fn put_commit<D: Borrow<Delta>>(client: &ClientId, deltas: &[D], out: &mut Vec<u8>) {
    let mut scratch = Scratch::default();
    for changes in deltas.chunk_by(|one, next| one.borrow().table == next.borrow().table) {
        scratch.put_table(client, changes, out);
    }
}

/// Bodies under way: a message's length stands in front of it, so each level is written before the
/// one that holds it.
#[derive(Default)]
struct Scratch {
    rows: Vec<u8>,
    row: Vec<u8>,
    cell: Vec<u8>,
    value: Vec<u8>,
}

impl Scratch {
    /// All of `changes` are of one table.
    fn put_table<D: Borrow<Delta>>(&mut self, client: &ClientId, changes: &[D], out: &mut Vec<u8>) {
        let mut columns = Dictionary::default();
        self.rows.clear();
        for delta in changes.iter().map(Borrow::borrow) {
            self.put_row(delta, &mut columns);
        }
        let mut head = Vec::new();
        if let Some(first) = changes.first().map(Borrow::borrow) {
            put_bytes(1, first.table.as_str().as_bytes(), &mut head);
        }
        let column = |column: &&ColumnName| put_bytes(3, column.as_str().as_bytes(), &mut head);
        columns.names().iter().for_each(column);
        put_bytes(4, client.as_str().as_bytes(), &mut head);
        out.reserve(16 + head.len() + self.rows.len());
        encode_key(1, WireType::LengthDelimited, out);
        encode_varint((head.len() + self.rows.len()) as u64, out);
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.rows);
    }

    fn put_row<'a>(&mut self, delta: &'a Delta, columns: &mut Dictionary<&'a ColumnName>) {
        self.row.clear();
        put_bytes(1, delta.row_id.as_str().as_bytes(), &mut self.row);
        let kind = match delta.op {
            Op::Upsert(_) => ChangeKind::Upsert,
            Op::Delete => ChangeKind::Delete,
        };
        put_number(2, kind as u64, &mut self.row);
        self.put_stamp(delta.stamp.hlc.0);
        if let Op::Upsert(cells) = &delta.op {
            for (hint, cell) in cells.iter().enumerate() {
                self.put_cell(cell, columns.place(&&cell.column, hint));
            }
        }
        put_bytes(5, &self.row, &mut self.rows);
    }

    /// The client is the first of the dictionary, which goes without saying.
    fn put_stamp(&mut self, hlc: u64) {
        self.value.clear();
        if hlc != 0 {
            encode_key(1, WireType::SixtyFourBit, &mut self.value);
            self.value.extend(hlc.to_le_bytes());
        }
        put_bytes(3, &self.value, &mut self.row);
    }

    fn put_cell(&mut self, cell: &Cell, column: u32) {
        self.value.clear();
        put_value(&cell.value, &mut self.value);
        self.cell.clear();
        if column != 0 {
            put_number(1, u64::from(column), &mut self.cell);
        }
        put_bytes(2, &self.value, &mut self.cell);
        put_bytes(4, &self.cell, &mut self.row);
    }
}

/// The kinds of values have the same numbers here and there.
fn put_value(value: &Value, out: &mut Vec<u8>) {
    let tag = u32::from(value.tag());
    match value {
        Value::Null => put_number(tag, 0, out),
        Value::Bool(value) => put_number(tag, u64::from(*value), out),
        Value::Int64(value) | Value::Timestamp(value) => put_number(tag, zigzag(*value), out),
        Value::Date(value) => put_number(tag, zigzag(i64::from(*value)), out),
        Value::Double(value) => {
            encode_key(tag, WireType::SixtyFourBit, out);
            out.extend(value.to_le_bytes());
        }
        Value::String(text) | Value::Json(text) | Value::Decimal(text) => {
            put_bytes(tag, text.as_bytes(), out);
        }
        Value::Bytes(bytes) => put_bytes(tag, bytes, out),
        Value::Uuid(uuid) => put_bytes(tag, uuid, out),
    }
}

fn put_number(tag: u32, number: u64, out: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(number, out);
}

fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Small numbers of either sign are short.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto::v1::Page;
    use crate::testing;
    use crate::wire::{decode_deltas, encode_commit};

    fn check(deltas: Vec<Delta>) {
        let client: ClientId = "ann".parse().expect("an id");
        let mut written = b"before".to_vec();
        put_commit(&client, &deltas, &mut written);
        let page = Page { tables: encode_commit(&client, deltas.clone()), ..Page::default() };
        assert_eq!(written.strip_prefix(b"before"), Some(&page.encode_to_vec()[..]));
        let mut decoded = decode_deltas(page.tables).expect("what was just encoded");
        for (decoded, delta) in decoded.iter_mut().zip(&deltas) {
            // A change's cells have no order; its client is the commit's.
            assert_eq!(decoded.stamp.client, client);
            decoded.stamp.client = delta.stamp.client.clone();
            assert_eq!(decoded.id(), delta.id());
        }
        assert_eq!(decoded.len(), deltas.len());
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_message(mut deltas in testing::deltas(), tables: u16) {
            for (at, delta) in deltas.iter_mut().enumerate() {
                // One table or the other, in runs of any length.
                let name = if tables >> at & 1 == 0 { "todos" } else { "Lists" };
                delta.table = name.parse().expect("a name");
            }
            check(deltas);
        }
    }

    #[test]
    fn no_changes_are_no_bytes() {
        check(Vec::new());
    }
}

//! A change as the history keeps it: exact as bytes, and as JSON for people.
//!
//! Version 1: the version byte; table, row id and client as text; the clock, big-endian; then 0 for
//! a delete, or 1 and per cell its column as text and its canonical value. Text stands behind its
//! length in two bytes.

use lakesync::adapter::{AdapterError, Capacity};
use lakesync::delta::{Cell, Delta, Op};
use lakesync::hlc::Hlc;
use lakesync::schema::ColumnType;
use lakesync::stamp::Stamp;
use lakesync::value::{Malformed, Value};

use super::error::corrupt;
use super::render;

const VERSION: u8 = 1;
const DELETE: u8 = 0;
const UPSERT: u8 = 1;

/// The whole change as bytes.
pub(crate) fn encode(delta: &Delta) -> Vec<u8> {
    let mut out = vec![VERSION];
    for text in [delta.table.as_str(), delta.row_id.as_str(), delta.stamp.client.as_str()] {
        put_text(text, &mut out);
    }
    out.extend(delta.stamp.hlc.0.to_be_bytes());
    match &delta.op {
        Op::Delete => out.push(DELETE),
        Op::Upsert(cells) => {
            out.push(UPSERT);
            for cell in cells {
                put_text(cell.column.as_str(), &mut out);
                cell.value.encode(&mut out);
            }
        }
    }
    out
}

/// The change that `bytes` hold, all of them.
pub(crate) fn decode(bytes: &[u8]) -> Result<Delta, AdapterError> {
    decode_all(bytes).map_err(corrupt)
}

fn decode_all(mut bytes: &[u8]) -> Result<Delta, Malformed> {
    let input = &mut bytes;
    if take::<1>(input)? != [VERSION] {
        return Err(Malformed("version of a change"));
    }
    let table = take_text(input)?.parse().map_err(|_| Malformed("table name"))?;
    let row_id = take_text(input)?.parse().map_err(|_| Malformed("row id"))?;
    let client = take_text(input)?.parse().map_err(|_| Malformed("client id"))?;
    let stamp = Stamp { hlc: Hlc(u64::from_be_bytes(take(input)?)), client };
    let [op] = take(input)?;
    let mut cells = Vec::new();
    while !input.is_empty() {
        let column = take_text(input)?.parse().map_err(|_| Malformed("column name"))?;
        cells.push(Cell { column, value: Value::decode(input)? });
    }
    let op = match op {
        UPSERT => Op::Upsert(cells),
        DELETE if cells.is_empty() => Op::Delete,
        _ => return Err(Malformed("operation")),
    };
    Ok(Delta { table, row_id, stamp, op })
}

/// What a change does, in a word.
pub(crate) fn op(delta: &Delta) -> &'static str {
    match delta.op {
        Op::Upsert(_) => "upsert",
        Op::Delete => "delete",
    }
}

/// The cells as a JSON object, if the change has any. What the database's JSON can't hold is null.
pub(crate) fn cells(capacity: &Capacity, delta: &Delta) -> Option<String> {
    let Op::Upsert(cells) = &delta.op else { return None };
    let mut out = String::from("{");
    for cell in cells {
        if 1 < out.len() {
            out.push(',');
        }
        // A column's name needs no escapes.
        out.extend(["\"", cell.column.as_str(), "\":"]);
        let holds = capacity.check(ColumnType::Json, &cell.value).is_ok();
        let json = if holds { render::json(&cell.value) } else { None };
        out.push_str(json.as_deref().unwrap_or("null"));
    }
    out.push('}');
    Some(out)
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    let len = u16::try_from(text.len()).expect("BUG: a name passed the limits");
    out.extend(len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or(Malformed("length"))?;
    *input = rest;
    Ok(*head)
}

fn take_text<'a>(input: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    let len = u16::from_be_bytes(take(input)?);
    let (text, rest) = input.split_at_checked(len.into()).ok_or(Malformed("length"))?;
    *input = rest;
    str::from_utf8(text).map_err(|_| Malformed("text"))
}

#[cfg(test)]
mod tests {
    use lakesync::testing;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn changes_round_trip(delta in testing::any_delta()) {
            prop_assert_eq!(decode(&encode(&delta)), Ok(delta));
        }

        #[test]
        fn torn_changes_are_refused_or_shorter(delta in testing::any_delta(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&delta);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]) != Ok(delta));
        }

        #[test]
        fn arbitrary_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&raw);
        }

        #[test]
        fn cells_are_json(delta in testing::any_delta()) {
            let json = cells(&Capacity::ALL, &delta);
            prop_assert_eq!(json.is_none(), delta.op == Op::Delete);
            if let Some(json) = json {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
            }
        }
    }
}

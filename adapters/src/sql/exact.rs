//! What a change does, as the history keeps it beside the columns that tell the rest: exact as
//! bytes, and as JSON for people.
//!
//! Version 2: the version byte; then 0 for a delete, or 1 and per cell its column as text and its
//! canonical value. Text stands behind its length in two bytes.

use lakesync::adapter::{AdapterError, Capacity};
use lakesync::delta::{Cell, Delta, Op};
use lakesync::hlc::Hlc;
use lakesync::schema::ColumnType;
use lakesync::stamp::Stamp;
use lakesync::value::{Malformed, Value};

use super::error::corrupt;
use super::render;

const VERSION: u8 = 2;
const DELETE: u8 = 0;
const UPSERT: u8 = 1;

/// A change as the history's columns hold it.
pub(crate) struct Stored<'r> {
    pub(crate) table: &'r str,
    pub(crate) row_id: &'r str,
    pub(crate) hlc: u64,
    pub(crate) client: &'r str,
    pub(crate) exact: &'r [u8],
}

impl Stored<'_> {
    /// The change.
    pub(crate) fn delta(&self) -> Result<Delta, AdapterError> {
        // What is no name there may be anybody's value.
        let no_name = |_| corrupt("a table, row id or client in the history is none");
        Ok(Delta {
            table: self.table.parse().map_err(no_name)?,
            row_id: self.row_id.parse().map_err(no_name)?,
            stamp: Stamp { hlc: Hlc(self.hlc), client: self.client.parse().map_err(no_name)? },
            op: decode(self.exact).map_err(corrupt)?,
        })
    }
}

/// What a change does as bytes.
pub(crate) fn encode(op: &Op) -> Vec<u8> {
    let mut out = vec![VERSION];
    match op {
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

/// What `bytes` say, all of them.
fn decode(mut bytes: &[u8]) -> Result<Op, Malformed> {
    let input = &mut bytes;
    if take::<1>(input)? != [VERSION] {
        return Err(Malformed("version of a change"));
    }
    let [op] = take(input)?;
    let mut cells = Vec::new();
    while !input.is_empty() {
        let column = take_text(input)?.parse().map_err(|_| Malformed("column name"))?;
        cells.push(Cell { column, value: Value::decode(input)? });
    }
    match op {
        UPSERT => Ok(Op::Upsert(cells)),
        DELETE if cells.is_empty() => Ok(Op::Delete),
        _ => Err(Malformed("operation")),
    }
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
            let exact = encode(&delta.op);
            let stored = Stored {
                table: delta.table.as_str(),
                row_id: delta.row_id.as_str(),
                hlc: delta.stamp.hlc.0,
                client: delta.stamp.client.as_str(),
                exact: &exact,
            };
            prop_assert_eq!(stored.delta(), Ok(delta));
        }

        #[test]
        fn torn_changes_are_refused_or_shorter(delta in testing::any_delta(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&delta.op);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]) != Ok(delta.op));
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

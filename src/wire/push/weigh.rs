//! How much memory a push takes once it is read, told from its bytes alone: a row of two bytes on
//! the wire is a hundred in memory, so a message within its limit could still be far too much.
//!
//! Nothing is allocated, and every field is passed over as prost would. What can't be read ends the
//! walk without a word: reading it ends at the same place.

use std::mem::size_of;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::bounds::Oversized;
use crate::limits::{COLUMNS_MAX, PUSH_MEMORY_BYTES_MAX, PUSH_ROWS_MAX};
use crate::proto::v1::{Cell, RowChange, TableChanges};

/// `PushRequest.tables`.
const TABLES: u32 = 3;
/// `TableChanges.columns`, `clients` and `rows`.
const COLUMNS: u32 = 3;
const CLIENTS: u32 = 4;
const ROWS: u32 = 5;
/// `RowChange.cells`.
const CELLS: u32 = 4;

/// What was found so far.
#[derive(Default)]
struct Found {
    groups: usize,
    changes: usize,
    bytes: usize,
}

/// The memory that the push in `message` takes once it is read, if that and what it holds are within
/// all limits.
pub fn weigh_push(message: &[u8]) -> Result<usize, Oversized> {
    // Texts and values take what they take on the wire.
    let mut found = Found { bytes: message.len(), ..Found::default() };
    for (tag, content) in fields(message) {
        if tag == TABLES {
            found.group(content)?;
        }
    }
    Ok(found.bytes)
}

impl Found {
    fn group(&mut self, group: &[u8]) -> Result<(), Oversized> {
        let at = self.groups;
        self.groups += 1;
        if PUSH_ROWS_MAX < self.groups {
            return Err(Oversized::Groups { count: self.groups });
        }
        self.add(size_of::<TableChanges>())?;
        let (mut columns, mut clients) = (0, 0);
        for (tag, content) in fields(group) {
            match tag {
                COLUMNS => columns += 1,
                CLIENTS => clients += 1,
                ROWS => self.change(content)?,
                _ => continue,
            }
            if matches!(tag, COLUMNS | CLIENTS) {
                self.add(size_of::<String>())?;
            }
        }
        if COLUMNS_MAX < columns {
            return Err(Oversized::Columns { at, count: columns });
        }
        if 0 < clients {
            return Err(Oversized::Clients { at, count: clients });
        }
        Ok(())
    }

    fn change(&mut self, change: &[u8]) -> Result<(), Oversized> {
        self.changes += 1;
        if PUSH_ROWS_MAX < self.changes {
            return Err(Oversized::Changes { count: self.changes });
        }
        self.add(size_of::<RowChange>())?;
        let cells = fields(change).filter(|(tag, _)| *tag == CELLS).count();
        self.add(cells * size_of::<Cell>())
    }

    fn add(&mut self, bytes: usize) -> Result<(), Oversized> {
        self.bytes += bytes;
        if PUSH_MEMORY_BYTES_MAX < self.bytes {
            return Err(Oversized::Memory { bytes: self.bytes });
        }
        Ok(())
    }
}

/// The fields of a message that are messages, texts or bytes, with their tags.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        while !message.is_empty() {
            let (tag, content) = field(&mut message)?;
            if let Some(content) = content {
                return Some((tag, content));
            }
        }
        None
    })
}

/// Takes one field; nothing if it can't be read.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    let (tag, wire_type) = decode_key(message).ok()?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, message, DecodeContext::default()).ok()?;
        return Some((tag, None));
    }
    let length = usize::try_from(decode_varint(message).ok()?).ok()?;
    let (content, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some((tag, Some(content)))
}

#[cfg(test)]
mod tests;

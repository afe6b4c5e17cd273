//! How much memory a push takes once it is read. Beside that, its counts are checked before anything
//! is allocated for them.

use std::mem::size_of;

use super::bounds::Oversized;
use crate::limits::{COLUMNS_MAX, MESSAGE_MEMORY_BYTES_MAX, PUSH_ROWS_MAX};
use crate::proto::v1::{Cell, RowChange, TableChanges};
use crate::wire::weigh::fields;

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
        if MESSAGE_MEMORY_BYTES_MAX < self.bytes {
            return Err(Oversized::Memory { bytes: self.bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

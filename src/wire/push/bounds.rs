//! What one push may hold, and what its answer may: judged before anything of it is understood or
//! committed, so that nothing is ever committed that nobody could be told of.

use prost::Message;

use crate::error::{Classify, FieldViolation, Reason};
use crate::limits::{
    COLUMNS_MAX, MESSAGE_BYTES_MAX, MESSAGE_MEMORY_BYTES_MAX, NAME_BYTES_MAX, PUSH_ROWS_MAX,
};
use crate::proto::v1::{PushRequest, PushResponse, RowChange, TableChanges};

/// Room for what a page adds to the push it carries: its cursor and position.
const PAGE_OVERHEAD_BYTES: usize = 1 << 10;
/// What a group of changes gains on its way to readers: longer lengths, and a tag for the client.
const GROUP_OVERHEAD_BYTES: usize = 16;
/// What a change gains at most, and each of its cells. Readers' dictionaries list columns in the
/// order of their use and groups of one table become one, so that a column's index may grow.
const ROW_OVERHEAD_BYTES: usize = 3;
const CELL_OVERHEAD_BYTES: usize = 4;
/// An outcome without message and columns: its place, its kind and the longest reason.
const OUTCOME_BYTES: usize = 48;
/// A column's name in an outcome: the text behind its tag and length.
const COLUMN_OVERHEAD_BYTES: usize = 2;
/// The longest message of an outcome.
const MESSAGE_TEXT_BYTES_MAX: usize = 256;

/// Why a push is refused before its changes are looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Oversized {
    /// More than one commit may hold.
    #[error("the push holds {count} changes; the limit is {PUSH_ROWS_MAX}: split it")]
    Changes {
        /// How many there are.
        count: usize,
    },
    /// More groups than there could be changes.
    #[error("the push holds {count} groups of changes; the limit is {PUSH_ROWS_MAX}")]
    Groups {
        /// How many there are.
        count: usize,
    },
    /// A dictionary of more columns than a table can have.
    #[error("tables[{at}] lists {count} columns; the limit is {COLUMNS_MAX}")]
    Columns {
        /// The index of the group.
        at: usize,
        /// How many there are.
        count: usize,
    },
    /// A dictionary of clients, which a push has no use for.
    #[error("tables[{at}] lists {count} clients; a push names its own in client_id, and no other")]
    Clients {
        /// The index of the group.
        at: usize,
        /// How many there are.
        count: usize,
    },
    /// More than reading it may take.
    #[error(
        "the message takes {bytes} bytes or more once it is read; the limit is \
         {MESSAGE_MEMORY_BYTES_MAX}: split it"
    )]
    Memory {
        /// How much was counted by then.
        bytes: usize,
    },
    /// A commit that no page could carry.
    #[error(
        "the push has {bytes} bytes as readers would get it; the limit is {MESSAGE_BYTES_MAX}: \
         split it"
    )]
    Page {
        /// An upper bound of its size.
        bytes: usize,
    },
    /// So many columns that the answer might not fit.
    #[error(
        "the answer to the push could have {bytes} bytes; the limit is {MESSAGE_BYTES_MAX}: split it"
    )]
    Answer {
        /// An upper bound of its size.
        bytes: usize,
    },
}

impl Classify for Oversized {
    fn reason(&self) -> Reason {
        match self {
            Self::Columns { .. } | Self::Clients { .. } => Reason::InvalidRequest,
            _ => Reason::TooLarge,
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        let field = match self {
            Self::Columns { at, .. } => format!("tables[{at}].columns"),
            Self::Clients { at, .. } => format!("tables[{at}].clients"),
            _ => return Vec::new(),
        };
        vec![FieldViolation { field, description: self.to_string() }]
    }
}

/// The size of a push that is within all limits. A commit is never split, so one that readers with
/// the default limits could not receive must not be made, nor one whose answer they could not.
pub fn measure_push(request: &PushRequest) -> Result<usize, Oversized> {
    let groups = request.tables.len();
    if PUSH_ROWS_MAX < groups {
        return Err(Oversized::Groups { count: groups });
    }
    let count = request.tables.iter().map(|changes| changes.rows.len()).sum();
    if PUSH_ROWS_MAX < count {
        return Err(Oversized::Changes { count });
    }
    for (at, changes) in request.tables.iter().enumerate() {
        if COLUMNS_MAX < changes.columns.len() {
            return Err(Oversized::Columns { at, count: changes.columns.len() });
        }
        if !changes.clients.is_empty() {
            return Err(Oversized::Clients { at, count: changes.clients.len() });
        }
    }
    let size = request.encoded_len();
    let named = groups * (request.client_id.len() + GROUP_OVERHEAD_BYTES);
    let gained: usize = request.tables.iter().map(gained).sum();
    let bytes = size + named + gained + PAGE_OVERHEAD_BYTES;
    if MESSAGE_BYTES_MAX < bytes {
        return Err(Oversized::Page { bytes });
    }
    let bytes = request.tables.iter().map(told).sum();
    if MESSAGE_BYTES_MAX < bytes {
        return Err(Oversized::Answer { bytes });
    }
    Ok(size)
}

/// How much longer a group's changes may become on their way to readers.
fn gained(changes: &TableChanges) -> usize {
    let row = |row: &RowChange| ROW_OVERHEAD_BYTES + row.cells.len() * CELL_OVERHEAD_BYTES;
    changes.rows.iter().map(row).sum()
}

/// How much may have to be said of a group's changes: each may be refused for one column, or name
/// the columns that lost.
fn told(changes: &TableChanges) -> usize {
    let names: Vec<usize> = changes
        .columns
        .iter()
        .map(|name| COLUMN_OVERHEAD_BYTES + name.len().min(NAME_BYTES_MAX))
        .collect();
    let all: usize = names.iter().sum();
    let row = |row: &RowChange| {
        let lost: usize = row.cells.iter().filter_map(|cell| names.get(cell.column as usize)).sum();
        // No column is named twice, however often the change does.
        OUTCOME_BYTES + lost.min(all).max(COLUMN_OVERHEAD_BYTES + NAME_BYTES_MAX)
    };
    changes.rows.iter().map(row).sum()
}

/// Cuts the texts of an answer, which are for people, to what a message holds. What a program acts
/// on always fits, because [`measure_push`] saw to it.
pub fn fit_answer(answer: &mut PushResponse) {
    for outcome in &mut answer.outcomes {
        outcome.message.truncate(outcome.message.floor_char_boundary(MESSAGE_TEXT_BYTES_MAX));
    }
    if MESSAGE_BYTES_MAX < answer.encoded_len() {
        answer.outcomes.iter_mut().for_each(|outcome| outcome.message = String::new());
    }
}

#[cfg(test)]
mod tests;

//! What became of rows, counted; and those that were refused, as far as a person would read on.

use std::fmt;

use lakesync::delta::Delta;
use lakesync::proto::v1::Outcome;

use crate::exit::Exit;
use crate::show::{count, line};

/// Refused rows that are listed of each table; all are counted.
const LISTED_MAX: usize = 100;

/// What became of the rows of a table.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The gateway has them now.
    pub(super) written: u64,
    /// It had them already.
    pub(super) unchanged: u64,
    /// It had newer writes, or some newer cells.
    pub(super) kept: u64,
    pub(super) refused: u64,
    listed: Vec<Refused>,
}

/// A row that was refused, and why.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    row_id: String,
    column: Option<String>,
    reason: String,
}

impl Refused {
    /// By its row as a whole.
    pub(super) fn row(row_id: &str, reason: String) -> Self {
        Self { row_id: row_id.to_owned(), column: None, reason }
    }

    /// By a value that is none.
    pub(super) fn cell(row_id: String, column: &str, reason: String) -> Self {
        Self { row_id, column: Some(column.to_owned()), reason }
    }

    /// By the gateway.
    pub(super) fn by(delta: &Delta, outcome: &Outcome) -> Self {
        let column = (!outcome.columns.is_empty()).then(|| outcome.columns.join(", "));
        let reason = format!("{}: {}", outcome.reason, outcome.message);
        Self { row_id: delta.row_id.to_string(), column, reason }
    }
}

impl Tally {
    pub(super) fn refuse(&mut self, refused: Refused) {
        self.refused += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(refused);
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.written + self.unchanged + self.kept + self.refused
    }

    /// Counts those of another table, too.
    pub(super) fn add(&mut self, other: &Self) {
        self.written += other.written;
        self.unchanged += other.unchanged;
        self.kept += other.kept;
        self.refused += other.refused;
    }

    /// Lists what was refused.
    pub(super) fn list(&self) -> Result<(), Exit> {
        for Refused { row_id, column, reason } in &self.listed {
            let column = column.as_ref().map(|column| format!(", column {column}"));
            let column = column.unwrap_or_default();
            // A row id may be what was wrong, and as long as anything.
            line(format_args!("    refused: row {row_id:.60}{column}: {reason}"))?;
        }
        let more = self.refused - self.listed.len() as u64;
        if 0 < more {
            line(format_args!("    refused: {more} more"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} read, {} written", count(self.rows(), "row"), self.written)?;
        for (number, what) in [
            (self.unchanged, "there already"),
            (self.kept, "kept as the gateway has newer edits"),
            (self.refused, "refused"),
        ] {
            if 0 < number {
                write!(f, ", {number} {what}")?;
            }
        }
        Ok(())
    }
}

//! What a driver's errors mean to whoever flushes. The one place that turns them into words.
//!
//! No message holds a credential: the drivers put none in theirs, and a URL that can't be read is
//! never repeated. And none holds a value of a row, since errors go to logs and statistics. A
//! database's own sentence is told only where such sentences hold names alone. All else is told by
//! its code, table, column and constraint.

use std::fmt;
use std::time::Duration;

use lakesync::adapter::AdapterError;
use lakesync::name::TableName;
use sqlx::error::{DatabaseError, Error};

/// Why work was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the driver says, of this table if it is of one.
    Driver(Error, Option<TableName>),
    /// What we say.
    Told(AdapterError),
}

/// What a database's error says, without any value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The SQLSTATE, and the error's number if it has one.
    pub(crate) code: String,
    /// The SQLSTATE that tells best what it means.
    pub(crate) state: String,
    pub(crate) table: Option<String>,
    pub(crate) column: Option<String>,
    pub(crate) constraint: Option<String>,
    /// The database's own sentence, if it holds names alone.
    pub(crate) words: Option<String>,
    /// What to do, where that is known better than by the state.
    pub(crate) advice: Option<&'static str>,
}

impl Failure {
    /// What the database itself says.
    pub(crate) fn database(&self) -> Option<&dyn DatabaseError> {
        match self {
            Self::Driver(error, _) => error.as_database_error(),
            Self::Told(_) => None,
        }
    }

    /// The table that it is of, if that is known.
    pub(crate) fn table(&self) -> Option<&TableName> {
        match self {
            Self::Driver(_, table) => table.as_ref(),
            Self::Told(_) => None,
        }
    }

    /// The same, of this table.
    pub(crate) fn of(self, table: &TableName) -> Self {
        match self {
            Self::Driver(error, _) => Self::Driver(error, Some(table.clone())),
            told @ Self::Told(_) => told,
        }
    }

    /// Whether something stood in the way of a new row.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.database().is_some_and(DatabaseError::is_unique_violation)
    }

    /// The error that it is. What the database itself says is read by `said`.
    pub(crate) fn adapter_error(
        self,
        said: impl FnOnce(&dyn DatabaseError) -> Said,
    ) -> AdapterError {
        let (error, table) = match self {
            Self::Told(error) => return error,
            Self::Driver(error, table) => (error, table),
        };
        match error {
            Error::Database(error) => {
                let mut said = said(error.as_ref());
                said.table = said.table.or(table.map(|table| table.to_string()));
                said.adapter_error()
            }
            // Their sentences may repeat what was read.
            Error::ColumnDecode { .. } | Error::Decode(_) | Error::ColumnNotFound(_) => {
                let what = "a column of LakeSync's own tables can't be read";
                AdapterError::Corrupt(what.to_owned())
            }
            other => AdapterError::Unavailable(other.to_string()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Driver(error, None)
    }
}

impl From<AdapterError> for Failure {
    fn from(error: AdapterError) -> Self {
        Self::Told(error)
    }
}

impl Said {
    /// What it means. What somebody must change is a mismatch; all else may pass by itself, and is
    /// tried again.
    pub(crate) fn adapter_error(&self) -> AdapterError {
        let (is_lasting, advice) = match (self.state.as_str(), class(&self.state)) {
            ("42501", _) => (true, "grant it to LakeSync's user"),
            (_, "42" | "3F") => (
                true,
                "put back what was altered, with what it held; or drop the schema (in MySQL: the \
                 database), and all rows are written anew",
            ),
            (_, "23" | "44" | "P0") => {
                (true, "synced tables take what was pushed: lift the constraint or trigger")
            }
            (_, "22") => (true, "put the type of the column back as LakeSync made it"),
            (_, "54") => (true, "drop the index or the columns that were added to the table"),
            (_, "0A" | "2B") => (true, "LakeSync could not write its rows"),
            ("25006", _) => (false, "make it writable, or give the url of the primary"),
            (_, "28") => (false, "put the user and the password of the url right"),
            (_, "3D") => (false, "create the database, or put its name in the url right"),
            ("53300", _) => (false, "allow LakeSync's user more of them"),
            _ => (false, ""),
        };
        let advice = self.advice.unwrap_or(advice);
        let text = match advice {
            "" => self.to_string(),
            advice => format!("{self}; {advice}"),
        };
        match is_lasting {
            true => AdapterError::Mismatch(text),
            false => AdapterError::Unavailable(text),
        }
    }

    /// What kind of error it is, in our words.
    fn own_words(&self) -> &'static str {
        match (self.state.as_str(), class(&self.state)) {
            (_, "22") => "a value does not fit its column",
            (_, "23" | "44") => "a constraint or a unique index refuses a row",
            (_, "45" | "P0") => "a trigger refuses a row",
            (_, "54") => "a row is too long",
            (_, "40") => "another transaction was in the way",
            ("55P03", _) => "somebody else holds what is needed",
            ("57014", _) => "the statement took too long, or somebody cancelled it",
            ("25006", _) => "the server only reads, as a standby does",
            (_, "28") => "the server refuses the user or the password",
            (_, "53") => "the server has no more room or connections",
            (_, "57") => "the server stops or starts",
            _ => "the database refuses it; its own log tells more",
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words.as_deref().unwrap_or(self.own_words()))?;
        // What the sentence has is not said twice.
        let is_new =
            |name: &&String| !self.words.as_ref().is_some_and(|words| words.contains(*name));
        if let Some(table) = self.table.as_ref().filter(is_new) {
            write!(f, ", table {table}")?;
        }
        if let Some(column) = self.column.as_ref().filter(is_new) {
            write!(f, ", column {column}")?;
        }
        if let Some(constraint) = self.constraint.as_ref().filter(is_new) {
            write!(f, ", constraint \"{constraint}\"")?;
        }
        write!(f, " ({})", self.code)
    }
}

/// The class of an SQLSTATE.
pub(crate) fn class(state: &str) -> &str {
    state.get(..2).unwrap_or_default()
}

/// Nobody answered in time; whether the work was done is unknown.
pub(crate) fn timed_out(what: &str, after: Duration) -> AdapterError {
    AdapterError::Unavailable(format!("{what} took longer than {after:?}"))
}

/// A row of our own that can't be understood. `what` holds no value of it.
pub(crate) fn corrupt(what: impl std::fmt::Display) -> AdapterError {
    AdapterError::Corrupt(what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_must_change_is_told_from_what_passes() {
        for (state, passes) in [
            ("08006", true),
            ("57P01", true),
            ("53300", true),
            ("40001", true),
            ("25006", true),
            ("28P01", true),
            ("3D000", true),
            ("HY000", true),
            ("", true),
            ("42501", false),
            ("42P01", false),
            ("23514", false),
            ("22001", false),
            ("54000", false),
            ("0A000", false),
        ] {
            let said = Said {
                code: state.to_owned(),
                state: state.to_owned(),
                words: Some("the database's words".to_owned()),
                ..Said::default()
            };
            let error = said.adapter_error();
            assert_eq!(matches!(error, AdapterError::Unavailable(_)), passes, "{state}: {error}");
            assert!(error.to_string().contains("the database's words"), "{error}");
            let told = Said { words: None, ..said }.to_string();
            assert!(told.ends_with(&format!("({state})")) && 20 < told.len(), "{told}");
        }
    }

    #[test]
    fn names_are_told_once() {
        let said = Said {
            code: "22001, 1406".to_owned(),
            state: "22001".to_owned(),
            table: Some("t".to_owned()),
            column: Some("name".to_owned()),
            ..Said::default()
        };
        let told = said.to_string();
        assert_eq!(told, "a value does not fit its column, table t, column name (22001, 1406)");
        let words = Some("name of t".to_owned());
        assert_eq!(Said { words, ..said }.to_string(), "name of t (22001, 1406)");
    }
}

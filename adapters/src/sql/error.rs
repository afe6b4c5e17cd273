//! What a driver's errors mean to whoever flushes. The one place that reads them.
//!
//! No message holds a credential: the drivers put none in theirs, and a URL that can't be read is
//! never repeated.

use std::time::Duration;

use lakesync::adapter::AdapterError;
use sqlx::error::{DatabaseError, Error};

/// Why work was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the driver says.
    Driver(Error),
    /// What we say.
    Told(AdapterError),
}

impl Failure {
    /// What the database itself says.
    pub(crate) fn database(&self) -> Option<&dyn DatabaseError> {
        match self {
            Self::Driver(error) => error.as_database_error(),
            Self::Told(_) => None,
        }
    }

    /// Whether something stood in the way of a new row.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.database().is_some_and(DatabaseError::is_unique_violation)
    }

    /// The error that it is. What the database itself says is told apart by `told`.
    pub(crate) fn adapter_error(
        self,
        told: impl FnOnce(&dyn DatabaseError) -> AdapterError,
    ) -> AdapterError {
        let error = match self {
            Self::Told(error) => return error,
            Self::Driver(error) => error,
        };
        match error {
            Error::Database(error) => told(error.as_ref()),
            Error::ColumnDecode { .. } | Error::Decode(_) | Error::ColumnNotFound(_) => {
                AdapterError::Corrupt(error.to_string())
            }
            other => AdapterError::Unavailable(other.to_string()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl From<AdapterError> for Failure {
    fn from(error: AdapterError) -> Self {
        Self::Told(error)
    }
}

/// The error that an SQLSTATE and its message are, where the database has no better to say.
///
/// What somebody must change is a mismatch. All else may pass by itself, and is tried again.
pub(crate) fn by_state(state: &str, message: &str) -> AdapterError {
    let mismatch = |advice: &str| AdapterError::Mismatch(format!("{message} ({state}); {advice}"));
    match (state, state.get(..2).unwrap_or_default()) {
        ("42501", _) => mismatch("grant it to LakeSync's user"),
        (_, "42" | "3F") => mismatch(
            "put back what was altered, with what it held; or drop the schema (in MySQL: the database), \
             and all rows are written anew",
        ),
        (_, "23" | "44" | "P0") => {
            mismatch("synced tables take what was pushed: lift the constraint or trigger")
        }
        (_, "0A" | "22" | "2B" | "54") => mismatch("LakeSync could not write its rows"),
        _ => AdapterError::Unavailable(format!("{message} ({state})")),
    }
}

/// Nobody answered in time; whether the work was done is unknown.
pub(crate) fn timed_out(what: &str, after: Duration) -> AdapterError {
    AdapterError::Unavailable(format!("{what} took longer than {after:?}"))
}

/// A row of our own that can't be understood.
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
            ("HY000", true),
            ("", true),
            ("42501", false),
            ("42P01", false),
            ("23514", false),
            ("0A000", false),
        ] {
            let error = by_state(state, "the database's words");
            assert_eq!(matches!(error, AdapterError::Unavailable(_)), passes, "{state}: {error}");
            assert!(error.to_string().contains("the database's words"), "{error}");
        }
    }
}

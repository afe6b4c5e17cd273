//! Identities. Each is parsed once, where it enters the process, and trusted from then on.
//!
//! A name is never pasted into SQL or an object key: what needs one asks for the typed form.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::{CLIENT_ID_BYTES_MAX, NAME_BYTES_MAX, ROW_ID_BYTES_MAX};

/// The prefix of names LakeSync keeps for itself, in any case.
pub const RESERVED_PREFIX: &str = "_lakesync";
/// The prefix of names that SQLite keeps for its own tables, in any case: no replica could have one.
const SQLITE_PREFIX: &str = "sqlite_";

/// A text that is no legal identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a legal {what}: {rule}", .text.escape_debug())]
pub struct InvalidName {
    what: &'static str,
    rule: &'static str,
    text: String,
}

/// The longest part of an illegal name that its error repeats.
const SHOWN_CHARS_MAX: usize = 80;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $legal:path;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Checks `text`.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                if $legal(text) {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(SHOWN_CHARS_MAX).collect();
                    Err(InvalidName { what: $what, rule: $rule, text })
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        /// Ordered and hashed like its text, so that maps can be asked with a `&str`.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.as_str())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

names! {
    /// The name of a gateway: one log with one sequence of positions, and the unit of isolation.
    Gateway, "gateway name", "[a-z][a-z0-9-]{0,62}", legal_gateway;
    /// The name of a table. Names that differ only in case are the same table.
    TableName, "table name", "[A-Za-z_][A-Za-z0-9_]{0,62}, beginning neither with _lakesync nor with sqlite_", legal_table;
    /// The name of a column. Names that differ only in case are the same column.
    ColumnName, "column name", "[A-Za-z_][A-Za-z0-9_]{0,62}, not beginning with _lakesync", legal_name;
    /// A row's primary key as text, unique in its table and compared bytewise.
    RowId, "row id", "1 to 256 bytes without U+0000", legal_row_id;
    /// A replica's stable id. Ids are ordered bytewise, which settles ties between equal clocks.
    ClientId, "client id", "1 to 128 bytes without control characters", legal_client_id;
}

fn legal_gateway(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn legal_table(text: &str) -> bool {
    legal_name(text) && !begins_with(text, SQLITE_PREFIX)
}

fn legal_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !begins_with(text, RESERVED_PREFIX)
}

/// Whether `text` begins so, in any case.
fn begins_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn legal_row_id(text: &str) -> bool {
    (1..=ROW_ID_BYTES_MAX).contains(&text.len()) && !text.contains('\0')
}

fn legal_client_id(text: &str) -> bool {
    (1..=CLIENT_ID_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

/// The place of a commit in its gateway's log. The first commit is 1; zero is before all.
///
/// A position says what a reader has seen. It never says who wins: that is a stamp's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Before the first commit.
    pub const START: Self = Self(0);

    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("BUG: a log of 2^64 commits"))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of one life of one log. A log restored from a copy has another, so that its
/// positions can't be confused with those of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub [u8; 16]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_or_refused() {
        let long = "a".repeat(64);
        for (text, legal) in [
            ("todos", true),
            ("_x9", true),
            ("A_b", true),
            ("", false),
            ("9a", false),
            ("a-b", false),
            ("a b", false),
            ("a\"b", false),
            ("_lakesync_outbox", false),
            ("_LakeSync", false),
            ("é", false),
            (&long, false),
            (&long[..63], true),
        ] {
            assert_eq!(TableName::parse(text).is_ok(), legal, "table {text:?}");
            assert_eq!(ColumnName::parse(text).is_ok(), legal, "column {text:?}");
        }
        for text in ["sqlite_stat1", "SQLite_x", "sqlite_"] {
            assert!(TableName::parse(text).is_err(), "table {text:?}");
            assert!(ColumnName::parse(text).is_ok(), "column {text:?}");
        }
        for (text, legal) in [
            ("main", true),
            ("a-1", true),
            ("A", false),
            ("1a", false),
            ("../x", false),
            ("", false),
        ] {
            assert_eq!(Gateway::parse(text).is_ok(), legal, "gateway {text:?}");
        }
        for (text, legal) in [("", false), ("r\0", false), ("🦀", true), (&"é".repeat(129), false)]
        {
            assert_eq!(RowId::parse(text).is_ok(), legal, "row id {text:?}");
        }
        for (text, legal) in [("phone", true), ("a\nb", false), ("", false), ("zoë", true)] {
            assert_eq!(ClientId::parse(text).is_ok(), legal, "client id {text:?}");
        }
    }

    #[test]
    fn an_error_shows_the_start_of_a_long_name() {
        let error = RowId::parse(&"x".repeat(5_000)).expect_err("too long");
        assert!(error.to_string().len() < 200, "{error}");
    }
}

//! Cursors and resume tokens: what a reader has seen, as text that only we can read.
//!
//! Both are base64url of a version byte, the fields and a CRC-32 of all before it, which catches
//! mangling. They carry no authority: what a reader may see is judged when it is sent.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lakesync::error::{Classify, FieldViolation, Reason};
use lakesync::limits::CURSOR_BYTES_MAX;
use lakesync::name::{LogId, Position, TableName};
use sha2::{Digest, Sha256};

const CURSOR: u8 = 1;
const RESUME: u8 = 2;
const CRC_BYTES: usize = 4;

/// Where a reader stands: in which life of which log, after which commit, reading which tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) log_id: LogId,
    pub(super) position: Position,
    pub(super) tables: Selection,
}

/// Where a checkpoint stands. The position is that of its beginning, however often it resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) start: Cursor,
    pub(super) rows_done: u64,
    pub(super) table: TableName,
    /// The key of the last row sent.
    pub(super) after: Vec<u8>,
}

/// A fingerprint of the tables that a reader asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selection([u8; 8]);

/// Why a cursor can't be continued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It, the named field, is not one of ours, or was mangled.
    #[error("{0} is malformed; send it back as it was received")]
    Malformed(&'static str),
    /// Another selection, or a position that the log no longer holds.
    #[error("{0}; take a checkpoint, then pull")]
    Expired(&'static str),
    /// Another log, or another life of this one: the gateway was restored from a copy, or made anew.
    /// What the reader holds, the gateway may have lost.
    #[error("the cursor belongs to another log; take a checkpoint, then pull")]
    OtherLog,
}

/// The fact that tells a reader of [`CursorError::OtherLog`], and what it says.
const LOG_REPLACED: (&str, &str) = ("log", "replaced");

impl Classify for CursorError {
    fn reason(&self) -> Reason {
        match self {
            Self::Malformed(_) => Reason::InvalidRequest,
            Self::Expired(_) | Self::OtherLog => Reason::CursorExpired,
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::OtherLog => vec![(LOG_REPLACED.0, LOG_REPLACED.1.to_owned())],
            Self::Malformed(_) | Self::Expired(_) => Vec::new(),
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Malformed(field) => {
                let (field, description) = ((*field).to_owned(), self.to_string());
                vec![FieldViolation { field, description }]
            }
            Self::Expired(_) | Self::OtherLog => Vec::new(),
        }
    }
}

impl Selection {
    /// The fingerprint of `tables`, whose order and repetition do not matter.
    pub(super) fn of(tables: &[TableName]) -> Self {
        let mut sorted: Vec<&str> = tables.iter().map(TableName::as_str).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let digest = Sha256::digest(sorted.join("\0"));
        let (first, _) = digest.split_first_chunk().expect("BUG: a digest has 32 bytes");
        Self(*first)
    }
}

impl Cursor {
    /// The cursor as text.
    pub(super) fn encode(&self) -> String {
        let mut bytes = vec![CURSOR];
        self.put(&mut bytes);
        seal(bytes)
    }

    /// Reads a cursor's text.
    pub(super) fn decode(text: &str) -> Result<Self, CursorError> {
        let whole = |bytes: &[u8]| {
            let (cursor, rest) = Self::take(bytes)?;
            rest.is_empty().then_some(cursor)
        };
        let bytes = unseal(text, CURSOR);
        bytes.and_then(|bytes| whole(&bytes)).ok_or(CursorError::Malformed("cursor"))
    }

    /// Refuses a cursor that another log, or another selection of tables, gave out.
    pub(super) fn check(&self, log_id: LogId, tables: Selection) -> Result<(), CursorError> {
        if self.log_id != log_id {
            return Err(CursorError::OtherLog);
        }
        if self.tables != tables {
            return Err(CursorError::Expired("the cursor was made for other tables"));
        }
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.log_id.0);
        out.extend(self.position.0.to_be_bytes());
        out.extend(self.tables.0);
    }

    fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (log_id, rest) = bytes.split_first_chunk()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (tables, rest) = rest.split_first_chunk()?;
        let position = Position(u64::from_be_bytes(*position));
        Some((Self { log_id: LogId(*log_id), position, tables: Selection(*tables) }, rest))
    }
}

impl Resume {
    /// The token as text.
    pub(super) fn encode(&self) -> String {
        let mut bytes = vec![RESUME];
        self.start.put(&mut bytes);
        bytes.extend(self.rows_done.to_be_bytes());
        bytes.extend(self.table.as_str().as_bytes());
        bytes.push(0);
        bytes.extend(&self.after);
        seal(bytes)
    }

    /// Reads a token's text.
    pub(super) fn decode(text: &str) -> Result<Self, CursorError> {
        let bytes = unseal(text, RESUME);
        bytes.and_then(|bytes| Self::take(&bytes)).ok_or(CursorError::Malformed("resume"))
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        let (start, rest) = Cursor::take(bytes)?;
        let (rows_done, rest) = rest.split_first_chunk()?;
        let rows_done = u64::from_be_bytes(*rows_done);
        let end = rest.iter().position(|byte| *byte == 0)?;
        let table = TableName::parse(str::from_utf8(&rest[..end]).ok()?).ok()?;
        Some(Self { start, rows_done, table, after: rest[end + 1..].to_vec() })
    }
}

fn seal(mut bytes: Vec<u8>) -> String {
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unseal(text: &str, version: u8) -> Option<Vec<u8>> {
    if CURSOR_BYTES_MAX < text.len() {
        return None;
    }
    let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (bytes, crc) = sealed.split_last_chunk::<CRC_BYTES>()?;
    if crc32fast::hash(bytes) != u32::from_be_bytes(*crc) || bytes.first() != Some(&version) {
        return None;
    }
    Some(bytes[1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        let tables = Selection::of(&["todos".parse().expect("legal")]);
        Cursor { log_id: LogId([7; 16]), position: Position(42), tables }
    }

    #[test]
    fn cursors_and_resume_tokens_round_trip() {
        assert_eq!(Cursor::decode(&cursor().encode()), Ok(cursor()));
        let table = "todos".parse().expect("legal");
        let resume =
            Resume { start: cursor(), rows_done: 9, table, after: b"todos\0r\xff".to_vec() };
        assert_eq!(Resume::decode(&resume.encode()), Ok(resume));
    }

    #[test]
    fn mangled_text_is_refused() {
        let text = cursor().encode();
        let other = Resume {
            start: cursor(),
            rows_done: 0,
            table: "t".parse().expect("legal"),
            after: Vec::new(),
        };
        let long = "A".repeat(CURSOR_BYTES_MAX + 1);
        for bad in [&text[1..], &text[..text.len() - 1], "", "§", &other.encode(), &long] {
            assert_eq!(Cursor::decode(bad), Err(CursorError::Malformed("cursor")), "{bad:?}");
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bytes).expect("still ASCII");
            assert_eq!(Cursor::decode(&bad), Err(CursorError::Malformed("cursor")), "byte {at}");
        }
    }

    #[test]
    fn a_cursor_is_good_for_its_log_and_its_tables_only() {
        let (one, two) = ("a".parse().expect("legal"), "b".parse().expect("legal"));
        let both = Selection::of(&[one, two]);
        assert!(cursor().check(LogId([7; 16]), cursor().tables).is_ok());
        assert!(cursor().check(LogId([8; 16]), cursor().tables).is_err());
        assert!(cursor().check(LogId([7; 16]), both).is_err());
    }
}

//! Cursors and resume tokens: what a reader has seen, as text that only we can read and make.
//!
//! What a reader may see is judged when it is sent. But what it has seen is taken from its cursor: who
//! could make one up would be told what became of rows that it never saw, so they are sealed.

use lakesync::error::{Classify, FieldViolation, Reason};
use lakesync::name::{LogId, Position, TableName};
use lakesync::rules::Instance;
use sha2::{Digest, Sha256};

use super::commit::Chain;
use super::lens::Lens;

mod seal;

pub(super) use seal::Seal;

const CURSOR: u8 = 1;
const RESUME: u8 = 2;
const SCOPED_CURSOR: u8 = 3;
const SCOPED_RESUME: u8 = 4;
/// How many bucket instances a cursor lists. Of a wider scope only the fingerprint stands there, and
/// its next checkpoint is a full one.
const HELD_MAX: usize = 32;

/// Where a reader stands: in which life of which log, after which commit of it, reading which tables
/// within which scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) log_id: LogId,
    pub(super) position: Position,
    /// The chain at the position: which commit it is, and which came before it.
    pub(super) chain: Chain,
    pub(super) tables: Selection,
    pub(super) view: View,
}

/// The sync rules that a reader saw through, and what they opened to it; nothing without rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// The generation of the rules.
    pub(super) generation: u32,
    /// A fingerprint of the scope.
    scope: Fingerprint,
    /// The scope's instances, unless they were too many.
    pub(super) held: Vec<Instance>,
}

/// Where a checkpoint stands. The position is that of its beginning, however often it resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) start: Cursor,
    /// How many changes the log had ever held at the beginning, at the least.
    pub(super) changes: u64,
    pub(super) rows_done: u64,
    pub(super) place: Place,
}

/// How far a checkpoint has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Without rules: the table, and the key of the last row sent.
    Row(TableName, Vec<u8>),
    /// Within a scope.
    Entry(Entry),
}

/// How far a checkpoint within a scope has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// A fingerprint of the cursor whose rows are not sent again: another would leave out others.
    pub(super) since: Fingerprint,
    pub(super) instance: Instance,
    /// The key of the last row that was looked at.
    pub(super) after: Vec<u8>,
}

/// The first bytes of a digest.
pub(super) type Fingerprint = [u8; 8];

/// The fingerprint of a text; of an empty one it is zeros.
pub(super) fn fingerprint(text: &[u8]) -> Fingerprint {
    if text.is_empty() {
        return Fingerprint::default();
    }
    let digest = Sha256::digest(text);
    let (first, _) = digest.split_first_chunk().expect("BUG: a digest has 32 bytes");
    *first
}

/// A fingerprint of the tables that a reader asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selection(Fingerprint);

/// Why a cursor can't be continued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It, the named field, is not one of ours, or was mangled.
    #[error("{0} is malformed; send it back as it was received")]
    Malformed(&'static str),
    /// Another selection, or a position that the log no longer holds.
    #[error("{0}; take a checkpoint, then pull")]
    Expired(&'static str),
    /// Another log, another life of this one, or another past of it: the gateway was restored from a
    /// copy, made anew, or its volume was rolled back. What the reader holds, the gateway may have
    /// lost.
    #[error("the cursor belongs to another log; take a checkpoint, then pull")]
    OtherLog,
}

impl CursorError {
    /// Other sync rules are in force than those that the reader saw through.
    pub(super) const RULES_CHANGED: Self = Self::Expired("the sync rules have changed since");
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

impl View {
    /// What a reader sees through `lens`.
    pub(super) fn of(lens: Option<&Lens>) -> Self {
        let Some(Lens { index, scope }) = lens else { return Self::default() };
        let instances = scope.instances();
        let bytes: Vec<u8> = instances.clone().flat_map(Instance::to_bytes).collect();
        let listed = instances.len() <= HELD_MAX;
        let held = if listed { instances.collect() } else { Vec::new() };
        // A scope that opens nothing has a fingerprint too, unlike no rules at all.
        let scope = fingerprint(&[&[1], &bytes[..]].concat());
        Self { generation: index.generation, scope, held }
    }

    /// Whether the list of instances is all there were.
    pub(super) fn is_listed(&self) -> bool {
        let bytes: Vec<u8> = self.held.iter().flat_map(|one| one.to_bytes()).collect();
        self.scope == fingerprint(&[&[1], &bytes[..]].concat())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.generation.to_be_bytes());
        out.extend(self.scope);
        out.push(u8::try_from(self.held.len()).expect("BUG: a list beyond its bound"));
        self.held.iter().for_each(|instance| out.extend(instance.to_bytes()));
    }

    fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (generation, rest) = bytes.split_first_chunk()?;
        let (scope, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first()?;
        let (held, rest) = rest.split_at_checked(usize::from(*count) * Instance::BYTES)?;
        let (held, _) = held.as_chunks();
        let held = held.iter().map(Instance::from_bytes).collect();
        Some((Self { generation: u32::from_be_bytes(*generation), scope: *scope, held }, rest))
    }
}

impl Cursor {
    /// The cursor as text.
    pub(super) fn encode(&self, seal: &Seal) -> String {
        let mut bytes = vec![if self.is_scoped() { SCOPED_CURSOR } else { CURSOR }];
        self.put(&mut bytes);
        seal.close(bytes)
    }

    /// Reads a cursor's text.
    pub(super) fn decode(text: &str, seal: &Seal) -> Result<Self, CursorError> {
        let (version, bytes) = seal.open("cursor", text, [CURSOR, SCOPED_CURSOR])?;
        let taken = Self::take(&bytes, version == SCOPED_CURSOR);
        let whole = taken.filter(|(_, rest)| rest.is_empty()).map(|(cursor, _)| cursor);
        whole.ok_or(CursorError::Malformed("cursor"))
    }

    /// Refuses a cursor that another log gave out, or for another selection of tables or view.
    pub(super) fn check(&self, now: &Self) -> Result<(), CursorError> {
        if self.log_id != now.log_id {
            return Err(CursorError::OtherLog);
        }
        if self.tables != now.tables {
            return Err(CursorError::Expired("the cursor was made for other tables"));
        }
        if self.view.generation != now.view.generation {
            return Err(CursorError::RULES_CHANGED);
        }
        if self.view != now.view {
            return Err(CursorError::Expired("the token's claims open other rows than before"));
        }
        Ok(())
    }

    fn is_scoped(&self) -> bool {
        self.view != View::default()
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.log_id.0);
        out.extend([self.position.0, self.chain.0].map(u64::to_be_bytes).as_flattened());
        out.extend(self.tables.0);
        if self.is_scoped() {
            self.view.put(out);
        }
    }

    fn take(bytes: &[u8], scoped: bool) -> Option<(Self, &[u8])> {
        let (log_id, rest) = bytes.split_first_chunk()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (chain, rest) = rest.split_first_chunk()?;
        let (tables, rest) = rest.split_first_chunk()?;
        let (view, rest) = if scoped { View::take(rest)? } else { (View::default(), rest) };
        let position = Position(u64::from_be_bytes(*position));
        let chain = Chain(u64::from_be_bytes(*chain));
        let (log_id, tables) = (LogId(*log_id), Selection(*tables));
        Some((Self { log_id, position, chain, tables, view }, rest))
    }
}

impl Resume {
    /// The token as text.
    pub(super) fn encode(&self, seal: &Seal) -> String {
        let scoped = self.start.is_scoped();
        let mut bytes = vec![if scoped { SCOPED_RESUME } else { RESUME }];
        self.start.put(&mut bytes);
        bytes.extend([self.changes, self.rows_done].map(u64::to_be_bytes).as_flattened());
        match &self.place {
            Place::Row(table, after) => {
                bytes.extend(table.as_str().as_bytes());
                bytes.push(0);
                bytes.extend(after);
            }
            Place::Entry(Entry { since, instance, after }) => {
                bytes.extend(since);
                bytes.extend(instance.to_bytes());
                bytes.extend(after);
            }
        }
        seal.close(bytes)
    }

    /// Reads a token's text.
    pub(super) fn decode(text: &str, seal: &Seal) -> Result<Self, CursorError> {
        let (version, bytes) = seal.open("resume", text, [RESUME, SCOPED_RESUME])?;
        Self::take(&bytes, version == SCOPED_RESUME).ok_or(CursorError::Malformed("resume"))
    }

    fn take(bytes: &[u8], scoped: bool) -> Option<Self> {
        let (start, rest) = Cursor::take(bytes, scoped)?;
        let (changes, rest) = rest.split_first_chunk()?;
        let (rows_done, rest) = rest.split_first_chunk()?;
        let place = if scoped { Place::take_entry(rest)? } else { Place::take_row(rest)? };
        let [changes, rows_done] = [changes, rows_done].map(|field| u64::from_be_bytes(*field));
        Some(Self { start, changes, rows_done, place })
    }
}

impl Place {
    fn take_row(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let table = TableName::parse(str::from_utf8(&bytes[..end]).ok()?).ok()?;
        Some(Self::Row(table, bytes[end + 1..].to_vec()))
    }

    fn take_entry(bytes: &[u8]) -> Option<Self> {
        let (since, rest) = bytes.split_first_chunk()?;
        let (instance, after) = rest.split_first_chunk()?;
        let instance = Instance::from_bytes(instance);
        Some(Self::Entry(Entry { since: *since, instance, after: after.to_vec() }))
    }
}

#[cfg(test)]
mod tests;

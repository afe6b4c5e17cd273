//! Whether two backends hold the same: row by row, and change by change.

use std::collections::VecDeque;
use std::fmt;

use lakesync::adapter::{Adapter, AdapterError, Change, Place};
use lakesync::name::{RowId, TableName};
use sha2::{Digest, Sha256};

use super::{Checkpoint, MigrateError, Progress, Step, tell, watermarks};
use crate::pace::{self, Pace};

/// What a migration has copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the target holds, by table.
    pub tables: Vec<(TableName, Tally)>,
    /// The target's history: empty where it keeps none.
    pub history: Tally,
    /// Whether the source was written to meanwhile.
    pub moved: bool,
    /// What of it is not the same on both sides, for the source has moved. The gateway writes to
    /// the target what it lacks.
    pub behind: Vec<Difference>,
}

/// How many there are, and the SHA-256 of all of them in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Of the table's name, and of each row its id and its encoding; of the history, of each change
    /// its place and its delta id.
    pub digest: [u8; 32],
}

/// Where two backends are not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The table, or none if it is the history.
    pub table: Option<TableName>,
    /// The first row or change that is missing on a side or is another one.
    pub first: String,
    /// How many the source has.
    pub source: u64,
    /// How many the target has.
    pub target: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, first, source, target } = self;
        match table {
            Some(table) => write!(f, "table {table} from {first} on")?,
            None => write!(f, "the history from {first} on")?,
        }
        write!(f, "; the source has {source} of them and the target {target}")
    }
}

/// Compares all that `source` and `target` hold. Where they differ it is an error, unless the source
/// has moved on from the watermarks of `at`.
pub async fn verify(
    source: &dyn Adapter,
    target: &dyn Adapter,
    at: &Checkpoint,
    progress: &mut dyn Progress,
) -> Result<Report, MigrateError> {
    let schema = source.schema().await.map_err(MigrateError::Source)?;
    let mut tables = Vec::new();
    let mut behind = Vec::new();
    for table in schema.tables().map(|table| &table.table) {
        let (tally, difference) = compare(source, target, Of::Rows(table)).await?;
        tables.push((table.clone(), tally));
        behind.extend(difference);
        tell(progress, Step::Verified(table, tally.count), at)?;
    }
    let mut history = Tally::default();
    if keeps_history(source, target).await? {
        let (tally, difference) = compare(source, target, Of::History).await?;
        history = tally;
        behind.extend(difference);
    }
    // Read last: had it moved before something was compared, it is seen to have moved here.
    let moved = watermarks(source).await.map_err(MigrateError::Source)? != at.watermarks;
    match behind.first() {
        Some(first) if !moved => Err(MigrateError::Differs(first.clone())),
        _ => Ok(Report { tables, history, moved, behind }),
    }
}

/// Whether the target keeps a history, or what is the same here: holds one, or takes what it lacks.
async fn keeps_history(source: &dyn Adapter, target: &dyn Adapter) -> Result<bool, MigrateError> {
    let holds_some = || async {
        let first = target.history(None, 1).await.map_err(MigrateError::Target)?;
        Ok(!first.is_empty())
    };
    if holds_some().await? {
        return Ok(true);
    }
    let first = source.history(None, 1).await.map_err(MigrateError::Source)?;
    if first.is_empty() {
        return Ok(false);
    }
    // One that keeps none takes this and still has none. One that has lost it is found to differ.
    target.record(&first).await.map_err(MigrateError::Target)?;
    holds_some().await
}

/// What the target holds, and where it differs.
async fn compare(
    source: &dyn Adapter,
    target: &dyn Adapter,
    of: Of<'_>,
) -> Result<(Tally, Option<Difference>), MigrateError> {
    let mut source = Reader::of(source, of);
    let mut target = Reader::of(target, of);
    let mut first = None;
    loop {
        let ours = source.peek().await.map_err(MigrateError::Source)?;
        let theirs = target.peek().await.map_err(MigrateError::Target)?;
        let (ours, theirs) = match (ours, theirs) {
            (None, None) => break,
            (Some(ours), Some(theirs)) => (ours.0 <= theirs.0, theirs.0 <= ours.0),
            (ours, theirs) => (ours.is_some(), theirs.is_some()),
        };
        let ours = if ours { source.take() } else { None };
        let theirs = if theirs { target.take() } else { None };
        if ours != theirs && first.is_none() {
            first = ours.or(theirs).map(|(key, _)| key.to_string());
        }
    }
    let (ours, theirs) = (source.tally(), target.tally());
    let same = first.is_none() && ours == theirs;
    let difference = (!same).then(|| Difference {
        table: of.table().cloned(),
        first: first.unwrap_or_default(),
        source: ours.count,
        target: theirs.count,
    });
    Ok((theirs, difference))
}

#[derive(Clone, Copy)]
enum Of<'a> {
    Rows(&'a TableName),
    History,
}

impl<'a> Of<'a> {
    fn table(self) -> Option<&'a TableName> {
        match self {
            Self::Rows(table) => Some(table),
            Self::History => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Row(RowId),
    Change(Place),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(row_id) => write!(f, "row {:?}", row_id.as_str()),
            Self::Change(at) => write!(f, "change {} of position {}", at.index, at.position),
        }
    }
}

/// Reads one side in pages, and tallies what was taken.
struct Reader<'a> {
    adapter: &'a dyn Adapter,
    of: Of<'a>,
    pace: Pace,
    page: VecDeque<(Key, Vec<u8>)>,
    after: Option<Key>,
    count: u64,
    digest: Sha256,
}

impl<'a> Reader<'a> {
    fn of(adapter: &'a dyn Adapter, of: Of<'a>) -> Self {
        let mut digest = Sha256::new();
        put(&mut digest, of.table().map_or("", TableName::as_str).as_bytes());
        let pace = Pace::default();
        Self { adapter, of, pace, page: VecDeque::new(), after: None, count: 0, digest }
    }

    async fn peek(&mut self) -> Result<Option<&(Key, Vec<u8>)>, AdapterError> {
        if self.page.is_empty() {
            self.page = self.load().await?.into();
        }
        Ok(self.page.front())
    }

    async fn load(&mut self) -> Result<Vec<(Key, Vec<u8>)>, AdapterError> {
        let count = self.pace.count();
        match self.of {
            Of::Rows(table) => {
                let after = match &self.after {
                    Some(Key::Row(row_id)) => Some(row_id),
                    _ => None,
                };
                let page = match self.adapter.rows(table, after, count).await {
                    // The source was prepared for it after all was copied.
                    Err(AdapterError::UnknownTable(_)) => Vec::new(),
                    page => page?,
                };
                self.pace.took(page.len(), page.iter().map(|(_, row)| row.size()).sum());
                Ok(page.into_iter().map(|(id, row)| (Key::Row(id), row.encode())).collect())
            }
            Of::History => {
                let after = match &self.after {
                    Some(Key::Change(place)) => Some(place),
                    _ => None,
                };
                let page = self.adapter.history(after, count).await?;
                self.pace.took(page.len(), page.iter().map(|c| pace::size(&c.delta)).sum());
                let entry = |c: Change| (Key::Change(c.place), c.delta.id().0.to_vec());
                Ok(page.into_iter().map(entry).collect())
            }
        }
    }

    fn take(&mut self) -> Option<(Key, Vec<u8>)> {
        let (key, bytes) = self.page.pop_front()?;
        match &key {
            Key::Row(row_id) => put(&mut self.digest, row_id.as_str().as_bytes()),
            Key::Change(place) => {
                put(&mut self.digest, &place.log.0);
                put(&mut self.digest, &place.position.0.to_be_bytes());
                put(&mut self.digest, &place.index.to_be_bytes());
            }
        }
        put(&mut self.digest, &bytes);
        self.count += 1;
        self.after = Some(key.clone());
        Some((key, bytes))
    }

    fn tally(self) -> Tally {
        Tally { count: self.count, digest: self.digest.finalize().into() }
    }
}

/// With its length, so that no two lists of parts make the same bytes.
fn put(digest: &mut Sha256, part: &[u8]) {
    digest.update((part.len() as u64).to_be_bytes());
    digest.update(part);
}

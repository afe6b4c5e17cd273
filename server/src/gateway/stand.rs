//! Where one pull stands: who reads, what it asked for and may see, and how far it has come.

use std::collections::HashSet;

use lakesync::name::{ClientId, Position, TableName};
use lakesync::proto::v1::TableChanges;

use super::Gateway;
use super::cursor::Cursor;
use super::lens::Lens;

/// What a reader asks for.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Who reads.
    pub client: Option<ClientId>,
    /// Where it stands; empty is the beginning.
    pub cursor: String,
    /// Which tables it wants; empty is all.
    pub tables: Vec<TableName>,
    /// Whether to stay and see new commits.
    pub follow: bool,
    /// After about how many rows to end; zero is no bound.
    pub rows_max: u32,
    /// Positions that the reader pushed itself, and so holds.
    pub skip: HashSet<Position>,
    /// Near how many bytes to close pages; zero leaves it to the gateway.
    pub bytes_max: usize,
    /// Whether to send changed rows whole, to a reader that keeps no stamps.
    pub whole_rows: bool,
}

/// A pull under way, as those see it who gather what it is to be sent.
pub(super) struct Stand {
    pub(super) gateway: Gateway,
    /// What the reader may see; everything without rules.
    pub(super) lens: Option<Lens>,
    pub(super) options: PullOptions,
    /// How far the reader has come.
    pub(super) cursor: Cursor,
    /// The head when the pull began: later commits of the same client are left out.
    pub(super) started: Position,
}

impl Stand {
    /// How far the reader has come.
    pub(super) fn at(&self) -> Position {
        self.cursor.position
    }

    /// Where to close a page.
    pub(super) fn page_bytes(&self) -> usize {
        self.gateway.0.flight.page_bytes(self.options.bytes_max)
    }

    /// Whether the reader has all of a commit: it says so, or its client pushed the commit while the
    /// stream lasts. Where it says who it is, a commit that it skips must be its own: in another past of
    /// the log it may be anybody's. A reader of whole rows has none for certain: where its change lost a
    /// column, the row is not as it pushed it.
    pub(super) fn has_already(&self, position: Position, pushed_by: Option<&str>) -> bool {
        let Self { options, started, .. } = self;
        let own = options.client.as_ref().map(ClientId::as_str);
        let is_own = own.is_some() && own == pushed_by;
        let skipped = options.skip.contains(&position) && (own.is_none() || is_own);
        let during = options.follow && *started < position && is_own;
        !options.whole_rows && (skipped || during)
    }

    /// Leaves only tables that the reader asked for.
    pub(super) fn narrow(&self, tables: &mut Vec<TableChanges>) {
        let narrowed = &self.options.tables;
        if !narrowed.is_empty() {
            tables.retain(|table| narrowed.iter().any(|name| name.as_str() == table.table));
        }
    }
}

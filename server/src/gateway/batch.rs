//! The pushes of one group: what they will have changed once the store has it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lakesync::hlc::Hlc;
use lakesync::name::{ClientId, Position};
use lakesync::proto::v1::Outcome;
use lakesync::schema::Schema;

use super::admit::{Admitted, Rows};
use super::commit::{self, Commit};
use super::index::{self, Committed, Index};
use super::publisher::InFlight;
use super::recover::Counters;
use super::writer::Writer;
use super::{Planted, keys};

/// What a batch will have changed once the store has it.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) head: Position,
    pub(super) counters: Counters,
    pub(super) meta: Vec<(Bytes, Option<Bytes>)>,
    /// New states of index entries.
    pub(super) entries: Vec<(Bytes, Option<Bytes>)>,
    pub(super) owners: HashMap<ClientId, String>,
    pub(super) in_flight: InFlight,
    /// The indexes to keep, and whether the first is of rules in force.
    pub(super) indexes: Vec<Arc<Index>>,
    pub(super) in_force: bool,
    pub(super) planted: Option<Arc<Planted>>,
}

impl Batch {
    pub(super) fn new(writer: &Writer) -> Self {
        let (indexes, in_force) = writer.ruling.indexes();
        Self {
            head: writer.head,
            counters: writer.counters,
            meta: Vec::new(),
            entries: Vec::new(),
            owners: HashMap::new(),
            in_flight: InFlight::default(),
            indexes,
            in_force,
            planted: writer.settings.planted.clone(),
        }
    }

    /// Makes what took effect of a push the next commit. What is said of the rest.
    pub(super) fn take(
        &mut self,
        schema: &Schema,
        rows: &Rows,
        client: &ClientId,
        hlc: Hlc,
        admitted: Admitted,
    ) -> Vec<Outcome> {
        let Admitted { effective, outcomes, rows_gained, deleted, moves, .. } = admitted;
        let position = self.head.next();
        self.head = position;
        let planted = self.planted.as_deref();
        let commit = Committed { position, schema, effective: &effective, planted };
        let row = |key: &Bytes| rows.get(key);
        let described = index::describe(&self.indexes, self.in_force, &moves, commit, row);
        self.entries.extend(described.entries);
        let generation = self.indexes.first().map_or(0, |index| index.generation);
        let (before, parts) = (self.counters.chain, described.parts);
        let bytes = commit::encode(client, hlc, before, &effective, (generation, &parts));
        let commit = Commit::new(position, bytes, parts);
        self.counters.chain = commit.chain;
        self.counters.appended_bytes += commit.bytes.len() as u64;
        self.counters.changes += effective.len() as u64;
        self.counters.rows = self.counters.rows.saturating_add_signed(rows_gained);
        let tombstone = |(at, key): &(Hlc, Bytes)| (keys::tombstone(*at, key), Some(Bytes::new()));
        self.meta.extend(deleted.iter().map(tombstone));
        self.in_flight.commits.push(Arc::new(commit));
        outcomes
    }
}

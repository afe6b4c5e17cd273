//! A gateway in memory: one log, merged rows, honest cursors, and faults on demand.
//!
//! It keeps the promises of the protocol that a replica relies on, in the simplest way that does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lakesync::clock::{SystemClock, WallClock};
use lakesync::delta::{Cell, Delta, Op};
use lakesync::error::{Classify, FieldViolation, Reason};
use lakesync::hlc::{Clock, Hlc};
use lakesync::limits::CLOCK_DRIFT_MAX;
use lakesync::merge::Effect;
use lakesync::name::{ClientId, RowId, TableName};
use lakesync::proto::v1::{Outcome, TableChanges, outcome};
use lakesync::row::Row;
use lakesync::schema::{Proposal, Schema};
use lakesync::status::to_status;
use lakesync::wire::{Offer, Refusal, encode_commit};
use tokio::sync::watch;
use tonic::Status;

mod admin;
mod harness;
mod streams;
mod sync;

pub(crate) use harness::{Line, local, socket};

/// The token that opens everything.
pub(crate) const TOKEN: &str = "open-sesame";

/// A fake gateway. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Fake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    /// The head, for followers.
    head: watch::Sender<u64>,
}

/// What the fake knows and how it misbehaves.
#[derive(Debug)]
pub(crate) struct World {
    /// None before it is created.
    pub(crate) schema: Option<Schema>,
    pub(crate) commits: Vec<Commit>,
    pub(crate) rows: BTreeMap<(TableName, RowId), Row>,
    /// Grows when the log is restored: older cursors expire.
    pub(crate) life: u64,
    /// Whether such cursors are said to be of a log that was replaced.
    pub(crate) replaced: bool,
    clock: Clock,
    /// How far this server's clock is from the real one.
    pub(crate) offset_ms: i64,
    pub(crate) heartbeat: Duration,
    pub(crate) protocol: (u32, u32),
    pub(crate) push_rows_max: usize,
    pub(crate) commits_per_page: usize,
    /// Where larger pages are cut, if they are: every piece but the last says that it continues.
    pub(crate) rows_per_page: Option<usize>,
    pub(crate) rows_per_chunk: usize,
    /// Rows that nobody may write.
    pub(crate) forbidden: Vec<String>,
    /// Rows whose stamps are found ahead, whatever they are.
    pub(crate) drifting: BTreeSet<String>,
    faults: VecDeque<(Call, Fault)>,
    /// Every call so far.
    pub(crate) calls: Vec<Call>,
}

#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) client: ClientId,
    pub(crate) tables: Vec<TableChanges>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Info,
    Schema,
    Push,
    Pull,
    Follow,
    Checkpoint,
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Refused before anything happens.
    Refuse(Reason),
    /// The work is done and the answer lost.
    LoseReply,
    /// The stream breaks after this many events.
    BreakAfter(usize),
    /// Nothing is ever sent after this many events.
    SilentAfter(usize),
    /// The stream ends after this many events, because the token has run out.
    ExpireAfter(usize),
}

impl Default for Fake {
    fn default() -> Self {
        let world = World {
            schema: None,
            commits: Vec::new(),
            rows: BTreeMap::new(),
            life: 1,
            replaced: true,
            clock: Clock::new(CLOCK_DRIFT_MAX),
            offset_ms: 0,
            heartbeat: Duration::from_secs(15),
            protocol: (1, 1),
            push_rows_max: 10_000,
            commits_per_page: 2,
            rows_per_page: None,
            rows_per_chunk: 2,
            forbidden: Vec::new(),
            drifting: BTreeSet::new(),
            faults: VecDeque::new(),
            calls: Vec::new(),
        };
        Self(Arc::new(Shared { world: Mutex::new(world), head: watch::Sender::new(0) }))
    }
}

impl Fake {
    /// A gateway with these tables.
    pub(crate) fn with_tables(tables: &[Proposal]) -> Self {
        let fake = Self::default();
        fake.declare(tables);
        fake
    }

    /// Declares tables or adds to them.
    pub(crate) fn declare(&self, tables: &[Proposal]) {
        let mut world = self.world();
        let schema = world.schema.clone().unwrap_or_default();
        world.schema = Some(schema.evolve(tables).expect("fits"));
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().expect("no test panicked")
    }

    /// Makes the next such call go wrong.
    pub(crate) fn fail(&self, call: Call, fault: Fault) {
        self.world().faults.push_back((call, fault));
    }

    /// How many commits there are.
    pub(crate) fn head(&self) -> u64 {
        self.world().head()
    }

    /// How often this was called.
    pub(crate) fn count(&self, call: Call) -> usize {
        self.world().calls.iter().filter(|made| **made == call).count()
    }

    /// Waits until there are so many commits.
    pub(crate) async fn has_commits(&self, count: u64) {
        let mut head = self.0.head.subscribe();
        let reached = head.wait_for(|head| count <= *head);
        let reached = tokio::time::timeout(crate::site::PATIENCE, reached).await;
        reached.expect("no such commit").expect("the fake is here");
    }

    /// Forgets where everybody was, as a restored server does.
    pub(crate) fn restore(&self) {
        self.world().life += 1;
    }

    /// Forgets where everybody was and every row, as an empty copy does.
    pub(crate) fn restore_empty(&self) {
        self.restore();
        self.world().rows.clear();
    }

    /// Lets every cursor expire, and keeps the log.
    pub(crate) fn trim(&self) {
        self.restore();
        self.world().replaced = false;
    }

    /// Writes as another client, as of now.
    pub(crate) fn write(&self, client: &str, row_id: &str, cells: &[Cell]) -> u64 {
        let op = Op::Upsert(cells.to_vec());
        self.commit(client, row_id, op)
    }

    /// Deletes as another client, as of now.
    pub(crate) fn delete(&self, client: &str, row_id: &str) -> u64 {
        self.commit(client, row_id, Op::Delete)
    }

    fn commit(&self, client: &str, row_id: &str, op: Op) -> u64 {
        let client: ClientId = client.parse().expect("an id");
        let mut world = self.world();
        let stamp = lakesync::stamp::Stamp { hlc: world.now(), client: client.clone() };
        let (table, row_id) = ("todos".parse().expect("a name"), row_id.parse().expect("an id"));
        let delta = Delta { table, row_id, stamp, op };
        let offers = vec![Offer { table: 0, row: 0, delta: Ok(delta) }];
        let (position, outcomes) = world.admit(&client, offers);
        assert!(outcomes.is_empty(), "{outcomes:?}");
        drop(world);
        self.publish();
        position
    }

    fn publish(&self) {
        let head = self.world().head();
        self.0.head.send_replace(head);
    }

    /// Notes a call, and what is to go wrong with it.
    fn enter(&self, call: Call) -> Result<Option<Fault>, Status> {
        let mut world = self.world();
        world.calls.push(call);
        let at = world.faults.iter().position(|(failing, _)| *failing == call);
        match at.and_then(|at| world.faults.remove(at)) {
            Some((_, Fault::Refuse(reason))) => Err(refuse(reason, "as the test asked")),
            fault => Ok(fault.map(|(_, fault)| fault)),
        }
    }
}

impl World {
    pub(crate) fn head(&self) -> u64 {
        self.commits.len() as u64
    }

    fn wall_ms(&self) -> u64 {
        SystemClock.now_ms().saturating_add_signed(self.offset_ms)
    }

    fn now(&mut self) -> Hlc {
        let wall_ms = self.wall_ms();
        self.clock.now(wall_ms)
    }

    fn schema(&self) -> Result<&Schema, Status> {
        self.schema.as_ref().ok_or_else(|| refuse(Reason::GatewayNotFound, "no such gateway"))
    }

    /// Merges what may be merged. The commit's position, or zero, and what is said of the rest.
    fn admit(&mut self, client: &ClientId, offers: Vec<Offer>) -> (u64, Vec<Outcome>) {
        let (mut effective, mut outcomes) = (Vec::new(), Vec::new());
        for Offer { table, row, delta } in offers {
            match delta.and_then(|delta| self.check(&delta).map(|()| delta)) {
                Err(refusal) => outcomes.push(rejected(refusal, table, row)),
                Ok(delta) => {
                    let key = (delta.table.clone(), delta.row_id.clone());
                    let effect = self.rows.entry(key).or_default().merge(&delta);
                    outcomes.extend(superseded(&delta, &effect, table, row));
                    if effect.effective {
                        effective.push(delta);
                    }
                }
            }
        }
        if effective.is_empty() {
            return (0, outcomes);
        }
        let tables = encode_commit(client, effective);
        self.commits.push(Commit { client: client.clone(), tables });
        (self.head(), outcomes)
    }

    fn check(&mut self, delta: &Delta) -> Result<(), Refusal> {
        let mismatch = |what: String| Refusal::new(Reason::SchemaMismatch, what);
        let table = self.schema.as_ref().and_then(|schema| schema.table(&delta.table));
        let table = table.ok_or_else(|| mismatch(format!("unknown table {}", delta.table)))?;
        if let Op::Upsert(cells) = &delta.op {
            for cell in cells {
                let column = table.column(&cell.column);
                if !column.is_some_and(|column| column.kind.fits(&cell.value)) {
                    return Err(mismatch(format!("column {} does not fit", cell.column)));
                }
            }
        }
        if self.forbidden.iter().any(|row_id| row_id == delta.row_id.as_str()) {
            return Err(Refusal::new(Reason::OutOfScope, "not yours"));
        }
        if self.drifting.contains(delta.row_id.as_str()) {
            return Err(Refusal::new(Reason::ClockDrift, "ahead, says this server"));
        }
        let wall_ms = self.wall_ms();
        let drift = self.clock.observe(delta.stamp.hlc, wall_ms);
        drift.map(|_| ()).map_err(|drift| Refusal::new(Reason::ClockDrift, drift))
    }
}

fn rejected(refusal: Refusal, table: u32, row: u32) -> Outcome {
    let Refusal { reason, message, columns } = refusal;
    let (kind, reason) = (outcome::Kind::Rejected.into(), reason.to_string());
    Outcome { table, row, kind, reason, message, columns }
}

fn superseded(delta: &Delta, effect: &Effect, table: u32, row: u32) -> Option<Outcome> {
    let all = match &delta.op {
        Op::Upsert(cells) => {
            effect.hidden || (!cells.is_empty() && cells.len() == effect.lost.len())
        }
        Op::Delete => effect.outlived,
    };
    if !all && effect.effective && effect.lost.is_empty() {
        return None;
    }
    let (kind, reason) = match (all, effect.lost.is_empty()) {
        (true, _) => (outcome::Kind::Superseded, ""),
        (false, true) => (outcome::Kind::Superseded, "REPLAYED"),
        (false, false) => (outcome::Kind::PartlySuperseded, ""),
    };
    // A change that lost as a whole names none.
    let lost = effect.lost.iter().filter(|_| !all);
    let columns = lost.map(ToString::to_string).collect();
    let (kind, reason) = (kind.into(), reason.to_owned());
    Some(Outcome { table, row, kind, reason, message: String::new(), columns })
}

#[derive(Debug, thiserror::Error)]
#[error("{1}")]
struct Refused(Reason, String, Vec<(&'static str, String)>);

impl Classify for Refused {
    fn reason(&self) -> Reason {
        self.0
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        self.2.clone()
    }

    fn violations(&self) -> Vec<FieldViolation> {
        Vec::new()
    }
}

fn refuse(reason: Reason, message: impl ToString) -> Status {
    to_status(&Refused(reason, message.to_string(), Vec::new()))
}

/// The refusal of a cursor that the log gave out which was here before this one.
fn refuse_of_another_log() -> Status {
    let facts = vec![("log", "replaced".to_owned())];
    to_status(&Refused(Reason::CursorExpired, "of another log".to_owned(), facts))
}

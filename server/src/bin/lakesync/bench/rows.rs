//! What is pushed: rows of five columns and about 200 bytes, the same in every run.
//!
//! Row ids are random, as UUIDs are; one change in ten writes a row again. Requests are encoded
//! before the clock starts, without the gateway's name: protobuf reads a message's parts as one, so
//! the name goes in front.

use bytes::Bytes;
use lakesync::hlc::Hlc;
use lakesync::proto::v1::value::Kind;
use lakesync::proto::v1::{
    Cell, ChangeKind, Column, ColumnType, PushRequest, RowChange, Stamp, TableChanges, TableSchema,
    Value,
};
use prost::Message;

/// The table that is pushed to.
pub(super) const TABLE: &str = "tasks";
/// How often a change writes a row that the client wrote before: one in so many.
const AGAIN_EVERY: u64 = 10;
/// Where all randomness begins.
const SEED: u64 = 0x001a_ce5e_ed00;

/// All pushes of a turn.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) clients: Vec<Client>,
    pub(super) changes: usize,
    pub(super) bytes: usize,
}

/// The pushes of one client, in order.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) pushes: Vec<Push>,
}

/// One push without its gateway.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) body: Bytes,
    pub(super) changes: usize,
}

/// The column that says whose a row is, where rows are somebody's.
pub(super) const OWNER: &str = "owner";

/// Whose the rows of a load are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    /// Nobody's: there is no column for it.
    Nobodys,
    /// Each client's are all one owner's of so many, as a device pushes them.
    Clients(u64),
    /// Each row is another one's of so many, as a service pushes them.
    Mixed(u64),
}

impl Whose {
    /// The owner of what a client writes to a row: always the same one.
    fn owner(self, client: usize, row_id: &str) -> Option<i64> {
        let pick =
            |key: &[u8], owners: u64| (u64::from(crc32fast::hash(key)) % owners).cast_signed();
        match self {
            Self::Nobodys => None,
            Self::Clients(owners) => Some(pick(&client.to_be_bytes(), owners)),
            Self::Mixed(owners) => Some(pick(row_id.as_bytes(), owners)),
        }
    }
}

/// The table that is pushed to, with a column for the owner if rows are `owned`.
pub(super) fn schema(owned: bool) -> TableSchema {
    let column = |(name, kind): (&str, ColumnType)| Column {
        name: name.to_owned(),
        r#type: kind.into(),
        ..Column::default()
    };
    let columns = [
        ("title", ColumnType::String),
        ("notes", ColumnType::String),
        ("done", ColumnType::Bool),
        ("priority", ColumnType::Int64),
        ("due", ColumnType::Timestamp),
    ];
    TableSchema {
        table: TABLE.to_owned(),
        columns: columns
            .into_iter()
            .chain(owned.then_some((OWNER, ColumnType::Int64)))
            .map(column)
            .collect(),
        ..TableSchema::default()
    }
}

impl Load {
    /// `changes` changes of `clients` clients, `batch` in a push, stamped at `now_ms`.
    pub(super) fn new(clients: usize, batch: usize, changes: usize, now_ms: u64) -> Self {
        Self::owned(Whose::Nobodys, clients, batch, changes, now_ms)
    }

    /// The same, with the rows' owners.
    pub(super) fn owned(
        whose: Whose,
        clients: usize,
        batch: usize,
        changes: usize,
        now_ms: u64,
    ) -> Self {
        let source = |at| Source::new(whose, at, now_ms);
        Self::of((0..clients).map(source).collect(), batch, changes)
    }

    /// The same, where no row is written again.
    pub(super) fn of_new_rows(clients: usize, batch: usize, changes: usize, now_ms: u64) -> Self {
        let source = |at| Source { again_every: None, ..Source::new(Whose::Nobodys, at, now_ms) };
        Self::of((0..clients).map(source).collect(), batch, changes)
    }

    fn of(sources: Vec<Source>, batch: usize, changes: usize) -> Self {
        let clients = sources.len();
        let share = |at: usize| changes / clients + usize::from(at < changes % clients);
        let sources = sources.into_iter().enumerate();
        let clients: Vec<Client> =
            sources.map(|(at, source)| Client::new(source, batch, share(at))).collect();
        let pushes = clients.iter().flat_map(|client| &client.pushes);
        let bytes = pushes.map(|push| push.body.len()).sum();
        Self { clients, changes, bytes }
    }
}

impl Client {
    fn new(mut source: Source, batch: usize, changes: usize) -> Self {
        let mut pushes = Vec::with_capacity(changes.div_ceil(batch));
        let mut left = changes;
        while 0 < left {
            let changes = left.min(batch);
            left -= changes;
            pushes.push(source.push(changes));
        }
        Self { id: source.id(), pushes }
    }

    /// What goes in front of every push to `gateway`.
    pub(super) fn head(&self, gateway: &str) -> Bytes {
        Self::head_of(&self.id, gateway)
    }

    /// What goes in front of every push of a client to `gateway`.
    pub(super) fn head_of(id: &str, gateway: &str) -> Bytes {
        let (gateway, client_id) = (gateway.to_owned(), id.to_owned());
        PushRequest { gateway, client_id, ..PushRequest::default() }.encode_to_vec().into()
    }
}

fn encode(whose: Whose, rows: Vec<RowChange>) -> Bytes {
    let owned = !matches!(whose, Whose::Nobodys);
    let columns = schema(owned).columns.into_iter().map(|column| column.name).collect();
    let table = TableChanges { table: TABLE.to_owned(), columns, rows, ..TableChanges::default() };
    PushRequest { tables: vec![table], ..PushRequest::default() }.encode_to_vec().into()
}

/// Where a client's changes come from, one after another and without end.
pub(super) struct Source {
    whose: Whose,
    client: usize,
    again_every: Option<u64>,
    random: Random,
    hlc: Hlc,
    rows: Vec<String>,
}

impl Source {
    /// The changes of a client, stamped from `now_ms` on.
    pub(super) fn new(whose: Whose, client: usize, now_ms: u64) -> Self {
        let random = Random(SEED ^ (client as u64) << 48);
        let (again_every, hlc) = (Some(AGAIN_EVERY), Hlc::from_ms(now_ms));
        Self { whose, client, again_every, random, hlc, rows: Vec::new() }
    }

    /// Its client.
    pub(super) fn id(&self) -> String {
        format!("bench-{}", self.client)
    }

    /// A push of the next `changes` changes.
    pub(super) fn push(&mut self, changes: usize) -> Push {
        let rows = (0..changes).map(|_| self.change()).collect();
        Push { body: encode(self.whose, rows), changes }
    }

    fn change(&mut self) -> RowChange {
        self.hlc = Hlc(self.hlc.0 + 1);
        let random = &mut self.random;
        let again = self.again_every.filter(|_| !self.rows.is_empty());
        let again = again.is_some_and(|every| random.below(every) == 0);
        let row_id = if again {
            self.rows[random.below(self.rows.len() as u64) as usize].clone()
        } else {
            let id = format!("{:016x}{:016x}", random.next(), random.next());
            self.rows.push(id.clone());
            id
        };
        let values = [
            Kind::StringValue(random.text(28)),
            Kind::StringValue(random.text(60)),
            Kind::BoolValue(random.below(2) == 0),
            Kind::Int64Value(random.below(1_000) as i64),
            Kind::TimestampValue(1_700_000_000_000_000 + random.below(1 << 44) as i64),
        ];
        let owner = self.whose.owner(self.client, &row_id);
        let values = values.into_iter().chain(owner.map(Kind::Int64Value));
        let cell = |(column, kind)| Cell {
            column,
            value: Some(Value { kind: Some(kind) }),
            ..Cell::default()
        };
        RowChange {
            row_id,
            kind: ChangeKind::Upsert.into(),
            stamp: Some(Stamp { hlc: self.hlc.0, client: 0 }),
            cells: (0..).zip(values).map(cell).collect(),
            ..RowChange::default()
        }
    }
}

/// One change of a new row of this owner's, as a push without its gateway.
pub(super) fn one_row(owners: u64, owner: u64, nth: u64, now_ms: u64) -> Push {
    let push = Source::new(Whose::Mixed(owners), usize::from(u16::MAX), now_ms).push(1);
    let mut request = PushRequest::decode(push.body).expect("BUG: our own");
    let row = &mut request.tables[0].rows[0];
    row.row_id = format!("one-{nth}");
    row.stamp = Some(Stamp { hlc: Hlc::from_ms(now_ms).0 + nth, client: 0 });
    let value = Some(Value { kind: Some(Kind::Int64Value(owner.cast_signed())) });
    row.cells.last_mut().expect("BUG: a row without cells").value = value;
    Push { body: request.encode_to_vec().into(), changes: 1 }
}

/// A weak and fast source of numbers (Steele et al., "Fast splittable pseudorandom number
/// generators", 2014): the same from the same start.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Words of lower-case letters.
    fn text(&mut self, bytes: usize) -> String {
        let letter = |random: &mut Self| match random.below(32) as u8 {
            at if at < 26 => char::from(b'a' + at),
            _ => ' ',
        };
        (0..bytes).map(|_| letter(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_load_is_what_was_asked_for() {
        for (clients, batch, changes) in [(1, 1, 1), (3, 100, 1_000), (4, 7, 3), (64, 100, 6_500)] {
            let load = Load::new(clients, batch, changes, 1_800_000_000_000);
            assert_eq!(load.clients.len(), clients);
            let pushes = || load.clients.iter().flat_map(|client| &client.pushes);
            assert_eq!(pushes().map(|push| push.changes).sum::<usize>(), changes);
            assert!(pushes().all(|push| (1..=batch).contains(&push.changes)));
            for push in pushes() {
                let request = PushRequest::decode(push.body.clone()).expect("well-formed");
                assert_eq!(request.tables[0].rows.len(), push.changes);
                assert_eq!(request.tables[0].columns.len(), 5);
            }
        }
    }

    #[test]
    fn rows_have_the_size_they_are_said_to_have_and_one_in_ten_is_written_again() {
        let load = Load::new(4, 100, 20_000, 1_800_000_000_000);
        assert!((180..220).contains(&(load.bytes / load.changes)), "{} B", load.bytes);
        let mut ids = HashSet::new();
        for push in load.clients.iter().flat_map(|client| &client.pushes) {
            let request = PushRequest::decode(push.body.clone()).expect("well-formed");
            ids.extend(
                request.tables.into_iter().flat_map(|table| table.rows).map(|row| row.row_id),
            );
        }
        assert!((17_700..18_300).contains(&ids.len()), "{} rows", ids.len());
    }

    #[test]
    fn the_gateway_may_stand_in_front() {
        let load = Load::new(1, 10, 10, 1_800_000_000_000);
        let client = &load.clients[0];
        let whole = [&client.head("main")[..], &client.pushes[0].body].concat();
        let request = PushRequest::decode(&whole[..]).expect("well-formed");
        assert_eq!((request.gateway.as_str(), request.client_id.as_str()), ("main", "bench-0"));
        assert_eq!(request.tables[0].rows.len(), 10);
    }
}

//! P-6 for readers that keep no stamps: with `whole_rows`, whoever replaces a row by what an upsert
//! brings, and removes it on a delete or an exit, has the gateway's rows at every point where it has
//! caught up.

use std::collections::BTreeMap;

use lakesync::delta::Delta;
use lakesync::name::{RowId, TableName};
use lakesync::proto::v1::checkpoint_response::Event as CheckpointEvent;
use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{
    ChangeKind, CheckpointRequest, PullRequest, PullResponse, TableChanges, Value,
};
use lakesync::row::Row;
use lakesync::value::Value as Cell;
use lakesync::wire;
use lakesync_server::store::memory::MemoryStore;
use serde_json::json;
use tonic::Streaming;

use crate::harness::changes::{at, delete, upsert, write};
use crate::harness::{Client, Setup, within};
use crate::replicas::dice::Dice;
use crate::rules::docs::{begun, doc, start, start_without_rules, with_claims};

const HISTORIES: u64 = 40;
const STEPS: u64 = 60;

type Rows = BTreeMap<(String, String), BTreeMap<String, Value>>;

/// A reader as anybody would write it who has never heard of stamps.
#[derive(Default)]
struct Naive {
    rows: Rows,
    waiting: Vec<TableChanges>,
    cursor: String,
}

impl Naive {
    fn apply(&mut self, tables: Vec<TableChanges>) {
        for TableChanges { table, columns, rows, .. } in tables {
            for row in rows {
                let key = (table.clone(), row.row_id.clone());
                if row.kind() == ChangeKind::Upsert {
                    let cells = row.cells.into_iter();
                    let named = |cell: lakesync::proto::v1::Cell| {
                        (columns[cell.column as usize].clone(), cell.value.expect("a value"))
                    };
                    self.rows.insert(key, cells.map(named).collect());
                } else {
                    self.rows.remove(&key);
                }
            }
        }
    }

    /// Takes what a pull brings. The position, where it says that all up to there was sent.
    fn take(&mut self, answer: PullResponse) -> Option<u64> {
        match answer.event.expect("an event") {
            Event::Page(page) => {
                assert_plain(&page.tables);
                self.waiting.extend(page.tables);
                if !page.continues {
                    self.cursor = page.cursor;
                    let together = std::mem::take(&mut self.waiting);
                    self.apply(together);
                }
                None
            }
            Event::CaughtUp(caught_up) => {
                assert!(self.waiting.is_empty(), "it waits for the last page of a commit");
                self.cursor = caught_up.cursor;
                Some(caught_up.position)
            }
            Event::Heartbeat(_) => None,
        }
    }

    async fn follow_to(&mut self, stream: &mut Streaming<PullResponse>, position: u64) {
        loop {
            let answer = within(stream.message()).await.expect("no failure").expect("it stays");
            if self.take(answer).is_some_and(|reached| position <= reached) {
                return;
            }
        }
    }

    async fn pull(&mut self, client: &Client, max_bytes: u32) {
        let cursor = self.cursor.clone();
        let request = PullRequest { cursor, whole_rows: true, max_bytes, ..Default::default() };
        let mut stream = client.open_pull(request).await.expect("a good cursor");
        while let Some(answer) = within(stream.message()).await.expect("no failure") {
            self.take(answer);
        }
    }

    async fn checkpoint(client: &Client, max_bytes: u32) -> Self {
        let gateway = client.gateway.clone();
        let request =
            CheckpointRequest { gateway, whole_rows: true, max_bytes, ..Default::default() };
        let answer = within(client.sync.clone().checkpoint(request)).await.expect("begun");
        let (mut stream, mut naive) = (answer.into_inner(), Self::default());
        while let Some(answer) = within(stream.message()).await.expect("no failure") {
            match answer.event.expect("an event") {
                CheckpointEvent::Chunk(chunk) => {
                    let rows = vec![chunk.rows.expect("rows")];
                    assert_plain(&rows);
                    assert!(rows[0].rows.iter().all(|row| row.kind() == ChangeKind::Upsert));
                    naive.apply(rows);
                }
                CheckpointEvent::End(end) => naive.cursor = end.cursor,
            }
        }
        naive
    }
}

/// Nothing in this mode has a stamp.
fn assert_plain(tables: &[TableChanges]) {
    for table in tables {
        assert!(table.clients.is_empty(), "{table:?}");
        let plain = |row: &lakesync::proto::v1::RowChange| {
            row.stamp.is_none() && row.cells.iter().all(|cell| cell.stamp.is_none())
        };
        assert!(table.rows.iter().all(plain), "{table:?}");
    }
}

/// What the gateway's rows are: all changes, merged.
#[derive(Default)]
struct Truth(BTreeMap<(TableName, RowId), Row>);

impl Truth {
    fn merge(&mut self, delta: &Delta) {
        let key = (delta.table.clone(), delta.row_id.clone());
        self.0.entry(key).or_default().merge(delta);
    }

    fn rows(&self, sees: impl Fn(&Row) -> bool) -> Rows {
        let live = self.0.iter().filter(|(_, row)| row.is_live() && sees(row));
        let shown = |((table, row_id), row): (&(TableName, RowId), &Row)| {
            let cells = row.cells().iter();
            let cells =
                cells.map(|cell| (cell.column.to_string(), wire::encode_value(cell.value.clone())));
            ((table.to_string(), row_id.to_string()), cells.collect())
        };
        live.map(shown).collect()
    }
}

/// What ann sees under the rules: her rows, and those of her teams.
fn is_anns(row: &Row) -> bool {
    let cell = |column: &str| row.cell(&column.parse().expect("legal")).map(|cell| &cell.value);
    cell("owner") == Some(&Cell::String("ann".into()))
        || matches!(cell("team"), Some(Cell::Int64(1 | 2)))
}

/// A change of one of few rows: most concern some columns, and some come late.
fn change(dice: &Dice, client: &str, time: &mut u64) -> Delta {
    *time += 1 + dice.below(3);
    let hlc = at(*time - dice.below(12).min(*time - 1));
    let row = format!("docs/{}", dice.below(6));
    if dice.one_in(4) {
        return delete(client, hlc, &row);
    }
    let mut cells = Vec::new();
    if dice.one_in(2) {
        cells.push(("owner", Cell::String((*dice.pick(&["ann", "bob"])).to_owned())));
    }
    if dice.one_in(2) {
        cells.push(("team", Cell::Int64(i64::try_from(dice.below(4)).expect("small"))));
    }
    if dice.one_in(2) {
        // Now and then a row exceeds the pages of a reader that asked for small ones.
        let bytes = if dice.one_in(5) { 6_000 } else { 10 };
        cells.push(("body", Cell::String(format!("{time}{}", "x".repeat(bytes)))));
    }
    write(client, hlc, &row, cells)
}

async fn run(seed: u64, ruled: bool) {
    let (dice, setup) = (Dice::new(seed), Setup::new().on(MemoryStore::new()));
    let (server, writers, ann, sees): (_, [Client; 2], _, fn(&Row) -> bool) = if ruled {
        let (server, first) = start(&setup).await;
        let second = with_claims(&server, "second", json!({"role": "service"})).await;
        let ann = with_claims(&server, "ann", json!({"teams": [1, 2]})).await;
        (server, [first, second], ann, is_anns)
    } else {
        let (server, _) = start_without_rules(&setup).await;
        let (ann, bob) = (server.client("ann").await, server.client("bob").await);
        // What it pushes itself may lose: its own commits are no hole.
        (server, [ann.clone(), bob], ann, |_| true)
    };
    let (mut follower, mut puller) = (Naive::default(), Naive::default());
    if ruled {
        follower.cursor = begun(&ann).await;
        puller.cursor.clone_from(&follower.cursor);
    }
    let small = if dice.one_in(2) { 1 } else { 0 };
    let (cursor, client_id) = (follower.cursor.clone(), ann.id.clone());
    let request = PullRequest { cursor, client_id, max_bytes: small, ..Default::default() };
    let request = PullRequest { follow: true, whole_rows: true, ..request };
    let mut stream = ann.open_pull(request).await.expect("begun");
    let (mut truth, mut time) = (Truth::default(), 12);
    for step in 0..STEPS {
        let writer = &writers[usize::try_from(dice.below(2)).expect("small")];
        let count = if dice.one_in(10) { 30 } else { 1 + dice.below(4) };
        let deltas: Vec<_> = (0..count).map(|_| change(&dice, &writer.id, &mut time)).collect();
        deltas.iter().for_each(|delta| truth.merge(delta));
        let answer = writer.push(deltas).await.expect("answered");
        let expected = truth.rows(sees);
        if 0 < answer.position {
            // A commit that holds nothing for ann wakes nobody of hers.
            let head = ann_is_told(&follower.rows, &expected).then_some(answer.position);
            if let Some(position) = head {
                follower.follow_to(&mut stream, position).await;
            }
        }
        assert_eq!(follower.rows, expected, "seed {seed}, step {step}: the follower");
        if dice.one_in(4) {
            puller.pull(&ann, small).await;
            assert_eq!(puller.rows, expected, "seed {seed}, step {step}: the puller");
        }
    }
    puller.pull(&ann, small).await;
    let mut anew = Naive::checkpoint(&ann, small).await;
    anew.pull(&ann, small).await;
    let expected = truth.rows(sees);
    assert_eq!((&puller.rows, &anew.rows), (&expected, &expected), "seed {seed}");
    drop(server);
}

/// Whether what happened must have been told, so that it can be awaited.
fn ann_is_told(before: &Rows, after: &Rows) -> bool {
    before != after
}

#[tokio::test(flavor = "multi_thread")]
async fn p06_a_reader_without_stamps_has_the_gateways_rows_whenever_it_has_caught_up() {
    for seed in 0..HISTORIES {
        run(seed, seed % 2 == 1).await;
    }
}

#[tokio::test]
async fn p06_a_row_that_outlives_a_delete_is_sent_whole_and_a_lost_push_is_no_hole() {
    let (server, _) = start_without_rules(&Setup::new()).await;
    let (ann, bob) = (server.client("ann").await, server.client("bob").await);
    bob.push([upsert("bob", at(20), "docs/a", &[("owner", "bob"), ("body", "x")])]).await.unwrap();
    let mut naive = Naive::default();
    naive.pull(&ann, 0).await;
    // Older than all cells of the row: it hides none of them.
    ann.push([delete("ann", at(10), "docs/a")]).await.unwrap();
    naive.pull(&ann, 0).await;
    assert_eq!(naive.rows.len(), 1);
    // One of two columns loses; the reader says that it has the commit, and is told all the same.
    let both = [("owner", "ann"), ("body", "y")];
    ann.push([upsert("ann", at(15), "docs/b", &both)]).await.unwrap();
    bob.push([upsert("bob", at(30), "docs/b", &[("owner", "bob")])]).await.unwrap();
    let answer = ann.push([upsert("ann", at(25), "docs/b", &both)]).await.unwrap();
    let request = PullRequest {
        cursor: naive.cursor.clone(),
        client_id: "ann".to_owned(),
        skip_positions: vec![answer.position],
        whole_rows: true,
        ..Default::default()
    };
    let pulled = ann.pull_with(request).await.unwrap();
    pulled.pages.into_iter().for_each(|page| naive.apply(page.tables));
    let mut truth = Truth::default();
    for delta in [
        upsert("bob", at(20), "docs/a", &[("owner", "bob"), ("body", "x")]),
        delete("ann", at(10), "docs/a"),
        upsert("ann", at(25), "docs/b", &both),
        upsert("bob", at(30), "docs/b", &[("owner", "bob")]),
    ] {
        truth.merge(&delta);
    }
    assert_eq!(naive.rows, truth.rows(|_| true));
}

#[tokio::test]
async fn p06_whole_rows_of_a_small_commit_may_take_many_pages() {
    let (server, service) = start(&Setup::new()).await;
    let cyd = with_claims(&server, "cyd", json!({"teams": [8]})).await;
    let mut naive = Naive { cursor: begun(&cyd).await, ..Naive::default() };
    let large = "x".repeat(700 << 10);
    for nth in 0..9_u64 {
        let cells = [("owner", "ann"), ("body", large.as_str())];
        service.push([doc("service", nth + 1, &nth.to_string(), &cells)]).await.expect("answered");
    }
    let moved = (0..9).map(|nth| doc("service", 50 + nth, &nth.to_string(), &[("team", "8")]));
    service.push(moved).await.expect("answered");
    let cursor = naive.cursor.clone();
    let request = PullRequest { cursor, whole_rows: true, ..Default::default() };
    let pulled = cyd.pull_with(request).await.expect("a good cursor");
    let (last, before) = pulled.pages.split_last().expect("pages");
    assert!(2 < before.len() && before.iter().all(|page| page.continues) && !last.continues);
    pulled.pages.iter().for_each(|page| naive.apply(page.tables.clone()));
    assert_eq!(naive.rows.len(), 9);
}

//! P-6: replicas that have seen the same commits hold the same rows, bit for bit, whatever way the
//! changes came to them.

use std::collections::BTreeMap;

use lakesync::delta::{Delta, Op};
use lakesync::proto::v1::ColumnType;
use lakesync::proto::v1::pull_response::Event;
use lakesync::testing;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use tokio::task::JoinSet;

use crate::harness::changes::table;
use crate::harness::{Client, MAIN, Replica, Server, Setup, within};

/// How many random histories are tried. Each has a server of its own.
const CASES: u32 = 24;
const CONNECTIONS: usize = 3;

/// Changes by several clients of a few rows, on clocks that collide.
fn history() -> impl Strategy<Value = Vec<Delta>> {
    let row = prop_oneof![Just("r"), Just("s"), Just("t")];
    let table = prop_oneof![Just("todos"), Just("notes")];
    let delta = (testing::any_delta(), table, row).prop_map(|(mut delta, table, row)| {
        delta.table = table.parse().expect("a table");
        delta.row_id = row.parse().expect("a row id");
        delta
    });
    proptest::collection::vec(delta, 1..40)
}

/// The history as pushes of one client each, some of them repeated.
fn pushes(deltas: &[Delta], sizes: &[usize]) -> Vec<(String, Vec<Delta>)> {
    let mut by_client = BTreeMap::<String, Vec<Delta>>::new();
    for delta in deltas {
        by_client.entry(delta.stamp.client.to_string()).or_default().push(delta.clone());
    }
    let (mut pushes, mut sizes) = (Vec::new(), sizes.iter().cycle());
    for (client, mut deltas) in by_client {
        while !deltas.is_empty() {
            let size = (*sizes.next().expect("a cycle")).min(deltas.len());
            pushes.push((client.clone(), deltas.drain(..size).collect()));
        }
    }
    pushes
}

async fn start() -> Server {
    // Clocks of the history read a few microseconds after the epoch: so does the server's.
    let setup = Setup::new();
    setup.clock.set(1_000);
    let server = setup.start().await;
    let mut admin = server.client("operator").await;
    admin.create_gateway(MAIN).await.expect("created");
    let columns = ["a", "b", "Z", "_d"].map(|name| (name, ColumnType::Any));
    admin.put_schema(vec![table("todos", &columns), table("notes", &columns)]).await.expect("put");
    server
}

/// Pushes everything over several connections at once, each in an order of its own.
async fn push_all(server: &Server, orders: &[Vec<(String, Vec<Delta>)>]) {
    let mut tasks = JoinSet::new();
    for order in orders {
        let mut clients = BTreeMap::<String, Client>::new();
        for (id, _) in order {
            if !clients.contains_key(id) {
                clients.insert(id.clone(), server.client(id).await);
            }
        }
        let order = order.clone();
        tasks.spawn(async move {
            for (id, deltas) in order {
                let answer = clients[&id].push(deltas).await.expect("answered");
                let refused = |outcome: &lakesync::proto::v1::Outcome| outcome.kind == 1;
                assert!(!answer.outcomes.iter().any(refused), "{answer:?}");
            }
        });
    }
    within(tasks.join_all()).await;
}

/// Follows from the beginning until `position` was reached.
async fn follow_to(client: &Client, position: u64) -> Replica {
    let mut replica = Replica::default();
    let mut stream = client.follow("").await.expect("followed");
    loop {
        let answer = within(stream.message()).await.expect("open").expect("an answer");
        match answer.event.expect("an event") {
            Event::Page(page) => replica.apply(page.tables),
            Event::CaughtUp(caught_up) if position <= caught_up.position => return replica,
            Event::CaughtUp(_) | Event::Heartbeat(_) => {}
        }
    }
}

async fn converge(deltas: Vec<Delta>, orders: Vec<Vec<(String, Vec<Delta>)>>) {
    let server = start().await;
    let reader = server.client("reader").await;
    // One follows from the start, one reads in the middle, one comes afterwards.
    let mut followed = reader.follow("").await.expect("followed");
    let half: Vec<_> = orders.iter().map(|order| order[..order.len() / 3].to_vec()).collect();
    push_all(&server, &half).await;
    let mut early = Replica::by_checkpoint(&reader).await.expect("read");
    push_all(&server, &orders).await;
    early.pull(&reader).await.expect("pulled");

    let head = reader.stats().await.expect("figures").head;
    let mut follower = Replica::default();
    let mut reached = 0;
    while reached < head {
        let answer = within(followed.message()).await.expect("open").expect("an answer");
        if let Some(Event::Page(page)) = answer.event {
            reached = page.position;
            follower.apply(page.tables);
        }
    }
    let wanted = Replica::of(&deltas).live();
    assert_eq!(early.live(), wanted, "a checkpoint in the middle, then a pull");
    assert_eq!(follower.live(), wanted, "followed all along");
    assert_eq!(follow_to(&reader, head).await.live(), wanted, "followed afterwards");
    assert_eq!(Replica::by_pull(&reader).await.expect("whole").live(), wanted, "pulled afterwards");
    assert_eq!(
        Replica::by_checkpoint(&reader).await.expect("whole").live(),
        wanted,
        "a checkpoint"
    );
    let rows = reader.stats().await.expect("figures").rows;
    assert_eq!(rows, wanted.len() as u64, "the number of rows");
}

#[test]
fn p06_any_order_any_repetition_any_way_comes_to_the_same_rows() {
    let sizes = proptest::collection::vec(1..6_usize, 1..5);
    let strategy = (history(), sizes).prop_flat_map(|(deltas, sizes)| {
        let order = Just(pushes(&deltas, &sizes)).prop_shuffle();
        (Just(deltas), proptest::collection::vec(order, CONNECTIONS))
    });
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let outcome = TestRunner::new(config).run(&strategy, |(deltas, orders)| {
        runtime.block_on(converge(deltas, orders));
        Ok(())
    });
    if let Err(TestError::Fail(why, (deltas, orders))) = outcome {
        let deletes = deltas.iter().filter(|delta| delta.op == Op::Delete).count();
        panic!("{why}: {} changes, {deletes} of them deletes: {orders:#?}", deltas.len());
    }
}

//! Rules that change while rows move, readers read and the disk is slow: whoever was told to begin
//! anew, at whatever moment, holds in the end what the rules then say, and nothing stale.
//!
//! `LAKESYNC_TEST_CHURNS` says how many worlds are tried.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lakesync::rules::Draft;
use serde_json::{Map, json};

use super::docs::{doc, other_rules, rules, start, with_claims};
use super::made_up::filter;
use super::oracle::Oracle;
use super::reader::Reader;
use super::world::put;
use crate::harness::counting::Counting;
use crate::harness::{Client, Setup};
use crate::replicas::dice::Dice;

const CHURNS: u64 = 4;
const CHANGES: u64 = 400;
const RULES: u64 = 12;
const ROWS: u64 = 40;
const OWNERS: [&str; 3] = ["ann", "bob", "cyd"];
const SYNC: Duration = Duration::from_millis(4);

#[tokio::test(flavor = "multi_thread")]
async fn readers_whose_rules_change_under_them_end_with_what_the_rules_say() {
    let churns = std::env::var("LAKESYNC_TEST_CHURNS");
    let churns = churns.map_or(CHURNS, |text| text.parse().expect("a number"));
    let (mut spared, mut anew) = (0, 0);
    for seed in 0..churns {
        let (some, times) = churn(seed).await;
        spared += some;
        anew += times;
    }
    // Without these it would prove little.
    assert!(0 < spared && 3 * churns < anew, "{spared} rows spared, {anew} times begun anew");
}

/// How many rows were spared, and how often a reader began anew.
async fn churn(seed: u64) -> (usize, u64) {
    let store = Counting::default();
    store.slow_down(SYNC);
    let (server, service) = start(&Setup::new().on(store.clone())).await;
    let operator = server.client("operator").await;
    let over = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for owner in OWNERS {
        let client = with_claims(&server, owner, json!({})).await;
        readers.push(tokio::spawn(read(client, Arc::clone(&over))));
    }
    let pushing = tokio::spawn(push(service.clone(), Dice::new(seed)));
    let mut last = rules();
    for nth in 0..RULES {
        tokio::time::sleep(SYNC * 5).await;
        last = draft(nth);
        put(&operator, &last).await.expect("legal rules");
    }
    pushing.await.expect("no panic");
    over.store(true, Ordering::Release);
    let mut oracle = Oracle::new().await;
    let mut all = Reader::default();
    all.sync(&service).await.expect("nothing is looked at");
    for (table, id, row) in all.rows() {
        oracle.put(table, id, row).await;
    }
    let (mut spared, mut anew) = (0, 0);
    for (owner, reader) in OWNERS.into_iter().zip(readers) {
        let reader = reader.await.expect("no panic");
        let claims = Map::from_iter([("sub".to_owned(), json!(owner))]);
        let expected: BTreeMap<_, _> = oracle.rows(Some(&last), &claims, false).await;
        assert_eq!(reader.seen(), expected, "seed {seed}: {owner}");
        spared += reader.spared;
        anew += reader.begun_anew;
    }
    (spared, anew)
}

/// Rules that mean the same to owners, wider ones, and narrower ones, in turn.
fn draft(nth: u64) -> Draft {
    match nth % 3 {
        0 => other_rules(),
        1 => {
            let mut wider = rules();
            wider.buckets[1].filters = vec![filter("team", &["1", "2"])];
            wider
        }
        _ => rules(),
    }
}

/// Writes rows of few ids, whose owners and teams change.
async fn push(service: Client, dice: Dice) {
    for nth in 1..=CHANGES {
        let (id, team) = (dice.below(ROWS).to_string(), dice.below(4).to_string());
        let body = format!("change {nth}");
        let mut cells = vec![("body", body.as_str())];
        if dice.one_in(3) {
            cells.push(("owner", dice.pick(&OWNERS)));
        }
        if dice.one_in(4) {
            cells.push(("team", team.as_str()));
        }
        service.push([doc(&service.id, nth, &id, &cells)]).await.expect("answered");
    }
}

/// Syncs again and again, and once more when all is over.
async fn read(client: Client, over: Arc<AtomicBool>) -> Reader {
    let mut reader = Reader::default();
    loop {
        let last = over.load(Ordering::Acquire);
        reader.sync(&client).await.expect("nothing is looked at");
        if last {
            return reader;
        }
    }
}

//! Any engine against plain maps: after any sequence of operations both answer alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lakesync::name::{Gateway, Position};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::{Home, entry, log_all, name, rows_all, scan_all};
use crate::store::{GatewayRecord, Group, Store, StoreError};

/// Sequences tried, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 24;
/// Operations of one sequence.
const STEPS_MAX: usize = 40;

/// Runs random sequences of operations, each in an empty home.
pub fn agrees(new_home: &dyn Fn() -> Box<dyn Home>) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let config =
        Config { cases: cases.unwrap_or(CASES), failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let outcome = TestRunner::new(config).run(&vec(step(), 1..STEPS_MAX), |steps| {
        let home = new_home();
        runtime.block_on(run(&*home, steps))
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[derive(Clone, Debug)]
enum Step {
    Create(Gateway),
    Drop(Gateway),
    Commit { gateway: Gateway, entry_count: u64, rows: Changes, meta: Changes },
    Trim { gateway: Gateway, percent: u64 },
    Scan { gateway: Gateway, prefix: Bytes, after: Option<Bytes>, bytes_max: usize },
    Look { gateway: Gateway },
    Reopen,
}

type Changes = Vec<(Bytes, Option<Bytes>)>;

fn step() -> impl Strategy<Value = Step> {
    let gateway = || "[ab]".prop_map(|text| name(&text));
    let changes = || vec((key(), proptest::option::weighted(0.7, key())), 0..6);
    let commit = (gateway(), 0..4_u64, changes(), changes()).prop_map(
        |(gateway, entry_count, rows, meta)| Step::Commit { gateway, entry_count, rows, meta },
    );
    let scan = (gateway(), key(), proptest::option::of(key()), 0..20_usize).prop_map(
        |(gateway, prefix, after, bytes_max)| Step::Scan { gateway, prefix, after, bytes_max },
    );
    prop_oneof![
        3 => gateway().prop_map(Step::Create),
        1 => gateway().prop_map(Step::Drop),
        9 => commit,
        2 => (gateway(), 0..=100_u64).prop_map(|(gateway, percent)| Step::Trim { gateway, percent }),
        3 => scan,
        3 => gateway().prop_map(|gateway| Step::Look { gateway }),
        1 => Just(Step::Reopen),
    ]
}

/// Few bytes, so that keys collide and prefix one another; the greatest byte, since ranges end there.
fn key() -> impl Strategy<Value = Bytes> {
    vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0), Just(0xff)], 0..4).prop_map(Bytes::from)
}

#[derive(Debug)]
struct Model {
    record: GatewayRecord,
    head: u64,
    trimmed: u64,
    rows: BTreeMap<Bytes, Bytes>,
    meta: BTreeMap<Bytes, Bytes>,
}

async fn run(home: &dyn Home, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut store = home.open().await;
    let mut models = BTreeMap::new();
    for step in steps {
        if matches!(step, Step::Reopen) {
            store.close().await.expect("close");
            store = home.open().await;
        } else {
            take(&store, &mut models, step).await?;
        }
    }
    store.close().await.expect("close");
    let store = home.open().await;
    for model in models.values() {
        look(&*store, model).await?;
    }
    let listed = store.gateways(None, 9).await.expect("list");
    let expected: Vec<_> = models.into_values().map(|model| model.record).collect();
    prop_assert_eq!(listed, expected);
    Ok(())
}

async fn take(
    store: &Arc<dyn Store>,
    models: &mut BTreeMap<Gateway, Model>,
    step: Step,
) -> Result<(), TestCaseError> {
    match step {
        Step::Create(name) => create(&**store, models, name).await?,
        Step::Drop(name) => {
            let known = models.remove(&name).is_some();
            let outcome = store.drop_gateway(&name).await;
            prop_assert_eq!(outcome.is_ok(), known);
        }
        Step::Commit { gateway, entry_count, rows, meta } => {
            let Some(model) = models.get_mut(&gateway) else { return Ok(()) };
            let log = (model.head + 1..=model.head + entry_count).map(entry).collect();
            model.head += entry_count;
            put(&mut model.rows, &rows);
            put(&mut model.meta, &meta);
            let receipt = store.commit(model.record.id, Group { log, rows, meta }).await;
            // Half of the receipts are let go, as by a caller that hung up.
            if model.head % 2 == 0 {
                receipt.expect("commit").durable().await.expect("durable");
            }
        }
        Step::Trim { gateway, percent } => {
            let Some(model) = models.get_mut(&gateway) else { return Ok(()) };
            let through = model.head * percent / 100;
            model.trimmed = model.trimmed.max(through);
            store.trim(model.record.id, Position(through)).await.expect("trim");
        }
        Step::Scan { gateway, prefix, after, bytes_max } => {
            let Some(model) = models.get(&gateway) else { return Ok(()) };
            let id = model.record.id;
            let page = store.scan(id, &prefix, after.as_deref(), bytes_max).await.expect("scan");
            let inside = |key: &Bytes| {
                key.starts_with(&prefix) && after.as_ref().is_none_or(|after| after < key)
            };
            let expected = model.rows.iter().filter(|(key, _)| inside(key));
            let expected: Vec<_> = expected.take(page.len().max(1)).collect();
            prop_assert_eq!(page.iter().map(|(k, v)| (k, v)).collect::<Vec<_>>(), expected);
        }
        Step::Look { gateway } => {
            if let Some(model) = models.get(&gateway) {
                look(&**store, model).await?;
            }
        }
        Step::Reopen => unreachable!("reopening replaces the store, which the caller owns"),
    }
    Ok(())
}

async fn create(
    store: &dyn Store,
    models: &mut BTreeMap<Gateway, Model>,
    name: Gateway,
) -> Result<(), TestCaseError> {
    match store.create_gateway(&name, 1).await {
        Ok(record) => {
            let empty = BTreeMap::new;
            let model = Model { record, head: 0, trimmed: 0, rows: empty(), meta: empty() };
            prop_assert!(models.insert(name, model).is_none(), "created over another");
        }
        Err(StoreError::Exists(_)) => prop_assert!(models.contains_key(&name)),
        Err(error) => prop_assert!(false, "creating a gateway: {}", error),
    }
    Ok(())
}

/// Compares everything a gateway holds.
async fn look(store: &dyn Store, model: &Model) -> Result<(), TestCaseError> {
    let id = model.record.id;
    prop_assert_eq!(store.head(id).await.expect("head"), Position(model.head));
    prop_assert_eq!(store.trimmed(id).await.expect("trimmed"), Position(model.trimmed));
    let log = log_all(store, id, Position::START, 50).await;
    prop_assert_eq!(log, (model.trimmed + 1..=model.head).map(entry).collect::<Vec<_>>());
    prop_assert_eq!(&scan_all(store, id, b"", 10).await, &pairs(&model.rows));
    prop_assert_eq!(&store.meta_scan(id, b"", 999).await.expect("meta"), &pairs(&model.meta));
    let mut keys: Vec<Bytes> = model.rows.keys().cloned().collect();
    keys.push(Bytes::from_static(b"absent"));
    let found = rows_all(store, id, &keys, 5).await;
    let expected: Vec<_> = keys.iter().map(|key| model.rows.get(key).cloned()).collect();
    prop_assert_eq!(found, expected);
    Ok(())
}

fn pairs(map: &BTreeMap<Bytes, Bytes>) -> Vec<(Bytes, Bytes)> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn put(map: &mut BTreeMap<Bytes, Bytes>, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

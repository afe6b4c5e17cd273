//! Copies of a running server: whole as of one moment, while pushes go on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lakesync::name::Position;
use lakesync::proto::admin::v1::BackupRequest;
use lakesync_server::store::Store;
use tonic::Code;

use crate::harness::changes::{at, upsert};
use crate::harness::process::{Ended, Served, lakesync, run};
use crate::harness::{Client, MAIN, Setup, assert_refused, grant, grant_for, open, within};
use crate::processes::{hlc_now, set_up};

/// The commits of a log, as the store has them.
async fn log(store: &dyn Store) -> Vec<bytes::Bytes> {
    let name = MAIN.parse().expect("a legal name");
    let id = store.gateway(&name).await.expect("looked up").expect("a gateway").id;
    let (mut commits, mut last) = (Vec::new(), Position::START);
    loop {
        let page = store.log(id, last, 1 << 20).await.expect("read");
        let Some(entry) = page.last() else { return commits };
        last = entry.position;
        commits.extend(page.into_iter().map(|entry| entry.commit));
    }
}

async fn backup(url: &str, token: &str, to: &Path) -> Ended {
    let to = to.to_str().expect("text");
    run(lakesync(["backup", "--url", url, "--token", token, "--to", to])).await
}

/// Pushes until it is told to stop, and counts what was answered.
async fn push_on(client: Client, answered: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let text = "x".repeat(2_000);
    for nth in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let row = format!("todos/{nth}");
        let delta = upsert(&client.id, hlc_now(), &row, &[("title", &text)]);
        client.push([delta]).await.expect("answered");
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_running_server_has_all_that_was_answered_and_is_a_prefix_of_its_log() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let served = Served::start(&data, &[]).await;
    let ann = served.client("ann").await;
    set_up(&ann).await;
    let (answered, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let pushing = tokio::spawn(push_on(ann.clone(), Arc::clone(&answered), Arc::clone(&stop)));
    let url = format!("http://{}", served.address);
    let secret = lakesync_server::auth::Secret::load_or_create(&data).expect("a secret");
    let now_ms = lakesync::clock::WallClock::now_ms(&lakesync::clock::SystemClock);
    let token = grant("operator", "admin").sign(&secret, now_ms).expect("a token");
    let mut copies = Vec::new();
    for nth in 0..4 {
        // Some more than before, so that the copies differ.
        let goal = answered.load(Ordering::SeqCst) + 5;
        crate::harness::until(|| goal <= answered.load(Ordering::SeqCst)).await;
        let (before, to) =
            (answered.load(Ordering::SeqCst), place.path().join(format!("copy-{nth}")));
        let ended = backup(&url, &token, &to).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        copies.push((before, to));
    }
    stop.store(true, Ordering::SeqCst);
    pushing.await.expect("no panic");
    let cursor = ann.pull("").await.expect("pulled").cursor("").to_owned();
    drop(ann);
    served.signal("TERM").await;
    assert_eq!(served.ended().await.status.code(), Some(0));

    let whole = open(&data, 0).await;
    let original = log(&*whole).await;
    whole.close().await.expect("closed");
    let mut lengths = BTreeSet::new();
    for (before, copy) in copies {
        let store = open(&copy, 0).await;
        let copied = log(&*store).await;
        assert!(before <= copied.len() as u64, "{before} answered, {} copied", copied.len());
        assert!(original.starts_with(&copied), "it is no prefix of the log");
        lengths.insert(copied.len());
        store.close().await.expect("closed");
        // It opens as any other, as another life of its logs, and has its rows.
        let served = Served::start(&copy, &[]).await;
        let ann = served.client("ann").await;
        let rows = crate::harness::Replica::by_checkpoint(&ann).await.expect("complete").live();
        assert_eq!(rows.len(), copied.len());
        assert_refused(ann.pull(&cursor).await, Code::OutOfRange, "CURSOR_EXPIRED");
    }
    assert_eq!(lengths.len(), 4, "the copies are of one moment: {lengths:?}");
}

#[tokio::test]
async fn a_copy_holds_every_gateway_and_needs_a_token_that_opens_every_gateway() {
    let server = Setup::new().start_with_tables().await;
    let request = || BackupRequest {};
    for (grant, reason) in [
        (grant("ann", "sync"), "SCOPE_MISSING"),
        (grant_for("ann", "sync admin", MAIN), "OUT_OF_SCOPE"),
    ] {
        let ann = server.client_with("ann", &server.token(&grant)).await;
        let answer = within(ann.admin.clone().backup(request())).await;
        assert_refused(answer, Code::PermissionDenied, reason);
    }
    let operator = server.client("operator").await;
    let mut first = within(operator.admin.clone().backup(request())).await.expect("begun");
    let second = within(operator.admin.clone().backup(request())).await;
    // The first may have ended already: then the second is the only one.
    if second.is_err() {
        assert_refused(second, Code::ResourceExhausted, "OVERLOADED");
    }
    while within(first.get_mut().message()).await.expect("whole").is_some() {}
}

#[tokio::test]
async fn a_copy_that_breaks_off_leaves_nothing_and_says_why() {
    let place = tempfile::tempdir().expect("a directory");
    let to: PathBuf = place.path().join("copy");
    let nobody = backup("http://127.0.0.1:1", "t", &to).await;
    assert_eq!(nobody.status.code(), Some(69), "{nobody:?}");
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([upsert("ann", at(1), "todos/1", &[("title", "x")])]).await.expect("answered");
    let url = format!("http://{}", server.address);
    let wrong = backup(&url, "no token", &to).await;
    assert_eq!(wrong.status.code(), Some(64), "{wrong:?}");
    let token = server.token(&grant("operator", "admin"));
    let nowhere = backup(&url, &token, &place.path().join("no/such/place")).await;
    assert_eq!(nowhere.status.code(), Some(74), "{nowhere:?}");
    assert!(nowhere.stderr.contains("no copy was made"), "{nowhere:?}");
    assert!(!to.exists(), "something of it is left");
}

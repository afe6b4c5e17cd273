//! P-10: a cursor that can't be continued is told so, never answered in part.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{CheckpointRequest, PullRequest, PullResponse};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::changes::{at, delete, upsert};
use crate::harness::client::Pulled;
use crate::harness::{Client, MAIN, Replica, Server, Setup, assert_refused, open, within};
use crate::rules::docs::{begun, doc, start, with_claims};

/// The log goes on, and has forgotten what follows the cursor.
#[track_caller]
fn assert_expired<T>(answer: Result<T, Status>) {
    let status = assert_refused(answer, Code::OutOfRange, "CURSOR_EXPIRED");
    assert_eq!(log_fact(&status), None, "{status:?}");
}

/// The log is another than the cursor's: whoever holds the cursor may hold what the server lost.
#[track_caller]
fn assert_replaced<T>(answer: Result<T, Status>) {
    let status = assert_refused(answer, Code::OutOfRange, "CURSOR_EXPIRED");
    assert_eq!(log_fact(&status).as_deref(), Some("replaced"), "{status:?}");
}

/// What the status says of the log, for programs.
fn log_fact(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    details.error_info().expect("ErrorInfo").metadata.get("log").cloned()
}

async fn write_some(client: &Client, from: u64, to: u64) {
    for nth in from..to {
        let delta = upsert(&client.id, at(nth), &format!("todos/{nth}"), &[("title", "x")]);
        client.push([delta]).await.expect("answered");
    }
}

async fn resume(client: &Client, resume: &str, tables: &[&str]) -> Result<(), Status> {
    let request = CheckpointRequest {
        gateway: client.gateway.clone(),
        resume: resume.to_owned(),
        tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        ..CheckpointRequest::default()
    };
    let mut stream = within(client.sync.clone().checkpoint(request)).await?.into_inner();
    while within(stream.message()).await?.is_some() {}
    Ok(())
}

async fn pull_tables(client: &Client, cursor: &str, tables: &[&str]) -> Result<Pulled, Status> {
    let tables = tables.iter().map(|table| (*table).to_owned()).collect();
    let cursor = cursor.to_owned();
    client.pull_with(PullRequest { cursor, tables, ..PullRequest::default() }).await
}

/// A cursor and a resume token that are good now.
async fn tokens(client: &Client) -> (String, String) {
    let cursor = client.pull("").await.expect("pulled").cursor("").to_owned();
    let resume = client.checkpoint().await.expect("read").chunks[0].resume.clone();
    (cursor, resume)
}

#[tokio::test]
async fn p10_another_gateways_cursor_is_refused() {
    let server = Setup::new().start_with_tables().await;
    let mut ann = server.client("ann").await;
    ann.create_gateway("second").await.expect("created");
    let mut second = ann.clone().at("second");
    second.put_schema(crate::harness::changes::tables()).await.expect("installed");
    write_some(&ann, 0, 3).await;
    write_some(&second, 0, 3).await;
    let (cursor, token) = tokens(&ann).await;
    assert_replaced(second.pull(&cursor).await);
    assert_replaced(second.follow(&cursor).await);
    assert_replaced(resume(&second, &token, &[]).await);
    ann.pull(&cursor).await.expect("good where it comes from");
    resume(&ann, &token, &[]).await.expect("good where it comes from");
}

#[tokio::test]
async fn p10_a_gateway_made_anew_is_another_log() {
    let server = Setup::new().start_with_tables().await;
    let mut ann = server.client("ann").await;
    write_some(&ann, 0, 3).await;
    let (cursor, token) = tokens(&ann).await;
    let request = lakesync::proto::admin::v1::DeleteGatewayRequest { gateway: MAIN.to_owned() };
    within(ann.admin.delete_gateway(request)).await.expect("deleted");
    ann.create_gateway(MAIN).await.expect("created");
    ann.put_schema(crate::harness::changes::tables()).await.expect("installed");
    write_some(&ann, 0, 5).await;
    assert_replaced(ann.pull(&cursor).await);
    assert_replaced(resume(&ann, &token, &[]).await);
    assert_eq!(Replica::by_checkpoint(&ann).await.expect("read").live().len(), 5);
}

#[tokio::test]
async fn p10_a_restored_server_is_another_log() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    write_some(&server.client("ann").await, 0, 3).await;
    server.stop().await.expect("drained");

    let copy = Setup::new();
    let store = open(&setup.data(), 0).await;
    store.backup(&copy.data()).await.expect("copied");
    store.close().await.expect("closed");
    // What comes after the copy is lost with the original, and others take its positions.
    let server = setup.start().await;
    let ann = server.client("ann").await;
    write_some(&ann, 3, 6).await;
    let (cursor, token) = tokens(&ann).await;
    server.stop().await.expect("drained");

    let restored = copy.start().await;
    let bob = restored.client("bob").await;
    write_some(&bob, 10, 20).await;
    assert_replaced(bob.pull(&cursor).await);
    assert_replaced(resume(&bob, &token, &[]).await);
    assert_eq!(Replica::by_checkpoint(&bob).await.expect("read").live().len(), 13);
}

/// Copies a data directory as a snapshot of its volume does, put back elsewhere or in its place: bit for
/// bit, so that what tells a copy from its original stays true. File by file only the identity does not.
fn snapshot(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            snapshot(&path, &target);
        } else {
            fs::copy(path, target).expect("copied");
        }
    }
    let identity = to.join("identity");
    if let Ok(text) = fs::read_to_string(&identity) {
        let file = fs::metadata(&identity).expect("metadata");
        let born = file.created().expect("a time of birth").duration_since(UNIX_EPOCH);
        let (inode, born) = (file.ino(), born.expect("after 1970").as_nanos());
        let lines = text.lines().filter(|line| !line.starts_with("checksum"));
        let lines = lines.map(|line| match line.split_once(' ') {
            Some(("inode", _)) => format!("inode {inode}\n"),
            Some(("born", _)) => format!("born {born}\n"),
            _ => format!("{line}\n"),
        });
        let text: String = lines.collect();
        let sum = crc32fast::hash(text.as_bytes());
        fs::write(&identity, format!("{text}checksum {sum:08x}\n")).expect("written");
    }
}

/// Nothing tells a snapshot that was put back from what it was made of, but the commits themselves.
#[tokio::test]
async fn p10_a_volume_that_was_rolled_back_is_another_log() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    write_some(&ann, 0, 3).await;
    let (before, token_before) = tokens(&ann).await;
    server.stop().await.expect("drained");
    let earlier = Setup::new();
    snapshot(&setup.data(), &earlier.data());

    // Both go on. What comes here is lost when the snapshot takes its place.
    let server = setup.start().await;
    let ann = server.client("ann").await;
    ann.pull(&before).await.expect("the original");
    write_some(&ann, 3, 6).await;
    let (after, token_after) = tokens(&ann).await;
    server.stop().await.expect("drained");

    let server = earlier.start().await;
    let bob = server.client("bob").await;
    for nth in 3..9 {
        assert_replaced(bob.pull(&after).await);
        assert_replaced(bob.follow(&after).await);
        assert_replaced(resume(&bob, &token_after, &[]).await);
        write_some(&bob, 10 + nth, 11 + nth).await;
    }
    resume(&bob, &token_before, &[]).await.expect("good in both");
    // Of what she pushed into the past that is gone, ann says that she has it.
    let ann = server.client("ann").await;
    let pull = PullRequest {
        cursor: before.clone(),
        client_id: "ann".to_owned(),
        skip_positions: vec![4, 5, 6],
        ..PullRequest::default()
    };
    let pulled = ann.pull_with(pull).await.expect("good in both");
    let rows: usize = pulled.tables().iter().map(|table| table.rows.len()).sum();
    assert_eq!(rows, 6, "another's commits were skipped");
    server.stop().await.expect("drained");
}

#[tokio::test]
async fn p10_a_trimmed_position_is_refused_and_the_rest_is_whole() {
    let setup = Setup::new().tune(|config| config.log_bytes_max = 4 << 10);
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    write_some(&ann, 0, 1).await;
    let (cursor, token) = tokens(&ann).await;
    let mut cursors = vec![cursor.clone()];
    for nth in 1..200 {
        write_some(&ann, nth, nth + 1).await;
        cursors.push(
            ann.pull_with(PullRequest {
                cursor: cursors.last().expect("one").clone(),
                ..PullRequest::default()
            })
            .await
            .expect("pulled")
            .cursor("")
            .to_owned(),
        );
    }
    check_trimmed(&server, &cursors, &token).await;
    server.stop().await.expect("drained");
    let server = setup.start().await;
    check_trimmed(&server, &cursors, &token).await;
}

/// Each cursor is refused, or brings everything after it.
async fn check_trimmed(server: &Server, cursors: &[String], token: &str) {
    let ann = server.client("ann").await;
    let stats = ann.stats().await.expect("figures");
    assert!(1 < stats.tail && stats.tail < stats.head, "nothing was trimmed: {stats:?}");
    assert_expired(ann.pull("").await);
    assert_expired(resume(&ann, token, &[]).await);
    for (position, cursor) in (1..).zip(cursors) {
        let answer = ann.pull(cursor).await;
        if position < stats.tail {
            assert_expired(answer);
            continue;
        }
        let sent = answer.expect("held").pages.iter().flat_map(|page| page.tables.clone()).count();
        assert_eq!(sent as u64, stats.head - position, "after {position}");
    }
    let rows = Replica::by_checkpoint(&ann).await.expect("read").live().len();
    assert_eq!(rows as u64, stats.head, "rows went with the log");
}

/// A reader that takes nothing stands still where its windows are full, far from the head, while the
/// commits before it and after it are trimmed.
#[tokio::test]
async fn p10_a_reader_in_the_middle_of_what_is_trimmed_is_told_so() {
    const BEFORE: u64 = 20;
    let server = Setup::new().set("log_size_max", "24MiB").start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(1 << 20);
    let big = |nth| upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)]);
    for nth in 1..=BEFORE {
        ann.push([big(nth)]).await.expect("answered");
    }
    let mut stream = ann.open_pull(PullRequest::default()).await.expect("begun");
    let mut next = 1;
    let first = within(stream.message()).await.expect("open").expect("a page");
    check_follows(first, &mut next);
    for nth in BEFORE + 1..=3 * BEFORE {
        ann.push([big(nth)]).await.expect("answered");
    }
    // A push may be answered before the log is trimmed for it.
    within(async {
        while ann.stats().await.expect("figures").tail <= BEFORE {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let end = loop {
        match within(stream.message()).await {
            Ok(Some(answer)) => check_follows(answer, &mut next),
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    assert!(1 < next && next <= BEFORE, "it was not in the middle, but at {next}");
    assert_expired(end);
}

/// What a stream brings has no gap.
#[track_caller]
fn check_follows(answer: PullResponse, next: &mut u64) {
    let Some(Event::Page(page)) = answer.event else { panic!("no page: {answer:?}") };
    let sent: u64 = page.tables.iter().map(|table| table.rows.len() as u64).sum();
    assert_eq!(page.position, *next + sent - 1, "a gap before {}", page.position);
    *next = page.position + 1;
}

#[tokio::test]
async fn p10_a_cursor_is_good_for_its_tables_only() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    write_some(&ann, 0, 3).await;
    let todos = pull_tables(&ann, "", &["todos"]).await.expect("pulled").cursor("").to_owned();
    let all = ann.pull("").await.expect("pulled").cursor("").to_owned();
    let both = pull_tables(&ann, "", &["todos", "notes"]).await.expect("pulled");
    for (cursor, tables, good) in [
        (&*todos, &["todos"][..], true),
        (&todos, &["todos", "todos"], true),
        (&todos, &[], false),
        (&todos, &["notes"], false),
        (&todos, &["todos", "notes"], false),
        (&all, &[], true),
        (&all, &["todos"], false),
        (both.cursor(""), &["notes", "todos"], true),
    ] {
        let answer = pull_tables(&ann, cursor, tables).await;
        if good {
            answer.unwrap_or_else(|status| panic!("{tables:?}: {status:?}"));
        } else {
            assert_expired(answer);
        }
    }
    let token = ann.checkpoint().await.expect("read").chunks[0].resume.clone();
    assert_expired(resume(&ann, &token, &["todos"]).await);
}

#[tokio::test]
async fn p10_what_is_no_cursor_of_ours_is_malformed() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    write_some(&ann, 0, 3).await;
    let (cursor, token) = tokens(&ann).await;
    let flipped = |text: &str, at: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("ASCII")
    };
    let mut bad: Vec<_> = (0..cursor.len()).step_by(5).map(|at| flipped(&cursor, at)).collect();
    let others = ["A", "§", "' OR 1=1 --", "1", &token, &cursor[1..], &format!("{cursor}A")];
    bad.extend(others.map(ToOwned::to_owned));
    bad.push("A".repeat(3_000));
    for text in bad {
        assert_refused(ann.pull(&text).await, Code::InvalidArgument, "INVALID_REQUEST");
    }
    for text in [&cursor, &flipped(&token, 9), "A"] {
        let answer = resume(&ann, text, &[]).await;
        assert_refused(answer, Code::InvalidArgument, "INVALID_REQUEST");
    }
}

/// The same text for another position, with a checksum that holds: anybody can make this.
fn made_up(cursor: &str, position: u64) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(cursor).expect("base64");
    bytes.truncate(bytes.len() - size_of::<u32>());
    // Behind the version and the log's id.
    bytes[17..25].copy_from_slice(&position.to_be_bytes());
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test]
async fn p10_a_made_up_cursor_tells_nothing_of_what_was_before_its_reader() {
    let (server, service) = start(&Setup::new()).await;
    // One row has left the team, and one has died, before ann joined it.
    for (nth, id, team) in [(1, "left", "7"), (2, "dead", "7"), (3, "left", "8")] {
        service.push([doc("service", nth, id, &[("team", team)])]).await.expect("answered");
    }
    service.push([delete("service", at(4), "docs/dead")]).await.expect("answered");
    let ann = with_claims(&server, "ann", json!({"teams": [7]})).await;
    let cursor = begun(&ann).await;
    assert_eq!(made_up(&cursor, 4), cursor, "this test does not know the layout of cursors");
    for position in [0, 1, 3, u64::MAX] {
        let pulled = ann.pull(&made_up(&cursor, position)).await;
        assert_refused(pulled, Code::InvalidArgument, "INVALID_REQUEST");
    }
    ann.pull(&cursor).await.expect("what was given out is good");
}

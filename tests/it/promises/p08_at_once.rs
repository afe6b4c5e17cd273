//! P-8: what changes a token's scope acts at once, on streams under way as well; and whoever is told
//! to begin anew has lost nothing by it.

use std::collections::BTreeMap;
use std::time::Duration;

use lakesync::proto::admin::v1::{
    DeleteGatewayRequest, ExplainAccessRequest, GetStatsRequest, GetSyncRulesRequest,
};
use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{ChangeKind, GetSchemaRequest, PullRequest, TableChanges};
use lakesync_server::auth::Grant;
use serde_json::json;
use tonic::{Code, Status};

use crate::harness::changes::tables;
use crate::harness::counting::Counting;
use crate::harness::{Client, MAIN, Setup, assert_refused, grant, within};
use crate::rules::docs::{
    begun, checkpoint_since, doc, other_rules, revoke, rules, start, start_without_rules, told,
    with_claims,
};
use crate::rules::world::put;

/// Rows of 200 KiB, so that most of them wait behind what the connection takes.
const LARGE: usize = 200 << 10;
const ROWS: u64 = 80;

/// Writes rows of `owner`'s, each in a commit of its own.
async fn fill(client: &Client, owner: &str, first: u64, body: &str) {
    for nth in 0..ROWS {
        let cells = [("owner", owner), ("body", body)];
        let change = doc(&client.id, first + nth, &nth.to_string(), &cells);
        client.push([change]).await.expect("answered");
    }
}

/// What a stream brings until it ends: how many rows, and its last word.
async fn drained<T>(
    mut stream: tonic::Streaming<T>,
    rows: impl Fn(&T) -> usize,
) -> (usize, Status) {
    let mut count = 0;
    loop {
        match within(stream.message()).await {
            Ok(Some(answer)) => count += rows(&answer),
            Ok(None) => return (count, Status::ok("it ended as if all had been said")),
            Err(status) => return (count, status),
        }
    }
}

fn rows_of(tables: &[TableChanges]) -> usize {
    tables.iter().map(|table| table.rows.len()).sum()
}

/// A pull of everything that was begun, of which the first page has come.
async fn begin_pull(
    client: &Client,
    cursor: &str,
) -> tonic::Streaming<lakesync::proto::v1::PullResponse> {
    let request = PullRequest { cursor: cursor.to_owned(), ..PullRequest::default() };
    let mut stream = client.open_pull(request).await.expect("a good cursor");
    within(stream.message()).await.expect("a first page").expect("a first page");
    stream
}

fn pulled_rows(answer: &lakesync::proto::v1::PullResponse) -> usize {
    match &answer.event {
        Some(Event::Page(page)) => rows_of(&page.tables),
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_a_revocation_stops_what_is_being_sent() {
    let (server, service) = start(&Setup::new()).await;
    let operator = server.client("operator").await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let cursor = begun(&ann).await;
    fill(&service, "ann", 1, &"x".repeat(LARGE)).await;
    let pull = begin_pull(&ann, &cursor).await;
    let mut checkpoint = ann.open_checkpoint("").await.expect("begun");
    within(checkpoint.message()).await.expect("a first chunk");
    revoke(&operator, "ann").await.expect("revoked");
    for (rows, status) in [
        drained(pull, pulled_rows).await,
        drained(checkpoint, |answer| match &answer.event {
            Some(lakesync::proto::v1::checkpoint_response::Event::Chunk(chunk)) => {
                rows_of(chunk.rows.as_slice())
            }
            _ => 0,
        })
        .await,
    ] {
        assert!(rows < ROWS as usize / 2, "{rows} rows came after the revocation");
        assert_refused(Err::<(), _>(status), Code::Unauthenticated, "TOKEN_INVALID");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_the_first_rules_stop_what_is_being_sent() {
    let (server, operator) = start_without_rules(&Setup::new()).await;
    let ann = with_claims(&server, "ann", json!({})).await;
    fill(&operator, "bob", 1, &"x".repeat(LARGE)).await;
    let pull = begin_pull(&ann, "").await;
    put(&operator, &rules()).await.expect("legal rules");
    let (rows, status) = drained(pull, pulled_rows).await;
    assert!(rows < ROWS as usize / 2, "{rows} of another's rows came after the rules");
    assert_refused(Err::<(), _>(status), Code::OutOfRange, "CURSOR_EXPIRED");
}

/// The lengths of the bodies that a reader holds.
#[derive(Default)]
struct Bodies(BTreeMap<String, usize>);

impl Bodies {
    fn take(&mut self, tables: &[TableChanges]) {
        for table in tables {
            for (row, cell) in
                table.rows.iter().flat_map(|row| row.cells.iter().map(move |cell| (row, cell)))
            {
                let value = cell.value.clone().and_then(|value| value.kind);
                if let Some(lakesync::proto::v1::value::Kind::StringValue(text)) = value
                    && table.columns[cell.column as usize] == "body"
                {
                    self.0.insert(row.row_id.clone(), text.len());
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_who_is_catching_up_when_the_rules_change_loses_nothing() {
    let (server, service) = start(&Setup::new()).await;
    let operator = server.client("operator").await;
    let ann = with_claims(&server, "ann", json!({})).await;
    fill(&service, "ann", 1, "old").await;
    let checkpoint = ann.checkpoint().await.expect("a checkpoint");
    let mut held = Bodies::default();
    held.take(&checkpoint.tables());
    let mut cursor = checkpoint.end.expect("an end").cursor;
    fill(&service, "ann", 1_000, &"x".repeat(LARGE)).await;
    let request = PullRequest { cursor: cursor.clone(), ..PullRequest::default() };
    let mut stream = ann.open_pull(request).await.expect("a good cursor");
    let mut changed = false;
    let status = loop {
        match within(stream.message()).await {
            Ok(Some(answer)) => match answer.event.expect("an event") {
                Event::Page(page) => {
                    held.take(&page.tables);
                    cursor = page.cursor;
                }
                Event::CaughtUp(caught_up) => cursor = caught_up.cursor,
                Event::Heartbeat(_) => {}
            },
            Ok(None) => panic!("it ended as if all had been said"),
            Err(status) => break status,
        }
        if !changed {
            changed = true;
            put(&operator, &other_rules()).await.expect("legal rules");
            // Time enough to clear away the old index under the reader's feet.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    assert_refused(Err::<(), _>(status), Code::OutOfRange, "CURSOR_EXPIRED");
    let since = checkpoint_since(&ann, &cursor).await;
    held.take(&since.tables());
    let stale = held.0.values().filter(|length| **length != LARGE).count();
    assert_eq!((stale, held.0.len()), (0, ROWS as usize));
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_readers_go_by_the_old_index_until_the_new_rules_are_durable() {
    let store = Counting::default();
    let (server, service) = start(&Setup::new().on(store.clone())).await;
    let operator = server.client("operator").await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let push = async |nth, body| {
        let cells = [("owner", "ann"), ("body", body)];
        service.push([doc("service", nth, "a", &cells)]).await.expect("answered");
    };
    push(1, "old").await;
    let cursor = begun(&ann).await;
    push(2, "new").await;
    store.slow_down(Duration::from_secs(3));
    let putting = tokio::spawn(async move { put(&operator, &other_rules()).await });
    tokio::time::sleep(Duration::from_millis(400)).await;
    let upsert = |cells| vec![("a".to_owned(), ChangeKind::Upsert, cells)];
    let pulled = ann.pull(&cursor).await.expect("the old rules are in force");
    assert_eq!(told(&pulled.tables()), upsert(2));
    let rows = ann.checkpoint().await.expect("the old rules are in force");
    assert_eq!(told(&rows.tables()), upsert(2));
    assert!(!putting.is_finished(), "the disk was not slow enough for this test");
    store.slow_down(Duration::ZERO);
    putting.await.expect("no panic").expect("legal rules");
    assert_refused(ann.pull(&cursor).await, Code::OutOfRange, "CURSOR_EXPIRED");
    let since = checkpoint_since(&ann, &cursor).await;
    assert_eq!(told(&since.tables()), upsert(2), "it changed after that cursor");
}

#[tokio::test]
async fn p08_a_stream_that_waits_ends_when_its_token_is_revoked_or_the_rules_change() {
    let (server, service) = start(&Setup::new()).await;
    let operator = server.client("operator").await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let follow = async |client: &Client| {
        let cursor = begun(client).await;
        let mut stream = client.follow(&cursor).await.expect("a good cursor");
        within(stream.message()).await.expect("it has caught up").expect("it has caught up");
        stream
    };
    let stream = follow(&ann).await;
    put(&operator, &other_rules()).await.expect("legal rules");
    let (_, status) = drained(stream, pulled_rows).await;
    assert_refused(Err::<(), _>(status), Code::OutOfRange, "CURSOR_EXPIRED");

    let stream = follow(&ann).await;
    revoke(&operator, "ann").await.expect("revoked");
    let (_, status) = drained(stream, pulled_rows).await;
    assert_refused(Err::<(), _>(status), Code::Unauthenticated, "TOKEN_INVALID");
    service.push([doc("service", 9, "d", &[("owner", "ann")])]).await.expect("others go on");
}

#[tokio::test]
async fn p08_a_revoked_subject_is_refused_by_every_call() {
    let (server, _) = start(&Setup::new()).await;
    let operator = server.client("operator").await;
    // Eve may do whatever the operator may.
    let mut eve = server.client("eve").await;
    let cursor = begun(&eve).await;
    revoke(&operator, "eve").await.expect("revoked");
    let gateway = MAIN.to_owned();
    let (mut sync, mut admin) = (eve.sync.clone(), eve.admin.clone());
    let explain = ExplainAccessRequest { gateway: gateway.clone(), ..Default::default() };
    let all = [
        ("Pull", eve.pull(&cursor).await.map(drop)),
        ("Checkpoint", eve.checkpoint().await.map(drop)),
        ("Push", eve.push([doc("eve", 9, "d", &[("owner", "eve")])]).await.map(drop)),
        ("PutSyncRules", put(&eve, &other_rules()).await),
        ("RevokeSubject", revoke(&eve, "operator").await),
        ("PutSchema", eve.put_schema(tables()).await),
        ("ExplainAccess", within(admin.explain_access(explain)).await.map(drop)),
        (
            "GetStats",
            within(admin.get_stats(GetStatsRequest { gateway: gateway.clone() })).await.map(drop),
        ),
        (
            "GetSyncRules",
            within(admin.get_sync_rules(GetSyncRulesRequest { gateway: gateway.clone() }))
                .await
                .map(drop),
        ),
        (
            "GetSchema",
            within(sync.get_schema(GetSchemaRequest { gateway: gateway.clone() })).await.map(drop),
        ),
        (
            "DeleteGateway",
            within(admin.delete_gateway(DeleteGatewayRequest { gateway })).await.map(drop),
        ),
    ];
    for (call, answer) in all {
        let status = answer.expect_err(call);
        assert_eq!(status.code(), Code::Unauthenticated, "{call}: {status:?}");
    }
    operator.stats().await.expect("nothing was deleted, and the operator may go on");
}

#[tokio::test]
async fn p08_a_revocation_outlives_the_server_and_a_fresh_token_counts() {
    let setup = Setup::new();
    let (server, _) = start(&setup).await;
    let token = server.token(&Grant { ..grant("ann", "sync") });
    revoke(&server.client("operator").await, "ann").await.expect("revoked");
    server.stop().await.expect("drained");
    let server = setup.start().await;
    let ann = server.client_with("ann", &token).await;
    assert_refused(ann.checkpoint().await, Code::Unauthenticated, "TOKEN_INVALID");
    setup.clock.advance(2_000);
    let ann = with_claims(&server, "ann", json!({})).await;
    ann.checkpoint().await.expect("a token from after the revocation");
}

//! P-7 and P-8: scope is judged on the whole merged row; what enters arrives whole, what leaves is
//! dropped, and nobody is told of what is none of theirs.

use lakesync::delta::Delta;
use lakesync::proto::v1::{ChangeKind, CheckpointRequest, PullRequest, TableChanges};
use lakesync::rules::Draft;
use lakesync::value::Value;
use lakesync_server::auth::Grant;
use serde_json::{Value as Json, json};
use tonic::{Code, Status};

use crate::harness::changes::{at, delete, write};
use crate::harness::{Client, MAIN, Replica, Server, Setup, assert_refused, grant, within};
use crate::rules::made_up::{bucket, filter, service};
use crate::rules::world::{put, tables};

/// Documents are their owner's, and their team's; `service` may do everything.
fn rules() -> Draft {
    let mine = bucket("mine", &["docs"], vec![filter("owner", &["jwt:sub"])]);
    let team = bucket("team", &["docs"], vec![filter("team", &["jwt:teams"])]);
    Draft { version: 1, buckets: vec![mine, team, service()] }
}

/// A server with those rules, and the connection of one who may do everything.
async fn start(setup: &Setup) -> (Server, Client) {
    let server = setup.start().await;
    let mut operator = server.client("operator").await;
    operator.create_gateway(MAIN).await.expect("created");
    operator.put_schema(tables()).await.expect("installed");
    put(&operator, &rules()).await.expect("legal rules");
    let service = with_claims(&server, "service", json!({"role": "service"})).await;
    (server, service)
}

/// A connection whose token has these claims.
async fn with_claims(server: &Server, id: &str, claims: Json) -> Client {
    let claims = claims.as_object().expect("an object").clone();
    let token = server.token(&Grant { claims, ..grant(id, "sync") });
    server.client_with(id, &token).await
}

fn doc(client: &str, nth: u64, id: &str, cells: &[(&'static str, &str)]) -> Delta {
    let value = |(column, text): &(&'static str, &str)| match *column {
        "team" => (*column, Value::Int64(text.parse().expect("a number"))),
        _ => (*column, Value::String((*text).to_owned())),
    };
    write(client, at(nth), &format!("docs/{id}"), cells.iter().map(value))
}

/// Row, kind and number of cells of every change.
fn told(tables: &[TableChanges]) -> Vec<(String, ChangeKind, usize)> {
    let rows = tables.iter().flat_map(|table| &table.rows);
    rows.map(|row| (row.row_id.clone(), row.kind(), row.cells.len())).collect()
}

async fn pulled(client: &Client, cursor: &mut String) -> Vec<(String, ChangeKind, usize)> {
    let pulled = client.pull(cursor).await.expect("a good cursor");
    let next = pulled.cursor(cursor).to_owned();
    *cursor = next;
    told(&pulled.tables())
}

async fn begun(client: &Client) -> String {
    Replica::by_checkpoint(client).await.expect("a checkpoint").cursor
}

#[tokio::test]
async fn p07_what_enters_is_whole_what_leaves_is_dropped_and_strangers_hear_nothing() {
    let (server, service) = start(&Setup::new()).await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let bob = with_claims(&server, "bob", json!({"teams": [7]})).await;
    let cyd = with_claims(&server, "cyd", json!({"teams": [8]})).await;
    let (mut a, mut b, mut c) = (begun(&ann).await, begun(&bob).await, begun(&cyd).await);
    let push = async |delta| service.push([delta]).await.expect("answered");

    push(doc("service", 1, "d", &[("owner", "ann"), ("body", "x"), ("team", "7")])).await;
    let row = |kind, cells| vec![("d".to_owned(), kind, cells)];
    assert_eq!(pulled(&ann, &mut a).await, row(ChangeKind::Upsert, 3));
    assert_eq!(pulled(&bob, &mut b).await, row(ChangeKind::Upsert, 3));

    // A change without the filter's column still concerns those who have the row.
    push(doc("service", 2, "d", &[("body", "y")])).await;
    assert_eq!(pulled(&ann, &mut a).await, row(ChangeKind::Upsert, 1));
    // It leaves ann, and bob keeps it by his team: he gets the change, and only once.
    push(doc("service", 3, "d", &[("owner", "bob")])).await;
    assert_eq!(pulled(&ann, &mut a).await, row(ChangeKind::ScopeExit, 0));
    assert_eq!(pulled(&bob, &mut b).await.last(), row(ChangeKind::Upsert, 3).last());
    // Out of the one bucket, still in the other.
    push(doc("service", 4, "d", &[("team", "8")])).await;
    assert_eq!(pulled(&bob, &mut b).await, row(ChangeKind::Upsert, 1));
    assert_eq!(pulled(&cyd, &mut c).await, row(ChangeKind::Upsert, 3));
    push(delete("service", at(5), "docs/d")).await;
    assert_eq!(pulled(&bob, &mut b).await, row(ChangeKind::Delete, 0));
    assert_eq!(pulled(&cyd, &mut c).await, row(ChangeKind::Delete, 0));
    assert_eq!(pulled(&ann, &mut a).await, []);
}

#[tokio::test]
async fn p08_what_was_shared_and_unshared_meanwhile_sends_its_exit_at_most() {
    let (server, service) = start(&Setup::new()).await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let mut cursor = begun(&ann).await;
    for (nth, cells) in
        [[("owner", "ann"), ("body", "shared")], [("owner", "bob"), ("body", "secret")]]
            .iter()
            .enumerate()
    {
        service.push([doc("service", nth as u64 + 1, "d", cells)]).await.expect("answered");
    }
    let exit = vec![("d".to_owned(), ChangeKind::ScopeExit, 0)];
    assert_eq!(pulled(&ann, &mut cursor).await, exit);
    // It comes back whole, and nothing of what happened while it was away is told.
    let back = [("owner", "ann"), ("body", "again")];
    service.push([doc("service", 3, "d", &back)]).await.expect("answered");
    let pulled = ann.pull(&cursor).await.expect("a good cursor");
    assert!(!format!("{pulled:?}").contains("secret"));
    assert_eq!(told(&pulled.tables()), [("d".to_owned(), ChangeKind::Upsert, 2)]);
}

#[tokio::test]
async fn p08_changed_claims_and_changed_rules_expire_cursors_and_spare_what_is_held() {
    let (server, service) = start(&Setup::new()).await;
    for nth in 0..20_u64 {
        let (id, team) = (nth.to_string(), (nth % 4).to_string());
        let cells = [("owner", "ann"), ("team", team.as_str())];
        service.push([doc("service", nth + 1, &id, &cells)]).await.expect("answered");
    }
    let one = with_claims(&server, "cyd", json!({"teams": [0, 1]})).await;
    let cursor = begun(&one).await;
    service.push([doc("service", 90, "4", &[("body", "changed")])]).await.expect("answered");
    let two = with_claims(&server, "cyd", json!({"teams": [0, 2]})).await;
    assert_refused(two.pull(&cursor).await, Code::OutOfRange, "CURSOR_EXPIRED");
    let since = async |client: &Client, since: &str| -> (Vec<ChangeKind>, String) {
        let (gateway, since) = (client.gateway.clone(), since.to_owned());
        let request = CheckpointRequest { gateway, since, ..CheckpointRequest::default() };
        let mut stream =
            within(client.sync.clone().checkpoint(request)).await.expect("begun").into_inner();
        let mut all = crate::harness::client::Checkpointed::default();
        while let Some(answer) = within(stream.message()).await.expect("no failure") {
            all.take(answer);
        }
        let kinds = told(&all.tables()).into_iter().map(|(_, kind, _)| kind);
        (kinds.collect(), all.end.expect("an end").cursor)
    };
    let count = |kinds: &[ChangeKind], kind| kinds.iter().filter(|one| **one == kind).count();
    let (kinds, cursor) = since(&two, &cursor).await;
    // Team 0 was there, but for the one row that changed; team 2 was not.
    assert_eq!(count(&kinds, ChangeKind::Unchanged), 4);
    assert_eq!(count(&kinds, ChangeKind::Upsert), 6);

    let mut other = rules();
    other.buckets[1].filters = vec![filter("team", &["jwt:teams", "3"])];
    let operator = server.client("operator").await;
    put(&operator, &other).await.expect("legal rules");
    assert_refused(two.pull(&cursor).await, Code::OutOfRange, "CURSOR_EXPIRED");
    let (kinds, _) = since(&two, &cursor).await;
    assert_eq!(count(&kinds, ChangeKind::Unchanged), 10);
    assert_eq!(count(&kinds, ChangeKind::Upsert), 5);
    // A made-up cursor shows nothing that its maker may not see.
    let (kinds, _) = since(&with_claims(&server, "dan", json!({})).await, &cursor).await;
    assert_eq!(kinds, []);
}

#[tokio::test]
async fn p08_a_stream_ends_when_its_token_is_revoked_or_the_rules_change() {
    let (server, service) = start(&Setup::new()).await;
    let operator = server.client("operator").await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let ended = async |client: &Client, cursor: &str| -> Status {
        let mut stream = client.follow(cursor).await.expect("a good cursor");
        loop {
            match within(stream.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => return status,
            }
        }
    };
    let cursor = begun(&ann).await;
    let mut other = rules();
    other.buckets.swap(0, 1);
    let (status, changed) = tokio::join!(ended(&ann, &cursor), put(&operator, &other));
    changed.expect("legal rules");
    assert_refused(Err::<(), _>(status), Code::OutOfRange, "CURSOR_EXPIRED");

    let cursor = begun(&ann).await;
    let request = lakesync::proto::admin::v1::RevokeSubjectRequest {
        gateway: MAIN.to_owned(),
        subject: "ann".to_owned(),
    };
    let mut admin = operator.admin.clone();
    let (status, revoked) =
        tokio::join!(ended(&ann, &cursor), within(admin.revoke_subject(request)));
    revoked.expect("revoked");
    assert_refused(Err::<(), _>(status), Code::Unauthenticated, "TOKEN_INVALID");
    assert_refused(ann.pull(&cursor).await, Code::Unauthenticated, "TOKEN_INVALID");
    let push = ann.push([doc("ann", 9, "d", &[("owner", "ann")])]).await;
    assert_refused(push, Code::Unauthenticated, "TOKEN_INVALID");
    service.push([doc("service", 9, "d", &[("owner", "ann")])]).await.expect("others go on");
}

#[tokio::test]
async fn p07_a_small_commit_may_let_in_very_large_rows() {
    let (server, service) = start(&Setup::new()).await;
    let cyd = with_claims(&server, "cyd", json!({"teams": [8]})).await;
    let cursor = begun(&cyd).await;
    let large = "x".repeat(700 << 10);
    for nth in 0..9_u64 {
        let cells = [("owner", "ann"), ("body", large.as_str())];
        service.push([doc("service", nth + 1, &nth.to_string(), &cells)]).await.expect("answered");
    }
    let moved = (0..9).map(|nth| doc("service", 50 + nth, &nth.to_string(), &[("team", "8")]));
    let position = service.push(moved).await.expect("answered").position;
    let pulled = cyd.pull(&cursor).await.expect("a good cursor");
    let whole: Vec<_> = told(&pulled.tables()).into_iter().map(|(_, kind, n)| (kind, n)).collect();
    assert_eq!(whole, vec![(ChangeKind::Upsert, 3); 9]);
    // Until all of it was sent, the cursor stands before the commit.
    let (last, before) = pulled.pages.split_last().expect("pages");
    assert_eq!(last.position, position);
    assert!(!before.is_empty() && before.iter().all(|page| page.position < position));
    let again = cyd.pull(&before[0].cursor).await.expect("a good cursor");
    assert_eq!(told(&again.tables()).len(), 9);
}

#[tokio::test]
async fn p10_where_there_are_rules_a_reader_begins_with_a_checkpoint() {
    let (server, _) = start(&Setup::new()).await;
    let ann = with_claims(&server, "ann", json!({})).await;
    assert_refused(ann.pull("").await, Code::OutOfRange, "CURSOR_EXPIRED");
    let cursor = begun(&ann).await;
    let narrowed =
        PullRequest { cursor, tables: vec!["docs".to_owned()], ..PullRequest::default() };
    assert_refused(ann.pull_with(narrowed).await, Code::OutOfRange, "CURSOR_EXPIRED");
}

#[tokio::test]
async fn p07_rules_come_into_force_on_rows_from_before_and_across_a_restart() {
    let setup = Setup::new();
    let server = setup.start().await;
    let mut operator = server.client("operator").await;
    operator.create_gateway(MAIN).await.expect("created");
    operator.put_schema(tables()).await.expect("installed");
    for nth in 0..50_u64 {
        let some = (0..100).map(|at| {
            let (id, team) = (format!("{nth}-{at}"), (at % 10).to_string());
            doc("operator", 1 + nth * 100 + at, &id, &[("team", team.as_str()), ("body", "old")])
        });
        operator.push(some).await.expect("answered");
    }
    put(&operator, &rules()).await.expect("legal rules");
    let cyd = with_claims(&server, "cyd", json!({"teams": [3]})).await;
    let replica = Replica::by_checkpoint(&cyd).await.expect("a checkpoint");
    assert_eq!(replica.live().len(), 500);
    server.stop().await.expect("drained");

    let server = setup.start().await;
    let cyd = with_claims(&server, "cyd", json!({"teams": [3]})).await;
    assert!(cyd.pull(&replica.cursor).await.expect("a good cursor").pages.is_empty());
    let again = Replica::by_checkpoint(&cyd).await.expect("a checkpoint");
    assert_eq!(again.live(), replica.live());
    let operator = server.client("operator").await;
    let request = lakesync::proto::admin::v1::GetSyncRulesRequest { gateway: MAIN.to_owned() };
    let kept = within(operator.admin.clone().get_sync_rules(request)).await.expect("answered");
    let kept = kept.into_inner().rules.expect("rules");
    assert_eq!(lakesync::wire::decode_rules(kept), Ok(rules()));
}

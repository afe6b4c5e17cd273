//! P-7 and P-8: scope is judged on the whole merged row; what enters arrives whole, what leaves is
//! dropped, and nobody is told of what is none of theirs.

use std::time::Duration;

use lakesync::proto::admin::v1::GetSyncRulesRequest;
use lakesync::proto::v1::{ChangeKind, PullRequest, TableChanges};
use serde_json::json;
use tonic::Code;

use crate::harness::changes::{at, delete};
use crate::harness::{Client, MAIN, Replica, Setup, assert_refused, within};
use crate::rules::docs::{
    begun, checkpoint_since, doc, rules, start, start_without_rules, told, with_claims,
};
use crate::rules::made_up::filter;
use crate::rules::world::put;

async fn pulled(client: &Client, cursor: &mut String) -> Vec<(String, ChangeKind, usize)> {
    let pulled = client.pull(cursor).await.expect("a good cursor");
    let next = pulled.cursor(cursor).to_owned();
    *cursor = next;
    told(&pulled.tables())
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
    let both = [row(ChangeKind::Upsert, 1), row(ChangeKind::Upsert, 3)].concat();
    assert_eq!(pulled(&bob, &mut b).await, both);
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
        let all = checkpoint_since(client, since).await;
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
    assert!(!before.is_empty() && before.iter().all(|page| page.continues) && !last.continues);
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
    let (server, operator) = start_without_rules(&setup).await;
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
    let request = GetSyncRulesRequest { gateway: MAIN.to_owned() };
    let kept = within(operator.admin.clone().get_sync_rules(request)).await.expect("answered");
    let kept = kept.into_inner().rules.expect("rules");
    assert_eq!(lakesync::wire::decode_rules(kept), Ok(rules()));
}

#[tokio::test]
async fn p07_who_wrote_a_row_that_is_not_sent_is_not_told() {
    let (server, service) = start(&Setup::new()).await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let cursor = begun(&ann).await;
    let secret = with_claims(&server, "secret", json!({"role": "service"})).await;
    let of_bob = [("body", "x"), ("owner", "bob")];
    secret.push([doc("secret", 1, "a", &of_bob)]).await.expect("answered");
    service.push([doc("service", 2, "b", &of_bob)]).await.expect("answered");
    // Both come to her in one commit, and one of them leaves again before she hears of it.
    let shared = |nth, id| doc("service", nth, id, &[("owner", "ann")]);
    service.push([shared(3, "a"), shared(4, "b")]).await.expect("answered");
    service.push([doc("service", 5, "a", &[("owner", "bob")])]).await.expect("answered");
    let pulled = ann.pull(&cursor).await.expect("a good cursor");
    let told = told(&pulled.tables());
    assert!(told.contains(&("b".to_owned(), ChangeKind::Upsert, 2)), "{told:?}");
    assert!(!format!("{pulled:?}").contains("secret"), "{pulled:#?}");
}

#[tokio::test]
async fn p11_a_checkpoint_within_a_scope_goes_on_where_it_was_broken_off() {
    let (server, service) = start(&Setup::new()).await;
    let ann = with_claims(&server, "ann", json!({"teams": [1, 2]})).await;
    let body = "x".repeat(100 << 10);
    for nth in 0..60_u64 {
        let team = (nth % 3).to_string();
        let owner = if nth % 5 == 0 { "ann" } else { "bob" };
        let cells = [("owner", owner), ("team", team.as_str()), ("body", body.as_str())];
        let change = doc("service", nth + 1, &format!("{nth:02}"), &cells);
        service.push([change]).await.expect("answered");
    }
    let ids = |tables: Vec<TableChanges>| {
        let mut ids: Vec<_> = told(&tables).into_iter().map(|(id, ..)| id).collect();
        ids.sort();
        ids
    };
    let all = ann.checkpoint().await.expect("a checkpoint");
    let whole = ids(all.tables());
    assert_eq!(whole.len(), 40 + 4, "two of three teams, and each fifth of the third");
    assert!(4 < all.chunks.len());
    for (nth, chunk) in all.chunks.iter().enumerate() {
        let rest = ann.checkpoint_from(&chunk.resume).await.expect("it goes on");
        let mut tables: Vec<_> =
            all.chunks[..=nth].iter().filter_map(|chunk| chunk.rows.clone()).collect();
        tables.extend(rest.tables());
        assert_eq!(ids(tables), whole, "broken off after chunk {nth}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p07_rules_on_their_way_go_on_after_a_stop_in_the_middle() {
    let setup = Setup::new();
    let (server, operator) = start_without_rules(&setup).await;
    let body = "x".repeat(2_000);
    for nth in 0..60_u64 {
        let some = (0..500).map(|at| {
            let team = (at % 10).to_string();
            let cells = [("team", team.as_str()), ("body", body.as_str())];
            doc("operator", 1 + nth * 500 + at, &format!("{nth}-{at}"), &cells)
        });
        operator.push(some).await.expect("answered");
    }
    let putting = tokio::spawn(async move { put(&operator, &rules()).await });
    tokio::time::sleep(Duration::from_millis(60)).await;
    server.stop().await.expect("drained");
    // Whether or not they came into force before the stop, nobody was left waiting.
    let _ = putting.await.expect("no panic");

    let server = setup.start().await;
    let operator = server.client("operator").await;
    // The commit is in the index whether or not the rows from before are.
    let moved =
        (0..500).map(|at| doc("operator", 90_000 + at, &format!("3-{at}"), &[("team", "3")]));
    let pushed = operator.push(moved).await.expect("answered");
    assert!(pushed.outcomes.is_empty() || pushed.outcomes.len() == 500, "all or none are hers");
    let in_force = async || {
        let request = GetSyncRulesRequest { gateway: MAIN.to_owned() };
        let rules = operator.admin.clone().get_sync_rules(request).await;
        rules.expect("answered").into_inner().rules.is_some()
    };
    within(async {
        while !in_force().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let cyd = with_claims(&server, "cyd", json!({"teams": [3]})).await;
    let rows = told(&cyd.checkpoint().await.expect("a checkpoint").tables()).len();
    assert_eq!(rows, if pushed.outcomes.is_empty() { 60 * 50 + 450 } else { 60 * 50 });
}

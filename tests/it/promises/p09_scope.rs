//! P-9: no write out of scope; and what operators are told of access.

use lakesync::delta::Delta;
use lakesync::proto::admin::v1::{
    AccessEffect, ExplainAccessRequest, PutSchemaRequest, PutSyncRulesRequest,
};
use lakesync::proto::v1::outcome::Kind;
use lakesync::proto::v1::{ColumnType, PushResponse};
use lakesync::rules::Draft;
use lakesync::value::Value;
use lakesync::wire;
use serde_json::json;
use tonic::{Code, Status};

use crate::harness::changes::{at, delete, table, write};
use crate::harness::{Client, MAIN, Server, Setup, assert_refused, within};
use crate::rules::docs::{start_without_rules, with_claims};
use crate::rules::made_up::{bucket, filter, service};
use crate::rules::world::{put, tables};

/// Documents are their owner's; open ones may be read by all.
fn rules() -> Draft {
    let mine = bucket("mine", &["docs"], vec![filter("owner", &["jwt:sub"])]);
    let mut open = bucket("open", &["docs"], vec![filter("open", &["true"])]);
    open.read_only = true;
    Draft { version: 1, buckets: vec![mine, open, service()] }
}

async fn start() -> (Server, Client) {
    let (server, operator) = start_without_rules(&Setup::new()).await;
    put(&operator, &rules()).await.expect("legal rules");
    (server, operator)
}

fn owned(client: &str, nth: u64, id: &str, owner: &str) -> Delta {
    let cells = [("owner", Value::String(owner.to_owned()))];
    write(client, at(nth), &format!("docs/{id}"), cells)
}

fn body(client: &str, nth: u64, id: &str) -> Delta {
    let cells = [("body", Value::String("x".to_owned()))];
    write(client, at(nth), &format!("docs/{id}"), cells)
}

/// The changes that were refused for their scope.
fn out_of_scope(answer: Result<PushResponse, Status>) -> Vec<u32> {
    let outcomes = answer.expect("answered").outcomes;
    assert!(outcomes.iter().all(|outcome| outcome.reason == "OUT_OF_SCOPE"), "{outcomes:?}");
    outcomes.iter().map(|outcome| outcome.row).collect()
}

#[tokio::test]
async fn p09_a_change_leaves_its_row_where_the_token_may_write_and_finds_it_there() {
    let (server, operator) = start().await;
    let service = with_claims(&server, "service", json!({"role": "service"})).await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let open = [("owner", Value::String("bob".to_owned())), ("open", Value::Bool(true))];
    let rows = [owned("service", 1, "anns", "ann"), owned("service", 2, "bobs", "bob")];
    service.push(rows).await.expect("answered");
    service.push([write("service", at(3), "docs/open", open)]).await.expect("answered");

    let state = async || {
        let stats = operator.stats().await.expect("figures");
        (stats.head, stats.rows, service.checkpoint().await.expect("rows").tables())
    };
    let before = state().await;
    for refused in [
        // Somebody else's; readable, but not writable; to nobody; away; a delete of another's.
        body("ann", 10, "bobs"),
        body("ann", 11, "open"),
        body("ann", 12, "new"),
        owned("ann", 13, "anns", "bob"),
        owned("ann", 14, "bobs", "ann"),
        delete("ann", at(15), "docs/bobs"),
    ] {
        assert_eq!(out_of_scope(ann.push([refused.clone()]).await), [0], "{refused:?}");
        let atomic = ann.push_atomic([refused]).await;
        assert_refused(atomic, Code::PermissionDenied, "OUT_OF_SCOPE");
    }
    assert_eq!(state().await, before, "a refused change left a trace");

    // One bad change never stops the others.
    let mixed = [body("ann", 20, "anns"), body("ann", 21, "bobs"), owned("ann", 22, "new", "ann")];
    let answer = ann.push(mixed).await;
    assert!(answer.as_ref().is_ok_and(|answer| answer.position != 0));
    assert_eq!(out_of_scope(answer), [1]);
    assert!(out_of_scope(ann.push([delete("ann", at(23), "docs/anns")]).await).is_empty());
}

#[tokio::test]
async fn p09_a_stranger_can_neither_forbid_an_id_nor_learn_that_it_was_used() {
    let (server, _operator) = start().await;
    let service = with_claims(&server, "service", json!({"role": "service"})).await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let bob = with_claims(&server, "bob", json!({})).await;
    service.push([owned("service", 10, "dead", "bob")]).await.expect("answered");
    service.push([delete("service", at(20), "docs/dead")]).await.expect("answered");
    service.push([owned("service", 21, "live", "bob")]).await.expect("answered");
    let before = service.checkpoint().await.expect("rows").tables();
    for nth in [15, 50] {
        // Hidden by the delete or not, it is as if there had never been such a row.
        for id in ["dead", "never"] {
            assert_eq!(out_of_scope(ann.push([body("ann", nth, id)]).await), [0], "{nth} {id}");
        }
        let said = async |id: &str| {
            let delete = delete("ann", at(1_000 + nth), &format!("docs/{id}"));
            let answer = ann.push([delete]).await.expect("answered");
            assert_eq!(out_of_scope(Ok(answer.clone())), [0], "{id}");
            (answer.position, answer.outcomes)
        };
        assert_eq!(said("dead").await, said("never").await);
        assert_eq!(said("dead").await, said("live").await);
    }
    assert_eq!(service.checkpoint().await.expect("rows").tables(), before);

    // So whoever may create them still can; and whoever could see a row deletes it again.
    let answer =
        bob.push([owned("bob", 30, "dead", "bob"), owned("bob", 31, "never", "bob")]).await;
    assert_eq!(answer.expect("answered").outcomes, []);
    // He may also make a row and delete it at once: nobody may make it of older cells after that.
    let both = [owned("bob", 32, "brief", "bob"), delete("bob", at(33), "docs/brief")];
    assert_eq!(bob.push(both).await.expect("answered").outcomes, []);
    let again = |nth| bob.push([delete("bob", at(nth), "docs/never")]);
    assert_ne!(again(40).await.expect("answered").position, 0);
    assert_ne!(again(41).await.expect("answered").position, 0, "a later delete hides more");
    let late = bob.push([owned("bob", 35, "never", "bob")]).await.expect("answered");
    assert_eq!(late.outcomes[0].kind(), Kind::Superseded, "he may know of his own delete");
}

#[tokio::test]
async fn p02_what_took_effect_is_not_refused_when_it_is_pushed_again_after_the_row_has_left() {
    let (server, operator) = start().await;
    let ann = with_claims(&server, "ann", json!({})).await;
    let pushed = || {
        let cells = [("owner", "ann"), ("body", "x")];
        let cells = cells.map(|(column, text)| (column, Value::String(text.to_owned())));
        write("ann", at(1), "docs/d", cells)
    };
    assert_ne!(ann.push([pushed()]).await.expect("answered").position, 0);
    // The rules change, and not the row: whatever she wrote is there, and none of hers any more.
    let mut nobodys = rules();
    nobodys.buckets.remove(0);
    put(&operator, &nobodys).await.expect("legal rules");
    let again = ann.push([pushed()]).await.expect("answered");
    assert_eq!((again.position, again.outcomes[0].kind()), (0, Kind::Superseded));
    assert_eq!(out_of_scope(ann.push([body("ann", 9, "d")]).await), [0]);
}

#[tokio::test]
async fn p09_a_token_that_opens_too_much_is_told_so_and_others_go_on() {
    let (server, operator) = start().await;
    let many = bucket("many", &["docs"], vec![filter("team", &["jwt:teams"])]);
    put(&operator, &Draft { version: 1, buckets: vec![many] }).await.expect("legal rules");
    let teams = |count: u32| json!({"teams": (0..count).collect::<Vec<_>>()});
    let wide = with_claims(&server, "wide", teams(1_000)).await;
    wide.checkpoint().await.expect("just within");
    let wider = with_claims(&server, "wider", teams(1_001)).await;
    assert_refused(wider.checkpoint().await, Code::ResourceExhausted, "TOO_LARGE");
    let push = wider.push([owned("wider", 1, "a", "wider")]).await;
    assert_refused(push, Code::ResourceExhausted, "TOO_LARGE");
}

#[tokio::test]
async fn wrong_rules_are_refused_with_their_place_and_change_nothing() {
    let (_server, operator) = start().await;
    for (wrong, field) in [
        (Draft::default(), "rules.buckets"),
        (
            Draft { version: 1, buckets: vec![bucket("x", &["nope"], vec![])] },
            "rules.buckets[0].tables[0]",
        ),
        (
            Draft {
                version: 1,
                buckets: vec![bucket("x", &["docs"], vec![filter("team", &["one"])])],
            },
            "rules.buckets[0].filters[0].values[0]",
        ),
    ] {
        let status = put(&operator, &wrong).await;
        let status = assert_refused(status, Code::InvalidArgument, "INVALID_REQUEST");
        let details = tonic_types::StatusExt::get_error_details(&status);
        let bad = details.bad_request().expect("the field").field_violations.clone();
        assert_eq!(bad[0].field, field);
    }
    let request = PutSyncRulesRequest { gateway: MAIN.to_owned(), ..Default::default() };
    let missing = within(operator.admin.clone().put_sync_rules(request)).await;
    assert_refused(missing, Code::InvalidArgument, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_column_that_rules_look_at_keeps_its_type() {
    let (_server, operator) = start().await;
    let mut widened = table("docs", &[("team", ColumnType::Double)]);
    widened.columns.extend(tables()[0].columns.iter().filter(|one| one.name != "team").cloned());
    let team = bucket("team", &["docs"], vec![filter("team", &["jwt:team"])]);
    put(&operator, &Draft { version: 1, buckets: vec![team] }).await.expect("legal rules");
    let evolve = async || {
        let (gateway, tables) = (MAIN.to_owned(), vec![widened.clone()]);
        let request = PutSchemaRequest { gateway, tables, dry_run: false };
        within(operator.admin.clone().put_schema(request)).await
    };
    let status = assert_refused(evolve().await, Code::InvalidArgument, "INVALID_REQUEST");
    assert!(status.message().contains("docs.team") && status.message().contains("team;"));
    put(&operator, &rules()).await.expect("legal rules");
    evolve().await.expect("nobody looks at it now");
}

#[tokio::test]
async fn operators_rehearse_rules_and_ask_why() {
    let (server, operator) = start().await;
    let service = with_claims(&server, "service", json!({"role": "service"})).await;
    let rows = (0..10).map(|nth| {
        owned("service", nth + 1, &nth.to_string(), if nth < 3 { "ann" } else { "bob" })
    });
    service.push(rows).await.expect("answered");
    let mut wider = rules();
    wider.buckets[0].filters = vec![filter("owner", &["bob"])];
    let request = PutSyncRulesRequest {
        gateway: MAIN.to_owned(),
        rules: Some(wire::encode_rules(&wider)),
        dry_run: true,
        claims_json: vec![r#"{"sub": "ann"}"#.into(), r#"{"sub": "bob"}"#.into()],
    };
    let answer = within(operator.admin.clone().put_sync_rules(request)).await.expect("answered");
    let effect =
        |rows_lost, rows_gained, rows_seen| AccessEffect { rows_lost, rows_gained, rows_seen };
    assert_eq!(answer.into_inner().effects, [effect(3, 7, 7), effect(0, 0, 7)]);

    let explain = async |claims: &str, row: &str| {
        let (table, row_id) = row.split_once('/').expect("table/id");
        let request = ExplainAccessRequest {
            gateway: MAIN.to_owned(),
            claims_json: claims.to_owned(),
            table: table.to_owned(),
            row_id: row_id.to_owned(),
        };
        within(operator.admin.clone().explain_access(request)).await.expect("answered").into_inner()
    };
    let hers = explain(r#"{"sub": "ann"}"#, "docs/0").await;
    assert_eq!((hers.readable, hers.writable), (true, true), "a rehearsal changes nothing");
    assert_eq!(hers.buckets, ["mine", "open"]);
    let his = explain(r#"{"sub": "ann"}"#, "docs/9").await;
    assert!(!his.readable && !his.writable);
    let line = r#"bucket mine: fails: the row has "bob"; owner must be jwt:sub, which is ["ann"]"#;
    assert!(his.trace.iter().any(|one| one == line), "{:#?}", his.trace);
}

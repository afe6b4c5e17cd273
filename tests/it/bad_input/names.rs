//! Names that are none, and gateways that are not there.

use lakesync::proto::admin::v1 as admin;
use lakesync::proto::v1::{CheckpointRequest, ColumnType, PullRequest, PushRequest, TableSchema};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Target, assert_told, bearer, call, methods, naming};
use crate::harness::changes::{at, table, upsert};
use crate::harness::{MAIN, grant, within};

/// Methods that look at a gateway, which they name in field 1.
fn methods_of_gateways() -> Vec<String> {
    let offered = ["GetSchema", "Push", "Pull", "Checkpoint", "DeleteGateway", "PutSchema"];
    let offered = [&offered[..], &["GetStats"]].concat();
    let named = |path: &String| offered.iter().any(|method| path.ends_with(&format!("/{method}")));
    let paths: Vec<_> = methods().into_iter().filter(named).collect();
    assert_eq!(paths.len(), offered.len(), "{paths:?}");
    paths
}

/// The fields that a refusal names.
fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone());
    violations.unwrap_or_default().into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn names_of_gateways_are_parsed_before_anything_else() {
    let target = Target::new().await;
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    let long = "a".repeat(64);
    let bad =
        ["", "Main", "1a", "-a", "a_b", "a b", "é", "../etc", "main\0", "main/x", &long, "a'--"];
    let mut paths = methods_of_gateways();
    paths.push("/lakesync.admin.v1.AdminService/CreateGateway".to_owned());
    for path in paths {
        for name in bad {
            let answer = call(&target.ann, &path, Some(&token), naming(name)).await;
            let what = format!("{name:?} at {path}");
            let status = assert_told(&what, answer, Code::InvalidArgument, "INVALID_REQUEST");
            assert_eq!(fields(&status), ["gateway"], "{what}");
        }
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_not_found_and_not_made() {
    let target = Target::new().await;
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    for path in methods_of_gateways() {
        let mut message = naming("nowhere").to_vec();
        if path.ends_with("/Push") {
            let (gateway, client_id) = ("nowhere".to_owned(), "ann".to_owned());
            let request = PushRequest { gateway, client_id, ..PushRequest::default() };
            message = prost::Message::encode_to_vec(&request);
        }
        let answer = call(&target.ann, &path, Some(&token), message).await;
        assert_told(&path, answer, Code::NotFound, "GATEWAY_NOT_FOUND");
    }
    let mut operator = target.server.client("operator").await;
    let answer = operator.create_gateway(MAIN).await;
    assert_told("twice", answer, Code::AlreadyExists, "GATEWAY_EXISTS");
    target.assert_untouched().await;
}

#[tokio::test]
async fn client_ids_cursors_and_tables_of_readers_are_parsed() {
    let target = Target::new().await;
    let ann = &target.ann;
    let long = "é".repeat(65);
    for id in ["", "a\nb", "a\0", "\u{7f}", &long] {
        let delta = upsert("ann", at(5), "todos/x", &[("title", "x")]);
        let request = PushRequest { client_id: id.to_owned(), ..ann.push_request([delta]) };
        let answer = ann.send(request).await.map(drop);
        let status = assert_told(id, answer, Code::InvalidArgument, "INVALID_REQUEST");
        assert_eq!(fields(&status), ["client_id"], "{id:?}");
    }
    for id in ["a\nb", &long] {
        let request = PullRequest { client_id: id.to_owned(), ..PullRequest::default() };
        let answer = ann.pull_with(request).await.map(drop);
        let status = assert_told(id, answer, Code::InvalidArgument, "INVALID_REQUEST");
        assert_eq!(fields(&status), ["client_id"], "{id:?}");
    }
    for name in ["", "a b", "_lakesync_outbox", "todos;--", "9"] {
        let tables = vec!["todos".to_owned(), name.to_owned()];
        let request = PullRequest { tables: tables.clone(), ..PullRequest::default() };
        let answer = ann.pull_with(request).await.map(drop);
        let status = assert_told(name, answer, Code::InvalidArgument, "INVALID_REQUEST");
        assert_eq!(fields(&status), ["tables[1]"], "{name:?}");
        let gateway = MAIN.to_owned();
        let request = CheckpointRequest { gateway, tables, ..CheckpointRequest::default() };
        let answer = within(ann.sync.clone().checkpoint(request)).await.map(drop);
        let status = assert_told(name, answer, Code::InvalidArgument, "INVALID_REQUEST");
        assert_eq!(fields(&status), ["tables[1]"], "{name:?}");
    }
    for page_token in ["x", "§", "AAAA"] {
        let page_token = page_token.to_owned();
        let request = admin::ListGatewaysRequest { page_token, ..Default::default() };
        let answer = within(ann.admin.clone().list_gateways(request)).await.map(drop);
        let status = assert_told("page token", answer, Code::InvalidArgument, "INVALID_REQUEST");
        assert_eq!(fields(&status), ["page_token"]);
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn schemas_that_are_none_or_break_something_are_refused_and_nothing_is_installed() {
    let target = Target::new().await;
    let text = ColumnType::String;
    let todos = |columns: &[(&str, ColumnType)]| {
        let all = [
            ("title", text),
            ("done", ColumnType::Bool),
            ("rank", ColumnType::Int64),
            ("extra", ColumnType::Any),
        ];
        let kept = all.iter().filter(|(name, _)| !columns.iter().any(|(other, _)| other == name));
        table("todos", &kept.chain(columns).copied().collect::<Vec<_>>())
    };
    let keyed = |key: &str| TableSchema { key: key.to_owned(), ..table("t", &[("a", text)]) };
    let primary = |column: &str| TableSchema {
        primary_key: vec![column.to_owned()],
        ..table("t", &[("a", text)])
    };
    let mut decimal = table("t", &[("a", ColumnType::Decimal)]);
    (decimal.columns[0].precision, decimal.columns[0].scale) = (39, 0);
    let mut unknown = table("t", &[("a", text)]);
    unknown.columns[0].r#type = 99;
    for (what, bad) in [
        ("no table", table("", &[])),
        ("a reserved table", table("_LakeSync_x", &[])),
        ("SQL", table("t; DROP TABLE u", &[])),
        ("a path", table("../t", &[])),
        ("no column", table("t", &[("", text)])),
        ("a reserved column", table("t", &[("_lakesync", text)])),
        ("a column twice", table("t", &[("a", text), ("A", text)])),
        ("a table twice", table("TODOS", &[])),
        ("no type", table("t", &[("a", ColumnType::Unspecified)])),
        ("an unknown type", unknown),
        ("a decimal of 39 digits", decimal),
        ("a key that is a column", keyed("A")),
        ("a key that is no name", keyed("a b")),
        ("a primary key of no column", primary("b")),
        ("a column that is gone", table("todos", &[("title", text)])),
        ("a narrower type", todos(&[("rank", ColumnType::Bool)])),
        ("another type", todos(&[("done", ColumnType::Date)])),
        ("another key", TableSchema { key: "uuid".into(), ..todos(&[]) }),
    ] {
        // Beside a good one, which must not come in either.
        let tables = vec![table("innocent", &[("a", text)]), bad];
        let answer = target.ann.clone().put_schema(tables).await;
        assert_told(what, answer, Code::InvalidArgument, "INVALID_REQUEST");
    }
    let (gateway, tables) = (MAIN.to_owned(), vec![table("tried", &[("a", text)])]);
    let dry = admin::PutSchemaRequest { gateway, tables, dry_run: true };
    within(target.ann.admin.clone().put_schema(dry)).await.expect("it would do");
    target.assert_untouched().await;
}

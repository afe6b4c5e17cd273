//! A gateway of documents under sync rules, and those who read it.

use lakesync::delta::Delta;
use lakesync::proto::admin::v1::RevokeSubjectRequest;
use lakesync::proto::v1::{ChangeKind, CheckpointRequest, TableChanges};
use lakesync::rules::Draft;
use lakesync::value::Value;
use lakesync_server::auth::Grant;
use serde_json::{Value as Json, json};
use tonic::Status;

use super::made_up::{bucket, filter, service};
use super::world::{put, tables};
use crate::harness::changes::{at, write};
use crate::harness::client::Checkpointed;
use crate::harness::{Client, MAIN, Replica, Server, Setup, grant, within};

/// Documents are their owner's, and their team's; `service` may do everything.
pub(crate) fn rules() -> Draft {
    let mine = bucket("mine", &["docs"], vec![filter("owner", &["jwt:sub"])]);
    let team = bucket("team", &["docs"], vec![filter("team", &["jwt:teams"])]);
    Draft { version: 1, buckets: vec![mine, team, service()] }
}

/// The same, and another bucket that changes nothing for those who own rows.
pub(crate) fn other_rules() -> Draft {
    let mut rules = rules();
    rules.buckets.push(bucket("open", &["docs"], vec![filter("open", &["true"])]));
    rules
}

/// A server with those rules, and the connection of one who may do everything.
pub(crate) async fn start(setup: &Setup) -> (Server, Client) {
    let (server, operator) = start_without_rules(setup).await;
    put(&operator, &rules()).await.expect("legal rules");
    let service = with_claims(&server, "service", json!({"role": "service"})).await;
    (server, service)
}

/// A server without rules yet, and an operator.
pub(crate) async fn start_without_rules(setup: &Setup) -> (Server, Client) {
    let server = setup.start().await;
    let mut operator = server.client("operator").await;
    operator.create_gateway(MAIN).await.expect("created");
    operator.put_schema(tables()).await.expect("installed");
    (server, operator)
}

/// A connection whose token has these claims.
pub(crate) async fn with_claims(server: &Server, id: &str, claims: Json) -> Client {
    let claims = claims.as_object().expect("an object").clone();
    let token = server.token(&Grant { claims, ..grant(id, "sync") });
    server.client_with(id, &token).await
}

pub(crate) fn doc(client: &str, nth: u64, id: &str, cells: &[(&'static str, &str)]) -> Delta {
    let value = |(column, text): &(&'static str, &str)| match *column {
        "team" => (*column, Value::Int64(text.parse().expect("a number"))),
        "open" => (*column, Value::Bool(*text == "true")),
        _ => (*column, Value::String((*text).to_owned())),
    };
    write(client, at(nth), &format!("docs/{id}"), cells.iter().map(value))
}

/// Row, kind and number of cells of every change.
pub(crate) fn told(tables: &[TableChanges]) -> Vec<(String, ChangeKind, usize)> {
    let rows = tables.iter().flat_map(|table| &table.rows);
    rows.map(|row| (row.row_id.clone(), row.kind(), row.cells.len())).collect()
}

pub(crate) async fn begun(client: &Client) -> String {
    Replica::by_checkpoint(client).await.expect("a checkpoint").cursor
}

/// All rows, but for those that are as they were at the cursor `since`.
pub(crate) async fn checkpoint_since(client: &Client, since: &str) -> Checkpointed {
    let (gateway, since) = (client.gateway.clone(), since.to_owned());
    let request = CheckpointRequest { gateway, since, ..CheckpointRequest::default() };
    let mut stream =
        within(client.sync.clone().checkpoint(request)).await.expect("begun").into_inner();
    let mut all = Checkpointed::default();
    while let Some(answer) = within(stream.message()).await.expect("no failure") {
        all.take(answer);
    }
    all
}

/// Refuses the tokens of `subject` that were issued before now.
pub(crate) async fn revoke(operator: &Client, subject: &str) -> Result<(), Status> {
    let (gateway, subject) = (operator.gateway.clone(), subject.to_owned());
    let request = RevokeSubjectRequest { gateway, subject };
    within(operator.admin.clone().revoke_subject(request)).await.map(drop)
}

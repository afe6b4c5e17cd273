//! P-9, as far as it needs no rules: a client id belongs to the first subject that pushed under it.

use lakesync::proto::v1::PushRequest;
use tonic::Code;

use crate::harness::changes::{at, upsert};
use crate::harness::state::State;
use crate::harness::{Setup, assert_refused, grant};

#[tokio::test]
async fn p09_a_client_id_belongs_to_its_first_subject_for_ever() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let phone = server.client("phone").await;
    phone.push([upsert("phone", at(1), "todos/a", &[("title", "x")])]).await.expect("answered");
    let before = State::of(&phone).await;
    let token = server.token(&grant("mallory", "sync admin"));
    let thief = server.client_with("phone", &token).await;
    let stolen = || upsert("phone", at(2), "todos/a", &[("title", "stolen")]);
    assert_refused(thief.push([stolen()]).await, Code::PermissionDenied, "CLIENT_ID_TAKEN");
    assert_eq!(State::of(&phone).await, before);
    server.stop().await.expect("drained");

    let server = setup.start().await;
    let thief = server.client_with("phone", &token).await;
    assert_refused(thief.push([stolen()]).await, Code::PermissionDenied, "CLIENT_ID_TAKEN");
    // One person, another token: still their phone.
    let renewed = server.token(&grant("phone", "sync"));
    let phone = server.client_with("phone", &renewed).await;
    phone.push([upsert("phone", at(3), "todos/a", &[("title", "mine")])]).await.expect("answered");
}

#[tokio::test]
async fn p09_a_refused_push_claims_no_id() {
    let server = Setup::new().start_with_tables().await;
    let token = server.token(&grant("mallory", "sync admin"));
    let squatter = server.client_with("phone", &token).await;
    let refused = squatter.push([upsert("phone", at(1), "nope/a", &[])]).await.expect("answered");
    assert_eq!(refused.position, 0);
    let atomic = [upsert("phone", at(1), "nope/a", &[])];
    squatter.push_atomic(atomic).await.expect_err("refused");
    squatter.send(PushRequest { tables: vec![], ..squatter.push_request([]) }).await.expect("none");
    let phone = server.client("phone").await;
    phone.push([upsert("phone", at(1), "todos/a", &[("title", "x")])]).await.expect("answered");
}

#[tokio::test]
async fn p09_ids_belong_to_a_gateway() {
    let server = Setup::new().start_with_tables().await;
    let mut ann = server.client("ann").await;
    ann.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await.expect("answered");
    ann.create_gateway("second").await.expect("created");
    let token = server.token(&grant("another", "sync admin"));
    let mut other = server.client_with("ann", &token).await.at("second");
    other.put_schema(crate::harness::changes::tables()).await.expect("installed");
    other.push([upsert("ann", at(1), "todos/a", &[("title", "y")])]).await.expect("answered");
}

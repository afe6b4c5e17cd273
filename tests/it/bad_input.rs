//! What is malformed, too large, unknown or not allowed gets the status of the protocol's table, and
//! leaves no trace: everything that can be seen of the gateway is the same afterwards.

mod dictionaries;
mod messages;
mod names;
mod tokens;

use bytes::Bytes;
use lakesync::proto::DESCRIPTORS;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};

use crate::harness::changes::{at, upsert};
use crate::harness::state::State;
use crate::harness::{Client, Server, Setup, raw, refusal};

/// A gateway that holds something, and how it looked before the bad input came.
struct Target {
    server: Server,
    ann: Client,
    before: State,
}

impl Target {
    async fn new() -> Self {
        Self::of(&Setup::new()).await
    }

    async fn of(setup: &Setup) -> Self {
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        let mut operator = server.client("operator").await;
        operator.create_gateway("other").await.expect("created");
        ann.push([upsert("ann", at(1), "todos/a", &[("title", "kept")])]).await.expect("answered");
        let before = State::of(&ann).await;
        Self { server, ann, before }
    }

    /// Nothing changed, and the gateway goes on.
    #[track_caller]
    fn assert_untouched(self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            // The time may have moved on, and tokens run out.
            let ann = self.server.client("ann").await;
            assert_eq!(State::of(&ann).await, self.before, "something changed by {caller}");
            let delta = upsert("ann", at(2), "todos/b", &[("title", "as ever")]);
            assert_eq!(ann.push([delta]).await.expect("answered").position, 2);
        }
    }
}

/// The token that a client shows.
fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Calls the method at `path` as `authorization` says.
async fn call(
    client: &Client,
    path: &str,
    authorization: Option<&str>,
    message: impl Into<Bytes>,
) -> Result<(), Status> {
    raw::call(&client.channel, path, authorization, message.into()).await.map(drop)
}

/// Checks what a call was refused with.
#[track_caller]
fn assert_told(what: &str, answer: Result<(), Status>, code: Code, reason: &str) -> Status {
    let Err(status) = answer else { panic!("{what}: let through") };
    assert_eq!(refusal(&status), (code, reason.to_owned()), "{what}: {status:?}");
    assert!(!status.message().is_empty(), "{what}: no word for people");
    status
}

/// The paths of all methods that we describe.
fn methods() -> Vec<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors").file;
    let mut paths = Vec::new();
    for file in &files {
        for service in &file.service {
            let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
            paths.extend(service.method.iter().map(|method| path(method.name())));
        }
    }
    assert_eq!(paths.len(), 19, "{paths:?}");
    paths
}

/// A request of any method that names a gateway: in each of them, that is field 1.
fn naming(gateway: &str) -> Bytes {
    lakesync::proto::v1::GetSchemaRequest { gateway: gateway.to_owned() }.encode_to_vec().into()
}

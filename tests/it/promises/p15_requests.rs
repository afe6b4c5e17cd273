//! P-15: requests that are never finished, or larger than their method takes, cost little, and leave
//! room for everybody else.

use std::time::Duration;

use bytes::Bytes;
use lakesync_server::auth::{METHODS, request_bounds};
use tonic::{Code, Status};

use crate::harness::changes::{at, upsert};
use crate::harness::{Setup, assert_refused, grant, raw, refusal, within};

const PUSH: &str = "/lakesync.v1.SyncService/Push";

#[tokio::test]
async fn p15_each_method_takes_only_as_much_as_it_needs() {
    let server = Setup::new().start_with_tables().await;
    let channel = server.client("ann").await.channel;
    let authorization = format!("Bearer {}", server.token(&grant("ann", "sync admin")));
    for (path, _) in METHODS {
        let whole = match path.strip_suffix('/') {
            Some(service) if service.ends_with("Health") => format!("{service}/Check"),
            Some(service) => format!("{service}/ServerReflectionInfo"),
            None => (*path).to_owned(),
        };
        let (bytes_max, is_stream) = request_bounds(&whole);
        let message = Bytes::from(vec![0; bytes_max + 1]);
        let answer = raw::call(&channel, &whole, Some(&authorization), message).await;
        if is_stream {
            // Reflection, which answers what it can't read with nothing.
            assert!(answer.expect("an end").is_empty(), "{whole}");
            continue;
        }
        assert_refused(answer, Code::ResourceExhausted, "TOO_LARGE");
    }
}

#[tokio::test]
async fn p15_unfinished_requests_of_one_subject_leave_room_for_others_and_end() {
    let setup = Setup::new()
        .tune(|config| config.requests_bytes_max = 16 << 20)
        .set("request_stall_max", "5s");
    let server = setup.start_with_tables().await;
    let (ann, greedy) = (server.client("ann").await, server.client("greedy").await);
    let authorization = format!("Bearer {}", server.token(&grant("greedy", "sync")));
    let mut halves = tokio::task::JoinSet::new();
    // Nine mebibytes, of which one subject may hold eight.
    for _ in 0..3 {
        let start = raw::part_of_a_message(3 << 20, 1);
        let call = raw::half_a_call(PUSH, &authorization, start);
        let channel = greedy.channel.clone();
        halves.spawn(async move { raw::http(&channel, call).await.expect("answered") });
    }
    let next = async |halves: &mut tokio::task::JoinSet<_>| {
        let answer: http::Response<_> =
            within(halves.join_next()).await.expect("one").expect("ran");
        Status::from_header_map(answer.headers()).expect("a status")
    };
    let refused = next(&mut halves).await;
    assert_eq!(refusal(&refused), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let wait = details.retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
    assert!(wait <= Duration::from_secs(10), "{wait:?}");
    // Others have room meanwhile.
    let change = upsert("ann", at(1), "todos/a", &[("title", &"x".repeat(1 << 20))]);
    ann.push([change]).await.expect("answered");
    // Those that bring nothing more end, and what they held is free.
    for _ in 0..2 {
        let stalled = next(&mut halves).await;
        assert_eq!(refusal(&stalled), (Code::Unavailable, "REQUEST_STALLED".to_owned()));
    }
    let change = upsert("greedy", at(2), "todos/b", &[("title", &"x".repeat(1 << 20))]);
    greedy.push([change]).await.expect("there is room again");
}

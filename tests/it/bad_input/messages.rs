//! Bytes that are no message, or no frame of one, or too many.

use bytes::Bytes;
use http::{Method, Request};
use lakesync::error::Reason;
use lakesync::proto::v1::{Cell, PushRequest, RowChange, TableChanges};
use lakesync::status::from_status;
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use super::{Target, assert_told, bearer, call, methods};
use crate::harness::{MAIN, grant, raw, within};

const PUSH: &str = "/lakesync.v1.SyncService/Push";
/// Methods whose requests have no gateway in field 1.
const OTHERS: [&str; 4] = ["/GetServerInfo", "/ListGateways", "/Compact", "/Backup"];

#[tokio::test]
async fn bytes_that_are_no_message_are_malformed() {
    let target = Target::new().await;
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    let cases: [(&str, &[u8]); 9] = [
        ("a tag and no more", &[0x0a]),
        ("a length and no more", &[0x0a, 0x05, b'm']),
        ("an endless number", &[0xff; 32]),
        ("another type of field", &[0x08, 0x01]),
        ("no UTF-8", &[0x0a, 0x02, 0xc3, 0x28]),
        ("field zero", &[0x02, 0x01, 0x00]),
        ("an end without a group", &[0x0c]),
        ("a length beyond all memory", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("text", b"GET / HTTP/1.1\r\n\r\n"),
    ];
    for path in methods() {
        if OTHERS.iter().any(|method| path.ends_with(method)) {
            continue;
        }
        for (what, bytes) in cases {
            let answer = call(&target.ann, &path, Some(&token), Bytes::from_static(bytes)).await;
            let what = format!("{what} at {path}");
            assert_told(&what, answer, Code::InvalidArgument, "INVALID_REQUEST");
        }
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn a_message_nested_without_end_is_malformed() {
    let target = Target::new().await;
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    // Groups of an unknown field, each in the one before.
    let deep = Bytes::from(vec![0x7b; 1 << 20]);
    let answer = call(&target.ann, PUSH, Some(&token), deep).await;
    assert_told("nested groups", answer, Code::InvalidArgument, "INVALID_REQUEST");
    target.assert_untouched().await;
}

#[tokio::test]
async fn a_small_message_of_many_things_is_bounded() {
    let target = Target::new().await;
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    let many = |tables: Vec<TableChanges>| {
        let (gateway, client_id) = (MAIN.to_owned(), "ann".to_owned());
        PushRequest { gateway, client_id, tables, atomic: false }.encode_to_vec()
    };
    let group = TableChanges { table: "todos".to_owned(), ..TableChanges::default() };
    let row = |cells| RowChange { row_id: "a".to_owned(), cells, ..RowChange::default() };
    let of_rows = |rows| vec![TableChanges { rows, ..group.clone() }];
    // Each of two bytes.
    for (what, tables) in [
        ("a million rows", of_rows(vec![RowChange::default(); 1_000_000])),
        ("a million cells", of_rows(vec![row(vec![Cell::default(); 1_000_000])])),
        ("a million groups", vec![TableChanges::default(); 1_000_000]),
    ] {
        let answer = call(&target.ann, PUSH, Some(&token), many(tables)).await;
        assert_told(what, answer, Code::ResourceExhausted, "TOO_LARGE");
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn a_message_too_large_is_told_so_at_every_method() {
    let target = Target::new().await;
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    let large = Bytes::from(vec![b'x'; (4 << 20) + 1]);
    for path in methods() {
        let answer = call(&target.ann, &path, Some(&token), large.clone()).await;
        assert_told(&path, answer, Code::ResourceExhausted, "TOO_LARGE");
    }
    // Who is not known is told that, and nothing of limits.
    let answer = call(&target.ann, PUSH, None, large).await;
    assert_told("without a token", answer, Code::Unauthenticated, "TOKEN_INVALID");
    target.assert_untouched().await;
}

#[tokio::test]
async fn a_message_that_unpacks_to_more_than_its_limit_is_refused() {
    let target = Target::new().await;
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let send = async |path: &str, bytes: usize| {
            let bomb = Bytes::from(vec![0; bytes]);
            let packed = raw::call_packed(&target.ann.channel, path, Some(&token), bomb, encoding);
            packed.await.map(drop)
        };
        for path in methods() {
            let answer = send(&path, (4 << 20) + 1).await;
            assert_told(&path, answer, Code::ResourceExhausted, "TOO_LARGE");
        }
        let answer = send(PUSH, 64 << 20).await;
        assert_told("64 MiB of nothing", answer, Code::ResourceExhausted, "TOO_LARGE");
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn what_is_said_to_be_compressed_and_is_not_is_refused() {
    let target = Target::new().await;
    for (encoding, body, reason) in [
        ("gzip", "\x01\0\0\0\x04nope", Reason::InvalidRequest),
        ("zstd", "\x01\0\0\0\x04nope", Reason::InvalidRequest),
        ("deflate", "\x01\0\0\0\x04nope", Reason::Unimplemented),
    ] {
        let mut request = request(&target, body);
        request.headers_mut().insert("grpc-encoding", encoding.parse().expect("a value"));
        let status = send(&target, request).await.expect("a status");
        assert_eq!(from_status(&status).reason, Some(reason), "{encoding}: {status:?}");
    }
    target.assert_untouched().await;
}

/// Sends a request as it is, and reads the status in the head of its answer.
async fn send(target: &Target, request: Request<Body>) -> Result<Status, http::StatusCode> {
    let mut channel = target.ann.channel.clone();
    let ready = within(channel.ready()).await.expect("a connection");
    let answer = within(ready.call(request)).await.expect("an answer");
    Status::from_header_map(answer.headers()).ok_or(answer.status())
}

fn request(target: &Target, body: &str) -> Request<Body> {
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    let request = Request::builder().method(Method::POST).uri(PUSH);
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    request.header("authorization", token).body(Body::new(body.to_owned())).expect("a request")
}

#[tokio::test]
async fn frames_that_are_none_are_malformed() {
    let target = Target::new().await;
    for (what, body) in [
        ("no frame", ""),
        ("half a head", "\0\0"),
        ("less than it says", "\0\0\0\0\u{9}abc"),
        ("compressed, and not said how", "\u{1}\0\0\0\u{3}abc"),
        ("an unknown flag", "\u{7}\0\0\0\u{3}abc"),
    ] {
        let status = send(&target, request(&target, body)).await;
        let status = status.unwrap_or_else(|code| panic!("{what}: HTTP {code} and no status"));
        assert_told(what, Err(status), Code::InvalidArgument, "INVALID_REQUEST");
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn other_encodings_and_other_protocols_are_not_offered() {
    let target = Target::new().await;
    for (what, header, value) in [
        ("compressed as nobody offers", "grpc-encoding", "deflate"),
        ("compressed by nobody", "grpc-encoding", "rot13"),
    ] {
        let mut request = request(&target, "\u{1}\0\0\0\u{3}abc");
        request.headers_mut().insert(header, value.parse().expect("a value"));
        let status = send(&target, request).await.expect("a status");
        assert_told(what, Err(status), Code::Unimplemented, "UNIMPLEMENTED");
    }
    let mut get = request(&target, "");
    *get.method_mut() = Method::GET;
    let mut json = request(&target, "{}");
    json.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    for (what, request) in [("GET", get), ("JSON", json)] {
        match send(&target, request).await {
            Ok(status) => assert_ne!(status.code(), Code::Ok, "{what}"),
            Err(code) => assert!(code.is_client_error(), "{what}: {code}"),
        }
    }
    target.assert_untouched().await;
}

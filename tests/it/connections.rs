//! Connections: who gets one, how long a dead one lives, and how fast all of them end when the server
//! stops.

mod slow;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use lakesync_server::auth::METHODS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::body::Body;

use crate::harness::changes::{at, upsert};
use crate::harness::{Setup, grant, raw, refusal, within};

/// What an HTTP/2 client says first: the preface, and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn connect(address: SocketAddr) -> TcpStream {
    within(TcpStream::connect(address)).await.expect("a listener")
}

/// All that comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match within(stream.read_to_end(&mut bytes)).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    bytes
}

#[tokio::test]
async fn what_is_not_grpc_is_refused_in_terms_of_http_before_anything_else() {
    let server = Setup::new().start_with_tables().await;
    let channel = server.client("ann").await.channel;
    let ask = async |method: &Method, path: &str, kind: Option<&str>| {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let request = request.body(Body::empty()).expect("a request");
        raw::http(&channel, request).await.expect("answered").status()
    };
    let services = METHODS.iter().map(|(path, _)| *path);
    let whole = services.map(|path| match path.strip_suffix('/') {
        Some(service) => format!("{service}/Any"),
        None => path.to_owned(),
    });
    for path in whole.chain(["/".to_owned(), "/nowhere".to_owned()]) {
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let status = ask(&method, &path, Some("application/grpc")).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
        for kind in [None, Some("application/json"), Some("application/grpc-web+proto")] {
            let status = ask(&Method::POST, &path, kind).await;
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?} {path}");
        }
        for kind in ["application/grpc", "application/grpc+proto"] {
            // A status of gRPC, whichever: no token was shown.
            assert_eq!(
                ask(&Method::POST, &path, Some(kind)).await,
                StatusCode::OK,
                "{kind} {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_and_one_that_greets_stays() {
    let server = Setup::new().start_with_tables().await;
    let mut silent = connect(server.address).await;
    let mut halting = connect(server.address).await;
    halting.write_all(&HELLO[..20]).await.expect("sent");
    let mut polite = connect(server.address).await;
    polite.write_all(HELLO).await.expect("sent");
    let began = Instant::now();
    rest(&mut silent).await;
    rest(&mut halting).await;
    assert!(Duration::from_secs(9) < began.elapsed(), "too early: {:?}", began.elapsed());
    // The one that greeted is answered, and its silence is nobody's trouble yet.
    let mut answer = [0; 9];
    within(polite.read_exact(&mut answer)).await.expect("SETTINGS");
    assert_eq!(answer[3], 4, "{answer:?}");
    polite.write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await.expect("a PING");
    server.client("ann").await.stats().await.expect("others are served");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told_so_and_places_come_free() {
    let setup = Setup::new().set("connections_max", "3").set("address_connections_max", "2");
    let server = setup.start_with_tables().await;
    // The clients that made the tables are gone, or soon will be.
    let mut held = Vec::new();
    within(async {
        while held.len() < 2 {
            let mut stream = connect(server.address).await;
            stream.write_all(HELLO).await.expect("sent");
            let mut answer = [0; 18];
            // One that is let in gets the server's own settings first, which are never empty.
            if stream.read_exact(&mut answer).await.is_ok() && answer[2] != 0 {
                held.push(stream);
            }
        }
    })
    .await;
    let mut refused = connect(server.address).await;
    let said = rest(&mut refused).await;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("as many connections from this address"), "{said:?}");
    drop(held);
    within(async {
        loop {
            let mut stream = connect(server.address).await;
            stream.write_all(HELLO).await.expect("sent");
            let mut answer = [0; 9];
            if stream.read_exact(&mut answer).await.is_ok() && answer[2] != 0 {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_dropped_and_one_that_does_lives() {
    let setup = Setup::new().set("ping_interval", "1s").set("ping_timeout", "1s");
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let mut mute = connect(server.address).await;
    mute.write_all(HELLO).await.expect("sent");
    let began = Instant::now();
    let said = rest(&mut mute).await;
    assert!(Duration::from_secs(2) <= began.elapsed(), "too early: {:?}", began.elapsed());
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0];
    assert!(said.windows(9).any(|frame| frame == ping), "no PING was sent: {said:?}");
    // The library answers PINGs for her.
    ann.stats().await.expect("the same connection still");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_clients_that_say_or_take_nothing() {
    let setup = Setup::new().set("drain_max", "5m");
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let silent = connect(server.address).await;
    let mut polite = connect(server.address).await;
    polite.write_all(HELLO).await.expect("sent");
    // Half a push.
    let authorization = format!("Bearer {}", server.token(&grant("half", "sync")));
    let half = server.client("half").await;
    let start = raw::part_of_a_message(1_000, 500);
    let call = raw::half_a_call("/lakesync.v1.SyncService/Push", &authorization, start);
    let call = tokio::spawn(async move { raw::http(&half.channel, call).await.map(drop) });
    // A reader that takes nothing of more than fits in all windows.
    for nth in 0..10 {
        let text = "x".repeat(1 << 20);
        let change = upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)]);
        ann.push([change]).await.expect("answered");
    }
    let stalled = server.client("stalled").await;
    let stalled_stream = stalled.follow("").await.expect("begun");
    let mut followed = ann.follow("").await.expect("begun");
    within(followed.message()).await.expect("open").expect("an answer");
    let began = Instant::now();
    let address = server.address;
    let stopping = tokio::spawn(server.stop());
    // Who takes its answers is told why its stream ends.
    let status = loop {
        match within(followed.message()).await {
            Ok(answer) => assert!(answer.is_some(), "it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal(&status).1, "SHUTTING_DOWN");
    within(stopping).await.expect("no panic").expect("stopped as asked");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
    // Until here all of them were there.
    drop((silent, polite, stalled_stream, ann));
    call.abort();
}

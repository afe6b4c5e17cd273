//! P-15 for readers: what they hold together is bounded, whoever takes bytes is not cut however slow
//! the line is, and whoever falls behind a trimmed log is told so.

use std::net::SocketAddr;
use std::time::Duration;

use lakesync::proto::v1::pull_response::Event;
use lakesync_server::auth::Grant;
use lakesync_server::store::memory::MemoryStore;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use crate::harness::changes::{at, upsert};
use crate::harness::counting::Counting;
use crate::harness::{Client, Setup, grant, refusal, within};
use crate::rules::docs::{begun, doc, start};

#[tokio::test(flavor = "multi_thread")]
async fn p15_readers_that_take_nothing_hold_a_page_each() {
    const READERS: usize = 40;
    let store = Counting::default();
    let setup = Setup::new().on(store.clone()).tune(|config| config.readers_bytes_max = 8 << 20);
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(100 << 10);
    for nth in 0..100_u64 {
        let row = format!("todos/{nth}");
        ann.push([upsert("ann", at(nth), &row, &[("title", &text)])]).await.expect("answered");
    }
    let token = server.token(&grant("slow", "sync"));
    let narrow = Client::connect_narrow(server.address, "slow", &token).await;
    let before = store.seen();
    let mut streams = Vec::new();
    for _ in 0..READERS {
        streams.push(narrow.follow("").await.expect("begun"));
    }
    // Each has had time to read what it may.
    let (mut last, mut calm) = (0, 0);
    while calm < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let read_bytes = (store.seen() - before).read_bytes;
        calm = if last == read_bytes { calm + 1 } else { 0 };
        last = read_bytes;
    }
    // 40 pages of 102 KiB are half of 8 MiB, and a row exceeds none of them by more than itself; the
    // other half is for reading ahead. The first readers came when pages were larger.
    assert!(0 < last && last < 24 << 20, "{last} bytes were read for {READERS} readers");
    // They are served as soon as they take again.
    for mut stream in streams {
        let mut rows = 0;
        while rows < 100 {
            let answer = within(stream.message()).await.expect("no failure").expect("it stays");
            let Some(Event::Page(page)) = answer.event else { continue };
            rows += page.tables.iter().map(|table| table.rows.len()).sum::<usize>();
        }
    }
}

/// A line to `server` that carries a little at a time from the server, for ever.
async fn slow_line(server: SocketAddr, bytes: usize, pause: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client");
        let server = TcpStream::connect(server).await.expect("a server");
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        let up = tokio::io::copy(&mut from_client, &mut to_server);
        let down = async {
            let mut some = vec![0; bytes];
            loop {
                let count = from_server.read(&mut some).await.expect("bytes");
                if count == 0 || to_client.write_all(&some[..count]).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! { _ = up => {}, () = down => {} }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_a_reader_on_a_slow_line_is_not_cut_while_bytes_flow() {
    const ROWS: u64 = 4;
    let setup = Setup::new().tune(|config| config.stall_max = Duration::from_secs(1));
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    // Each row takes the line longer than a reader may take nothing.
    let text = "x".repeat(1_200 << 10);
    for nth in 0..ROWS {
        let row = format!("todos/{nth}");
        ann.push([upsert("ann", at(nth), &row, &[("title", &text)])]).await.expect("answered");
    }
    let line = slow_line(server.address, 16 << 10, Duration::from_millis(20)).await;
    let token = server.token(&grant("slow", "sync"));
    let slow = Client::connect_narrow(line, "slow", &token).await;
    let pulled = slow.pull("").await.expect("all of it, however long it takes");
    let rows: usize = pulled.tables().iter().map(|table| table.rows.len()).sum();
    assert_eq!(rows as u64, ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_a_slow_reader_within_a_scope_whose_position_was_trimmed_is_told_so() {
    let setup = Setup::new().on(MemoryStore::new());
    let setup = setup.tune(|config| config.log_bytes_max = 8 << 20);
    let (server, service) = start(&setup).await;
    // It sees whole tables, so it reads the log itself.
    let grant = Grant {
        claims: json!({"role": "service"}).as_object().expect("an object").clone(),
        ..grant("reader", "sync")
    };
    let reader = Client::connect_narrow(server.address, "reader", &server.token(&grant)).await;
    let cursor = begun(&reader).await;
    let text = "x".repeat(900 << 10);
    let push = async |nth: u64| {
        let cells = [("owner", "ann"), ("body", text.as_str())];
        let id = format!("{}", nth % 3);
        service.push([doc("service", nth + 1, &id, &cells)]).await.expect("answered");
    };
    for nth in 0..6 {
        push(nth).await;
    }
    let mut stream = reader.follow(&cursor).await.expect("begun");
    let first = within(stream.message()).await.expect("no failure").expect("it stays");
    assert!(matches!(first.event, Some(Event::Page(_))), "{first:?}");
    for nth in 6..24 {
        push(nth).await;
    }
    let expired = loop {
        match within(stream.message()).await {
            Ok(answer) => assert!(answer.is_some(), "a stream that follows ends with a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal(&expired), (Code::OutOfRange, "CURSOR_EXPIRED".to_owned()), "{expired:?}");
}

#[tokio::test]
async fn p15_a_stream_that_was_cut_gives_its_page_back() {
    let setup = Setup::new().tune(|config| config.stall_max = Duration::from_millis(200));
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(1 << 20);
    for nth in 0..6 {
        let row = format!("todos/{nth}");
        ann.push([upsert("ann", at(nth), &row, &[("title", &text)])]).await.expect("answered");
    }
    let token = server.token(&grant("slow", "sync"));
    let slow = Client::connect_narrow(server.address, "slow", &token).await;
    let mut stream = slow.follow("").await.expect("begun");
    within(async {
        while 0 < ann.stats().await.expect("figures").followers {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // What it had not begun to take is not sent any more: one row is on its way, and no other.
    let mut rows = 0;
    let status = loop {
        match within(stream.message()).await {
            Ok(Some(answer)) => {
                if let Some(Event::Page(page)) = answer.event {
                    rows += page.tables.iter().map(|table| table.rows.len()).sum::<usize>();
                }
            }
            Ok(None) => panic!("it ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal(&status), (Code::Unavailable, "SLOW_CONSUMER".to_owned()), "{status:?}");
    assert_eq!(rows, 1);
}

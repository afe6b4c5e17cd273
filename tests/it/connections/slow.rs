//! A line on which a page takes long: what is alive is told by bytes, not by answers to PINGs, which
//! wait behind the page.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpSocket};

use crate::harness::changes::{at, upsert};
use crate::harness::{Client, Replica, Setup, grant, within};

/// What the line carries towards the client in a second.
const BYTES_PER_SECOND: u64 = 64 << 10;
/// What is under way on the line.
const LINE_BYTES: u32 = 256 << 10;

/// Listens, and carries one connection to `server` slowly.
async fn slow_line(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client");
        let socket = TcpSocket::new_v4().expect("a socket");
        // The system doubles it.
        socket.set_recv_buffer_size(LINE_BYTES / 2).expect("set");
        let server = socket.connect(server).await.expect("a server");
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let up = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
        let (began, mut carried) = (Instant::now(), 0);
        let mut bytes = vec![0; 4 << 10];
        // Either side may go away at any time.
        while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
            carried += read as u64;
            let due = began + Duration::from_micros(carried * 1_000_000 / BYTES_PER_SECOND);
            tokio::time::sleep_until(due.into()).await;
            if to_client.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
        up.abort();
    });
    address
}

#[tokio::test]
async fn a_reader_on_a_slow_line_is_not_cut_while_bytes_move() {
    let setup = Setup::new().set("ping_interval", "1s").set("ping_timeout", "4s");
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(1 << 20);
    ann.push([upsert("ann", at(1), "todos/a", &[("title", &text)])]).await.expect("answered");
    let line = slow_line(server.address).await;
    let slow = Client::connect(line, "slow", &server.token(&grant("slow", "sync"))).await;
    let began = Instant::now();
    let read = within(Replica::by_pull(&slow)).await.expect("the whole commit");
    assert_eq!(read.live().len(), 1);
    // An answer to a PING that was sent behind the page takes longer than `ping_timeout`.
    assert!(Duration::from_secs(10) < began.elapsed(), "no slow line: {:?}", began.elapsed());
}

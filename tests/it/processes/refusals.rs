//! What a server refuses moves a metric and leaves a line of log, which names nobody and no value.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use super::{hlc_now, set_up};
use crate::harness::changes::upsert;
use crate::harness::process::Served;
use crate::harness::{Client, assert_refused, within};

/// A page for operators.
async fn page(address: &str, path: &str) -> String {
    let mut stream = within(TcpStream::connect(address)).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    within(stream.write_all(request.as_bytes())).await.expect("sent");
    let mut text = String::new();
    within(stream.read_to_string(&mut text)).await.expect("text");
    text
}

#[tokio::test]
async fn refusals_move_a_metric_and_leave_one_line_each_kind() {
    let place = tempfile::tempdir().expect("a directory");
    let mut served = Served::start(place.path(), &["--ops-listen", "127.0.0.1:0"]).await;
    let line = served.line().await;
    let pages = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let pages = pages.expect("the address of the pages").to_owned();
    assert!(!page(&pages, "/metrics").await.contains("lakesync_refusals_total{"), "nothing yet");

    let ann = served.client("ann").await;
    set_up(&ann).await;
    let eve = Client::connect(served.address, "eve", "no.token.of-ours").await;
    for _ in 0..5 {
        assert_refused(eve.stats().await, Code::Unauthenticated, "TOKEN_INVALID");
    }
    let ahead = lakesync::hlc::Hlc::from_ms(hlc_now().ms() + 3_600_000);
    let change = |row: &str| upsert("ann", ahead, row, &[("title", "a-secret-value")]);
    let answer = ann.push([change("todos/a"), change("todos/b")]).await.expect("answered");
    assert_eq!(answer.outcomes.len(), 2);

    let metrics = page(&pages, "/metrics").await;
    for figure in [
        "lakesync_refusals_total{reason=\"TOKEN_INVALID\",of=\"call\"} 5\n",
        "lakesync_refusals_total{reason=\"CLOCK_DRIFT\",of=\"change\"} 2\n",
    ] {
        assert!(metrics.contains(figure), "{figure} is not in {metrics}");
    }
    served.signal("TERM").await;
    let ended = served.ended().await;
    for (what, reason) in
        [("calls were refused", "TOKEN_INVALID"), ("changes were refused", "CLOCK_DRIFT")]
    {
        let is_it = |line: &&str| line.contains(what) && line.contains(reason);
        assert_eq!(ended.stderr.lines().filter(is_it).count(), 1, "{what}: {}", ended.stderr);
    }
    for told in ["no.token.of-ours", "a-secret-value", "todos/a"] {
        assert!(!ended.stderr.contains(told), "{told} is in the log");
    }
}

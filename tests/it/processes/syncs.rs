//! A push is answered after the kernel was told to sync what it wrote: seen from outside, by strace.

use std::path::Path;

use super::{hlc_now, set_up};
use crate::harness::changes::upsert;
use crate::harness::process::{Served, binary, command, run};
use crate::harness::{skip, until};

/// A text that travels with a push, to find it in the trace.
const MARK: &str = "mark-of-the-push";
/// What receives, syncs and sends.
const CALLS: &str = "trace=fdatasync,fsync,recvfrom,read,write,writev,sendto,sendmsg";

/// What happened, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Received,
    SyncBegan,
    Synced,
    Sent,
}

#[tokio::test]
async fn a_push_is_answered_after_its_sync() {
    let Some(strace) = working_strace().await else { return };
    let place = tempfile::tempdir().expect("a directory");
    let (data, trace) = (place.path().join("data"), place.path().join("trace"));
    let (data_text, trace_text) = (data.to_str().expect("text"), trace.to_str().expect("text"));
    let binary = binary().to_str().expect("text");
    // With `-D` the server is our own child, and the tracer its companion.
    let own = ["-D", "-f", "-s", "4096", "-e", CALLS, "-o", trace_text, binary];
    let served = ["serve", "--data", data_text, "--listen", "127.0.0.1:0"];
    let traced = command(Path::new(strace), own.into_iter().chain(served));
    let served = Served::spawn(traced, &data).await;
    let ann = served.client("ann").await;
    set_up(&ann).await;
    let text = format!("{MARK} {}", "x".repeat(600));
    ann.push([upsert("ann", hlc_now(), "todos/a", &[("title", &text)])]).await.expect("answered");
    served.kill().await;

    let read = || String::from_utf8_lossy(&std::fs::read(&trace).expect("a trace")).into_owned();
    until(|| read().trim_end().ends_with("+++ killed by SIGKILL +++")).await;
    let events = events(&read());
    let received = events.iter().position(|event| *event == Event::Received).expect("received");
    let after = &events[received..];
    let began = after.iter().position(|event| *event == Event::SyncBegan);
    let synced = after.iter().position(|event| *event == Event::Synced);
    // The answer is the last that was sent: the client asks for nothing after it.
    let sent = after.iter().rposition(|event| *event == Event::Sent).expect("sent");
    assert!(began.is_some() && began < synced && synced < Some(sent), "{after:?}");
}

/// strace, if it is there and may trace.
async fn working_strace() -> Option<&'static str> {
    const STRACE: &str = "/usr/bin/strace";
    if !Path::new(STRACE).exists() {
        skip("strace, which ./test installs");
        return None;
    }
    let tried = run(command(Path::new(STRACE), ["-o", "/dev/null", "true"])).await;
    if !tried.status.success() {
        skip("the right to trace another process");
        return None;
    }
    Some(STRACE)
}

/// The calls of a trace that matter here. A call that others interrupt is written in two halves.
fn events(trace: &str) -> Vec<Event> {
    let mut events = Vec::new();
    for line in trace.lines() {
        let Some((_, call)) = line.trim_start().split_once(char::is_whitespace) else { continue };
        let call = call.trim_start();
        let unfinished = call.contains("<unfinished ...>");
        let is_sync = call.contains("fdatasync") || call.contains("fsync");
        if is_sync && call.contains("resumed>") {
            events.push(Event::Synced);
        } else if is_sync {
            events.push(Event::SyncBegan);
            events.extend((!unfinished).then_some(Event::Synced));
        } else if call.contains(MARK) && call.contains("recv") {
            events.push(Event::Received);
        } else if ["sendto", "writev", "sendmsg"].iter().any(|name| call.starts_with(name)) {
            events.push(Event::Sent);
        }
    }
    events
}

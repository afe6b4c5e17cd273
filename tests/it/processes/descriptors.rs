//! A process that may open few files: clients find no place, and the store never lacks one.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tonic::Code;

use super::{hlc_now, set_up};
use crate::harness::changes::upsert;
use crate::harness::process::{Served, binary, command, run};
use crate::harness::{Replica, refusal, within};

/// A server that may have this many descriptors, of which one address may take all that there are for
/// connections.
async fn serve(data: &Path, descriptors: u32) -> Served {
    let script = format!("ulimit -n {descriptors}; exec \"$@\"");
    let program = binary().to_str().expect("text");
    let data_text = data.to_str().expect("text");
    let serve = ["serve", "--data", data_text, "--listen", "127.0.0.1:0"];
    let arguments = ["-c", &script, "sh", program].into_iter().chain(serve);
    let mut command = command(Path::new("sh"), arguments);
    command.env("LAKESYNC_ADDRESS_CONNECTIONS_MAX", "10000");
    Served::spawn(command, data).await
}

/// How many descriptors a process has.
fn open_descriptors(id: u32) -> usize {
    std::fs::read_dir(format!("/proc/{id}/fd")).expect("a process").count()
}

#[tokio::test]
async fn many_connections_take_nothing_away_from_the_store() {
    const DESCRIPTORS: u32 = 256;
    let place = tempfile::tempdir().expect("a directory");
    let served = serve(place.path(), DESCRIPTORS).await;
    let ann = served.client("ann").await;
    set_up(&ann).await;
    // Well-behaved followers, and as many connections that say nothing as there are descriptors.
    let mut followers = Vec::new();
    for nth in 0..40 {
        let reader = served.client(&format!("reader{nth}")).await;
        let stream = reader.follow("").await.expect("followed");
        followers.push((reader, stream));
    }
    let mut silent = Vec::new();
    for _ in 0..DESCRIPTORS {
        silent.push(within(TcpStream::connect(served.address)).await.expect("a listener"));
    }
    // More than one file of the journal, and of the tables.
    let text = "x".repeat(1 << 20);
    for nth in 0..150 {
        let row = format!("todos/{}", nth % 10);
        ann.push([upsert("ann", hlc_now(), &row, &[("title", &text)])]).await.expect("answered");
    }
    for (_, stream) in &mut followers {
        within(stream.message()).await.expect("it still follows").expect("an answer");
    }
    let open = open_descriptors(served.id());
    assert!(open < DESCRIPTORS as usize - 20, "{open} descriptors of {DESCRIPTORS}");
    drop((followers, silent));
    served.kill().await;
    let served = serve(place.path(), DESCRIPTORS).await;
    let ann = served.client("ann").await;
    assert_eq!(Replica::by_checkpoint(&ann).await.expect("read").live().len(), 10);
    served.signal("TERM").await;
    let ended = served.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[tokio::test]
async fn the_limit_is_raised_as_far_as_the_system_allows_and_said() {
    let place = tempfile::tempdir().expect("a directory");
    let script = "ulimit -S -n 200; exec \"$@\"";
    let data = place.path().to_str().expect("text");
    let program = binary().to_str().expect("text");
    let arguments =
        ["-c", script, "sh", program, "serve", "--data", data, "--listen", "127.0.0.1:0"];
    let served = Served::spawn(command(Path::new("sh"), arguments), place.path()).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", served.id())).expect("text");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let figures: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(figures[0], figures[1], "{line}");
    served.signal("TERM").await;
    let ended = served.ended().await;
    assert!(ended.stderr.contains("raised from 200"), "{ended:?}");
}

/// Changes how many descriptors a process may have from now on.
async fn limit(id: u32, descriptors: usize) {
    let (pid, limit) = (format!("--pid={id}"), format!("--nofile={descriptors}:4096"));
    let set = run(command(Path::new("prlimit"), [&*pid, &*limit])).await;
    assert!(set.status.success(), "{set:?}");
}

#[tokio::test]
async fn a_store_that_finds_no_descriptor_waits_for_one_and_goes_on() {
    let place = tempfile::tempdir().expect("a directory");
    let served = serve(place.path(), 4_096).await;
    let ann = served.client("ann").await;
    set_up(&ann).await;
    let text = "x".repeat(1 << 20);
    let change = |nth: u64| upsert("ann", hlc_now(), &format!("todos/{nth}"), &[("title", &text)]);
    // From now on nothing can be opened; the next file of the journal is due after some 64 MiB.
    limit(served.id(), open_descriptors(served.id())).await;
    let mut acknowledged = 0;
    let halted = loop {
        let push = tokio::time::timeout(Duration::from_secs(5), ann.push([change(acknowledged)]));
        match push.await {
            Ok(Ok(_)) => acknowledged += 1,
            Ok(Err(status)) => break Some(status),
            Err(_) => break None,
        }
        assert!(acknowledged < 200, "a journal without an end");
    };
    if let Some(status) = halted {
        assert_eq!(refusal(&status), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    }
    limit(served.id(), 4_096).await;
    for nth in 0..10 {
        ann.push([change(1_000 + nth)]).await.expect("it goes on");
    }
    served.signal("TERM").await;
    let ended = served.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("waits for a file descriptor"), "{ended:?}");
    let served = serve(place.path(), 4_096).await;
    let read = Replica::by_checkpoint(&served.client("ann").await).await.expect("read");
    assert!(acknowledged as usize + 10 <= read.live().len(), "{} rows", read.live().len());
}

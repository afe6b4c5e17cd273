//! `lakesync serve`: ready, drained, and what it says when it can't.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use lakesync::proto::v1::GetServerInfoRequest;
use tempfile::TempDir;
use tokio::process::Command;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{hlc_now, set_up};
use crate::harness::changes::upsert;
use crate::harness::process::{Ended, Served, lakesync, run};
use crate::harness::{Replica, refusal, within};

fn place() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn serve<'a>(data: &'a Path, more: &[&'a str]) -> Command {
    let data = data.to_str().expect("text");
    let arguments = ["serve", "--data", data, "--listen", "127.0.0.1:0"];
    lakesync(arguments.into_iter().chain(more.iter().copied()))
}

/// All that lies below a directory: what it is, and what it holds.
fn listing(dir: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let (mut found, mut pending) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let content = path.is_file().then(|| fs::read(&path).expect("readable"));
            pending.extend(path.is_dir().then(|| path.clone()));
            found.insert(path.display().to_string(), content);
        }
    }
    found
}

/// It failed, and said so in one line that holds these words.
#[track_caller]
fn assert_failed(ended: &Ended, words: &[&str]) {
    assert!(ended.status.code().is_some_and(|code| code != 0), "{ended:?}");
    assert_eq!(ended.stdout, "", "not on standard output");
    let lines: Vec<_> =
        ended.stderr.lines().filter(|line| line.starts_with("lakesync: ")).collect();
    let [line] = lines[..] else { panic!("one line was wanted: {ended:?}") };
    for word in words {
        assert!(line.contains(word), "{word:?} is missing: {line}");
    }
}

#[tokio::test]
async fn it_says_when_it_is_ready_and_drains_at_a_signal() {
    for signal in ["TERM", "INT"] {
        let place = place();
        let served = Served::start(place.path(), &[]).await;
        let ann = served.client("ann").await;
        set_up(&ann).await;
        let mut followed = ann.follow("").await.expect("followed");
        within(followed.message()).await.expect("open").expect("an answer");
        ann.push([upsert("ann", hlc_now(), "todos/a", &[("title", "x")])]).await.expect("answered");
        served.signal(signal).await;
        let status = loop {
            match within(followed.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a word"),
                Err(status) => break status,
            }
        };
        assert_eq!(refusal(&status).1, "SHUTTING_DOWN");
        drop((ann, followed));
        let ended = served.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{signal}: {ended:?}");

        let served = Served::start(place.path(), &[]).await;
        let bob = served.client("bob").await;
        let read = Replica::by_checkpoint(&bob).await.expect("read");
        assert_eq!(read.text("todos/a", "title").as_deref(), Some("x"));
    }
}

#[tokio::test]
async fn health_says_that_it_serves() {
    let place = place();
    let served = Served::start(place.path(), &[]).await;
    let ann = served.client("ann").await;
    for service in ["", "lakesync.v1.SyncService", "lakesync.admin.v1.AdminService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = within(HealthClient::new(ann.channel.clone()).check(request)).await;
        let status = answer.expect("answered").into_inner().status();
        assert_eq!(status.as_str_name(), "SERVING", "{service:?}");
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let place = place();
    let first = Served::start(place.path(), &[]).await;
    let ann = first.client("ann").await;
    set_up(&ann).await;
    let ended = run(serve(place.path(), &[])).await;
    assert_failed(&ended, &[place.path().to_str().expect("text"), "in use"]);
    ann.push([upsert("ann", hlc_now(), "todos/a", &[("title", "x")])]).await.expect("answered");
}

#[tokio::test]
async fn a_directory_that_is_not_ours_stays_as_it_is() {
    let place = place();
    fs::write(place.path().join("thesis.tex"), "years of work").expect("written");
    fs::create_dir(place.path().join("store")).expect("made");
    fs::write(place.path().join("store/x"), "also").expect("written");
    let before = listing(place.path());
    let ended = run(serve(place.path(), &[])).await;
    assert_failed(&ended, &[place.path().to_str().expect("text"), "thesis.tex"]);
    assert_eq!(listing(place.path()), before);
}

#[tokio::test]
async fn a_directory_of_another_format_stays_as_it_is() {
    let place = place();
    Served::start(place.path(), &[]).await.kill().await;
    let format = place.path().join("format");
    for other in ["lakesync data directory, format 99\n", "something else\n", ""] {
        fs::write(&format, other).expect("written");
        let before = listing(place.path());
        let ended = run(serve(place.path(), &[])).await;
        assert_failed(&ended, &[place.path().to_str().expect("text")]);
        assert_eq!(listing(place.path()), before, "{other:?}");
    }
}

#[tokio::test]
async fn what_can_not_be_a_directory_is_said() {
    let place = place();
    let file = place.path().join("file");
    fs::write(&file, "a file").expect("written");
    let before = listing(place.path());
    let below = file.join("data");
    // The kernel's own: not even root may write there.
    for bad in [&*file, &*below, Path::new("/proc/lakesync"), Path::new("/sys/lakesync")] {
        let ended = run(serve(bad, &[])).await;
        assert_failed(&ended, &[bad.to_str().expect("text")]);
    }
    assert_eq!(listing(place.path()), before);
}

#[tokio::test]
async fn a_busy_port_is_said_and_nothing_is_made() {
    let place = place();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let free = "127.0.0.1:0";
    for (listen, ops, setting) in [(&*address, free, "listen"), (free, &*address, "ops_listen")] {
        let data = place.path().join("data");
        let data = data.to_str().expect("text");
        let arguments = ["serve", "--data", data, "--listen", listen, "--ops-listen", ops];
        let ended = run(lakesync(arguments)).await;
        let flag = format!("--{}", setting.replace('_', "-"));
        assert_failed(&ended, &[setting, &address, "stop whoever listens", &flag]);
        assert_eq!(listing(place.path()), BTreeMap::new(), "something was made");
    }
}

#[tokio::test]
async fn a_wrong_setting_is_said_with_where_it_stands_and_nothing_is_made() {
    let place = place();
    let data = place.path().join("data");
    let config = place.path().join("lakesync.toml");
    let config_text = config.to_str().expect("text");
    for (toml, words) in [
        ("lisen = \"127.0.0.1:0\"\n", &["lakesync.toml", "lisen"][..]),
        ("drain_max = \"soon\"\n", &["lakesync.toml", "drain_max", "soon"]),
        ("drain_max = 5\n", &["lakesync.toml", "drain_max"]),
        ("log_size_max = \"-1\"\n", &["lakesync.toml", "log_size_max"]),
        ("listen = [1]\n", &["lakesync.toml", "listen"]),
        ("# fine\nlisten = \n", &["lakesync.toml", "line 2"]),
    ] {
        fs::write(&config, toml).expect("written");
        let before = listing(place.path());
        let ended = run(serve(&data, &["--config", config_text])).await;
        assert_failed(&ended, words);
        assert_eq!(listing(place.path()), before, "{toml:?}");
    }
    fs::remove_file(&config).expect("removed");
    let ended = run(serve(&data, &["--config", config_text])).await;
    assert_failed(&ended, &["lakesync.toml"]);
    let ended = run(serve(&data, &["--ops-listen", "nowhere"])).await;
    assert_failed(&ended, &["--ops-listen", "nowhere"]);
    let mut in_environment = serve(&data, &[]);
    in_environment.env("LAKESYNC_STALL_MAX", "never");
    assert_failed(&run(in_environment).await, &["LAKESYNC_STALL_MAX", "never"]);
    let mut misspelt = serve(&data, &[]);
    misspelt.env("LAKESYNC_STAL_MAX", "1s");
    assert_failed(&run(misspelt).await, &["LAKESYNC_STAL_MAX"]);
    assert_eq!(listing(place.path()), BTreeMap::new(), "something was made");
}

#[tokio::test]
async fn a_directory_that_lakesync_token_began_is_ours() {
    let place = place();
    // What a process leaves that was killed while it wrote the secret.
    fs::write(place.path().join(".token-secret-417"), "half").expect("written");
    drop(Served::start(place.path(), &[]).await);
    fs::write(place.path().join("token-secret"), "short").expect("written");
    let ended = run(serve(place.path(), &[])).await;
    assert_failed(&ended, &["token-secret", "or remove the file"]);
}

#[tokio::test]
async fn a_copy_goes_nowhere_else_than_to_a_new_directory() {
    let place = place();
    let (data, copy) = (place.path().join("data"), place.path().join("copy"));
    Served::start(&data, &[]).await.kill().await;
    let [data, copy] = [&data, &copy].map(|path| path.to_str().expect("text"));
    let backup = async || run(lakesync(["backup", "--data", data, "--to", copy])).await;
    assert_eq!(backup().await.status.code(), Some(0));
    let before = listing(Path::new(copy));
    let again = backup().await;
    assert_failed(&again, &["no copy was made", copy, "choose a directory that does not exist"]);
    assert!(!again.stderr.contains("reopened"), "the store did not fail: {again:?}");
    assert_eq!(listing(Path::new(copy)), before);
    drop(Served::start(Path::new(copy), &[]).await);
}

#[tokio::test]
async fn a_server_that_has_no_time_to_drain_ends_well() {
    let place = place();
    let mut command = serve(place.path(), &[]);
    command.env("LAKESYNC_DRAIN_MAX", "0s");
    let served = Served::spawn(command, place.path()).await;
    served.signal("TERM").await;
    let ended = served.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[tokio::test]
async fn a_wrong_flag_is_a_usage_error() {
    let flag = run(lakesync(["serve", "--nope"])).await;
    let command = run(lakesync(["swerve"])).await;
    for ended in [flag, command] {
        assert_eq!((ended.status.code(), &*ended.stdout), (Some(64), ""), "{ended:?}");
        assert!(!ended.stderr.is_empty());
    }
    let help = run(lakesync(["serve", "--help"])).await;
    assert_eq!((help.status.code(), &*help.stderr), (Some(0), ""), "{help:?}");
}

#[tokio::test]
async fn settings_are_layered_file_environment_flags() {
    let place = place();
    let config = place.path().join("lakesync.toml");
    let toml = "clock_drift_max = \"1s\"\noffline_max = \"1h\"\nreflection = false\n";
    fs::write(&config, toml).expect("written");
    let data = place.path().join("data");
    let mut command = serve(&data, &["--config", config.to_str().expect("text")]);
    command.env("LAKESYNC_OFFLINE_MAX", "2h").env("LAKESYNC_LISTEN", "not looked at");
    let served = Served::spawn(command, &data).await;
    let ann = served.client("ann").await;
    let info = within(ann.sync.clone().get_server_info(GetServerInfoRequest::default())).await;
    let limits = info.expect("answered").into_inner().limits.expect("limits");
    assert_eq!(limits.max_clock_drift.expect("a limit").seconds, 1, "the file, over the default");
    assert_eq!(
        limits.max_offline.expect("a limit").seconds,
        7_200,
        "the environment, over the file"
    );
    served.signal("TERM").await;
    drop(ann);
    let ended = served.ended().await;
    let said = |line: &str| ended.stderr.lines().any(|other| other.contains(line));
    assert!(said("offline_max = \"2h\" (environment variable LAKESYNC_OFFLINE_MAX)"), "{ended:?}");
    assert!(said("listen = \"127.0.0.1:0\" (flag --listen)"), "{ended:?}");
}

#[tokio::test]
async fn logs_hold_no_values_and_no_secrets() {
    let place = place();
    let mut command = serve(place.path(), &[]);
    command.env("LAKESYNC_LOG_LEVEL", "trace").env("LAKESYNC_LOG_FORMAT", "json");
    let served = Served::spawn(command, place.path()).await;
    let ann = served.client("ann").await;
    set_up(&ann).await;
    let canary = "canary-7f3a";
    let row = format!("todos/{canary}");
    ann.push([upsert("ann", hlc_now(), &row, &[("title", canary)])]).await.expect("answered");
    ann.push([upsert("ann", hlc_now(), &row, &[("nope", canary)])]).await.expect("answered");
    ann.push_atomic([upsert("ann", hlc_now(), &row, &[("done", canary)])]).await.expect_err("bad");
    ann.pull(canary).await.expect_err("no cursor");
    Replica::by_checkpoint(&ann).await.expect("read");
    let secret = fs::read_to_string(place.path().join("token-secret")).expect("a secret");
    served.signal("TERM").await;
    drop(ann);
    let ended = served.ended().await;
    assert!(ended.stderr.lines().count() > 10, "nothing was logged");
    for line in ended.stderr.lines() {
        assert!(line.starts_with('{'), "not JSON: {line}");
        assert!(!line.contains(canary), "a value: {line}");
        assert!(!line.contains(secret.trim()), "the secret: {line}");
    }
}

//! `lakesync serve --dev`: the lines it prints work as pasted, and reflection tells what there is.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio_stream::once;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::process::{Served, command, run};
use crate::harness::{skip, within};

/// A server for development, and what it printed up to the line that ends with `last`.
async fn start_dev(last: &str) -> (TempDir, Served, String) {
    let place = tempfile::tempdir().expect("a directory");
    let mut served = Served::start(place.path(), &["--dev"]).await;
    let mut printed = String::new();
    while !printed.trim_end().ends_with(last) {
        let line = served.line().await;
        assert!(!line.is_empty(), "it ended after {printed}");
        printed += &line;
    }
    (place, served, printed)
}

/// Where a program is, if it is there: fetched beside the sources, or installed.
fn find(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fetched = [".tools/python/bin", ".tools/node_modules/.bin", ".tools/go/bin"]
        .map(|dir| root.join(dir));
    let installed = std::env::var_os("PATH").unwrap_or_default();
    let installed: Vec<_> = std::env::split_paths(&installed).collect();
    let mut all = fetched.into_iter().chain(installed).map(|dir| dir.join(name));
    all.find(|path| path.is_file())
}

/// The printed lines that begin with `program`, and what has to be exported before.
fn lines<'a>(printed: &'a str, program: &str) -> (&'a str, Vec<&'a str>) {
    let mut trimmed = printed.lines().map(str::trim);
    let export = trimmed.clone().find(|line| line.starts_with("export TOKEN=")).expect("a token");
    let with_space = format!("{program} ");
    (export, trimmed.by_ref().filter(|line| line.starts_with(&with_space)).collect())
}

/// Runs a line in a shell, as somebody would paste it.
async fn paste(export: &str, line: &str) -> String {
    // Those that follow end only when they are told to.
    let line = match line.contains("\"follow\": true") {
        true => format!("timeout 2 {line} || test $? = 124"),
        false => line.to_owned(),
    };
    let pasted = run(command(Path::new("sh"), ["-c", &format!("{export}\n{line}")])).await;
    assert!(pasted.status.success(), "{line}\n{}{}", pasted.stdout, pasted.stderr);
    pasted.stdout
}

#[tokio::test]
async fn the_printed_grpcurl_lines_work() {
    let Some(grpcurl) = find("grpcurl") else {
        return skip("grpcurl, which ./test builds with go");
    };
    let (_place, _served, printed) = start_dev("--scope \"sync admin\"").await;
    let (export, lines) = lines(&printed, "grpcurl");
    assert!(5 <= lines.len(), "{printed}");
    for line in lines {
        let line = line.replacen("grpcurl", grpcurl.to_str().expect("text"), 1);
        paste(export, &line).await;
    }
}

#[tokio::test]
async fn the_printed_buf_lines_work_and_so_do_the_others_with_buf() {
    let Some(buf) = find("buf") else { return skip("buf, which ./test fetches") };
    let buf = buf.to_str().expect("text");
    let (_place, served, printed) = start_dev("--scope \"sync admin\"").await;
    let (export, own) = lines(&printed, "buf");
    assert!(!own.is_empty(), "{printed}");
    for line in own {
        paste(export, &line.replacen("buf", buf, 1)).await;
    }
    let curl = format!("{buf} curl --protocol grpc --http2-prior-knowledge");
    let (_, others) = lines(&printed, "grpcurl");
    assert!(5 <= others.len(), "{printed}");
    let mut answers = String::new();
    for line in others {
        let line = line.replacen("grpcurl -plaintext", &curl, 1);
        let address = served.address;
        let line = match line.strip_suffix(" list") {
            Some(line) => {
                line.replace(&address.to_string(), &format!("--list-methods http://{address}"))
            }
            None => line.replace(&format!("{address} "), &format!("http://{address}/")),
        };
        answers += &paste(export, &line).await;
    }
    assert!(answers.contains("lakesync.v1.SyncService/Push"), "{answers}");
    assert!(answers.contains("milk"), "the pull does not show what was pushed: {answers}");
}

/// Reflection has two versions with the same messages: a client of each asks what there is.
macro_rules! services_by {
    ($version:ident, $served:expr) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let channel = $served.client("anybody").await.channel;
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = $version::ServerReflectionRequest { message_request, ..Default::default() };
        let mut client = ServerReflectionClient::new(channel);
        let answer = within(client.server_reflection_info(once(request))).await.expect("answered");
        let answer = within(answer.into_inner().message()).await.expect("open").expect("one");
        match answer.message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_knows_the_details_of_refusals() {
    use v1::server_reflection_client::ServerReflectionClient;
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let (_place, served, _) = start_dev("--scope \"sync admin\"").await;
    let channel = served.client("anybody").await.channel;
    for name in ["google.rpc.ErrorInfo", "google.rpc.RetryInfo", "google.rpc.BadRequest"] {
        let message_request = Some(MessageRequest::FileContainingSymbol(name.to_owned()));
        let request = v1::ServerReflectionRequest { message_request, ..Default::default() };
        let mut client = ServerReflectionClient::new(channel.clone());
        let answer = within(client.server_reflection_info(once(request))).await.expect("answered");
        let answer = within(answer.into_inner().message()).await.expect("open").expect("one");
        match answer.message_response {
            Some(MessageResponse::FileDescriptorResponse(_)) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn reflection_speaks_both_versions() {
    let (_place, served, _) = start_dev("--scope \"sync admin\"").await;
    for services in [services_by!(v1, served), services_by!(v1alpha, served)] {
        for wanted in
            ["lakesync.v1.SyncService", "lakesync.admin.v1.AdminService", "grpc.health.v1.Health"]
        {
            assert!(services.iter().any(|service| service == wanted), "{wanted}: {services:?}");
        }
    }
}

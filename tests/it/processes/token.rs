//! `lakesync token`: a token and nothing else, which works.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tonic::Code;

use super::{hlc_now, set_up};
use crate::harness::changes::upsert;
use crate::harness::process::{Served, lakesync, run};
use crate::harness::{Client, assert_refused};

#[tokio::test]
async fn it_prints_a_token_that_works_and_nothing_else() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().to_str().expect("text");
    // Before the first start as well: the server then takes the secret that it finds.
    let ended = run(lakesync(["token", "--data", data, "--sub", "ann"])).await;
    // The directory may be misspelt, so what was made is said; elsewhere than the token.
    let made = format!("made {data}/token-secret\n");
    assert_eq!((ended.status.code(), &ended.stderr), (Some(0), &made), "{ended:?}");
    let token = ended.stdout.strip_suffix('\n').expect("one line");
    assert!(!token.contains(char::is_whitespace), "{token:?}");

    let served = Served::start(place.path(), &[]).await;
    set_up(&served.client("operator").await).await;
    let ann = Client::connect(served.address, "ann", token).await;
    ann.push([upsert("ann", hlc_now(), "todos/a", &[("title", "x")])]).await.expect("answered");
    assert_refused(ann.stats().await, Code::PermissionDenied, "SCOPE_MISSING");

    // While it runs: a process of its own signs with the same secret.
    let arguments = ["token", "--data", data, "--sub", "o", "--scope", "admin", "--ttl", "30s"];
    let ended = run(lakesync(arguments)).await;
    assert_eq!(ended.stderr, "", "nothing was made");
    let operator = Client::connect(served.address, "o", ended.stdout.trim()).await;
    operator.stats().await.expect("figures");
    assert_refused(operator.pull("").await, Code::PermissionDenied, "SCOPE_MISSING");

    let arguments = ["token", "--data", data, "--sub", "e", "--gateway", "other"];
    let ended = run(lakesync(arguments)).await;
    let eve = Client::connect(served.address, "e", ended.stdout.trim()).await;
    assert_refused(eve.pull("").await, Code::PermissionDenied, "OUT_OF_SCOPE");
}

#[tokio::test]
async fn claims_are_json_where_they_parse() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().to_str().expect("text");
    let claims = ["--claim", "org=7", "--claim", "teams=[\"a\",\"b\"]", "--claim", "name=ann"];
    let own = ["token", "--data", data, "--sub", "ann", "--gateway", "main", "--ttl", "2h"];
    let ended = run(lakesync(own.into_iter().chain(claims))).await;
    let payload = ended.stdout.trim().split('.').nth(1).expect("three parts").to_owned();
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let payload: Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!(payload["org"], json!(7));
    assert_eq!(payload["teams"], json!(["a", "b"]));
    assert_eq!(payload["name"], json!("ann"));
    assert_eq!(payload["gateways"], json!(["main"]));
    let lasts = payload["exp"].as_u64().zip(payload["iat"].as_u64());
    assert_eq!(lasts.map(|(exp, iat)| exp - iat), Some(7_200));
}

#[tokio::test]
async fn what_it_can_not_sign_is_said_on_standard_error_only() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("new");
    let data = data.to_str().expect("text");
    let file = place.path().join("file");
    fs::write(&file, "x").expect("written");
    for arguments in [
        &["token", "--data", data][..],
        &["token", "--sub", "ann"],
        &["token", "--data", data, "--sub", ""],
        &["token", "--data", data, "--sub", " "],
        &["token", "--data", "", "--sub", "ann"],
        &["token", "--data", data, "--sub", "ann", "--scope", ""],
        &["token", "--data", data, "--sub", "ann", "--scope", "sync root"],
        &["token", "--data", data, "--sub", "ann", "--ttl", "0s"],
        &["token", "--data", data, "--sub", "ann", "--ttl", "999ms"],
        &["token", "--data", data, "--sub", "ann", "--gateway", ""],
        &["token", "--data", data, "--sub", "ann", "--claim", "=x"],
        &["token", "--data", data, "--sub", "ann", "--claim", "a=1", "--claim", "a=2"],
        &["token", "--data", data, "--sub", "ann", "--scope", "root"],
        &["token", "--data", data, "--sub", "ann", "--ttl", "soon"],
        &["token", "--data", data, "--sub", "ann", "--gateway", "../x"],
        &["token", "--data", data, "--sub", "ann", "--claim", "x"],
        &["token", "--data", data, "--sub", "ann", "--claim", "exp=1"],
        &["token", "--data", file.to_str().expect("text"), "--sub", "ann"],
    ] {
        let ended = run(lakesync(arguments.iter().copied())).await;
        let is_unusable = arguments.contains(&file.to_str().expect("text"));
        let code = if is_unusable { 74 } else { 64 };
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(fs::read_dir(place.path()).expect("readable").count(), 1, "something was made");
}

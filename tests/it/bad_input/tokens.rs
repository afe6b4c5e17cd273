//! Who calls without a right: no method but the public one answers anything else than that.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lakesync::proto::admin::v1::ListGatewaysRequest;
use tonic::{Code, Status};

use super::{Target, assert_told, bearer, call, methods, naming};
use crate::harness::{MAIN, Setup, grant, grant_for, refusal, within};

const PUBLIC: &str = "/lakesync.v1.SyncService/GetServerInfo";
const PUSH: &str = "/lakesync.v1.SyncService/Push";
const LIST: &str = "/lakesync.admin.v1.AdminService/ListGateways";

#[tokio::test]
async fn bad_tokens_open_nothing() {
    let target = Target::new().await;
    let good = target.server.token(&grant("ann", "sync admin"));
    let stranger = Setup::new().start().await.token(&grant("ann", "sync admin"));
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("three parts: {good}") };
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let unsigned = encoded(r#"{"alg":"none","typ":"JWT"}"#);
    let rsa = encoded(r#"{"alg":"RS256","typ":"JWT"}"#);
    let hs512 = encoded(r#"{"alg":"HS512","typ":"JWT"}"#);
    let root = encoded(r#"{"sub":"root","scope":"sync admin","gateways":["*"],"exp":9999999999}"#);
    let cases: Vec<(&str, Option<String>)> = vec![
        ("no token", None),
        ("an empty header", Some(String::new())),
        ("another scheme", Some("Basic YW5uOmFubg==".to_owned())),
        ("no scheme", Some(good.clone())),
        ("a scheme and nothing", Some("Bearer ".to_owned())),
        ("no token at all", Some(bearer("x"))),
        ("dots", Some(bearer("..."))),
        ("another server's secret", Some(bearer(&stranger))),
        ("no signature", Some(bearer(&format!("{header}.{claims}.")))),
        ("no algorithm", Some(bearer(&format!("{unsigned}.{claims}.")))),
        ("no algorithm, signed", Some(bearer(&format!("{unsigned}.{claims}.{signature}")))),
        ("another algorithm", Some(bearer(&format!("{rsa}.{claims}.{signature}")))),
        ("a relative of ours", Some(bearer(&format!("{hs512}.{claims}.{signature}")))),
        ("other claims", Some(bearer(&format!("{header}.{root}.{signature}")))),
        ("two tokens", Some(bearer(&format!("{good}, {good}")))),
        ("too long", Some(bearer(&"x".repeat(9 << 10)))),
    ];
    for (what, authorization) in &cases {
        for path in methods() {
            let answer = call(&target.ann, &path, authorization.as_deref(), naming(MAIN)).await;
            if path == PUBLIC {
                answer.unwrap_or_else(|status| panic!("{what}: {status:?}"));
                continue;
            }
            let status = assert_told(what, answer, Code::Unauthenticated, "TOKEN_INVALID");
            assert!(!status.message().contains(signature), "{what}: it repeats the token");
        }
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn a_token_that_ran_out_says_so() {
    let setup = Setup::new();
    let target = Target::of(&setup).await;
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    setup.clock.advance(60 * 60 * 1_000);
    call(&target.ann, LIST, Some(&token), naming("")).await.expect("clocks differ by 30 s");
    setup.clock.advance(31_000);
    for path in methods().into_iter().filter(|path| path != PUBLIC) {
        let answer = call(&target.ann, &path, Some(&token), naming(MAIN)).await;
        assert_told(&path, answer, Code::Unauthenticated, "TOKEN_EXPIRED");
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn a_token_opens_what_its_scope_says() {
    let target = Target::new().await;
    let reading = ["/GetSchema", "/Pull", "/Checkpoint"];
    for (scope, reads, writes, manages) in [
        ("", false, false, false),
        ("sync:write SYNC admin:all", false, false, false),
        ("sync:read", true, false, false),
        ("sync", true, true, false),
        ("admin", false, false, true),
    ] {
        let token = bearer(&target.server.token(&grant("eve", scope)));
        for path in methods().into_iter().filter(|path| path != PUBLIC) {
            let opens = match path.as_str() {
                path if path.starts_with("/lakesync.admin.") => manages,
                PUSH => writes,
                path => reads && reading.iter().any(|method| path.ends_with(method)),
            };
            // A name that no gateway has: whoever is let in is told so, and does no harm.
            let answer = call(&target.ann, &path, Some(&token), naming("No-Name")).await;
            let told = answer.as_ref().err().map(refusal);
            let denied = Some((Code::PermissionDenied, "SCOPE_MISSING".to_owned()));
            assert_eq!(told == denied, !opens, "{scope:?} at {path}: {answer:?}");
        }
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn a_token_opens_its_gateways_only_and_does_not_tell_which_others_there_are() {
    let target = Target::new().await;
    let token = target.server.token(&grant_for("eve", "sync admin", "other"));
    let told = |status: Status| (refusal(&status), status.message().replace(MAIN, "X"));
    for path in methods() {
        if path == PUBLIC || path == LIST || path.ends_with("/Compact") {
            continue;
        }
        if ["Rules", "ExplainAccess", "Flush"].iter().any(|end| path.ends_with(end)) {
            continue; // Not offered yet, to anybody.
        }
        if path.ends_with("/Backup") {
            continue; // Of all gateways, and not of one.
        }
        let there = call(&target.ann, &path, Some(&bearer(&token)), naming(MAIN)).await;
        let nowhere = call(&target.ann, &path, Some(&bearer(&token)), naming("nowhere")).await;
        let nowhere = nowhere.expect_err("refused");
        assert_eq!(
            refusal(&nowhere),
            (Code::PermissionDenied, "OUT_OF_SCOPE".to_owned()),
            "{path}"
        );
        let nowhere = (refusal(&nowhere), nowhere.message().replace("nowhere", "X"));
        assert_eq!(told(there.expect_err("refused")), nowhere, "{path} tells that it exists");
    }
    let eve = target.server.client_with("eve", &token).await;
    let listed = within(eve.admin.clone().list_gateways(ListGatewaysRequest::default())).await;
    let listed = listed.expect("listed").into_inner().gateways;
    let names: Vec<_> = listed.iter().map(|gateway| gateway.name.as_str()).collect();
    assert_eq!(names, ["other"]);
    target.assert_untouched().await;
}

#[tokio::test]
async fn what_this_version_does_not_offer_is_said() {
    let target = Target::new().await;
    let token = bearer(&target.server.token(&grant("ann", "sync admin")));
    let admin = "/lakesync.admin.v1.AdminService";
    let sync = "/lakesync.v1.SyncService";
    for path in [
        format!("{admin}/Compact"),
        format!("{sync}/Nope"),
        format!("{sync}/push"),
        format!("{sync}/Push/x"),
        "/lakesync.v2.SyncService/Push".to_owned(),
        "/x".to_owned(),
        "/".to_owned(),
    ] {
        let answer = call(&target.ann, &path, Some(&token), naming(MAIN)).await;
        assert_told(&path, answer, Code::Unimplemented, "UNIMPLEMENTED");
    }
    target.assert_untouched().await;
}

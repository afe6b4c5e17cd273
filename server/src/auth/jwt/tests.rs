//! Tokens as a table of what is refused, and why.

use lakesync::clock::ManualClock;

use super::*;
use crate::auth::Access;

const NOW_MS: u64 = 1_700_000_000_000;

fn authenticator(policy: &Policy) -> (Authenticator, Secret, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = Secret::load_or_create(dir.path()).expect("a secret");
    let clock = Arc::new(ManualClock::at(NOW_MS));
    (Authenticator::new(&secret, policy, clock), secret, dir)
}

fn grant() -> Grant {
    Grant {
        subject: "ann".into(),
        scope: "sync admin".into(),
        gateways: vec!["main".parse().expect("legal")],
        claims: Map::new(),
        ttl: Duration::from_secs(60),
    }
}

fn check(authenticator: &Authenticator, token: &str) -> Result<Principal, AuthError> {
    authenticator.authenticate(Some(format!("Bearer {token}").as_bytes()))
}

#[test]
fn a_granted_token_names_its_subject_rights_and_gateways() {
    let (authenticator, secret, _dir) = authenticator(&Policy::default());
    let grant = Grant {
        claims: serde_json::from_str(r#"{"org": 7, "sub": "mallory"}"#).expect("an object"),
        ..grant()
    };
    let principal =
        check(&authenticator, &grant.sign(&secret, NOW_MS).expect("signed")).expect("good");
    assert_eq!(principal.subject(), "ann");
    assert_eq!(principal.claims()["org"], json!(7));
    assert!(principal.allow(Access::Write, "x").is_ok());
    assert!(principal.allow(Access::Admin, "x").is_ok());
    assert!(principal.opens(&"main".parse().expect("legal")));
    assert!(!principal.opens(&"other".parse().expect("legal")));
}

#[test]
fn rights_open_what_they_say_and_no_more() {
    let (authenticator, secret, _dir) = authenticator(&Policy::default());
    for (scope, read, write, admin) in [
        ("sync", true, true, false),
        ("sync:read", true, false, false),
        ("admin", false, false, true),
        ("", false, false, false),
        ("sync:write syncadmin", false, false, false),
    ] {
        let token = Grant { scope: scope.into(), ..grant() }.sign(&secret, NOW_MS).expect("signed");
        let principal = check(&authenticator, &token).expect("good");
        for (access, opens) in
            [(Access::Read, read), (Access::Write, write), (Access::Admin, admin)]
        {
            assert_eq!(principal.allow(access, "x").is_ok(), opens, "{scope:?} for {access:?}");
        }
    }
}

#[test]
fn time_is_judged_by_the_servers_clock() {
    let (authenticator, secret, _dir) = authenticator(&Policy::default());
    let sign = |now_ms| grant().sign(&secret, now_ms).expect("signed");
    assert!(check(&authenticator, &sign(NOW_MS - 89_000)).is_ok(), "within the leeway");
    assert_eq!(check(&authenticator, &sign(NOW_MS - 90_000)).err(), Some(AuthError::Expired));
    let claims =
        serde_json::from_str(&format!(r#"{{"nbf": {}}}"#, NOW_MS / 1_000 + 31)).expect("an object");
    let early = Grant { claims, ..grant() }.sign(&secret, NOW_MS).expect("signed");
    assert!(check(&authenticator, &early).is_err());
}

/// A token with this header and these claims, signed by the right secret.
fn signed(secret: &Secret, header: &str, claims: &Value) -> String {
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encoded(header), encoded(&claims.to_string()));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.expect("signed"))
}

#[test]
fn a_header_with_crit_is_refused_in_any_form() {
    let (authenticator, secret, _dir) = authenticator(&Policy::default());
    let claims = json!({"sub": "ann", "exp": NOW_MS / 1_000 + 60});
    let good = signed(&secret, r#"{"alg":"HS256","typ":"JWT"}"#, &claims);
    check(&authenticator, &good).expect("no crit");
    for crit in [
        r#""crit":["exp"]"#,
        r#""crit":["b64"],"b64":true"#,
        r#""crit":["https://example.com/x"],"https://example.com/x":1"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""crit":"exp""#,
        r#""crit":{}"#,
        r#""crit":[1]"#,
        r#""\u0063rit":["x"]"#,
    ] {
        let token = signed(&secret, &format!(r#"{{"alg":"HS256",{crit}}}"#), &claims);
        let refused = check(&authenticator, &token);
        assert!(matches!(refused, Err(AuthError::Invalid(_))), "{crit}: {refused:?}");
    }
}

#[test]
fn who_a_token_speaks_for_is_a_text_that_is_not_empty() {
    let (authenticator, secret, _dir) = authenticator(&Policy::default());
    for sub in [json!(""), json!(null), json!(7), json!(["ann"])] {
        let claims = json!({"sub": sub, "exp": NOW_MS / 1_000 + 60});
        let token = signed(&secret, r#"{"alg":"HS256"}"#, &claims);
        let refused = check(&authenticator, &token);
        assert!(matches!(refused, Err(AuthError::Invalid(_))), "{sub}: {refused:?}");
    }
}

#[test]
fn a_token_from_the_future_is_refused() {
    let (authenticator, secret, _dir) = authenticator(&Policy::default());
    for (ahead_s, good) in [(-60, true), (0, true), (30, true), (31, false), (86_400, false)] {
        let issued = (NOW_MS / 1_000).saturating_add_signed(ahead_s);
        let claims = json!({"sub": "ann", "iat": issued, "exp": NOW_MS / 1_000 + 90_000});
        let token = signed(&secret, r#"{"alg":"HS256"}"#, &claims);
        assert_eq!(check(&authenticator, &token).is_ok(), good, "{ahead_s} s ahead");
    }
}

#[test]
fn streams_end_when_calls_are_refused() {
    let (authenticator, secret, _dir) = authenticator(&Policy::default());
    let token = grant().sign(&secret, NOW_MS).expect("signed");
    let until_ms = check(&authenticator, &token).expect("good").refused_from_ms();
    assert_eq!(until_ms, NOW_MS + 90_000, "a minute, and the leeway");
    for (now_ms, good) in [(until_ms - 1, true), (until_ms, false)] {
        let clock = Arc::new(ManualClock::at(now_ms));
        let authenticator = Authenticator::new(&secret, &Policy::default(), clock);
        assert_eq!(check(&authenticator, &token).is_ok(), good, "{now_ms}");
    }
}

#[test]
fn an_error_names_no_type_of_a_library() {
    let (authenticator, secret, _dir) = authenticator(&Policy::default());
    let good = grant().sign(&secret, NOW_MS).expect("signed");
    let other_dir = tempfile::tempdir().expect("a directory");
    let other = Secret::load_or_create(other_dir.path()).expect("a secret");
    let stolen = grant().sign(&other, NOW_MS).expect("signed");
    for (token, says) in [
        (&good[..good.len() - 2], "it is not a JSON Web Token"),
        ("x", "it is not a JSON Web Token"),
        ("a.b.c", "it is not a JSON Web Token"),
        (&stolen, "its signature is not this server's"),
    ] {
        let error = check(&authenticator, token).expect_err("refused").to_string();
        assert_eq!(error, format!("the token is not valid: {says}"));
    }
}

#[test]
fn forged_and_malformed_tokens_are_refused() {
    let (authenticator, secret, _dir) = authenticator(&Policy::default());
    let good = grant().sign(&secret, NOW_MS).expect("signed");
    let body = good.split('.').nth(1).expect("three parts");
    let none = format!("eyJhbGciOiJub25lIn0.{body}.");
    let other_dir = tempfile::tempdir().expect("a directory");
    let other = Secret::load_or_create(other_dir.path()).expect("a secret");
    let stolen = grant().sign(&other, NOW_MS).expect("signed");
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    let hs384 = jsonwebtoken::encode(
        &Header::new(Algorithm::HS384),
        &json!({"sub": "ann", "exp": NOW_MS / 1_000 + 60}),
        &EncodingKey::from_secret(secret.as_bytes()),
    );
    for bad in
        ["", "x", "a.b.c", &none, &stolen, &good[..good.len() - 2], &long, &hs384.expect("signed")]
    {
        let refused = check(&authenticator, bad);
        assert!(matches!(refused, Err(AuthError::Invalid(_))), "{bad:.20}: {refused:?}");
    }
    assert_eq!(authenticator.authenticate(None).err(), Some(AuthError::Missing));
    assert_eq!(authenticator.authenticate(Some(b"Basic eDp5")).err(), Some(AuthError::Missing));
}

#[test]
fn claims_that_are_required_must_be_there() {
    let policy = Policy { audience: Some("lakesync".into()), issuer: Some("us".into()) };
    let (authenticator, secret, _dir) = authenticator(&policy);
    for (claims, good) in [
        (r#"{"aud": "lakesync", "iss": "us"}"#, true),
        (r#"{"aud": ["x", "lakesync"], "iss": "us"}"#, true),
        (r#"{"aud": "lakesync"}"#, false),
        (r#"{"iss": "us"}"#, false),
        (r#"{"aud": "x", "iss": "us"}"#, false),
    ] {
        let claims_map = serde_json::from_str(claims).expect("an object");
        let token = Grant { claims: claims_map, ..grant() }.sign(&secret, NOW_MS).expect("signed");
        assert_eq!(check(&authenticator, &token).is_ok(), good, "{claims}");
    }
}

//! JSON Web Tokens: checking them, and signing them for development.
//!
//! The algorithm is pinned to the key and never taken from a token's header. A header with `crit` is
//! refused: it says that the token must not be taken by who does not know the extensions it names.
//! `sub` and `exp` are required; `aud` and `iss` are when configured; `nbf` is honoured; `iat` must not
//! lie in the future. Time is the server's clock.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use lakesync::clock::WallClock;
use lakesync::name::Gateway;
use serde_json::{Map, Value, json};

use super::{AuthError, Gateways, Principal, Right, Secret};

/// The greatest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// How far clocks of issuers may differ from ours.
const LEEWAY_MS: u64 = 30_000;

/// What a token must say beyond the protocol's own claims.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The required `aud`, if any.
    pub audience: Option<String>,
    /// The required `iss`, if any.
    pub issuer: Option<String>,
}

/// Checks tokens.
pub struct Authenticator {
    key: DecodingKey,
    validation: Validation,
    clock: Arc<dyn WallClock>,
}

/// What a development token grants.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who.
    pub subject: String,
    /// The rights, as in the `scope` claim.
    pub scope: String,
    /// The gateways; empty is all.
    pub gateways: Vec<Gateway>,
    /// Further claims. They can't replace the ones above.
    pub claims: Map<String, Value>,
    /// For how long.
    pub ttl: Duration,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Checks tokens that `secret` signed.
    pub fn new(secret: &Secret, policy: &Policy, clock: Arc<dyn WallClock>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        let mut required = vec!["exp", "sub"];
        // The library reads the machine's clock; we compare with our own, below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = policy.audience.is_some();
        if let Some(audience) = &policy.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &policy.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Self { key: DecodingKey::from_secret(secret.as_bytes()), validation, clock }
    }

    /// The caller behind the value of an `authorization` header.
    pub fn authenticate(&self, header: Option<&[u8]>) -> Result<Principal, AuthError> {
        const SCHEME: &str = "bearer ";
        let invalid = |what: &str| AuthError::Invalid(what.to_owned());
        let header = str::from_utf8(header.ok_or(AuthError::Missing)?);
        let header = header.map_err(|_| invalid("it is not text"))?;
        let scheme = header.get(..SCHEME.len()).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(AuthError::Missing);
        }
        let token = header[SCHEME.len()..].trim();
        if TOKEN_BYTES_MAX < token.len() {
            return Err(too_long());
        }
        let decoded =
            jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|error| invalid(unverified(&error)))?.claims;
        if has_extensions(token) {
            return Err(invalid("its header has crit, and no extension is known here"));
        }
        self.principal(claims)
    }

    fn principal(&self, claims: Map<String, Value>) -> Result<Principal, AuthError> {
        let invalid = |what: &str| AuthError::Invalid(what.to_owned());
        let now_ms = self.clock.now_ms();
        let expires_ms = millis(&claims, "exp")?.ok_or_else(|| invalid("exp is missing"))?;
        // The one place of this sum: calls are refused from then on, and streams end then.
        let refused_from_ms = expires_ms.saturating_add(LEEWAY_MS);
        if refused_from_ms <= now_ms {
            return Err(AuthError::Expired);
        }
        let is_future = |time_ms: &u64| now_ms.saturating_add(LEEWAY_MS) < *time_ms;
        if millis(&claims, "nbf")?.filter(is_future).is_some() {
            return Err(invalid("it is not valid yet"));
        }
        let issued_ms = millis(&claims, "iat")?;
        if issued_ms.filter(is_future).is_some() {
            // RevokeSubject refuses tokens that were issued before it: this one would outlive it.
            return Err(invalid("iat lies in the future"));
        }
        let subject = match claims.get("sub") {
            Some(Value::String(subject)) if !subject.is_empty() => subject.clone(),
            _ => return Err(invalid("sub must be a text that is not empty")),
        };
        Ok(Principal {
            subject,
            rights: rights(&claims),
            gateways: gateways(&claims)?,
            refused_from_ms,
            issued_ms,
            claims: Arc::new(claims),
        })
    }
}

impl Grant {
    /// The token, signed by `secret` and counting from `now_ms`.
    pub fn sign(&self, secret: &Secret, now_ms: u64) -> Result<String, AuthError> {
        let now_s = now_ms / 1_000;
        let mut claims = self.claims.clone();
        claims.insert("sub".into(), json!(self.subject));
        claims.insert("scope".into(), json!(self.scope));
        claims.insert("iat".into(), json!(now_s));
        claims.insert("exp".into(), json!(now_s.saturating_add(self.ttl.as_secs())));
        let gateways = match self.gateways.as_slice() {
            [] => vec!["*"],
            named => named.iter().map(Gateway::as_str).collect(),
        };
        claims.insert("gateways".into(), json!(gateways));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key);
        let token = token.map_err(|error| AuthError::Invalid(unverified(&error).to_owned()))?;
        match token.len() {
            0..=TOKEN_BYTES_MAX => Ok(token),
            _ => Err(too_long()),
        }
    }
}

fn too_long() -> AuthError {
    AuthError::Invalid(format!("it is longer than {TOKEN_BYTES_MAX} bytes"))
}

/// Whether a token's header has `crit` (RFC 7515, 4.1.11), in whatever form. No extension is known
/// here, so that none can be understood and processed.
fn has_extensions(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    let header = serde_json::from_slice::<Map<String, Value>>(&header);
    // What was verified a moment ago is readable. If it were not, nothing could be said of it.
    header.map_or(true, |header| header.contains_key("crit"))
}

/// Why a token was not verified, in words for its bearer.
fn unverified(error: &jsonwebtoken::errors::Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidSignature => "its signature is not this server's",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "it is signed with another algorithm than this server's"
        }
        ErrorKind::InvalidIssuer => "iss is not the issuer that this server trusts",
        ErrorKind::InvalidAudience => "aud does not name this server",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "exp is missing",
            "sub" => "sub is missing",
            "aud" => "aud is missing",
            "iss" => "iss is missing",
            _ => "a claim is missing",
        },
        ErrorKind::InvalidToken
        | ErrorKind::Base64(_)
        | ErrorKind::Json(_)
        | ErrorKind::Utf8(_) => "it is not a JSON Web Token",
        _ => "it can't be verified",
    }
}

/// A claim of time (RFC 7519: seconds since the epoch, fractions allowed), in milliseconds.
fn millis(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, AuthError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=1e12).contains(seconds));
    let seconds =
        seconds.ok_or_else(|| AuthError::Invalid(format!("{name} must be a time in seconds")))?;
    Ok(Some((seconds * 1_000.0) as u64))
}

/// Rights stand in `scope`, separated by spaces (RFC 8693). Words we do not know open nothing.
fn rights(claims: &Map<String, Value>) -> Vec<Right> {
    let scope = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
    let right = |word| match word {
        "sync" => Some(Right::Sync),
        "sync:read" => Some(Right::SyncRead),
        "admin" => Some(Right::Admin),
        _ => None,
    };
    scope.split_ascii_whitespace().filter_map(right).collect()
}

/// A missing list opens no gateway.
fn gateways(claims: &Map<String, Value>) -> Result<Gateways, AuthError> {
    let invalid = || AuthError::Invalid("gateways must be a list of names".to_owned());
    let Some(listed) = claims.get("gateways") else { return Ok(Gateways::Named(Vec::new())) };
    let mut named = Vec::new();
    for name in listed.as_array().ok_or_else(invalid)? {
        match name.as_str().ok_or_else(invalid)? {
            "*" => return Ok(Gateways::All),
            name => named.push(Gateway::parse(name).map_err(|_| invalid())?),
        }
    }
    Ok(Gateways::Named(named))
}

#[cfg(test)]
mod tests;

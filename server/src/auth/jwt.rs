//! JSON Web Tokens: checking them, and signing them for development.
//!
//! The algorithm is pinned to the key and never taken from a token's header. `sub` and `exp` are
//! required; `aud` and `iss` are when configured; `nbf` is honoured. Time is the server's clock.

use std::sync::Arc;
use std::time::Duration;

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
            return Err(AuthError::Invalid(format!("it is longer than {TOKEN_BYTES_MAX} bytes")));
        }
        let decoded =
            jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|error| AuthError::Invalid(error.to_string()))?.claims;
        self.principal(claims)
    }

    fn principal(&self, claims: Map<String, Value>) -> Result<Principal, AuthError> {
        let invalid = |what: &str| AuthError::Invalid(what.to_owned());
        let now_ms = self.clock.now_ms();
        let expires_ms = millis(&claims, "exp")?.ok_or_else(|| invalid("exp is missing"))?;
        if expires_ms.saturating_add(LEEWAY_MS) <= now_ms {
            return Err(AuthError::Expired);
        }
        if millis(&claims, "nbf")?.is_some_and(|from_ms| now_ms + LEEWAY_MS < from_ms) {
            return Err(invalid("it is not valid yet"));
        }
        let subject = match claims.get("sub") {
            Some(Value::String(subject)) if !subject.is_empty() => subject.clone(),
            _ => return Err(invalid("sub must be a text")),
        };
        Ok(Principal {
            subject,
            rights: rights(&claims),
            gateways: gateways(&claims)?,
            // The leeway is for being let in; streams end when the token says so.
            expires_ms,
            issued_ms: millis(&claims, "iat")?,
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
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
            .map_err(|error| AuthError::Invalid(error.to_string()))
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

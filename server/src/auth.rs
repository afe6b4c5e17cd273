//! Who calls, and what they may do: a token → [`Principal`], made nowhere else.
//!
//! Deny by default: every method stands in the one table of required rights, and a method that does
//! not is refused. Handlers demand a `&Principal`, so forgetting to ask for one does not compile.

mod jwt;
mod keys;
mod methods;

use std::sync::Arc;

use lakesync::error::{Classify, Reason};
use lakesync::name::Gateway;
use serde_json::{Map, Value};

pub use jwt::{Authenticator, Grant, Policy};
pub use keys::{KeyError, SECRET_FILE, SECRET_FILES, Secret};
pub use methods::{Access, METHODS, access, request_bounds};

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Principal {
    subject: String,
    rights: Vec<Right>,
    gateways: Gateways,
    refused_from_ms: u64,
    issued_ms: Option<u64>,
    claims: Arc<Map<String, Value>>,
}

/// A right that a token may carry in its `scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// `sync`: read and write rows.
    Sync,
    /// `sync:read`: read rows.
    SyncRead,
    /// `admin`: manage gateways.
    Admin,
}

/// The gateways that a token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gateways {
    All,
    Named(Vec<Gateway>),
}

/// Why a caller was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token came with the call.
    #[error("the call carries no token; send `authorization: Bearer TOKEN`")]
    Missing,
    /// The token does not verify.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// The token has run out.
    #[error("the token has expired; obtain a fresh one")]
    Expired,
    /// The token lacks a right.
    #[error("the token lacks the scope {needed}, which {method} needs")]
    ScopeMissing {
        /// The scope that would do.
        needed: &'static str,
        /// The method that was called.
        method: String,
    },
    /// The token does not open this gateway.
    #[error("the token does not open the gateway {0}")]
    GatewayClosed(Gateway),
    /// The call is about all gateways.
    #[error("the call is about all gateways, and the token opens some of them")]
    SomeGateways,
}

impl Classify for AuthError {
    fn reason(&self) -> Reason {
        match self {
            Self::Missing | Self::Invalid(_) => Reason::TokenInvalid,
            Self::Expired => Reason::TokenExpired,
            Self::ScopeMissing { .. } => Reason::ScopeMissing,
            Self::GatewayClosed(_) | Self::SomeGateways => Reason::OutOfScope,
        }
    }
}

impl Principal {
    /// Who calls.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// From when on calls with this token are refused, in milliseconds since the Unix epoch: its
    /// expiry and the leeway.
    pub fn refused_from_ms(&self) -> u64 {
        self.refused_from_ms
    }

    /// When the token was issued, in milliseconds since the Unix epoch, if it says so.
    pub fn issued_ms(&self) -> Option<u64> {
        self.issued_ms
    }

    /// All claims of the token.
    pub fn claims(&self) -> &Arc<Map<String, Value>> {
        &self.claims
    }

    /// Refuses unless the token carries a right that opens the method.
    pub fn allow(&self, access: Access, method: &str) -> Result<(), AuthError> {
        let (needed, opens): (_, &[Right]) = match access {
            Access::Public => return Ok(()),
            Access::Read => ("sync:read", &[Right::SyncRead, Right::Sync]),
            Access::Write => ("sync", &[Right::Sync]),
            Access::Admin => ("admin", &[Right::Admin]),
        };
        if self.rights.iter().any(|right| opens.contains(right)) {
            return Ok(());
        }
        Err(AuthError::ScopeMissing { needed, method: method.to_owned() })
    }

    /// Refuses unless the token opens the gateway. Asked before whether it exists, so that names
    /// do not leak.
    pub fn enter(&self, gateway: &Gateway) -> Result<(), AuthError> {
        match &self.gateways {
            Gateways::All => Ok(()),
            Gateways::Named(named) if named.contains(gateway) => Ok(()),
            Gateways::Named(_) => Err(AuthError::GatewayClosed(gateway.clone())),
        }
    }

    /// Refuses unless the token opens every gateway.
    pub fn enter_all(&self) -> Result<(), AuthError> {
        match &self.gateways {
            Gateways::All => Ok(()),
            Gateways::Named(_) => Err(AuthError::SomeGateways),
        }
    }

    /// Whether the token opens the gateway.
    pub fn opens(&self, gateway: &Gateway) -> bool {
        self.enter(gateway).is_ok()
    }
}

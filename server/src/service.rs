//! The gRPC services: thin. Authenticate, parse, delegate, encode; no rule of the domain lives here.

mod access;
mod admin;
mod authorize;
mod foreign;
mod metered;
mod refusals;
mod requests;
mod sending;
mod sync;
mod weighed;

use std::sync::Arc;

use http::Extensions;
use lakesync::clock::WallClock;
use lakesync::error::{Causes, Classify, ErrorKind, Reason};
use lakesync::name::Gateway;
use lakesync::status::to_status;
use lakesync::wire::WireError;
use tokio::sync::watch;
use tonic::Status;
use tonic::service::Routes;
use tracing::Level;

pub use authorize::{Authorize, AuthorizeLayer};
pub(crate) use refusals::REFUSALS;
pub use requests::Requests;

use crate::auth::Principal;
use crate::flush::Flush;
use crate::gateway::{self, Caller, Gateways, Stopped};

/// What all services share.
#[derive(Clone, Debug)]
pub struct Services {
    /// All gateways.
    pub gateways: Arc<Gateways>,
    /// Flushing to backends.
    pub flush: Arc<Flush>,
    /// The server's clock.
    pub clock: Arc<dyn WallClock>,
    /// What the server enforces.
    pub limits: lakesync::proto::v1::Limits,
    /// Turns true when streams are to end.
    pub shutdown: watch::Receiver<bool>,
}

impl Services {
    /// The routes of our own services. They expect a [`Principal`] in a request's extensions, so
    /// they stand behind [`AuthorizeLayer`].
    pub fn routes(self) -> Routes {
        let services = Arc::new(self);
        let admin = weighed::Weighed::admin(&services);
        Routes::new(weighed::Weighed::sync(&services)).add_service(admin)
    }

    /// The gateway of this name, if the caller may enter it: the one door of all calls.
    async fn gateway(&self, principal: &Principal, name: &str) -> Result<gateway::Gateway, Status> {
        let name = enter(principal, name)?;
        let gateway = self.gateways.get(&name).await.map_err(refuse)?;
        gateway.admit(&Self::caller(principal)).map_err(refuse)?;
        Ok(gateway)
    }

    /// Who calls, as far as a gateway cares.
    fn caller(principal: &Principal) -> Caller {
        Caller {
            subject: principal.subject().into(),
            claims: Arc::clone(principal.claims()),
            issued_ms: principal.issued_ms(),
        }
    }

    fn stopped(&self, principal: &Principal) -> Stopped {
        Stopped { expires_ms: principal.refused_from_ms(), shutdown: self.shutdown.clone() }
    }
}

/// The name of a gateway that the caller may enter. Asked before whether it exists.
fn enter(principal: &Principal, name: &str) -> Result<Gateway, Status> {
    let name = Gateway::parse(name).map_err(|error| refuse(WireError::new("gateway", error)))?;
    principal.enter(&name).map_err(refuse)?;
    Ok(name)
}

/// The caller, whom the layer in front of us authenticated.
fn principal(extensions: &Extensions) -> Result<Principal, Status> {
    // Without the layer nobody is anybody: refused, never let in.
    extensions.get().cloned().ok_or_else(|| refuse(crate::auth::AuthError::Missing))
}

/// The error as a status. Each is counted, and what needs a person is logged here, at the boundary,
/// with its causes. The caller is told neither.
fn refuse(error: impl Classify) -> Status {
    REFUSALS.call(error.reason());
    let because = Causes(&error);
    match level(&error) {
        Some(Level::ERROR) => tracing::error!(error = %because, "a call failed"),
        Some(_) => tracing::warn!(error = %because, "a call failed"),
        None => {}
    }
    to_status(&error)
}

/// How loudly to say that a call failed. What a caller did wrong, such as a change that fails its own
/// checksum, is nobody's to mend but the caller's.
fn level(error: &impl Classify) -> Option<Level> {
    let ours = error.public_message().is_some();
    match error.reason().kind() {
        ErrorKind::Internal => Some(Level::ERROR),
        ErrorKind::Corrupt if ours => Some(Level::ERROR),
        ErrorKind::Exhausted if ours => Some(Level::WARN),
        ErrorKind::Unavailable => Some(Level::WARN),
        _ => None,
    }
}

/// A call that this version does not offer.
#[derive(Debug, thiserror::Error)]
#[error("{method} is not offered by this version of the server")]
struct NotOffered {
    method: &'static str,
}

impl Classify for NotOffered {
    fn reason(&self) -> Reason {
        Reason::Unimplemented
    }
}

#[cfg(test)]
mod tests {
    use lakesync::wire::Refusal;

    use super::*;
    use crate::gateway::PushError;
    use crate::store::StoreError;

    #[test]
    fn what_is_ours_is_logged_and_what_is_the_callers_is_not() {
        let refused = |reason| PushError::Refused(Refusal::new(reason, "tables[0].rows[0]"));
        let store = |error| PushError::Store(error);
        for (error, expected) in [
            (refused(Reason::Corruption), None),
            (refused(Reason::TooLarge), None),
            (PushError::Full, None),
            (PushError::Stopped, Some(Level::WARN)),
            (store(StoreError::Full("0 bytes".into())), Some(Level::WARN)),
            (store(StoreError::Failed("sync".into())), Some(Level::WARN)),
            (store(StoreError::Corrupt("row".into())), Some(Level::ERROR)),
        ] {
            assert_eq!(level(&error), expected, "{error}");
        }
    }
}

//! What went wrong, in terms of what the caller should do about it.
//!
//! A [`Reason`] is the stable word a program may match on; its [`ErrorKind`] is the caller's next
//! step. `status` maps kinds to gRPC codes, and nothing else does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The caller's next step. Add a kind only when callers would act on it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request can never succeed. Fix it.
    Invalid,
    /// The caller is unknown. Obtain a fresh token, once, then retry.
    Unauthenticated,
    /// The caller may not do this. Do not retry.
    Denied,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already.
    AlreadyExists,
    /// Something outside the request must change first: a skewed clock, an old client.
    Precondition,
    /// The cursor can't be continued. Take a checkpoint, then pull.
    Expired,
    /// Too much, now or ever. Wait as told, or send less.
    Exhausted,
    /// The server is away. Back off with jitter, then resume.
    Unavailable,
    /// Data failed verification. Call an operator.
    Corrupt,
    /// The server does not offer this call.
    Unsupported,
    /// A bug. Report it.
    Internal,
}

impl ErrorKind {
    /// Whether the same request may succeed later, unchanged.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Exhausted | Self::Unavailable)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $kind:ident,)+) => {
        /// Why a call or a single change was refused; the `reason` of `google.rpc.ErrorInfo`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason, in the order of the protocol's table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What the caller should do.
            pub fn kind(self) -> ErrorKind {
                match self { $(Self::$name => ErrorKind::$kind,)+ }
            }
        }
    };
}

reasons! {
    /// Malformed, or beyond a fixed limit of form.
    InvalidRequest = "INVALID_REQUEST" => Invalid,
    /// An unknown table or column, or a value of another type than its column's.
    SchemaMismatch = "SCHEMA_MISMATCH" => Invalid,
    /// No token, or one that does not verify.
    TokenInvalid = "TOKEN_INVALID" => Unauthenticated,
    /// The token was good and has run out.
    TokenExpired = "TOKEN_EXPIRED" => Unauthenticated,
    /// The token lacks the right this call needs.
    ScopeMissing = "SCOPE_MISSING" => Denied,
    /// The row, or the gateway, is not the token's to touch.
    OutOfScope = "OUT_OF_SCOPE" => Denied,
    /// Another subject pushed under this client id first.
    ClientIdTaken = "CLIENT_ID_TAKEN" => Denied,
    /// No gateway of that name.
    GatewayNotFound = "GATEWAY_NOT_FOUND" => NotFound,
    /// A gateway of that name exists.
    GatewayExists = "GATEWAY_EXISTS" => AlreadyExists,
    /// The stamp is too far ahead of the server's clock.
    ClockDrift = "CLOCK_DRIFT" => Precondition,
    /// Older than deletes are remembered, on a row that is gone.
    TooOld = "TOO_OLD" => Precondition,
    /// Other sync rules were put before these came into force.
    RulesReplaced = "RULES_REPLACED" => Precondition,
    /// There is no backend to flush to.
    NoBackend = "NO_BACKEND" => Precondition,
    /// The other side speaks a protocol this one does not.
    ProtocolUnsupported = "PROTOCOL_UNSUPPORTED" => Precondition,
    /// The cursor names another log, a trimmed position or an outdated scope.
    CursorExpired = "CURSOR_EXPIRED" => Expired,
    /// Queues are full.
    Overloaded = "OVERLOADED" => Exhausted,
    /// The caller's own allowance is used up.
    Quota = "QUOTA" => Exhausted,
    /// Larger than a limit of size: split it.
    TooLarge = "TOO_LARGE" => Exhausted,
    /// The server's disk is full.
    DiskFull = "DISK_FULL" => Exhausted,
    /// The server is stopping.
    ShuttingDown = "SHUTTING_DOWN" => Unavailable,
    /// The reader took nothing for too long.
    SlowConsumer = "SLOW_CONSUMER" => Unavailable,
    /// The request stopped half-way for too long.
    RequestStalled = "REQUEST_STALLED" => Unavailable,
    /// A backend does not take what it is given.
    BackendUnavailable = "BACKEND_UNAVAILABLE" => Unavailable,
    /// The store has failed and must be reopened.
    StoreUnavailable = "STORE_UNAVAILABLE" => Unavailable,
    /// Stored or sent data failed verification.
    Corruption = "CORRUPTION" => Corrupt,
    /// This version of the server does not offer the call.
    Unimplemented = "UNIMPLEMENTED" => Unsupported,
    /// A broken invariant.
    Bug = "BUG" => Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(UnknownReason)
    }
}

/// A reason this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason")]
pub struct UnknownReason;

/// A part of a request that was malformed: its path, as in `tables[0].rows[2].stamp`, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path in the request.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// An error that knows its reason. Every error that can reach a service implements it.
pub trait Classify: std::error::Error {
    /// The reason, and through it the kind and the code.
    fn reason(&self) -> Reason;

    /// How long to wait before trying again, where waiting helps.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// What a remote caller is told in place of this error's text, where that is for the operator
    /// alone: it may name files, or rows that the caller may not see.
    fn public_message(&self) -> Option<&'static str> {
        None
    }

    /// What a program may want to know beyond the reason, by name: the metadata of the `ErrorInfo`.
    fn facts(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The fields at fault, where single fields are.
    fn violations(&self) -> Vec<FieldViolation> {
        Vec::new()
    }
}

/// An error and all its causes, for the log: one sentence, parted by colons. A cause whose words the
/// error has repeated already is not said twice.
#[derive(Debug)]
pub struct Causes<'a, E: ?Sized>(pub &'a E);

impl<E: std::error::Error + ?Sized> fmt::Display for Causes<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !said.contains(&words) {
                said = format!("{said}: {words}");
            }
            cause = error.source();
        }
        f.write_str(&said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store failed")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("the journal: {0}")]
    struct Middle(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("no space left")]
    struct Inner;

    #[test]
    fn causes_are_said_once_each_down_to_the_last() {
        let error = Outer(Middle(Inner));
        assert_eq!(error.to_string(), "the store failed");
        assert_eq!(Causes(&error).to_string(), "the store failed: the journal: no space left");
        assert_eq!(Causes(&Inner).to_string(), "no space left");
    }

    #[test]
    fn every_reason_survives_its_text() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert_eq!("NOPE".parse::<Reason>(), Err(UnknownReason));
    }
}

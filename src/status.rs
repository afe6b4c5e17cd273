//! Errors as gRPC statuses, in both directions. No other module names a gRPC code.
//!
//! Every status carries one `google.rpc.ErrorInfo` of domain `lakesync` with the reason, and where
//! they help a `RetryInfo` and a `BadRequest`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{Classify, ErrorKind, Reason};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "lakesync";

const TABLE: [(ErrorKind, Code); 12] = [
    (ErrorKind::Invalid, Code::InvalidArgument),
    (ErrorKind::Unauthenticated, Code::Unauthenticated),
    (ErrorKind::Denied, Code::PermissionDenied),
    (ErrorKind::NotFound, Code::NotFound),
    (ErrorKind::AlreadyExists, Code::AlreadyExists),
    (ErrorKind::Precondition, Code::FailedPrecondition),
    (ErrorKind::Expired, Code::OutOfRange),
    (ErrorKind::Exhausted, Code::ResourceExhausted),
    (ErrorKind::Unavailable, Code::Unavailable),
    (ErrorKind::Corrupt, Code::DataLoss),
    (ErrorKind::Unsupported, Code::Unimplemented),
    (ErrorKind::Internal, Code::Internal),
];

/// Describes `error` to a remote caller. The cause of an internal error is the caller's to log, and
/// so is a text that is for the operator alone; neither is sent.
pub fn to_status(error: &impl Classify) -> Status {
    let reason = error.reason();
    let mut details = ErrorDetails::new();
    let facts = error.facts().into_iter().map(|(name, fact)| (name.to_owned(), fact));
    details.set_error_info(reason.as_str(), DOMAIN, facts.collect::<HashMap<_, _>>());
    if let Some(wait) = error.retry_after() {
        details.set_retry_info(Some(wait));
    }
    for violation in error.violations() {
        details.add_bad_request_violation(violation.field, violation.description);
    }
    let message = match (reason.kind(), error.public_message()) {
        (ErrorKind::Internal, _) => "internal error".to_owned(),
        (_, Some(sentence)) => sentence.to_owned(),
        (_, None) => error.to_string(),
    };
    Status::with_error_details(code(reason.kind()), message, details)
}

/// What a remote server said went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", .reason.map(|reason| format!(" ({reason})")).unwrap_or_default())]
pub struct Problem {
    /// What to do about it.
    pub kind: ErrorKind,
    /// The reason, if the server is a LakeSync of a known version.
    pub reason: Option<Reason>,
    /// For people.
    pub message: String,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// What the server said beyond the reason, by name.
    pub facts: BTreeMap<String, String>,
}

/// Reads a status, whoever made it: a proxy's or the transport's carries no reason.
pub fn from_status(status: &Status) -> Problem {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let reason = info.and_then(|info| info.reason.parse::<Reason>().ok());
    let kind = match (reason, info) {
        (Some(reason), _) => reason.kind(),
        // A connection that broke, or was let go of by a server that stops: no server's own error.
        (None, None) if status.code() == Code::Internal => ErrorKind::Unavailable,
        (None, _) => kind(status.code()),
    };
    Problem {
        kind,
        reason,
        message: status.message().to_owned(),
        retry_after: details.retry_info().and_then(|info| info.retry_delay),
        facts: info.map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default(),
    }
}

fn code(kind: ErrorKind) -> Code {
    let same = |(known, _): &&(ErrorKind, Code)| *known == kind;
    TABLE.iter().find(same).map_or(Code::Internal, |(_, code)| *code)
}

/// A code without a row in the table is what networks and proxies answer: worth another try.
fn kind(code: Code) -> ErrorKind {
    let same = |(_, known): &&(ErrorKind, Code)| *known == code;
    TABLE.iter().find(same).map_or(ErrorKind::Unavailable, |(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FieldViolation;

    #[derive(Debug, thiserror::Error)]
    #[error("it was {0}")]
    struct Because(Reason);

    impl Classify for Because {
        fn reason(&self) -> Reason {
            self.0
        }

        fn retry_after(&self) -> Option<Duration> {
            Some(Duration::from_millis(250))
        }

        fn facts(&self) -> Vec<(&'static str, String)> {
            vec![("log", "replaced".to_owned())]
        }

        fn violations(&self) -> Vec<FieldViolation> {
            vec![FieldViolation { field: "gateway".into(), description: "empty".into() }]
        }
    }

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            let status = to_status(&Because(*reason));
            let problem = from_status(&status);
            assert_eq!(problem.reason, Some(*reason));
            assert_eq!(problem.kind, reason.kind());
            assert_eq!(problem.retry_after, Some(Duration::from_millis(250)));
            assert_eq!(problem.facts["log"], "replaced");
            assert_eq!(kind(status.code()), reason.kind(), "the code alone tells the kind");
        }
    }

    #[test]
    fn an_internal_error_keeps_its_cause_to_itself() {
        let status = to_status(&Because(Reason::Bug));
        assert_eq!(status.message(), "internal error");
    }

    #[test]
    fn a_text_for_the_operator_is_not_sent() {
        #[derive(Debug, thiserror::Error)]
        #[error("row todos/secret in /var/lib/x")]
        struct Private;

        impl Classify for Private {
            fn reason(&self) -> Reason {
                Reason::Corruption
            }

            fn public_message(&self) -> Option<&'static str> {
                Some("stored data failed verification")
            }
        }
        let status = to_status(&Private);
        assert_eq!(status.message(), "stored data failed verification");
        assert!(!String::from_utf8_lossy(status.details()).contains("secret"));
    }

    #[test]
    fn a_status_of_another_hand_is_read_by_its_code() {
        let problem = from_status(&Status::unavailable("no route"));
        assert_eq!((problem.kind, problem.reason), (ErrorKind::Unavailable, None));
        assert_eq!(from_status(&Status::cancelled("")).kind, ErrorKind::Unavailable);
        let broken = Status::internal("h2 protocol error: http2 error");
        assert_eq!(from_status(&broken).kind, ErrorKind::Unavailable, "gRPC's word for a reset");
    }
}

//! Refusals that the gRPC library speaks by itself, before a service is asked: a message too large,
//! or one that is no message. They get the codes and reasons of our table like any other.

use http::Response;
use lakesync::error::{Classify, Reason};
use lakesync::status::to_status;
use tonic::body::Body;
use tonic::{Code, Status};

use super::REFUSALS;

/// What the library said, and which of our reasons that is.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Foreign {
    message: String,
    reason: Reason,
}

impl Classify for Foreign {
    fn reason(&self) -> Reason {
        self.reason
    }
}

/// The answer as it is, or with a reason if it is a refusal without one.
pub(super) fn explain(response: Response<Body>) -> Response<Body> {
    match response.extensions().get::<Status>().and_then(explained) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// Our word for a status that is not ours. A status in place of an answer was made while the request
/// was read: INTERNAL says that it could not be.
fn explained(status: &Status) -> Option<Status> {
    if !status.details().is_empty() {
        return None;
    }
    let reason = match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Reason::TooLarge,
        Code::Internal => Reason::InvalidRequest,
        Code::Unimplemented => Reason::Unimplemented,
        _ => return None,
    };
    REFUSALS.call(reason);
    let mut explained = to_status(&Foreign { message: status.message().to_owned(), reason });
    // Which encodings we take, after one that we don't.
    status.metadata().clone_into(explained.metadata_mut());
    Some(explained)
}

#[cfg(test)]
mod tests {
    use lakesync::error::ErrorKind;
    use lakesync::status::from_status;

    use super::*;

    #[test]
    fn statuses_of_the_library_get_a_reason_and_ours_stay() {
        let reason = |status: &Status| explained(status).and_then(|s| from_status(&s).reason);
        assert_eq!(reason(&Status::out_of_range("9 bytes")), Some(Reason::TooLarge));
        assert_eq!(reason(&Status::resource_exhausted("9 bytes")), Some(Reason::TooLarge));
        assert_eq!(reason(&Status::internal("no message")), Some(Reason::InvalidRequest));
        assert_eq!(reason(&Status::unimplemented("gzip")), Some(Reason::Unimplemented));
        assert_eq!(reason(&Status::not_found("health has its own words")), None);
        let ours = Foreign { message: "9 bytes".to_owned(), reason: Reason::TooLarge };
        let ours = to_status(&ours);
        assert_eq!(from_status(&ours).kind, ErrorKind::Exhausted);
        assert_eq!(reason(&ours), None);
    }
}

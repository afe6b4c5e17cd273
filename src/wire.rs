//! Domain ⇄ protobuf: the only place that knows both. What comes in is checked here, once.

mod commit;
mod dictionary;
mod push;
mod row;
mod rules;
mod schema;
mod value;
mod weigh;

pub use commit::put_commit;
pub use dictionary::forget_unused_names;
pub use push::{
    Offer, Oversized, Refusal, decode_push, encode_commit, encode_push, fit_answer, measure_push,
    weigh_push,
};
pub use row::{
    Arrival, Incoming, decode_changes, decode_deltas, encode_deletes, encode_exits, encode_rows,
    encode_unchanged, encode_whole_rows,
};
pub use rules::{decode_rules, encode_rules};
pub use schema::{decode_proposals, decode_schema, encode_schema};
pub use value::{decode_value, encode_value};
pub use weigh::{CHECKPOINT, PULL, PUT_RULES, PUT_SCHEMA, Shape, weigh};

use crate::error::{Classify, FieldViolation, Reason};

/// A message that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {description}")]
pub struct WireError {
    /// The field's path.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl WireError {
    /// `description` is wrong with `field`.
    pub fn new(field: impl Into<String>, description: impl ToString) -> Self {
        Self { field: field.into(), description: description.to_string() }
    }
}

impl Classify for WireError {
    fn reason(&self) -> Reason {
        Reason::InvalidRequest
    }

    fn violations(&self) -> Vec<FieldViolation> {
        let Self { field, description } = self.clone();
        vec![FieldViolation { field, description }]
    }
}

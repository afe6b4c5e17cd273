//! Sync rules over real gRPC: what a token sees and writes, and that nobody else ever hears of it.

mod churn;
pub(crate) mod docs;
pub(crate) mod made_up;
mod oracle;
mod reader;
pub(crate) mod world;

//! Stub.

mod backoff;
mod db;
mod event;
mod pulse;
mod query;
mod status;
pub mod transport;

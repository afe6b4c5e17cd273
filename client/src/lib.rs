//! Stub.

pub mod transport;

//! The gateway server.
pub mod store;

//! The gateway server.
pub mod gateway;
pub mod store;

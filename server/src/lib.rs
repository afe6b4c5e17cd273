//! The gateway server.
pub mod app;
pub mod auth;
pub mod config;
pub mod gateway;
pub mod service;
pub mod store;
pub mod telemetry;

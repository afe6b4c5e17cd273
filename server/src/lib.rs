//! The gateway server.
//!
//! Modules are listed in reading order: each may use those before it, and `app` puts all together.

pub mod config;
pub mod telemetry;

pub mod auth;
pub mod store;

pub mod gateway;

pub mod flush;

pub mod service;

pub mod app;

//! The language every LakeSync process speaks.
//!
//! A replica records each edit as a [`Delta`](delta::Delta), stamped by a hybrid logical clock. Any
//! process folds deltas into a [`Row`](row::Row); two that have seen the same deltas hold the same
//! rows. This crate defines those types, that fold, and their wire form.
//!
//! It performs no I/O, spawns no task and draws no randomness, so everything here can be tested as
//! arithmetic; time is an argument. Sockets live in `server` and `client`, backends in `adapters`,
//! and files in `compactor`; they depend on this crate and it depends on none of them.
//!
//! Modules are listed in reading order. Each may use those above it, never those below.

pub mod error;
pub mod limits;

pub mod calendar;
pub mod clock;
pub mod name;
pub mod value;

pub mod hlc;
pub mod stamp;

pub mod schema;

pub mod row_id;

pub mod delta;
pub mod row;

pub mod merge;
pub mod rules;

pub mod adapter;

pub mod proto;
pub mod wire;

pub mod status;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

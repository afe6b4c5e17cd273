//! Backends that keep the rows a gateway has accepted, and wrappers that combine them.
//!
//! Each implements [`Adapter`](lakesync::adapter::Adapter), whose contract and suite live in the
//! core: what does not pass the suite is not an adapter, wrappers included.
//!
//! - [`memory`] is the smallest backend, for tests.
//! - [`route`] keeps each table in a backend of its own, [`fan_out`] the same rows in several,
//!   [`tier`] old rows in another than new ones.
//! - [`migrate`] copies all of one backend to another, whatever the two are.

pub mod fan_out;
pub mod memory;
pub mod migrate;
pub mod route;
pub mod tier;

mod pace;
mod shape;

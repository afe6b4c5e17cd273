//! Backends that keep the rows a gateway has accepted, and wrappers that combine them.
//!
//! Each implements [`Adapter`](lakesync::adapter::Adapter), whose contract and suite live in the
//! core: what does not pass the suite is not an adapter, wrappers included.
//!
//! - [`postgres`] and [`mysql`] keep rows as tables that people query; [`memory`] is for tests.
//! - [`route`] keeps each table in a backend of its own, [`fan_out`] the same rows in several,
//!   [`tier`] old rows in another than new ones.
//! - [`migrate`] copies all of one backend to another, whatever the two are.

mod fit;
mod sql;

pub mod pace;
pub use sql::render as shown;

mod told;
pub use told::told;

pub mod memory;
pub mod mysql;
pub mod postgres;

pub mod fan_out;
pub mod migrate;
pub mod route;
pub mod tier;

#[cfg(feature = "testing")]
pub mod testing;

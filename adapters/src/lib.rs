//! Backends that keep the rows a gateway has accepted.
//!
//! Each implements [`Adapter`](lakesync::adapter::Adapter), whose contract and suite live in the
//! core: a backend that does not pass the suite is not an adapter. [`memory`] is for tests;
//! [`postgres`] and [`mysql`] outlive the process.

mod fit;
mod sql;

pub mod memory;
pub mod mysql;
pub mod postgres;
#[cfg(feature = "testing")]
pub mod testing;

//! Backends that keep the rows a gateway has accepted.
//!
//! Each implements [`Adapter`](lakesync::adapter::Adapter), whose contract and suite live in the
//! core: a backend that does not pass the suite is not an adapter. For now there is one,
//! [`memory`], for tests; those that outlive a process will stand beside it.

pub mod memory;
#[cfg(feature = "testing")]
pub mod testing;

//! The promises, across crates, in one binary.

mod transports;
mod harness;
mod promises;
mod vectors;

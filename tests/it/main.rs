//! The promises, across crates, in one binary.

mod harness;
mod promises;
mod transports;
mod vectors;

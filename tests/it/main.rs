//! The promises, across crates, in one binary.

mod harness;
mod promises;
mod replicas;
mod transports;
mod vectors;

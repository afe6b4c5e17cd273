//! The promises, across crates, in one binary.

mod bad_input;
mod faults;
mod harness;
mod processes;
mod promises;
mod replicas;
mod rules;
mod transports;
mod vectors;

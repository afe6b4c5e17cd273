//! The promises, across crates, in one binary.

mod bad_input;
mod faults;
mod harness;
mod processes;
mod promises;
mod transports;
mod vectors;

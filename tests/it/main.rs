//! The promises, across crates, in one binary.

mod transports;
mod vectors;

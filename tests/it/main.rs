//! The promises, across crates, in one binary.

mod vectors;

//! The promises, across crates, in one binary.

mod backends;
mod backups;
mod bad_input;
mod connections;
mod faults;
mod gateways;
mod harness;
mod health;
mod opening;
mod processes;
mod promises;
mod replicas;
mod row_ids;
mod rules;
mod transports;
mod vectors;

//! Replicas and the applications beside them against the real server, end to end: whatever is
//! written, by whomever, wherever a process dies, every file comes to hold the same rows.

mod adopt;
mod advice;
mod capture;
mod clocks;
mod commands;
mod constraints;
mod converge;
mod demos;
pub(crate) mod dice;
mod flaky;
mod recover;
mod refused;
mod scoped;
pub(crate) mod site;
mod tenants;

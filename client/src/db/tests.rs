//! The database against a model of a gateway: each room's tests, and all of them together.

mod adopting;
mod borrowed;
mod capture;
mod checkpoints;
mod clocks;
mod constraints;
mod convergence;
mod echoes;
mod model;
mod opening;
mod outbox;
mod restoring;
mod schemas;
mod syncing;

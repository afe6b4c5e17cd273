//! Every adapter against the suite they share, and each wrapper's own behaviour.

mod fan_out;
mod fixtures;
mod flaky;
mod migrate;
mod route;
mod suite;
mod tier;

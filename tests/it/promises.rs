//! A test, or several, for each promise of the protocol, over real gRPC. Each fails without the
//! behaviour that it names.

mod p01_durable;
mod p02_idempotent;
mod p03_one_commit;
mod p04_nothing_skipped;
mod p05_one_bad_change;

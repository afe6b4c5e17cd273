//! A test, or several, for each promise of the protocol, over real gRPC. Each fails without the
//! behaviour that it names.

mod p01_durable;
mod p02_idempotent;
mod p03_one_commit;
mod p03_pages;
mod p04_nothing_skipped;
mod p05_one_bad_change;
mod p06_convergence;
mod p06_whole_rows;
mod p07_scope;
mod p08_at_once;
mod p09_client_ids;
mod p09_scope;
mod p10_cursors;
mod p11_checkpoint;
mod p12_clock;
mod p13_absence;
mod p14_asked;
mod p14_flush;
mod p14_trimming;
mod p15_bounded;
mod p15_readers;
mod p15_requests;
mod p16_live;
mod p22_progress;

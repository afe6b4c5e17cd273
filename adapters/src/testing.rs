//! Real database servers for tests, and a proxy that breaks between them and us. Enabled by the
//! `testing` feature.
//!
//! A server is Debian's, started on a directory and a port of its own, and gone with the process
//! that started it, however that ends. Where a server is not installed, starting it prints one line
//! and yields `None`; where nothing may be skipped (`LAKESYNC_TEST_REQUIRED=1`) it panics.

use std::path::PathBuf;

mod mariadb;
mod postgres;
mod proxy;
mod server;

pub use mariadb::MariaDb;
pub use postgres::Postgres;
pub use proxy::{Fault, Proxy};

/// How NULL reads in what [`Postgres::psql`] and [`MariaDb::mariadb`] return: like no text there is.
pub const NULL: &str = "∅";

/// The user that tests log in as.
pub const USER: &str = "lakesync";
/// The password of [`USER`]: to be found in logs, should it ever be shown.
pub const PASSWORD: &str = "canary-7f3a";

/// Whether a server keeps its promises through a crash of the machine, or only of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Commits are synced to the disk, as in production: for benchmarks.
    Machine,
    /// Commits survive the server's own crash only. Fast: for tests.
    Process,
}

/// Says that something did not run, and fails where nothing may be skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn skip(why: &str) {
    let is_required = std::env::var("LAKESYNC_TEST_REQUIRED").is_ok_and(|value| value == "1");
    assert!(!is_required, "required, and missing: {why}");
    eprintln!("skipped: {why}");
}

/// The program `name`: in `PATH`, where administrators' programs are, or in one of `dirs`.
fn find_program(name: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let dirs = std::env::split_paths(&path).chain(known).chain(dirs.iter().cloned());
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

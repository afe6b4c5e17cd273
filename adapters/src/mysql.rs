//! Rows in MySQL or MariaDB: tables that people query, and beside them the exact state that they
//! show.
//!
//! A database holds one gateway. In it stand the synced tables, with columns of natural types and the
//! live rows only, and our own, whose names begin with `_lakesync`: the rows' exact states, which are
//! merged into and never read back from what people see, the watermarks, the history, and what was
//! prepared. One transaction writes a batch to all of them. It locks one row first, so that of two
//! writers, such as a server that hangs and its successor, each sees what the other did.
//!
//! What people add stays: columns, indexes, views and grants. What would stop the flush, such as a
//! column of another type, is refused when the tables are prepared. Here that is several
//! transactions, because these servers commit with every change of a table: all is checked first,
//! and what a crash leaves half done, preparing again completes.
//!
//! MariaDB from 10.6 and MySQL from 8.0.17, with a `max_allowed_packet` of 8 MiB at least.

use sqlx::mysql::MySqlConnection;

mod alter;
mod engine;
mod errors;
mod history;
mod inspect;
mod install;
mod names;
mod options;
mod prepare;
mod put;
mod read;
mod shown;
mod statement;
mod types;
mod version;
mod write;

pub use crate::sql::server::Options;
pub(crate) use engine::MySqlEngine;
pub use options::{BadOptions, check_url};

/// One MySQL or MariaDB server, whose connections the adapters of its databases share.
pub type Server = crate::sql::server::Server<MySqlConnection>;

/// One gateway's rows in one database of a MySQL or MariaDB server.
pub type MySql = crate::sql::adapter::SqlAdapter<engine::MySqlEngine>;

impl MySql {
    /// What is not shown as it was declared and pushed, for people; nothing if all is.
    pub fn troubles(&self) -> Vec<String> {
        self.backend().troubles()
    }
}

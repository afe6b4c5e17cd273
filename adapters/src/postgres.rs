//! Rows in Postgres: tables that people query, and beside them the exact state that they show.
//!
//! A Postgres schema holds one gateway. In it stand the synced tables, with columns of natural types
//! and the live rows only, and our own, whose names begin with `_lakesync`: the rows' exact states,
//! which are merged into and never read back from what people see, the watermarks, the history, and
//! what was prepared. One transaction writes a batch to all of them. It locks one row first, so that
//! of two writers, such as a server that hangs and its successor, each sees what the other did.
//!
//! What people add stays: rows, columns, indexes, views and grants. What would stop the flush, such
//! as a column of another type, is refused when the tables are prepared.

use sqlx::postgres::PgConnection;

mod alter;
mod check;
mod copy;
mod engine;
mod history;
mod inspect;
mod install;
mod names;
mod options;
mod prepare;
mod read;
mod shown;
mod statement;
mod types;
mod upsert;
mod write;

pub use crate::sql::server::Options;
pub(crate) use engine::PostgresEngine;
pub use options::{BadOptions, check_url};

/// One Postgres database, whose connections the adapters of its schemas share.
pub type Server = crate::sql::server::Server<PgConnection>;

/// One gateway's rows in one schema of a Postgres database.
pub type Postgres = crate::sql::adapter::SqlAdapter<engine::PostgresEngine>;

impl Postgres {
    /// What is not shown as it was declared and pushed, for people; nothing if all is.
    pub fn troubles(&self) -> Vec<String> {
        self.backend().troubles()
    }
}

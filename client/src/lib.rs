//! Stub.

mod db;

pub mod transport;

mod backoff;
mod config;
mod event;
mod pulse;
mod query;
mod status;

mod replica;

pub use backoff::Pace;
pub use config::{Config, ConfigError};
pub use db::{
    Adoptable, Candidate, DbError, Migration, OpenError as DatabaseError, Parked, Rejected,
    Superseded, Transaction,
};
pub use event::Event;
pub use query::{QueryError, Rows, SqlValue};
pub use replica::{AdoptError, OpenError, Replica, Round, SyncError};
pub use status::{Phase, Status, Traffic};
pub use transport::{Token, TokenError, Transport};

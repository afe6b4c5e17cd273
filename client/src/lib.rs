//! A replica: an application's SQLite database that keeps in step with a gateway.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use lakesync_client::{Config, Replica};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new("http://127.0.0.1:7461", "main").with_token(std::env::var("TOKEN")?);
//! let replica = Replica::open("todos.db", config).await?;
//!
//! // One round: the gateway's tables and rows are here now, and local edits are there.
//! let round = replica.sync().await?;
//! assert_eq!(round.rejected, 0);
//!
//! // Several edits that others see together, or not at all. Any other way to write works as well.
//! let mut edit = replica.transaction().await?;
//! sqlx::query("UPDATE todos SET done = 1 WHERE title = 'milk'").execute(edit.connection()).await?;
//! edit.commit().await?;
//!
//! // From here on, edits travel as they happen, and the list is printed whenever it changes.
//! let follower = replica.clone();
//! tokio::spawn(async move { follower.follow(std::future::pending()).await });
//! let mut todos = replica.watch("SELECT title, done FROM todos ORDER BY title", []);
//! while let Some(found) = todos.next().await {
//!     println!("{:?}", found?.rows);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! **Synced tables are real tables.** Whoever writes to them, an ORM, a migration or the `sqlite3`
//! shell, triggers record what changed, in the same transaction: an edit and its record are both
//! there after a crash, or neither is. [`Replica::adopt`] makes tables that an application has
//! already synced ones; [`Replica::inspect`] says which can be, and why others can't.
//!
//! **A round** takes what others wrote, sends what was written here, and takes again. What arrives
//! is applied in one transaction together with where to go on, so every step may be repeated and
//! none needs cleaning up. [`Replica::sync`] runs one; [`Replica::follow`] stays in step, and waits
//! out every fault with growing pauses.
//!
//! **Edits meet column by column.** The last writer of a cell wins, by clocks that are corrected by
//! the server's, and the gateway and all replicas decide alike. Unsent edits are merged over what
//! arrives, so downloads never wait for uploads. A write that lost is an [`Event::Superseded`].
//!
//! **Nothing fails in silence.** A change that the gateway refuses is taken back and kept, with its
//! reason, in the table `_lakesync_rejected`: [`Replica::rejected`] lists it, and it can be retried
//! or dropped. A row that a local constraint refuses waits in `_lakesync_parked` and is tried again
//! on every round; other rows do not wait for it. [`Replica::status`] is one value that says how
//! the replica is doing, [`Replica::events`] a stream of what happens to it.
//!
//! **Transports** carry the calls: [`transport::connect`] over a socket, [`transport::local()`] to a
//! gateway in the same process. Both run one conformance suite.
//!
//! Modules are listed in layers, the lowest first.

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
    Superseded, Transaction, Waiting,
};
pub use event::Event;
pub use query::{QueryError, Rows, SqlValue};
pub use replica::{AdoptError, OpenError, Replica, Round, SyncError};
pub use status::{Phase, Status, Traffic};
pub use transport::{Token, TokenError, Transport};

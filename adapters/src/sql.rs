//! What the SQL databases share: the adapter itself, connections, which rows a batch makes, how
//! values look in columns of natural types, what our own tables hold, and what errors mean.
//!
//! What a database does in its own SQL it says by traits, each declared in the room that uses it:
//! [`Engine`](engine::Engine), then [`Reads`](read::Reads), [`Installs`](install::Installs),
//! [`Writes`](write::Writes) and [`Prepares`](prepare::Prepares).

pub(crate) mod adapter;
pub(crate) mod alter;
pub(crate) mod backend;
pub(crate) mod busy;
pub(crate) mod careful;
pub(crate) mod catalogue;
pub(crate) mod engine;
pub(crate) mod error;
pub(crate) mod exact;
pub(crate) mod hidden;
pub(crate) mod install;
pub(crate) mod merge;
pub(crate) mod names;
pub(crate) mod patience;
pub(crate) mod pool;
pub(crate) mod prepare;
pub(crate) mod read;
pub mod render;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod shown;
pub(crate) mod url;
pub(crate) mod watch;
pub(crate) mod write;

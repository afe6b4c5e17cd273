//! What the SQL databases share: which rows a batch makes, how values look in columns of natural
//! types, what our own tables hold, connections, and what errors mean.
//!
//! All but the pool is pure. SQL itself is each database's own.

pub(crate) mod catalogue;
pub(crate) mod error;
pub(crate) mod exact;
pub(crate) mod merge;
pub(crate) mod pool;
pub(crate) mod render;

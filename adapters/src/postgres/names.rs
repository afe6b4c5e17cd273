//! How Postgres quotes names, and which it takes.

use lakesync::limits::NAME_BYTES_MAX;

use crate::sql::names::{self, Names};

const MARK: char = '"';

/// Names in `schema`, unless Postgres would cut its own short or refuse it.
pub(super) fn names(schema: &str) -> Option<Names> {
    let is_sized = (1..=NAME_BYTES_MAX).contains(&schema.len());
    let is_legal = is_sized && !schema.contains('\0') && !schema.starts_with("pg_");
    is_legal.then(|| Names::new(schema, MARK))
}

/// A name as SQL, whatever characters it has.
pub(super) fn quoted(name: &str) -> String {
    names::quoted(name, MARK)
}

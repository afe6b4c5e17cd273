//! How MySQL quotes names, and which it takes.

use crate::sql::names::{self, Names};

const MARK: char = '`';
/// How many characters a name has at most.
const NAME_CHARS_MAX: usize = 64;
/// Databases that belong to the server.
const TAKEN: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// Names in `database`, unless the server would refuse it.
pub(super) fn names(database: &str) -> Option<Names> {
    let is_sized = (1..=NAME_CHARS_MAX).contains(&database.chars().count());
    let is_signs = database.chars().all(|sign| sign != '\0' && u32::from(sign) < 0x1_0000);
    let is_taken = TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(database));
    let is_legal = is_sized && is_signs && !is_taken && !database.ends_with(' ');
    is_legal.then(|| Names::new(database, MARK))
}

/// A name as SQL, whatever characters it has.
pub(super) fn quoted(name: &str) -> String {
    names::quoted(name, MARK)
}

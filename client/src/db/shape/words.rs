//! The bare words of a statement: what it says outside of comments and quotes.

/// Whether a keyword that can't be a name stands in the statement.
pub(super) fn has_keyword(sql: &str, keyword: &str) -> bool {
    let bare = bare(sql);
    let mut words = bare.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| word.eq_ignore_ascii_case(keyword))
}

/// The statement with a space in place of each comment and each quoted text or name.
fn bare(sql: &str) -> String {
    let mut bare = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(start) = rest.chars().next() {
        let skipped = skipped(rest);
        if skipped == 0 {
            bare.push(start);
            rest = &rest[start.len_utf8()..];
        } else {
            bare.push(' ');
            rest = &rest[skipped..];
        }
    }
    bare
}

/// How many bytes the comment or the quoted text takes with which `sql` begins; none if it begins
/// otherwise. A doubled quote within quotes reads as two quoted texts side by side.
fn skipped(sql: &str) -> usize {
    let (open, close) = match sql.as_bytes() {
        [b'-', b'-', ..] => (2, "\n"),
        [b'/', b'*', ..] => (2, "*/"),
        [b'\'', ..] => (1, "'"),
        [b'"', ..] => (1, "\""),
        [b'`', ..] => (1, "`"),
        [b'[', ..] => (1, "]"),
        _ => return 0,
    };
    sql[open..].find(close).map_or(sql.len(), |at| open + at + close.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_quotes_are_no_words() {
        for (sql, found) in [
            ("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)", true),
            ("create table t (id integer primary key autoincrement, v)", true),
            ("CREATE TABLE t (id INTEGER PRIMARY KEY/* why? */AUTOINCREMENT)", true),
            ("CREATE TABLE t (id INTEGER PRIMARY KEY, -- no AUTOINCREMENT here\n v)", false),
            ("CREATE TABLE t (id INTEGER PRIMARY KEY /* not AUTOINCREMENT */, v)", false),
            ("CREATE TABLE t (id INTEGER PRIMARY KEY) -- AUTOINCREMENT", false),
            ("CREATE TABLE t (v DEFAULT 'it''s AUTOINCREMENT')", false),
            ("CREATE TABLE t (\"AUTOINCREMENT\", [AUTOINCREMENT], `AUTOINCREMENT`)", false),
            ("CREATE TABLE t (\"é -- \" INTEGER PRIMARY KEY AUTOINCREMENT)", true),
            ("CREATE TABLE t (autoincrement_of)", false),
            ("CREATE TABLE t (v /* AUTOINCREMENT", false),
        ] {
            assert_eq!(has_keyword(sql, "AUTOINCREMENT"), found, "{sql}");
        }
    }
}

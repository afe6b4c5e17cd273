//! Which tables a trigger's statement writes, as far as its words tell.

/// The tables that the body of this CREATE TRIGGER writes.
pub(super) fn written(sql: &str) -> Vec<String> {
    let words = words(sql);
    let body = words.iter().position(|word| word.eq_ignore_ascii_case("begin")).unwrap_or(0);
    let mut tables = Vec::new();
    for (at, word) in words.iter().enumerate().skip(body) {
        let is = |at: usize, text: &str| {
            words.get(at).is_some_and(|word| word.eq_ignore_ascii_case(text))
        };
        let table = if word.eq_ignore_ascii_case("update") {
            // UPDATE OR REPLACE and its like name the table two words later.
            at + if is(at + 1, "or") { 3 } else { 1 }
        } else if word.eq_ignore_ascii_case("into") {
            at + 1
        } else if word.eq_ignore_ascii_case("delete") && is(at + 1, "from") {
            at + 2
        } else {
            continue;
        };
        tables.extend(words.get(table).cloned());
    }
    tables
}

/// The keywords and names of a statement, without texts and comments.
fn words(sql: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (word, length) = match first {
            '-' if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => {
                (None, rest.find("*/").map_or(rest.len(), |at| at + 2))
            }
            '\'' => (None, quoted(rest, '\'').1),
            '"' | '`' => quoted(rest, first),
            '[' => {
                let end = rest.find(']').unwrap_or(rest.len() - 1);
                (Some(rest[1..end].to_owned()), end + 1)
            }
            _ if is_of_word(first) => {
                let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
                (Some(rest[..end].to_owned()), end)
            }
            _ => (None, first.len_utf8()),
        };
        words.extend(word);
        rest = &rest[length..];
    }
    words
}

/// What stands between the quotes that a text begins with, and how long both are together.
fn quoted(text: &str, quote: char) -> (Option<String>, usize) {
    let mut inner = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return (Some(inner), at + quote.len_utf8());
        }
        inner.push(character);
    }
    (Some(inner), text.len())
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_tell_which_tables_are_written() {
        for (body, expected) in [
            ("UPDATE t SET a = 1;", vec!["t"]),
            ("UPDATE OR REPLACE [odd one] SET a = 1;", vec!["odd one"]),
            ("INSERT INTO \"a\"\"b\" SELECT * FROM other;", vec!["a\"b"]),
            ("REPLACE INTO `x` VALUES ('UPDATE no', 1);", vec!["x"]),
            (
                "DELETE FROM t; -- UPDATE no\n insert or ignore into T (b) values ('it''s');",
                vec!["t", "T"],
            ),
            ("SELECT RAISE(ABORT, 'DELETE FROM no') /* UPDATE no */;", vec![]),
        ] {
            let sql = format!("CREATE TRIGGER tr AFTER UPDATE OF a ON s BEGIN {body} END");
            assert_eq!(written(&sql), expected, "{body}");
        }
    }
}

//! House rules that a machine can check. A rule that is not checked is a wish.
//!
//! Each rule is a function from one file to what is wrong with it. It runs over the repository, and
//! over small bad samples, so that none of them is a check that cannot fail.

use std::fs;
use std::path::Path;

// Cargo makes a test of each file beside this one; rooms live one floor down.
#[path = "tidy/edges.rs"]
mod edges;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/lock.rs"]
mod lock;
#[path = "tidy/words.rs"]
mod words;

const LINES_MAX: usize = 400;

/// Words that say nothing about the product, in halves: this list is no finding either. A zero
/// stands for any number.
const FOREIGN_WORDS: [[&str; 2]; 10] = [
    ["clau", "de"],
    ["chat", "gpt"],
    ["ll", "m"],
    ["as an ", "ai"],
    ["copi", "lot"],
    ["iss", "ue #0"],
    ["iss", "ue 0"],
    ["/wo", "rk/"],
    ["fix", "me"],
    ["to", "do:"],
];
/// What a name ends in whose responsibility is not yet found.
const VAGUE_NAMES: [&str; 5] = ["Manager", "Helper", "Helpers", "Util", "Utils"];

/// A file of the repository: its path from the root, with `/`, and what it holds.
struct File {
    path: String,
    text: String,
}

type Rule = fn(&File) -> Vec<String>;

#[test]
fn every_room_is_small_and_has_a_sign() {
    hold(room);
    let long = "//! A room.\n".repeat(LINES_MAX + 1);
    check(room, "src/a.rs", "//! A room.\n", &[]);
    check(room, "src/a.rs", &long, &["401 lines; split it"]);
    check(room, "build.rs", "fn main() {}\n", &["does not open with `//!`"]);
    check(room, "client/src/db/mod.rs", "//! A door.\n", &["the door of `db/` is `db.rs`"]);
    check(room, "docs/a.md", &long, &[]);
}

fn room(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    if !file.is_rust() {
        return faults;
    }
    let lines = file.text.lines().count();
    if LINES_MAX < lines {
        faults.push(format!("{lines} lines; split it"));
    }
    if !file.text.starts_with("//!") {
        faults.push("does not open with `//!`".to_owned());
    }
    if let Some(dir) = file.path.strip_suffix("/mod.rs") {
        let room = dir.rsplit('/').next().unwrap_or(dir);
        faults.push(format!("the door of `{room}/` is `{room}.rs`"));
    }
    faults
}

#[test]
fn exceptions_from_lints_have_a_reason() {
    hold(reasons);
    for lint in ["allow", "expect"] {
        let fault = format!("`{lint}` without a reason");
        let bare = format!("#[{lint}(dead_code)]\nfn a() {{}}\n");
        check(reasons, "src/a.rs", &bare, &[&fault]);
        check(reasons, "src/a.rs", &format!("#![{lint}(\n    dead_code,\n)]\n"), &[&fault]);
        check(reasons, "src/a.rs", &format!("#[cfg_attr(test, {lint}(unused))]\n"), &[&fault]);
        let good = format!("#[{lint}(dead_code, reason = \"it is read by C\")]\n");
        check(reasons, "src/a.rs", &good, &[]);
    }
    check(reasons, "src/a.rs", "a.expect(\"BUG: no a\");\n", &[]);
}

fn reasons(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    if !file.is_rust() {
        return faults;
    }
    let attributes = file.text.match_indices('#').filter_map(|(at, _)| {
        let rest = &file.text[at + 1..];
        let body = rest.strip_prefix('[').or_else(|| rest.strip_prefix("!["))?;
        Some(&body[..body.find(']')?])
    });
    for attribute in attributes {
        for lint in ["allow", "expect"] {
            let call = format!("{lint}(");
            let opens = |(at, _): (usize, &str)| !attribute[..at].ends_with(is_word);
            if attribute.match_indices(&call).any(opens) && !attribute.contains("reason = ") {
                faults.push(format!("`{lint}` without a reason"));
            }
        }
    }
    faults
}

#[test]
fn words_are_the_products_own() {
    hold(words);
    for halves in FOREIGN_WORDS {
        let word = halves.concat();
        let fault = format!("line 2 says {word:?}");
        let sample = format!("one\nand {}.\n", word.to_uppercase().replace('0', "17"));
        check(words, "docs/a.md", &sample, &[&fault]);
    }
    check(words, "src/a.rs", "let allMine = 1; // the issue is settled\n", &[]);
    check(words, "src/a.rs", "struct LockManager {\n", &["`LockManager`: find its responsibility"]);
    check(words, "src/a.rs", "mod utils;\n", &["`utils`: find its responsibility"]);
    check(words, "src/a.rs", "fn helpers_are_not_utilities() {}\n", &[]);
}

fn words(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, line) in (1..).zip(file.text.lines()) {
        let plain = numbers_as_zero(&line.to_lowercase());
        let said = FOREIGN_WORDS.map(|halves| halves.concat()).into_iter();
        let said = said.filter(|word| says(&plain, word));
        faults.extend(said.map(|word| format!("line {at} says {word:?}")));
        let Some(name) = declared(line).filter(|_| file.is_rust()) else { continue };
        let vague = |end: &str| name.ends_with(end) || name == end.to_lowercase();
        if VAGUE_NAMES.into_iter().any(vague) {
            faults.push(format!("`{name}`: find its responsibility"));
        }
    }
    faults
}

/// Whether `line` has `word`, not as a part of a longer one.
fn says(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let starts_inside = word.starts_with(is_word) && before.ends_with(is_word);
        let ends_inside = word.ends_with(is_word) && after.starts_with(is_word);
        !starts_inside && !ends_inside
    })
}

fn numbers_as_zero(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    for sign in line.chars() {
        match sign.is_ascii_digit() {
            true if plain.ends_with('0') => {}
            true => plain.push('0'),
            false => plain.push(sign),
        }
    }
    plain
}

/// The type or module that a line declares.
fn declared(line: &str) -> Option<&str> {
    let mut tokens = line.split(|sign| !is_word(sign)).filter(|token| !token.is_empty());
    let visibility = |token: &&str| matches!(*token, "pub" | "crate" | "super");
    let keyword = tokens.find(|token| !visibility(token))?;
    let declares = matches!(keyword, "struct" | "enum" | "trait" | "type" | "mod");
    tokens.next().filter(|_| declares)
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The code without comments: what ships, and the tests at the foot.
    fn product_and_tests(&self) -> (String, String) {
        let code: Vec<_> = self.text.lines().map(without_comment).collect();
        let starts_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ");
        let all_tests = self.path.split('/').any(|part| part == "tests" || part == "tests.rs");
        let at = if all_tests { Some(0) } else { code.windows(2).position(starts_tests) };
        let (product, tests) = code.split_at(at.unwrap_or(code.len()));
        (product.join("\n"), tests.join("\n"))
    }
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.split_once(" // ").map_or(line, |(code, _)| code)
}

/// The name that `path` begins with.
fn head(path: &str) -> &str {
    let end = path.find(|sign| !is_word(sign)).unwrap_or(path.len());
    if end == 0 { path.get(..1).unwrap_or("") } else { &path[..end] }
}

fn is_word(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

/// Every file of the repository keeps `rule`.
#[track_caller]
fn hold(rule: Rule) {
    let found = files();
    assert!(20 < found.len(), "the walk found {} files only", found.len());
    let say = |file: &File| {
        let faults = rule(file).into_iter();
        faults.map(|fault| format!("{}: {fault}", file.path)).collect::<Vec<_>>()
    };
    let faults: Vec<_> = found.iter().flat_map(say).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// `rule` finds exactly `faults` in a sample.
#[track_caller]
fn check(rule: Rule, path: &str, text: &str, faults: &[&str]) {
    let file = File { path: path.to_owned(), text: text.to_owned() };
    assert_eq!(rule(&file), faults, "{path}: {text}");
}

/// The repository's text files. What is built, fetched or locked is not ours to tidy.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let ours = !name.starts_with('.') || name == ".ci";
            if !ours || name == "target" || name == "Cargo.lock" {
                continue;
            }
            if path.is_dir() {
                pending.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root).expect("below the root").to_string_lossy();
                found.push(File { path: path.replace('\\', "/"), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

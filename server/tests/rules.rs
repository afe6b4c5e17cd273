//! `lakesync rules check` as a user runs it on a file, with no server anywhere.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Rules in every form a file may have, each as its whole text.
const GOOD: [(&str, &str); 3] = [
    (
        "rules.json",
        r#"{"version": 1, "buckets": [
            {"name": "mine", "tables": ["todos"],
             "filters": [{"column": "owner", "op": "OPERATOR_EQ", "values": ["jwt:sub"]}]},
            {"name": "all", "readOnly": true, "when": {"admin": "true"}}]}"#,
    ),
    (
        "rules.yaml",
        "
version: 1
buckets:
  - name: mine
    tables: [todos]
    filters:
      - { column: owner, op: eq, value: 'jwt:sub' }
  - name: all
    read_only: true
    when: { admin: true }
",
    ),
    (
        "predecessor.json",
        r#"{"version": 1, "buckets": [
            {"name": "mine", "tables": ["todos"],
             "filters": [{"column": "owner", "op": "eq", "value": "jwt:sub"}]},
            {"name": "team", "tables": [],
             "filters": [{"column": "team", "op": "in", "value": "jwt:teams"}]}]}"#,
    ),
];

fn check(place: &Path, file: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lakesync"))
        .current_dir(place)
        .env_remove("LAKESYNC_TOKEN")
        .args(["rules", "check", file])
        .args(more)
        .output()
        .expect("started")
}

fn holding(file: &str, text: &str) -> TempDir {
    let place = tempfile::tempdir().expect("a directory");
    fs::write(place.path().join(file), text).expect("written");
    place
}

#[test]
fn good_rules_of_every_form_pass_without_a_server() {
    for (file, text) in GOOD {
        let place = holding(file, text);
        let output = check(place.path(), file, &[]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {errors}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.starts_with(&format!("{file}: 2 buckets")), "{said}");
    }
}

/// Runs the check on `text`, which must fail with `code` and one line that begins with `wrong`.
fn fails(text: &str, code: i32, wrong: &str) {
    let place = holding("rules.file", text);
    let output = check(place.path(), "rules.file", &[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}: {errors}");
    assert!(errors.starts_with(&format!("lakesync: rules.file: {wrong}")), "{wrong}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(output.stdout.is_empty());
}

#[test]
fn what_needs_no_tables_is_found_without_a_server() {
    let bucket = |inner: &str| format!(r#"{{"buckets": [{{"name": "ok"}}, {{{inner}}}]}}"#);
    let filter = |inner: &str| bucket(&format!(r#""name": "x", "filters": [{{{inner}}}]"#));
    let many = |count: usize, one: &str| vec![one; count].join(", ");
    let buckets: Vec<String> = (0..101).map(|nth| format!(r#"{{"name": "{nth}"}}"#)).collect();
    let claims: Vec<String> = (0..17).map(|nth| format!(r#""c{nth}": "x""#)).collect();
    let one = r#"{"column": "a", "op": "eq", "value": "1"}"#;
    for (text, wrong) in [
        (r#"{"buckets": []}"#.to_owned(), "buckets: no bucket"),
        (format!(r#"{{"buckets": [{}]}}"#, buckets.join(",")), "buckets: 101 buckets"),
        (bucket(r#""name": "ok""#), "buckets[1].name: \"ok\" names buckets[0] already"),
        (bucket(r#""name": """#), "buckets[1].name: a name has 1 to 128 bytes"),
        (bucket(r#""name": "x", "tables": ["a", "b c"]"#), "buckets[1].tables[1]: \"b c\" is not"),
        (bucket(r#""name": "x", "tables": ["a", "a"]"#), "buckets[1].tables[1]: table a is listed"),
        (
            bucket(&format!(r#""name": "x", "filters": [{}]"#, many(17, one))),
            "buckets[1].filters: 17 filters; the limit is 16",
        ),
        (
            filter(r#""column": "", "op": "eq", "value": "1""#),
            "buckets[1].filters[0].column: \"\" is not a legal",
        ),
        (filter(r#""column": "a", "op": "eq""#), "buckets[1].filters[0].values: a filter needs"),
        (
            filter(r#""column": "a", "op": "in", "values": []"#),
            "buckets[1].filters[0].values: a filter needs",
        ),
        (
            filter(r#""column": "a", "op": "eq", "values": ["1", "2"]"#),
            "buckets[1].filters[0].values: eq compares with one value",
        ),
        (
            filter(&format!(r#""column": "a", "op": "in", "values": [{}]"#, many(1_001, "1"))),
            "buckets[1].filters[0].values: 1001 values",
        ),
        (
            filter(r#""column": "a", "op": "in", "values": ["1", "jwt:"]"#),
            "buckets[1].filters[0].values[1]: a claim needs a name",
        ),
        (bucket(r#""name": "x", "when": {"jwt:": "y"}"#), "buckets[1].when: a claim needs a name"),
        (
            bucket(&format!(r#""name": "x", "when": {{{}}}"#, claims.join(","))),
            "buckets[1].when: 17 claims; the limit is 16",
        ),
    ] {
        fails(&text, 78, wrong);
    }
}

#[test]
fn what_can_not_be_understood_is_named_with_its_line() {
    let operator = "{\"buckets\": [{\"name\": \"x\", \"filters\": [\n  {\"column\": \"a\", \"op\": \"neq\"}]}]}";
    for (text, place) in [
        (operator, "line 2 column"),
        ("buckets:\n  - name: x\n    filters:\n      - { column: a, op: neq }\n", "line 4 column"),
        ("{\"buckets\": [{\"name\": \"x\",\n\"filter\": []}]}", "line 2 column"),
        ("buckets: [", "line 1"),
        ("{\"buckets\": [", "line 1"),
    ] {
        let file = holding("rules.file", text);
        let output = check(file.path(), "rules.file", &[]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text}: {errors}");
        assert!(errors.contains("rules.file: ") && errors.contains(place), "{place}: {errors}");
    }
}

#[test]
fn a_missing_file_and_a_wrong_command_line_are_told_apart() {
    let (file, text) = GOOD[0];
    let place = holding(file, text);
    let output = check(place.path(), "missing", &[]);
    assert_eq!(output.status.code(), Some(74));
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing: "));
    // Each of these is for a server, and there is none.
    for more in [["--claims", "{}"], ["--gateway", "main"], ["--token", "x"]] {
        let output = check(place.path(), file, &more);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{more:?}: {errors}");
        assert!(errors.contains("--url"), "{more:?}: {errors}");
    }
}

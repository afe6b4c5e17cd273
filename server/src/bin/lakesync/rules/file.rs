//! Rules as a file, in JSON or YAML: as messages have them, or in short.
//!
//! In short an operator is `eq` or `in`, and a filter may have one `value` in place of `values`; so
//! files of LakeSync's TypeScript predecessor load as they are.

use std::collections::BTreeMap;

use lakesync::rules::{BucketDraft, Draft, FilterDraft, Operator};
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    version: u32,
    buckets: Vec<Bucket>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    name: String,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    filters: Vec<Filter>,
    #[serde(default, alias = "readOnly")]
    read_only: bool,
    #[serde(default)]
    when: BTreeMap<String, Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    column: String,
    op: Op,
    #[serde(default)]
    value: Option<Text>,
    #[serde(default)]
    values: Vec<Text>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Op {
    #[serde(rename = "eq", alias = "OPERATOR_EQ")]
    Eq,
    #[serde(rename = "in", alias = "OPERATOR_IN")]
    In,
}

/// A literal: YAML and JSON write numbers and truth values without quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Truth(bool),
    Integer(i64),
    Number(f64),
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text {
            Text::Plain(text) => text,
            Text::Truth(truth) => truth.to_string(),
            Text::Integer(number) => number.to_string(),
            Text::Number(number) => number.to_string(),
        }
    }
}

/// The rules that `text` holds: JSON if it begins like an object, else YAML.
pub(super) fn parse(text: &str) -> Result<Draft, String> {
    let rules: Rules = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|error| error.to_string())?,
        false => serde_saphyr::from_str(text).map_err(|error| one_line(&error.to_string()))?,
    };
    let buckets = rules.buckets.into_iter().map(|bucket| BucketDraft {
        name: bucket.name,
        tables: bucket.tables,
        filters: bucket.filters.into_iter().map(filter).collect(),
        read_only: bucket.read_only,
        when: bucket.when.into_iter().map(|(claim, text)| (claim, text.into())).collect(),
    });
    Ok(Draft { version: rules.version, buckets: buckets.collect() })
}

fn filter(filter: Filter) -> FilterDraft {
    let operator = match filter.op {
        Op::Eq => Operator::Eq,
        Op::In => Operator::In,
    };
    let values = filter.value.into_iter().chain(filter.values).map(Into::into).collect();
    FilterDraft { column: filter.column, operator, values }
}

/// The rules as a file in JSON, which [`parse`] takes.
pub(super) fn print(draft: &Draft) -> String {
    let operator = |operator| match operator {
        Operator::Eq => "eq",
        Operator::In => "in",
    };
    let filter = |filter: &FilterDraft| {
        let FilterDraft { column, operator: op, values } = filter;
        json!({ "column": column, "op": operator(*op), "values": values })
    };
    let bucket = |bucket: &BucketDraft| {
        json!({
            "name": bucket.name,
            "tables": bucket.tables,
            "filters": bucket.filters.iter().map(filter).collect::<Vec<_>>(),
            "read_only": bucket.read_only,
            "when": bucket.when,
        })
    };
    let buckets: Vec<_> = draft.buckets.iter().map(bucket).collect();
    format!("{:#}", json!({ "version": draft.version, "buckets": buckets }))
}

/// Errors show the place in the file over several lines; ours are one.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        let filter = |column: &str, operator, values: &[&str]| FilterDraft {
            column: column.to_owned(),
            operator,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let mine = BucketDraft {
            name: "user-data".to_owned(),
            tables: vec!["todos".to_owned()],
            filters: vec![filter("user_id", Operator::Eq, &["jwt:sub"])],
            ..BucketDraft::default()
        };
        let open = BucketDraft {
            name: "open".to_owned(),
            filters: vec![filter("team", Operator::In, &["1", "jwt:teams"])],
            read_only: true,
            when: BTreeMap::from([("admin".to_owned(), "true".to_owned())]),
            ..BucketDraft::default()
        };
        Draft { version: 1, buckets: vec![mine, open] }
    }

    #[test]
    fn what_is_printed_can_be_put_again() {
        assert_eq!(parse(&print(&draft())), Ok(draft()));
    }

    #[test]
    fn json_yaml_and_the_form_of_messages_are_the_same() {
        let short = r#"{"version": 1, "buckets": [
            {"name": "user-data", "tables": ["todos"],
             "filters": [{"column": "user_id", "op": "eq", "value": "jwt:sub"}]},
            {"name": "open", "tables": [], "read_only": true, "when": {"admin": true},
             "filters": [{"column": "team", "op": "in", "values": [1, "jwt:teams"]}]}]}"#;
        let long = r#"{"version": 1, "buckets": [
            {"name": "user-data", "tables": ["todos"],
             "filters": [{"column": "user_id", "op": "OPERATOR_EQ", "values": ["jwt:sub"]}]},
            {"name": "open", "readOnly": true, "when": {"admin": "true"},
             "filters": [{"column": "team", "op": "OPERATOR_IN", "values": ["1", "jwt:teams"]}]}]}"#;
        let yaml = "
version: 1
buckets:
  - name: user-data
    tables: [todos]
    filters:
      - { column: user_id, op: eq, value: 'jwt:sub' }
  - name: open
    read_only: true
    when: { admin: true }
    filters:
      - column: team
        op: in
        values: [1, 'jwt:teams']
";
        for text in [short, long, yaml] {
            assert_eq!(parse(text), Ok(draft()), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_understood_is_one_line_with_its_place() {
        for (text, what) in [
            ("{\"version\": 1}", "missing field `buckets`"),
            ("{\"buckets\": [{\"name\": \"x\", \"filter\": []}]}", "unknown field `filter`"),
            ("buckets:\n  - name: x\n    filters:\n      - { column: a, op: neq }\n", "neq"),
            ("buckets: [", "line"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(what) && !error.contains('\n'), "{text}: {error}");
        }
    }
}

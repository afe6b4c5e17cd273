//! Rules, claims and changes, made up by dice.

use std::collections::BTreeMap;

use lakesync::rules::{BucketDraft, Draft, FilterDraft, Operator};
use lakesync::value::Value;
use serde_json::{Map, Value as Json, json};

use super::oracle::{Kind, columns};
use crate::replicas::dice::Dice;

/// Who there is: subjects, and owners of rows.
pub(crate) const PEOPLE: [&str; 4] = ["ann", "bob", "cyd", "o'neil"];
const TEAMS: u64 = 4;
/// The ids of rows are few, so that tokens meet on the same rows.
const IDS: u64 = 30;

/// A filter, as a test writes it down.
pub(crate) fn filter(column: &str, values: &[&str]) -> FilterDraft {
    let operator = if values.len() == 1 { Operator::Eq } else { Operator::In };
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    FilterDraft { column: column.to_owned(), operator, values }
}

/// A bucket, as a test writes it down.
pub(crate) fn bucket(name: &str, tables: &[&str], filters: Vec<FilterDraft>) -> BucketDraft {
    let tables = tables.iter().map(|table| (*table).to_owned()).collect();
    BucketDraft { name: name.to_owned(), tables, filters, ..BucketDraft::default() }
}

/// The bucket of those who may do everything.
pub(crate) fn service() -> BucketDraft {
    let when = BTreeMap::from([("role".to_owned(), "service".to_owned())]);
    BucketDraft { when, ..bucket("service", &[], vec![]) }
}

/// Some rules. Somebody who may do everything is always among them, so that rows move.
pub(crate) fn rules(dice: &Dice) -> Draft {
    let mut buckets = vec![service()];
    for nth in 0..1 + dice.below(3) {
        let mut one = match dice.below(8) {
            0 => bucket("", &["docs"], vec![filter("owner", &["jwt:sub"])]),
            1 => bucket("", &["docs"], vec![filter("team", &["jwt:teams", "jwt:org.team"])]),
            2 => bucket("", &[], vec![filter("team", &["jwt:teams"]), filter("open", &["true"])]),
            3 => bucket("", &["docs"], vec![filter("owner", &["ann", "jwt:sub"])]),
            4 => bucket("", &["docs"], vec![filter("open", &["true"])]),
            5 => bucket("", &["users"], vec![filter("id", &["jwt:sub"])]),
            6 => bucket(
                "",
                &["docs"],
                vec![filter("team", &["1", "2"]), filter("owner", &["jwt:sub"])],
            ),
            _ => bucket("", &[], vec![]),
        };
        one.name = format!("b{nth}");
        one.read_only = dice.one_in(3);
        if one.filters.is_empty() || dice.one_in(4) {
            one.when.insert("role".to_owned(), "auditor".to_owned());
        }
        buckets.push(one);
    }
    Draft { version: 1, buckets }
}

/// The claims of some token, beside its subject: some are missing, or not what a column holds.
pub(crate) fn claims(dice: &Dice) -> Map<String, Json> {
    let team = || json!(dice.below(TEAMS));
    let teams = match dice.below(6) {
        0 => json!([]),
        1 => team(),
        2 => json!([team(), {"no": "team"}]),
        3 => json!([dice.below(TEAMS).to_string(), team()]),
        _ => json!([team(), team()]),
    };
    let mut claims = Map::new();
    if !dice.one_in(4) {
        claims.insert("teams".to_owned(), teams);
    }
    if !dice.one_in(4) {
        claims.insert("org".to_owned(), json!({"team": team()}));
    }
    match dice.below(6) {
        0 => _ = claims.insert("role".to_owned(), json!("auditor")),
        1 => _ = claims.insert("role".to_owned(), json!(["guest", "auditor"])),
        _ => {}
    }
    claims
}

/// The name of some row.
pub(crate) fn row(dice: &Dice) -> String {
    match dice.one_in(6) {
        true => format!("users/{}", dice.pick(&PEOPLE)),
        false => format!("docs/{}", dice.below(IDS)),
    }
}

/// New values of some columns of a row; `canary` marks a text that nobody else ever wrote.
pub(crate) fn cells(dice: &Dice, row: &str, canary: &str) -> Vec<(&'static str, Value)> {
    let (table, _) = row.split_once('/').expect("table/id");
    let mut cells = Vec::new();
    for (column, kind) in columns(table) {
        if dice.one_in(2) {
            continue;
        }
        let value = match (kind, *column) {
            _ if dice.one_in(10) => Value::Null,
            (Kind::Text, "owner") => Value::String((*dice.pick(&PEOPLE)).to_owned()),
            (Kind::Text, _) => Value::String(canary.to_owned()),
            (Kind::Number, _) => Value::Int64(dice.below(TEAMS).cast_signed()),
            (Kind::Truth, _) => Value::Bool(dice.one_in(2)),
        };
        cells.push((*column, value));
    }
    cells
}

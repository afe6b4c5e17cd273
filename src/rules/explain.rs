//! Why a token may see a row, or not: what was compared, and how it came out.

use super::claims::Resolved;
use super::{Bucket, Claims, Condition, Part, Scope, SyncRules, TooManyInstances};
use crate::name::{RowId, TableName};
use crate::row::Row;

/// What a token's claims come to, and whether a row is within.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The buckets that the claims open.
    pub buckets: Vec<String>,
    /// Whether the row may be seen.
    pub readable: bool,
    /// Whether the row may be changed as it is now.
    pub writable: bool,
    /// A line per bucket, and one per condition that was looked at.
    pub trace: Vec<String>,
}

/// Explains what `claims` open under `rules` and, where a row is named, whether it is in there.
pub fn explain(
    rules: &SyncRules,
    claims: &Claims,
    row: Option<(&TableName, &RowId, &Row)>,
) -> Result<Explanation, TooManyInstances> {
    let scope = Scope::of(rules, claims)?;
    let mut explained = Explanation::default();
    if let Some((table, row_id, row)) = row {
        let instances = rules.instances(table, row_id, row);
        explained.readable = scope.reads(&instances);
        explained.writable = scope.writes(&instances);
        if !row.is_live() {
            explained.trace.push(format!("there is no row \"{row_id}\" in table {table}"));
        }
    }
    for (number, bucket) in (0_u16..).zip(&rules.buckets) {
        if scope.instances().any(|instance| instance.bucket() == number) {
            explained.buckets.push(bucket.name.clone());
        }
        bucket.trace(rules, number, claims, row, &mut explained.trace);
    }
    Ok(explained)
}

impl Bucket {
    fn trace(
        &self,
        rules: &SyncRules,
        number: u16,
        claims: &Claims,
        row: Option<(&TableName, &RowId, &Row)>,
        lines: &mut Vec<String>,
    ) {
        let mut say = |what: String| lines.push(format!("bucket {}: {what}", self.name));
        for (claim, wanted) in &self.when {
            let (name, found) = (claim.as_str(), claim.shown(claims));
            if !claim.says(claims, wanted) {
                return say(format!("shut: it wants {name} = {wanted:?}, the token has {found}"));
            }
            say(format!("{name} = {wanted:?}: the token has {found}"));
        }
        let part_of = |table: &TableName| {
            rules.parts.get(table).and_then(|parts| parts.iter().find(|one| one.bucket == number))
        };
        let Some((table, row_id, row)) = row else {
            let part = self.tables.first().and_then(part_of);
            let conditions = part.map_or(&[][..], |part| &part.conditions);
            conditions.iter().for_each(|condition| say(condition.asked(claims)));
            return;
        };
        match part_of(table) {
            None => say(format!("holds no rows of {table}")),
            Some(part) if row.is_live() => part.trace(claims, row_id, row, say),
            Some(_) => {}
        }
    }
}

impl Part {
    fn trace(&self, claims: &Claims, row_id: &RowId, row: &Row, mut say: impl FnMut(String)) {
        let mut passes = true;
        for condition in &self.conditions {
            let value = condition.value(row_id, row);
            let accepted = condition.accepted(claims);
            let passed = value.as_ref().zip(accepted.as_ref());
            let passed = passed.is_some_and(|(value, texts)| texts.iter().any(|one| one == value));
            passes &= passed;
            let found = value.map_or("no value".to_owned(), |value| format!("{value:?}"));
            let outcome = if passed { "passes" } else { "fails" };
            say(format!("{outcome}: the row has {found}; {}", condition.asked(claims)));
        }
        say(if passes { "holds the row" } else { "does not hold the row" }.to_owned());
    }
}

impl Condition {
    /// The texts that pass, or nothing if a claim is missing or mistyped.
    fn accepted(&self, claims: &Claims) -> Option<Vec<String>> {
        match self.is_dimension() {
            true => self.values(claims),
            false => Some(self.literals.clone()),
        }
    }

    /// What the condition compares with.
    fn asked(&self, claims: &Claims) -> String {
        let literals = self.literals.iter().map(|literal| format!("{literal:?}"));
        let claimed = self.claims.iter().map(|claim| {
            let (name, kind) = (claim.as_str(), self.kind);
            match claim.resolve(claims, kind) {
                Resolved::Missing => format!("jwt:{name}, which the token lacks"),
                Resolved::Mistyped(value) => format!("jwt:{name}, whose {value} is no {kind}"),
                Resolved::Texts(texts) => format!("jwt:{name}, which is {texts:?}"),
            }
        });
        let all: Vec<String> = literals.chain(claimed).collect();
        format!("{} must be {}", self.column(), all.join(" or "))
    }
}

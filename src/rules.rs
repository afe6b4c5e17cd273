//! Sync rules: which rows a token may see and write.
//!
//! A [`Draft`] is what somebody wrote; [`SyncRules`] is what it means under a schema, and can't be
//! wrong. Rules are a union of buckets: a row is in a bucket if it passes every filter. A filter
//! that compares with claims splits its bucket into *instances*, one per combination of values.
//! [`SyncRules::instances`] says which of them a row is in, [`Scope`] which of them a token opens;
//! the row may be seen where the two meet. A row is in one instance of a bucket at most.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Classify, FieldViolation, Reason};
use crate::name::{ColumnName, TableName};
use crate::schema::ColumnType;

mod check;
mod claims;
mod explain;
mod index;
mod parse;
mod scope;

pub use claims::{Claim, Claims};
pub use explain::{Explanation, explain};
pub use index::Instance;
pub use scope::{Scope, TooManyInstances};

/// Rules as somebody wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The author's own number; it has no meaning here.
    pub version: u32,
    /// The buckets, which are united.
    pub buckets: Vec<BucketDraft>,
}

/// A bucket as somebody wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketDraft {
    /// Its name, unique among the buckets.
    pub name: String,
    /// The tables whose rows it holds; empty is every table that has the filters' columns.
    pub tables: Vec<String>,
    /// What a row must pass, all of them.
    pub filters: Vec<FilterDraft>,
    /// Whether its rows may be read but not written.
    pub read_only: bool,
    /// What a token's claims must be, by claim, for the bucket to open at all.
    pub when: BTreeMap<String, String>,
}

/// A filter as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterDraft {
    /// The column it looks at.
    pub column: String,
    /// How many values there may be.
    pub operator: Operator,
    /// Literals, or `jwt:` and a claim.
    pub values: Vec<String>,
}

/// How a filter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Equal to the one value.
    Eq,
    /// Equal to any of the values.
    In,
}

/// Rules under a schema. Only [`Draft::parse`] makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRules {
    draft: Draft,
    buckets: Vec<Bucket>,
    /// Which buckets concern a table, and how.
    parts: HashMap<TableName, Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bucket {
    name: String,
    read_only: bool,
    when: Vec<(Claim, String)>,
    /// The tables that take part, sorted.
    tables: Vec<TableName>,
    /// Whether it holds all of their rows.
    whole: bool,
}

/// One table's part in one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    bucket: u16,
    conditions: Vec<Condition>,
}

/// A filter on one table's column.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    source: Source,
    kind: ColumnType,
    /// Comparable texts of the literals, sorted.
    literals: Vec<String>,
    /// Where any is named, the condition is a dimension of the bucket's instances.
    claims: Vec<Claim>,
}

/// Where a condition finds its value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The row id, which the table keeps under this name.
    RowId(ColumnName),
    Column(ColumnName),
}

/// What is wrong with rules, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct RulesError {
    /// The place, as in `buckets[0].filters[1].values[2]`.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl Classify for RulesError {
    fn reason(&self) -> Reason {
        Reason::InvalidRequest
    }

    fn violations(&self) -> Vec<FieldViolation> {
        let (field, description) = (format!("rules.{}", self.place), self.what.clone());
        vec![FieldViolation { field, description }]
    }
}

impl SyncRules {
    /// The rules as they were written.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// The tables of the instance's bucket, if it holds all of their rows: nothing need be kept to
    /// know which.
    pub fn whole_tables(&self, instance: &Instance) -> Option<&[TableName]> {
        let bucket = self.buckets.get(usize::from(instance.bucket()))?;
        bucket.whole.then_some(&bucket.tables)
    }

    /// Which buckets look at this column of this table, by name: its type can't change under them.
    pub fn looking_at(&self, table: &TableName, column: &ColumnName) -> Vec<&str> {
        let parts = self.parts.get(table).into_iter().flatten();
        let looks = |condition: &Condition| condition.source == Source::Column(column.clone());
        let looking = parts.filter(|part| part.conditions.iter().any(looks));
        looking.map(|part| self.bucket(part.bucket).name.as_str()).collect()
    }

    fn bucket(&self, number: u16) -> &Bucket {
        &self.buckets[usize::from(number)]
    }
}

impl Condition {
    /// The name that rules and people use for the column.
    fn column(&self) -> &ColumnName {
        match &self.source {
            Source::RowId(name) | Source::Column(name) => name,
        }
    }
}

#[cfg(test)]
mod tests;

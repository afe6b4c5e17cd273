//! From what somebody wrote to what it means: every name is looked up, every literal read, once.

use std::collections::HashMap;

use super::{
    Bucket, BucketDraft, Claim, Condition, Draft, FilterDraft, Operator, Part, RulesError, Source,
    SyncRules,
};
use crate::limits::{BUCKET_NAME_BYTES_MAX, BUCKETS_MAX, FILTER_VALUES_MAX, FILTERS_MAX, WHEN_MAX};
use crate::name::{ColumnName, TableName};
use crate::schema::{ColumnType, Schema, TableSchema};

/// What stands in front of a claim's name among a filter's values.
const CLAIM: &str = "jwt:";

impl Draft {
    /// What this means for the tables of `schema`.
    pub fn parse(&self, schema: &Schema) -> Result<SyncRules, RulesError> {
        let count = self.buckets.len();
        if count == 0 {
            let what = "no bucket would show no row to anybody; one without tables and filters \
                        shows every row to everybody";
            return Err(error("buckets", what));
        }
        if BUCKETS_MAX < count {
            return Err(error("buckets", format!("{count} buckets; the limit is {BUCKETS_MAX}")));
        }
        let mut rules = SyncRules {
            draft: self.clone(),
            buckets: Vec::with_capacity(count),
            parts: HashMap::new(),
        };
        for (number, draft) in (0_u16..).zip(&self.buckets) {
            let place = format!("buckets[{number}]");
            check_name(&rules.buckets, &draft.name, &place)?;
            let mut bucket = Bucket {
                name: draft.name.clone(),
                read_only: draft.read_only,
                when: when(draft, &place)?,
                tables: Vec::new(),
                whole: draft.filters.is_empty(),
            };
            check_filters(draft, &place)?;
            for table in tables(draft, schema, &place)? {
                let conditions = conditions(draft, table, &place)?;
                let parts = rules.parts.entry(table.table.clone()).or_default();
                parts.push(Part { bucket: number, conditions });
                bucket.tables.push(table.table.clone());
            }
            bucket.tables.sort_unstable();
            rules.buckets.push(bucket);
        }
        Ok(rules)
    }
}

fn error(place: impl Into<String>, what: impl Into<String>) -> RulesError {
    RulesError { place: place.into(), what: what.into() }
}

fn check_name(earlier: &[Bucket], name: &str, place: &str) -> Result<(), RulesError> {
    let place = format!("{place}.name");
    if name.is_empty() || BUCKET_NAME_BYTES_MAX < name.len() || name.contains(char::is_control) {
        let what = format!("a name has 1 to {BUCKET_NAME_BYTES_MAX} bytes, no control characters");
        return Err(error(place, what));
    }
    match earlier.iter().position(|bucket| bucket.name == name) {
        Some(first) => Err(error(place, format!("{name:?} names buckets[{first}] already"))),
        None => Ok(()),
    }
}

fn when(draft: &BucketDraft, place: &str) -> Result<Vec<(Claim, String)>, RulesError> {
    if WHEN_MAX < draft.when.len() {
        let what = format!("{} claims; the limit is {WHEN_MAX}", draft.when.len());
        return Err(error(format!("{place}.when"), what));
    }
    let condition = |(name, text): (&String, &String)| {
        let name = name.strip_prefix(CLAIM).unwrap_or(name);
        let claim = Claim::parse(name);
        let claim = claim.ok_or_else(|| error(format!("{place}.when"), "a claim needs a name"))?;
        Ok((claim, text.clone()))
    };
    draft.when.iter().map(condition).collect()
}

/// What can be said of filters without looking at a table.
fn check_filters(draft: &BucketDraft, place: &str) -> Result<(), RulesError> {
    let count = draft.filters.len();
    if FILTERS_MAX < count {
        let what = format!("{count} filters; the limit is {FILTERS_MAX}");
        return Err(error(format!("{place}.filters"), what));
    }
    for (nth, filter) in draft.filters.iter().enumerate() {
        let place = format!("{place}.filters[{nth}]");
        if let Err(invalid) = ColumnName::parse(&filter.column) {
            return Err(error(format!("{place}.column"), invalid.to_string()));
        }
        let place = format!("{place}.values");
        match (filter.operator, filter.values.len()) {
            (_, 0) => return Err(error(place, "a filter needs a value")),
            (Operator::Eq, 2..) => {
                return Err(error(place, "eq compares with one value; for several there is in"));
            }
            (_, count) if FILTER_VALUES_MAX < count => {
                let what = format!("{count} values; the limit is {FILTER_VALUES_MAX}");
                return Err(error(place, what));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The tables that take part: those named, or all that have the filters' columns.
fn tables<'a>(
    draft: &BucketDraft,
    schema: &'a Schema,
    place: &str,
) -> Result<Vec<&'a TableSchema>, RulesError> {
    if draft.tables.is_empty() {
        let lacks = |table: &TableSchema| {
            draft.filters.iter().find(|filter| look_up(table, &filter.column).is_none())
        };
        let all: Vec<_> = schema.tables().map(AsRef::as_ref).collect();
        for (nth, filter) in draft.filters.iter().enumerate() {
            if all.iter().all(|table| look_up(table, &filter.column).is_none()) {
                let what = format!("no table has a column {}", filter.column);
                return Err(error(format!("{place}.filters[{nth}].column"), what));
            }
        }
        return Ok(all.into_iter().filter(|table| lacks(table).is_none()).collect());
    }
    let mut named: Vec<&TableSchema> = Vec::with_capacity(draft.tables.len());
    for (nth, name) in draft.tables.iter().enumerate() {
        let place = format!("{place}.tables[{nth}]");
        let known = TableName::parse(name).ok().and_then(|name| schema.table(&name));
        let table = known.ok_or_else(|| error(&place, format!("there is no table {name:?}")))?;
        if named.iter().any(|earlier| earlier.table == table.table) {
            return Err(error(place, format!("table {name} is listed twice")));
        }
        named.push(table);
    }
    Ok(named)
}

fn conditions(
    draft: &BucketDraft,
    table: &TableSchema,
    place: &str,
) -> Result<Vec<Condition>, RulesError> {
    let filters = draft.filters.iter().enumerate();
    filters
        .map(|(nth, filter)| condition(filter, table, &format!("{place}.filters[{nth}]")))
        .collect()
}

fn condition(
    filter: &FilterDraft,
    table: &TableSchema,
    place: &str,
) -> Result<Condition, RulesError> {
    let Some((source, kind)) = look_up(table, &filter.column) else {
        let what = format!("table {} has no column {}", table.table, filter.column);
        return Err(error(format!("{place}.column"), what));
    };
    let (mut literals, mut claims) = (Vec::new(), Vec::new());
    for (nth, value) in filter.values.iter().enumerate() {
        let place = || format!("{place}.values[{nth}]");
        match value.strip_prefix(CLAIM) {
            Some(name) => {
                let claim = Claim::parse(name);
                claims.push(claim.ok_or_else(|| error(place(), "a claim needs a name"))?);
            }
            None => {
                let literal = kind.literal(value).ok_or_else(|| {
                    let (column, form) = (&filter.column, kind.literal_form());
                    let table = &table.table;
                    let what = format!("{value:?} is not {form}; {table}.{column} is {kind}");
                    error(place(), what)
                })?;
                literals.push(literal);
            }
        }
    }
    literals.sort_unstable();
    literals.dedup();
    Ok(Condition { source, kind, literals, claims })
}

/// Where a table keeps what rules call `column`, and its type.
fn look_up(table: &TableSchema, column: &str) -> Option<(Source, ColumnType)> {
    let name = ColumnName::parse(column).ok()?;
    match table.column(&name) {
        Some(column) => Some((Source::Column(name), column.kind)),
        // Where columns make up the row id, those stand in the table themselves.
        None if table.key == name && table.primary_key.is_empty() => {
            Some((Source::RowId(name), ColumnType::String))
        }
        None => None,
    }
}

//! From what somebody wrote to what it means: every name is looked up, every literal read, once.

use std::collections::HashMap;

use super::check::{claim, error, when};
use super::{
    Bucket, BucketDraft, Condition, Draft, FilterDraft, Part, RulesError, Source, SyncRules,
};
use crate::name::{ColumnName, TableName};
use crate::schema::{ColumnType, Schema, TableSchema};

impl Draft {
    /// What this means for the tables of `schema`.
    pub fn parse(&self, schema: &Schema) -> Result<SyncRules, RulesError> {
        self.check()?;
        let mut rules = SyncRules {
            draft: self.clone(),
            buckets: Vec::with_capacity(self.buckets.len()),
            parts: HashMap::new(),
        };
        for (number, draft) in (0_u16..).zip(&self.buckets) {
            let place = format!("buckets[{number}]");
            let mut bucket = Bucket {
                name: draft.name.clone(),
                read_only: draft.read_only,
                when: when(draft, &place)?,
                tables: Vec::new(),
                whole: draft.filters.is_empty(),
            };
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
    let named = draft.tables.iter().enumerate().map(|(nth, name)| {
        let known = TableName::parse(name).ok().and_then(|name| schema.table(&name));
        let unknown = || format!("there is no table {name:?}");
        let known = known.map(AsRef::as_ref);
        known.ok_or_else(|| error(format!("{place}.tables[{nth}]"), unknown()))
    });
    named.collect()
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
        match claim(value).map_err(|what| error(place(), what))? {
            Some(claim) => claims.push(claim),
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

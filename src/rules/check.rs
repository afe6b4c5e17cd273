//! What can be said of rules without any table: their number, their names, their form. Each of these
//! decisions is made here alone; what they mean for tables is decided after.

use std::collections::HashSet;

use super::{BucketDraft, Claim, Draft, FilterDraft, Operator, RulesError};
use crate::limits::{BUCKET_NAME_BYTES_MAX, BUCKETS_MAX, FILTER_VALUES_MAX, FILTERS_MAX, WHEN_MAX};
use crate::name::{ColumnName, TableName};

/// What stands in front of a claim's name among a filter's values.
const CLAIM: &str = "jwt:";

impl Draft {
    /// Refuses what is wrong whatever the tables are. [`parse`](Self::parse) begins with this.
    pub fn check(&self) -> Result<(), RulesError> {
        let count = self.buckets.len();
        if count == 0 {
            let what = "no bucket would show no row to anybody; one without tables and filters \
                        shows every row to everybody";
            return Err(error("buckets", what));
        }
        if BUCKETS_MAX < count {
            return Err(error("buckets", format!("{count} buckets; the limit is {BUCKETS_MAX}")));
        }
        for (number, bucket) in self.buckets.iter().enumerate() {
            let place = format!("buckets[{number}]");
            check_name(&self.buckets[..number], &bucket.name, &place)?;
            when(bucket, &place)?;
            check_tables(bucket, &place)?;
            check_filters(bucket, &place)?;
        }
        Ok(())
    }
}

pub(super) fn error(place: impl Into<String>, what: impl Into<String>) -> RulesError {
    RulesError { place: place.into(), what: what.into() }
}

fn check_name(earlier: &[BucketDraft], name: &str, place: &str) -> Result<(), RulesError> {
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

/// What a token's claims must be for the bucket to open.
pub(super) fn when(draft: &BucketDraft, place: &str) -> Result<Vec<(Claim, String)>, RulesError> {
    if WHEN_MAX < draft.when.len() {
        let what = format!("{} claims; the limit is {WHEN_MAX}", draft.when.len());
        return Err(error(format!("{place}.when"), what));
    }
    let condition = |(name, text): (&String, &String)| {
        let name = name.strip_prefix(CLAIM).unwrap_or(name);
        let claim = named(name).map_err(|what| error(format!("{place}.when"), what))?;
        Ok((claim, text.clone()))
    };
    draft.when.iter().map(condition).collect()
}

fn named(claim: &str) -> Result<Claim, &'static str> {
    Claim::parse(claim).ok_or("a claim needs a name")
}

fn check_tables(draft: &BucketDraft, place: &str) -> Result<(), RulesError> {
    // Hashed: nothing but the size of a message bounds how many there are.
    let mut listed = HashSet::with_capacity(draft.tables.len());
    for (nth, name) in draft.tables.iter().enumerate() {
        let wrong = match TableName::parse(name) {
            Err(invalid) => invalid.to_string(),
            Ok(_) if !listed.insert(name) => format!("table {name} is listed twice"),
            Ok(_) => continue,
        };
        return Err(error(format!("{place}.tables[{nth}]"), wrong));
    }
    Ok(())
}

fn check_filters(draft: &BucketDraft, place: &str) -> Result<(), RulesError> {
    let count = draft.filters.len();
    if FILTERS_MAX < count {
        let what = format!("{count} filters; the limit is {FILTERS_MAX}");
        return Err(error(format!("{place}.filters"), what));
    }
    for (nth, filter) in draft.filters.iter().enumerate() {
        check_filter(filter, &format!("{place}.filters[{nth}]"))?;
    }
    Ok(())
}

fn check_filter(filter: &FilterDraft, place: &str) -> Result<(), RulesError> {
    if let Err(invalid) = ColumnName::parse(&filter.column) {
        return Err(error(format!("{place}.column"), invalid.to_string()));
    }
    let wrong = match (filter.operator, filter.values.len()) {
        (_, 0) => Some("a filter needs a value".to_owned()),
        (Operator::Eq, 2..) => Some("eq compares with one value; for several there is in".into()),
        (_, count) if FILTER_VALUES_MAX < count => {
            Some(format!("{count} values; the limit is {FILTER_VALUES_MAX}"))
        }
        _ => None,
    };
    if let Some(what) = wrong {
        return Err(error(format!("{place}.values"), what));
    }
    filter.values.iter().enumerate().try_for_each(|(nth, value)| {
        claim(value).map_err(|what| error(format!("{place}.values[{nth}]"), what))?;
        Ok(())
    })
}

/// The claim that a filter's value names; `None` if the value is a literal.
pub(super) fn claim(value: &str) -> Result<Option<Claim>, &'static str> {
    value.strip_prefix(CLAIM).map(named).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    fn bucket(change: impl FnOnce(&mut BucketDraft)) -> Draft {
        let filter = FilterDraft {
            column: "owner".to_owned(),
            operator: Operator::Eq,
            values: vec!["jwt:sub".to_owned()],
        };
        let mut bucket = BucketDraft {
            name: "mine".to_owned(),
            tables: vec!["todos".to_owned()],
            filters: vec![filter],
            ..BucketDraft::default()
        };
        change(&mut bucket);
        Draft { version: 1, buckets: vec![bucket] }
    }

    #[test]
    fn tables_and_columns_that_nobody_has_are_no_fault_of_form() {
        let draft = bucket(|_| {});
        assert_eq!(draft.check(), Ok(()));
        assert!(draft.parse(&Schema::default()).is_err(), "there is no such table");
    }

    #[test]
    fn what_is_wrong_without_tables_is_the_same_with_them() {
        let mut twice = bucket(|_| {});
        twice.buckets.push(twice.buckets[0].clone());
        for (draft, place) in [
            (Draft::default(), "buckets"),
            (twice, "buckets[1].name"),
            (bucket(|bucket| bucket.name.clear()), "buckets[0].name"),
            (bucket(|bucket| bucket.tables[0].push(' ')), "buckets[0].tables[0]"),
            (bucket(|bucket| bucket.tables.push("todos".to_owned())), "buckets[0].tables[1]"),
            (bucket(|bucket| bucket.filters[0].column.clear()), "buckets[0].filters[0].column"),
            (bucket(|bucket| bucket.filters[0].values.clear()), "buckets[0].filters[0].values"),
            (
                bucket(|bucket| bucket.filters[0].values = vec![CLAIM.to_owned()]),
                "buckets[0].filters[0].values[0]",
            ),
            (
                bucket(|bucket| _ = bucket.when.insert(CLAIM.to_owned(), String::new())),
                "buckets[0].when",
            ),
        ] {
            let error = draft.check().expect_err(place);
            assert_eq!(error.place, place, "{error}");
            assert_eq!(draft.parse(&Schema::default()), Err(error));
        }
    }
}

//! Sync rules ⇄ protobuf. What they mean is for [`Draft::parse`] to say.

use crate::proto::admin::v1::{self as proto, filter};
use crate::rules::{BucketDraft, Draft, FilterDraft, Operator};
use crate::wire::WireError;

/// The rules that an operator proposes, or that a store kept.
pub fn decode_rules(rules: proto::SyncRules) -> Result<Draft, WireError> {
    let buckets = rules.buckets.into_iter().enumerate();
    let buckets =
        buckets.map(|(at, bucket)| decode_bucket(&format!("rules.buckets[{at}]"), bucket));
    Ok(Draft { version: rules.version, buckets: buckets.collect::<Result<_, _>>()? })
}

fn decode_bucket(place: &str, bucket: proto::Bucket) -> Result<BucketDraft, WireError> {
    let filters = bucket.filters.into_iter().enumerate().map(|(at, filter)| {
        let operator = match filter.op() {
            filter::Operator::Eq => Ok(Operator::Eq),
            filter::Operator::In => Ok(Operator::In),
            filter::Operator::Unspecified => {
                let place = format!("{place}.filters[{at}].op");
                Err(WireError::new(place, "one of OPERATOR_EQ and OPERATOR_IN is required"))
            }
        }?;
        Ok(FilterDraft { column: filter.column, operator, values: filter.values })
    });
    Ok(BucketDraft {
        name: bucket.name,
        tables: bucket.tables,
        filters: filters.collect::<Result<_, _>>()?,
        read_only: bucket.read_only,
        when: bucket.when.into_iter().collect(),
    })
}

/// Rules as operators read them, and as a store keeps them.
pub fn encode_rules(rules: &Draft) -> proto::SyncRules {
    let filter = |filter: &FilterDraft| {
        let op = match filter.operator {
            Operator::Eq => filter::Operator::Eq,
            Operator::In => filter::Operator::In,
        };
        let (column, values) = (filter.column.clone(), filter.values.clone());
        proto::Filter { column, op: op.into(), values }
    };
    let bucket = |bucket: &BucketDraft| proto::Bucket {
        name: bucket.name.clone(),
        tables: bucket.tables.clone(),
        filters: bucket.filters.iter().map(filter).collect(),
        read_only: bucket.read_only,
        when: bucket.when.clone().into_iter().collect(),
    };
    proto::SyncRules { version: rules.version, buckets: rules.buckets.iter().map(bucket).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        let of = |operator, values: &[&str]| FilterDraft {
            column: "owner".to_owned(),
            operator,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let bucket = BucketDraft {
            name: "mine".to_owned(),
            tables: vec!["todos".to_owned()],
            filters: vec![of(Operator::Eq, &["jwt:sub"]), of(Operator::In, &["a", "b"])],
            read_only: true,
            when: [("role".to_owned(), "user".to_owned())].into(),
        };
        Draft { version: 7, buckets: vec![bucket, BucketDraft::default()] }
    }

    #[test]
    fn rules_round_trip() {
        assert_eq!(decode_rules(encode_rules(&draft())), Ok(draft()));
    }

    #[test]
    fn an_unknown_operator_is_refused_with_its_place() {
        let mut rules = encode_rules(&draft());
        for op in [0, 99] {
            rules.buckets[0].filters[1].op = op;
            let error = decode_rules(rules.clone()).expect_err("unknown");
            assert_eq!(error.field, "rules.buckets[0].filters[1].op");
        }
    }
}

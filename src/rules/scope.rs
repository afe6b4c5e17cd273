//! Rules and claims → the bucket instances that a token opens.

use std::collections::BTreeSet;

use super::claims::Resolved;
use super::{Claims, Condition, Instance, Part, SyncRules};
use crate::error::{Classify, Reason};
use crate::limits::INSTANCES_MAX;

/// The bucket instances that a token opens, and which of them it may write. A value of this type
/// is the permission to see their rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Sorted; true where rows may be written.
    opened: Vec<(Instance, bool)>,
}

/// A token whose claims open more than a reader can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the token's claims open {count} or more bucket instances; the limit is {INSTANCES_MAX}. List \
     fewer values in its claims, or add a bucket whose `when` opens the whole table to such tokens"
)]
pub struct TooManyInstances {
    /// How many were counted before it was given up.
    pub count: usize,
}

impl Classify for TooManyInstances {
    fn reason(&self) -> Reason {
        Reason::TooLarge
    }
}

impl Scope {
    /// What `claims` open. A bucket that names a claim which is missing or mistyped stays shut.
    pub fn of(rules: &SyncRules, claims: &Claims) -> Result<Self, TooManyInstances> {
        let mut opened = Vec::new();
        for (number, bucket) in (0_u16..).zip(&rules.buckets) {
            if !bucket.when.iter().all(|(claim, text)| claim.says(claims, text)) {
                continue;
            }
            let mut instances = BTreeSet::new();
            for part in rules.distinct_parts(number) {
                instances.extend(part.opened(claims)?);
                let count = opened.len() + instances.len();
                if INSTANCES_MAX < count {
                    return Err(TooManyInstances { count });
                }
            }
            opened.extend(instances.into_iter().map(|instance| (instance, !bucket.read_only)));
        }
        Ok(Self { opened })
    }

    /// The instances, sorted.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = Instance> + Clone {
        self.opened.iter().map(|(instance, _)| *instance)
    }

    /// Whether it opens `instance`.
    pub fn holds(&self, instance: &Instance) -> bool {
        self.find(instance).is_some()
    }

    /// Whether it opens any of `instances`.
    pub fn reads(&self, instances: &[Instance]) -> bool {
        instances.iter().any(|instance| self.holds(instance))
    }

    /// Whether it opens any of `instances` for writing.
    pub fn writes(&self, instances: &[Instance]) -> bool {
        instances.iter().any(|instance| self.find(instance) == Some(true))
    }

    fn find(&self, instance: &Instance) -> Option<bool> {
        let found = self.opened.binary_search_by(|(opened, _)| opened.cmp(instance));
        found.ok().map(|at| self.opened[at].1)
    }
}

impl SyncRules {
    /// The parts of a bucket that may open different instances: its tables mostly share one.
    fn distinct_parts(&self, bucket: u16) -> Vec<&Part> {
        let mut distinct: Vec<&Part> = Vec::new();
        for table in &self.bucket(bucket).tables {
            let part = self.parts[table].iter().find(|part| part.bucket == bucket);
            let part = part.expect("BUG: a bucket's table has no part in it");
            if !distinct.iter().any(|known| known.opens_as(part)) {
                distinct.push(part);
            }
        }
        distinct
    }
}

impl Part {
    /// Whether the same claims always open the same instances of both.
    fn opens_as(&self, other: &Self) -> bool {
        let dimensions = |part: &Self| {
            let all = part.conditions.iter().filter(|condition| condition.is_dimension());
            all.map(|one| (one.kind, one.literals.clone(), one.claims.clone())).collect::<Vec<_>>()
        };
        dimensions(self) == dimensions(other)
    }

    /// The instances of this table's part that `claims` open.
    fn opened(&self, claims: &Claims) -> Result<Vec<Instance>, TooManyInstances> {
        let dimensions = self.conditions.iter().filter(|condition| condition.is_dimension());
        let Some(values) = dimensions.map(|one| one.values(claims)).collect::<Option<Vec<_>>>()
        else {
            return Ok(Vec::new());
        };
        let count = values.iter().fold(1_usize, |count, some| count.saturating_mul(some.len()));
        if INSTANCES_MAX < count {
            return Err(TooManyInstances { count });
        }
        let kinds: Vec<_> = self.conditions.iter().filter(|one| one.is_dimension()).collect();
        let instance = |mut nth: usize| {
            let pick = values.iter().zip(&kinds).map(move |(some, condition)| {
                let text = &some[nth % some.len()];
                nth /= some.len();
                (condition.kind, text.as_str())
            });
            Instance::of(self.bucket, pick)
        };
        Ok((0..count).map(instance).collect())
    }
}

impl Condition {
    /// The values that a row may have; `None` if a claim is missing or mistyped.
    pub(super) fn values(&self, claims: &Claims) -> Option<Vec<String>> {
        let mut values = self.literals.clone();
        for claim in &self.claims {
            match claim.resolve(claims, self.kind) {
                Resolved::Texts(texts) => values.extend(texts),
                Resolved::Missing | Resolved::Mistyped(_) => return None,
            }
        }
        values.sort_unstable();
        values.dedup();
        Some(values)
    }
}

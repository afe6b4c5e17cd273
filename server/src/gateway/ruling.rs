//! Which sync rules are in force, which are on their way, and which were before.
//!
//! Rules come into force once their index holds every row; until then the old ones are. Those before
//! are remembered, so that a replica's next checkpoint moves only what differs; their index is
//! cleared away.

use std::sync::Arc;

use bytes::Bytes;
use lakesync::proto::admin::v1 as proto;
use lakesync::rules::{Draft, RulesError};
use lakesync::schema::Schema;
use lakesync::wire;
use prost::Message;

use super::index::Index;
use super::{SchemaChangeError, keys};
use crate::store::{GatewayId, Store, StoreError};

/// What readers and pushers go by.
#[derive(Clone, Debug, Default)]
pub(super) struct InForce {
    /// The rules, if there are any: without, every token may see and write every row.
    pub(super) index: Option<Arc<Index>>,
    /// Those before them.
    pub(super) previous: Option<Arc<Index>>,
}

/// All that a gateway knows of its rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Ruling {
    pub(super) in_force: InForce,
    pub(super) building: Option<Building>,
    /// Generations whose index entries are to be cleared away.
    pub(super) outdated: Vec<u32>,
    /// The greatest generation ever given.
    newest: u32,
}

/// Rules whose index does not hold every row yet.
#[derive(Clone, Debug)]
pub(super) struct Building {
    pub(super) index: Arc<Index>,
    /// The key of the last row that was looked at.
    pub(super) after: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredIndex {
    #[prost(uint32, tag = "1")]
    generation: u32,
    #[prost(message, optional, tag = "2")]
    rules: Option<proto::SyncRules>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredRuling {
    #[prost(message, optional, tag = "1")]
    index: Option<StoredIndex>,
    #[prost(message, optional, tag = "2")]
    previous: Option<StoredIndex>,
    #[prost(message, optional, tag = "3")]
    building: Option<StoredIndex>,
    #[prost(bytes = "bytes", tag = "4")]
    built_after: Bytes,
    #[prost(uint32, repeated, tag = "5")]
    outdated: Vec<u32>,
    #[prost(uint32, tag = "6")]
    newest: u32,
}

impl InForce {
    /// The number of the rules in force; zero if there are none.
    pub(super) fn generation(&self) -> u32 {
        self.index.as_ref().map_or(0, |index| index.generation)
    }
}

impl Ruling {
    /// The indexes that commits are written to, and whether the first is of rules in force.
    pub(super) fn indexes(&self) -> (Vec<Arc<Index>>, bool) {
        let building = self.building.as_ref().map(|building| &building.index);
        let all = self.in_force.index.iter().chain(building).map(Arc::clone);
        (all.collect(), self.in_force.index.is_some())
    }

    /// Begins to build an index of `draft`. One that was being built is given up.
    pub(super) fn begin(&self, draft: &Draft, schema: &Schema) -> Result<Self, RulesError> {
        let (rules, mut next) = (draft.parse(schema)?, self.clone());
        next.newest += 1;
        let index = Index { generation: next.newest, rules };
        let building = Building { index: Arc::new(index), after: keys::ROWS.into() };
        let given_up = next.building.replace(building);
        next.outdated.extend(given_up.map(|building| building.index.generation));
        Ok(next)
    }

    /// Puts the rules that were being built into force.
    pub(super) fn enforce(&self, schema: &Schema) -> Self {
        let mut next = self.clone();
        let built = next.building.take().expect("BUG: no rules were being built");
        let rules = built.index.rules.draft().parse(schema);
        let rules = rules.expect("BUG: rules that were parsed before are wrong");
        let index = Index { generation: built.index.generation, rules };
        next.in_force.previous = next.in_force.index.replace(Arc::new(index));
        next.outdated.extend(next.in_force.previous.iter().map(|before| before.generation));
        next
    }

    /// Takes the rules out of force, and gives up those that were being built. The ones that were in
    /// force are remembered: a replica's next checkpoint moves only the rows that it lacks.
    pub(super) fn lift(&self) -> Self {
        let mut next = self.clone();
        next.outdated.extend(next.building.take().map(|building| building.index.generation));
        if let Some(lifted) = next.in_force.index.take() {
            next.outdated.push(lifted.generation);
            next.in_force.previous = Some(lifted);
        }
        next
    }

    /// Refuses tables under which a type changes that rules compare by.
    pub(super) fn allows(&self, before: &Schema, after: &Schema) -> Result<(), SchemaChangeError> {
        let (indexes, _) = self.indexes();
        for table in before.tables() {
            let Some(evolved) = after.table(&table.table) else { continue };
            for column in &table.columns {
                let same = evolved.column(&column.name).is_some_and(|one| one.kind == column.kind);
                let looking = indexes.iter();
                let looking =
                    looking.flat_map(|one| one.rules.looking_at(&table.table, &column.name));
                let buckets: Vec<&str> = looking.collect();
                if !same && !buckets.is_empty() {
                    let (table, column) = (table.table.clone(), column.name.clone());
                    let buckets = buckets.join(", ");
                    return Err(SchemaChangeError::LookedAt { table, column, buckets });
                }
            }
        }
        Ok(())
    }

    /// What the same rules mean once the tables are those of `schema`. Those before the rules in force
    /// only save traffic: they are forgotten rather than let stand in the way.
    pub(super) fn under(&self, schema: &Schema) -> Result<Self, RulesError> {
        let anew = |index: &Arc<Index>| {
            let rules = index.rules.draft().parse(schema)?;
            Ok(Arc::new(Index { generation: index.generation, rules }))
        };
        let mut next = self.clone();
        next.in_force.index = self.in_force.index.as_ref().map(anew).transpose()?;
        next.in_force.previous = self.in_force.previous.as_ref().and_then(|one| anew(one).ok());
        if let Some(building) = &mut next.building {
            building.index = anew(&building.index)?;
        }
        Ok(next)
    }

    /// The stored form.
    pub(super) fn encode(&self) -> Bytes {
        let index = |index: &Arc<Index>| StoredIndex {
            generation: index.generation,
            rules: Some(wire::encode_rules(index.rules.draft())),
        };
        let building = self.building.as_ref();
        let stored = StoredRuling {
            index: self.in_force.index.as_ref().map(index),
            previous: self.in_force.previous.as_ref().map(index),
            building: building.map(|building| index(&building.index)),
            built_after: building.map_or_else(Bytes::new, |building| building.after.clone()),
            outdated: self.outdated.clone(),
            newest: self.newest,
        };
        stored.encode_to_vec().into()
    }

    fn decode(bytes: &[u8], schema: &Schema) -> Result<Self, String> {
        let stored = StoredRuling::decode(bytes).map_err(|error| error.to_string())?;
        let index = |stored: StoredIndex| {
            let draft = wire::decode_rules(stored.rules.unwrap_or_default());
            let rules = draft.map_err(|error| error.to_string())?.parse(schema);
            let rules = rules.map_err(|error| error.to_string())?;
            let generation = stored.generation;
            Ok::<_, String>(Arc::new(Index { generation, rules }))
        };
        let after = stored.built_after;
        let building = stored.building.map(index).transpose()?;
        Ok(Self {
            in_force: InForce {
                index: stored.index.map(index).transpose()?,
                // As in `under`: what can't be used is forgotten.
                previous: stored.previous.and_then(|stored| index(stored).ok()),
            },
            building: building.map(|index| Building { index, after }),
            outdated: stored.outdated,
            newest: stored.newest,
        })
    }
}

/// Reads the rules, which most gateways do not have.
pub(super) async fn load(
    store: &dyn Store,
    id: GatewayId,
    schema: &Schema,
) -> Result<Ruling, StoreError> {
    let Some(bytes) = store.meta(id, keys::RULES).await? else { return Ok(Ruling::default()) };
    let ruling = Ruling::decode(&bytes, schema);
    ruling.map_err(|what| StoreError::Corrupt(format!("sync rules: {what}")))
}

#[cfg(test)]
mod tests {
    use lakesync::rules::{BucketDraft, FilterDraft, Operator};
    use lakesync::schema::{ColumnType, Proposal};

    use super::*;

    fn draft(name: &str) -> Draft {
        let bucket = BucketDraft { name: name.to_owned(), ..BucketDraft::default() };
        Draft { version: 1, buckets: vec![bucket] }
    }

    /// Which generation is what: in force, before it, being built, outdated.
    fn numbers(ruling: &Ruling) -> (u32, u32, u32, Vec<u32>) {
        let number = |index: &Option<Arc<Index>>| index.as_ref().map_or(0, |one| one.generation);
        let building = ruling.building.as_ref().map(|building| Arc::clone(&building.index));
        let InForce { index, previous } = &ruling.in_force;
        (number(index), number(previous), number(&building), ruling.outdated.clone())
    }

    #[test]
    fn rules_are_built_come_into_force_and_are_outdated_in_turn() {
        let schema = Schema::default();
        let mut ruling = Ruling::default();
        let mut seen = Vec::new();
        for (name, enforced) in [("a", true), ("b", false), ("c", true), ("d", true), ("e", false)]
        {
            ruling = ruling.begin(&draft(name), &schema).expect("legal");
            if enforced {
                ruling = ruling.enforce(&schema);
            }
            ruling = Ruling::decode(&ruling.encode(), &schema).expect("whole");
            seen.push(numbers(&ruling));
        }
        let expected = [
            (1, 0, 0, vec![]),
            (1, 0, 2, vec![]),
            (3, 1, 0, vec![2, 1]),
            (4, 3, 0, vec![2, 1, 3]),
            (4, 3, 5, vec![2, 1, 3]),
        ];
        assert_eq!(seen, expected);
        let index = ruling.in_force.index.expect("in force");
        assert_eq!(index.rules.draft(), &draft("d"));
    }

    #[test]
    fn rules_that_are_lifted_leave_no_rules_in_force_and_none_on_their_way() {
        let schema = Schema::default();
        let none = Ruling::default().lift();
        assert_eq!(numbers(&none), (0, 0, 0, vec![]), "there is nothing to lift");
        let built = none.begin(&draft("a"), &schema).expect("legal");
        assert_eq!(numbers(&built.lift()), (0, 0, 0, vec![1]), "those on their way are given up");
        let both = built.enforce(&schema).begin(&draft("b"), &schema).expect("legal");
        let lifted = Ruling::decode(&both.lift().encode(), &schema).expect("whole");
        assert_eq!(numbers(&lifted), (0, 1, 0, vec![2, 1]));
        let next = lifted.begin(&draft("c"), &schema).expect("legal");
        assert_eq!(numbers(&next), (0, 1, 3, vec![2, 1]), "a generation is given once");
    }

    /// The table `docs`, with one column `owner`.
    fn docs(owner: ColumnType) -> Schema {
        let proposal = Proposal {
            table: "docs".parse().expect("legal"),
            key: "id".parse().expect("legal"),
            columns: vec![("owner".parse().expect("legal"), owner)],
            primary_key: Vec::new(),
        };
        Schema::default().evolve(&[proposal]).expect("legal")
    }

    #[test]
    fn rules_from_before_are_forgotten_once_they_mean_nothing() {
        let (before, after) = (docs(ColumnType::String), docs(ColumnType::Int64));
        let owners = |value: &str| {
            let filter = FilterDraft {
                column: "owner".to_owned(),
                operator: Operator::Eq,
                values: vec![value.to_owned()],
            };
            let mut draft = draft("owners");
            draft.buckets[0].filters.push(filter);
            draft
        };
        let mut ruling = Ruling::default();
        for draft in [owners("ann"), draft("all")] {
            ruling = ruling.begin(&draft, &before).expect("legal").enforce(&before);
        }
        let decoded = |ruling: &Ruling, schema| Ruling::decode(&ruling.encode(), schema);
        for (kept, schema) in [(1, &before), (0, &after)] {
            let evolved = ruling.under(schema).expect("the rules in force fit");
            let reopened = decoded(&ruling, schema).expect("the rules in force fit");
            for ruling in [evolved, reopened] {
                assert_eq!(numbers(&ruling), (2, kept, 0, vec![1]), "{schema:?}");
            }
        }
        // Those in force can't be forgotten.
        let ruling = ruling.begin(&owners("bob"), &before).expect("legal");
        assert!(ruling.under(&after).is_err() && decoded(&ruling, &after).is_err(), "on their way");
        let ruling = ruling.enforce(&before);
        assert!(ruling.under(&after).is_err() && decoded(&ruling, &after).is_err(), "in force");
    }
}

//! Rules as they are parsed, and what they open; instances against what the filters say.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::delta::{Cell, Delta, Op};
use crate::hlc::Hlc;
use crate::limits::{BUCKETS_MAX, FILTER_VALUES_MAX, INSTANCES_MAX};
use crate::name::RowId;
use crate::row::Row;
use crate::schema::{Proposal, Schema};
use crate::stamp::Stamp;
use crate::value::Value;

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

/// Table `a` has a text `owner`, an integer `team` and a truth value `open`; `b` has a UUID `owner`,
/// and its key is `id`; `c` has an integer key `team` and nothing else.
fn schema() -> Schema {
    let table = |table, key, columns: &[(&str, ColumnType)], primary_key: &[&str]| Proposal {
        table: name(table),
        key: name(key),
        columns: columns.iter().map(|(column, kind)| (name(column), *kind)).collect(),
        primary_key: primary_key.iter().map(|column| name(column)).collect(),
    };
    let (text, int) = (ColumnType::String, ColumnType::Int64);
    let proposals = [
        table("a", "id", &[("owner", text), ("team", int), ("open", ColumnType::Bool)], &[]),
        table("b", "id", &[("owner", ColumnType::Uuid)], &[]),
        table("c", "key", &[("team", int)], &["team"]),
    ];
    Schema::default().evolve(&proposals).expect("a legal schema")
}

fn filter(column: &str, values: &[&str]) -> FilterDraft {
    let operator = if values.len() == 1 { Operator::Eq } else { Operator::In };
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    FilterDraft { column: column.to_owned(), operator, values }
}

fn bucket(name: &str, tables: &[&str], filters: Vec<FilterDraft>) -> BucketDraft {
    let tables = tables.iter().map(|table| (*table).to_owned()).collect();
    BucketDraft { name: name.to_owned(), tables, filters, ..BucketDraft::default() }
}

fn draft(buckets: Vec<BucketDraft>) -> Draft {
    Draft { version: 1, buckets }
}

fn rules(buckets: Vec<BucketDraft>) -> SyncRules {
    draft(buckets).parse(&schema()).expect("legal rules")
}

fn claims(json: serde_json::Value) -> Claims {
    json.as_object().expect("an object").clone()
}

fn row(cells: &[(&str, Value)]) -> Row {
    let cells =
        cells.iter().map(|(column, value)| Cell { column: name(column), value: value.clone() });
    let stamp = Stamp { hlc: Hlc(1), client: name("ann") };
    let op = Op::Upsert(cells.collect());
    let mut row = Row::default();
    row.merge(&Delta { table: name("a"), row_id: name("r"), stamp, op });
    row
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// Whether `claims` may see and write the row `id` of `table`.
fn access(rules: &SyncRules, claims: &Claims, table: &str, id: &str, row: &Row) -> (bool, bool) {
    let scope = Scope::of(rules, claims).expect("few instances");
    let instances = rules.instances(&name(table), &name(id), row);
    (scope.reads(&instances), scope.writes(&instances))
}

#[test]
fn each_fault_is_refused_with_its_place() {
    let one = |filters| draft(vec![bucket("x", &["a"], filters)]);
    let long = vec!["1"; FILTER_VALUES_MAX + 1];
    let mut shut = bucket("x", &["a"], vec![]);
    shut.when.insert(String::new(), "x".to_owned());
    let mut two_of_eq = filter("team", &["1", "2"]);
    two_of_eq.operator = Operator::Eq;
    for (draft, place, what) in [
        (draft(vec![]), "buckets", "no bucket"),
        (draft(vec![bucket("", &["a"], vec![])]), "buckets[0].name", "1 to 128 bytes"),
        (
            draft(vec![bucket("x", &["a"], vec![]), bucket("x", &["b"], vec![])]),
            "buckets[1].name",
            "\"x\" names buckets[0] already",
        ),
        (draft(vec![bucket("x", &["a", "d"], vec![])]), "buckets[0].tables[1]", "no table \"d\""),
        (draft(vec![bucket("x", &["a", "a"], vec![])]), "buckets[0].tables[1]", "listed twice"),
        (draft(vec![bucket("x", &["A"], vec![])]), "buckets[0].tables[0]", "no table \"A\""),
        (draft(vec![shut]), "buckets[0].when", "a claim needs a name"),
        (one(vec![filter("nope", &["1"])]), "buckets[0].filters[0].column", "no column nope"),
        (one(vec![filter("no pe", &["1"])]), "buckets[0].filters[0].column", "not a legal"),
        (
            draft(vec![bucket("x", &[], vec![filter("nope", &["1"])])]),
            "buckets[0].filters[0].column",
            "no table has a column nope",
        ),
        (one(vec![filter("team", &[])]), "buckets[0].filters[0].values", "needs a value"),
        (one(vec![two_of_eq]), "buckets[0].filters[0].values", "one value"),
        (one(vec![filter("team", &long)]), "buckets[0].filters[0].values", "the limit is 1000"),
        (
            one(vec![filter("owner", &["x"]), filter("team", &["1", "one"])]),
            "buckets[0].filters[1].values[1]",
            "\"one\" is not an integer of up to 64 bits; a.team is int64",
        ),
        (one(vec![filter("team", &["jwt:"])]), "buckets[0].filters[0].values[0]", "needs a name"),
        // Where columns make up the row id, the key is no column of its own.
        (
            draft(vec![bucket("x", &["c"], vec![filter("key", &["1"])])]),
            "buckets[0].filters[0].column",
            "no column key",
        ),
    ] {
        let error = draft.parse(&schema()).expect_err(place);
        assert_eq!(error.place, place, "{error}");
        assert!(error.what.contains(what), "{error}");
    }
    let many = (0..=BUCKETS_MAX).map(|nth| bucket(&nth.to_string(), &["a"], vec![])).collect();
    assert!(draft(many).parse(&schema()).is_err());
}

#[test]
fn filters_are_all_passed_and_buckets_united() {
    let rules = rules(vec![
        bucket("mine", &["a"], vec![filter("owner", &["jwt:sub"]), filter("open", &["true"])]),
        bucket("team", &["a"], vec![filter("team", &["jwt:org.teams", "7"])]),
    ]);
    let of = |owner: &str, team, open| {
        row(&[("owner", text(owner)), ("team", Value::Int64(team)), ("open", Value::Bool(open))])
    };
    let ann = json!({"sub": "ann", "org": {"teams": [1, "2"]}});
    for (claims_of, row, seen) in [
        (ann.clone(), of("ann", 9, true), true),
        (ann.clone(), of("ann", 9, false), false),
        (ann.clone(), of("bob", 1, false), true),
        (ann.clone(), of("bob", 2, false), true),
        (ann.clone(), of("bob", 3, false), false),
        (ann.clone(), of("bob", 7, false), true),
        (ann.clone(), row(&[("owner", text("ann"))]), false),
        (ann.clone(), row(&[("owner", text("ann")), ("open", Value::Null)]), false),
        (ann, Row::default(), false),
        // A missing claim opens nothing, and neither does one of another form.
        (json!({"sub": "ann"}), of("bob", 7, false), false),
        (json!({"org": {"teams": [1, {"no": 1}]}}), of("bob", 1, true), false),
        (json!({"org": {"teams": "one"}}), of("bob", 7, true), false),
        (json!({"org": {"teams": null}}), of("bob", 7, true), false),
        (json!({"org": {"teams": []}}), of("bob", 7, true), true),
        (json!({"org.teams": 3}), of("bob", 3, true), true),
        (json!({"sub": ["bob", "ann"]}), of("ann", 9, true), true),
        (json!({"sub": 5}), of("5", 9, true), false),
    ] {
        let claims = claims(claims_of);
        let (readable, writable) = access(&rules, &claims, "a", "r", &row);
        assert_eq!((readable, writable), (seen, seen), "{claims:?} {row:?}");
    }
}

#[test]
fn a_row_id_is_a_column_where_it_is_a_value_of_its_own() {
    let rules = rules(vec![bucket("me", &["b"], vec![filter("id", &["jwt:sub"])])]);
    let ann = claims(json!({"sub": "ann"}));
    assert_eq!(access(&rules, &ann, "b", "ann", &row(&[])), (true, true));
    assert_eq!(access(&rules, &ann, "b", "bob", &row(&[])), (false, false));
}

#[test]
fn tables_of_one_bucket_compare_by_their_own_types() {
    let id = "0190A7F0-0000-7000-8000-00000000000A";
    let uuid = Value::Uuid([1, 0x90, 0xa7, 0xf0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x0a]);
    let rules = rules(vec![bucket("mine", &[], vec![filter("owner", &["jwt:sub"])])]);
    let ann = claims(json!({"sub": id}));
    assert!(access(&rules, &ann, "b", "r", &row(&[("owner", uuid)])).0);
    assert!(access(&rules, &ann, "a", "r", &row(&[("owner", text(id))])).0);
    let lower = row(&[("owner", text(&id.to_lowercase()))]);
    assert!(!access(&rules, &ann, "a", "r", &lower).0, "texts differ where UUIDs do not");
    assert!(!access(&rules, &ann, "c", "r", &row(&[])).0, "it lacks the column");
}

#[test]
fn when_opens_whole_buckets_and_read_only_ones_are_not_written() {
    let mut audit = bucket("audit", &[], vec![]);
    audit.read_only = true;
    audit.when.insert("role".to_owned(), "auditor".to_owned());
    let rules = rules(vec![audit, bucket("mine", &["a"], vec![filter("owner", &["jwt:sub"])])]);
    let of_bob = row(&[("owner", text("bob"))]);
    for (claims_of, expected) in [
        (json!({"sub": "ann", "role": "auditor"}), (true, false)),
        (json!({"sub": "bob", "role": "auditor"}), (true, true)),
        (json!({"sub": "ann", "role": ["user", "auditor"]}), (true, false)),
        (json!({"sub": "ann", "role": "user"}), (false, false)),
        (json!({"sub": "ann", "role": {"auditor": true}}), (false, false)),
        (json!({"sub": "ann"}), (false, false)),
    ] {
        let claims = claims(claims_of);
        assert_eq!(access(&rules, &claims, "a", "r", &of_bob), expected, "{claims:?}");
    }
}

#[test]
fn buckets_without_filters_hold_whole_tables() {
    let rules = rules(vec![
        bucket("some", &["b", "a"], vec![]),
        bucket("open", &["a"], vec![filter("open", &["true"])]),
    ]);
    let row = row(&[("open", Value::Bool(true))]);
    let instances = rules.instances(&name("a"), &name("r"), &row);
    let whole: Vec<_> = instances.iter().map(|one| rules.whole_tables(one)).collect();
    assert_eq!(whole, [Some(&[name("a"), name("b")][..]), None]);
    assert!(rules.whole_instances().eq([instances[0]]));
}

#[test]
fn a_token_that_opens_too_much_is_refused() {
    let filters = vec![filter("owner", &["jwt:owners"]), filter("team", &["jwt:teams"])];
    let rules = rules(vec![bucket("x", &["a"], filters)]);
    let of = |owners: usize, teams: usize| {
        let owners: Vec<_> = (0..owners).map(|nth| nth.to_string()).collect();
        let teams: Vec<_> = (0..teams).collect();
        Scope::of(&rules, &claims(json!({"owners": owners, "teams": teams})))
    };
    let widest = of(INSTANCES_MAX / 10, 10).expect("just within");
    assert_eq!(widest.instances().len(), INSTANCES_MAX);
    assert_eq!(of(INSTANCES_MAX / 10 + 1, 10), Err(TooManyInstances { count: 1_010 }));
    assert_eq!(of(0, 10).expect("nothing").instances().len(), 0);
}

#[test]
fn instances_are_stored_as_they_are_and_never_change_their_bytes() {
    let one = Instance::of(258, [(ColumnType::Int64, "7"), (ColumnType::String, "")].into_iter());
    assert_eq!(Instance::from_bytes(&one.to_bytes()), one);
    let bytes = one.to_bytes().map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(bytes, "010217e5b607c3e6f74955f787bd31ba05a9", "stored indexes hold this digest");
    let other =
        Instance::of(258, [(ColumnType::String, "7"), (ColumnType::String, "")].into_iter());
    assert_ne!(one, other);
}

#[test]
fn an_explanation_says_what_was_compared() {
    let mut audit = bucket("audit", &[], vec![]);
    audit.when.insert("role".to_owned(), "auditor".to_owned());
    let rules = rules(vec![
        audit,
        bucket("mine", &["a"], vec![filter("owner", &["jwt:sub"]), filter("open", &["true"])]),
        bucket("other", &["b"], vec![]),
        bucket("team", &["a"], vec![filter("team", &["jwt:team"])]),
    ]);
    let of_bob = row(&[("owner", text("bob")), ("open", Value::Bool(true))]);
    let (table, id) = (name("a"), name::<RowId>("r"));
    let said = explain(&rules, &claims(json!({"sub": "ann"})), Some((&table, &id, &of_bob)));
    let said = said.expect("few instances");
    assert_eq!(said.buckets, ["mine", "other"]);
    assert!(!said.readable && !said.writable);
    assert_eq!(
        said.trace,
        [
            r#"bucket audit: shut: it wants role = "auditor", the token has nothing"#,
            r#"bucket mine: fails: the row has "bob"; owner must be jwt:sub, which is ["ann"]"#,
            r#"bucket mine: passes: the row has "true"; open must be "true""#,
            "bucket mine: does not hold the row",
            "bucket other: holds no rows of a",
            "bucket team: fails: the row has no value; team must be jwt:team, which the token lacks",
            "bucket team: does not hold the row",
        ]
    );
}

/// What a filter or a claim may compare with.
fn compared() -> impl Strategy<Value = String> {
    prop_oneof!["[0-3]", "jwt:p", "jwt:q", "jwt:r.s"]
}

fn a_bucket() -> impl Strategy<Value = BucketDraft> {
    let column = prop_oneof![Just("owner"), Just("team")];
    let one = (column, proptest::collection::vec(compared(), 1..4)).prop_map(|(column, values)| {
        filter(column, &values.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let filters = proptest::collection::vec(one, 0..3);
    (filters, any::<bool>(), any::<bool>()).prop_map(|(filters, read_only, wants)| {
        let mut bucket = bucket("", &["a"], filters);
        bucket.read_only = read_only;
        if wants {
            bucket.when.insert("p".to_owned(), "1".to_owned());
        }
        bucket
    })
}

fn a_claim() -> impl Strategy<Value = serde_json::Value> {
    let scalar = prop_oneof![(0..4).prop_map(|n| json!(n)), "[0-3]".prop_map(|text| json!(text))];
    prop_oneof![
        scalar.clone(),
        proptest::collection::vec(scalar, 0..3).prop_map(|list| json!(list)),
        Just(json!(null)),
        Just(json!({"x": 1})),
    ]
}

/// What SQL would say, filter by filter, knowing nothing of instances.
fn naive(draft: &Draft, claims: &Claims, owner: &str, team: i64) -> (bool, bool) {
    let said = |path: &str, number: bool| -> Option<BTreeSet<String>> {
        let mut parts = path.split('.');
        let mut found = claims.get(parts.next()?)?;
        for part in parts {
            found = found.get(part)?;
        }
        let list = found.as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(value) if number => Some(value.to_string()),
            _ => None,
        };
        list.into_iter().map(text).collect()
    };
    let passes = |filter: &FilterDraft| {
        let number = filter.column == "team";
        let value = if number { team.to_string() } else { owner.to_owned() };
        let sets = filter.values.iter().map(|value| match value.strip_prefix("jwt:") {
            Some(path) => said(path, number),
            None => Some(BTreeSet::from([value.clone()])),
        });
        let sets: Option<Vec<_>> = sets.collect();
        sets.is_some_and(|sets| sets.iter().any(|set| set.contains(&value)))
    };
    let holds = |bucket: &&BucketDraft| {
        let open = bucket
            .when
            .iter()
            .all(|(claim, wanted)| said(claim, true).is_some_and(|set| set.contains(wanted)));
        open && bucket.filters.iter().all(passes)
    };
    let held: Vec<_> = draft.buckets.iter().filter(holds).collect();
    (!held.is_empty(), held.iter().any(|bucket| !bucket.read_only))
}

proptest! {
    /// Instances are an index, and must say what the filters say.
    #[test]
    fn instances_say_what_the_filters_say(
        buckets in proptest::collection::vec(a_bucket(), 1..4),
        said in proptest::collection::btree_map("p|q|r", a_claim(), 0..4),
        nested in a_claim(),
        (owner, team) in ("[0-3]", 0..4_i64),
    ) {
        let mut buckets = buckets;
        for (nth, bucket) in buckets.iter_mut().enumerate() {
            bucket.name = nth.to_string();
        }
        let mut claims: Claims = said.into_iter().collect();
        claims.entry("r").and_modify(|r| *r = json!({"s": nested}));
        let draft = draft(buckets);
        let rules = draft.parse(&schema()).expect("legal rules");
        let row = row(&[("owner", text(&owner)), ("team", Value::Int64(team))]);
        let got = access(&rules, &claims, "a", "x", &row);
        prop_assert_eq!(got, naive(&draft, &claims, &owner, team));
        let (table, id) = (name("a"), name::<RowId>("x"));
        let said = explain(&rules, &claims, Some((&table, &id, &row))).expect("few instances");
        prop_assert_eq!((said.readable, said.writable), got);
    }
}

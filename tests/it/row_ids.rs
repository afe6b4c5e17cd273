//! Row ids by value: the gateway takes a row only under the id that its key makes, so that it and all
//! replicas agree on which row is which.

use lakesync::delta::Delta;
use lakesync::proto::v1::{ColumnType, Outcome, TableSchema, outcome};
use lakesync::value::Value;

use crate::harness::changes::{at, delete, table, write};
use crate::harness::{Client, MAIN, Replica, Server, Setup};
use crate::replicas::site::{File, Site, run, serve};

fn keyed(name: &str, columns: &[(&str, ColumnType)], key: &[&str]) -> TableSchema {
    let primary_key = key.iter().map(|&column| column.to_owned()).collect();
    TableSchema { primary_key, ..table(name, columns) }
}

/// Tables with keys of several kinds; each has a column `v` beside its key.
fn tables() -> Vec<TableSchema> {
    use ColumnType::{Any, Bytes, Date, Double, Int64, String as Text, Uuid};
    let one = |name: &str, kind| keyed(name, &[("k", kind), ("v", Text)], &["k"]);
    let mut number = one("numbers", ColumnType::Decimal);
    (number.columns[0].precision, number.columns[0].scale) = (20, 2);
    vec![
        one("ints", Int64),
        one("doubles", Double),
        number,
        one("texts", Text),
        one("uuids", Uuid),
        one("blobs", Bytes),
        one("days", Date),
        one("anys", Any),
        keyed("pairs", &[("a", Int64), ("b", Text), ("v", Text)], &["a", "b"]),
        table("own", &[("v", Text)]),
    ]
}

async fn declare(server: &Server) {
    let mut operator = server.client("operator").await;
    operator.create_gateway(MAIN).await.expect("created");
    operator.put_schema(tables()).await.expect("installed");
}

async fn open() -> (Server, Client) {
    let server = Setup::new().start().await;
    declare(&server).await;
    let ann = server.client("ann").await;
    (server, ann)
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn decimal(text: &str) -> Value {
    Value::Decimal(text.to_owned())
}

async fn outcomes(client: &Client, deltas: impl IntoIterator<Item = Delta>) -> Vec<Outcome> {
    client.push(deltas).await.expect("answered").outcomes
}

#[track_caller]
fn assert_refused(outcomes: &[Outcome], words: &str) {
    let [only] = outcomes else { panic!("not one outcome: {outcomes:?}") };
    assert_eq!((only.kind(), only.reason.as_str()), (outcome::Kind::Rejected, "INVALID_REQUEST"));
    assert!(only.message.contains(words), "no {words:?} in {only:?}");
}

#[tokio::test]
async fn a_row_comes_in_under_the_id_that_its_key_makes_and_no_other() {
    let (_server, ann) = open().await;
    let uuid = Value::Uuid([0xab; 16]);
    let canonical = "must be abababab-abab-abab-abab-abababababab";
    let bytes = Value::Bytes(vec![0, 0xff].into());
    type Case<'a> = (&'a str, Vec<(&'a str, Value)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("ints/3", vec![("k", Value::Int64(4))], "must be 4,"),
        ("ints/04", vec![("k", Value::Int64(4))], "must be 4,"),
        ("ints/five", vec![], "no row with the key (k int64)"),
        ("ints/five", vec![("k", Value::Int64(5))], "must be 5,"),
        ("ints/9223372036854775808", vec![], "no row"),
        ("ints/[4]", vec![("k", Value::Int64(4))], "must be 4,"),
        ("ints/4", vec![("k", Value::Null)], "NULL can't be part of a key"),
        ("doubles/1.0", vec![("k", Value::Double(1.0))], "must be 1,"),
        ("doubles/-0", vec![("k", Value::Double(-0.0))], "must be 0,"),
        ("doubles/0.5", vec![("k", Value::Double(0.5))], r#"be [{"r":[4503599627370496,-53]}],"#),
        ("doubles/NaN", vec![("k", Value::Double(f64::NAN))], "NaN can't be part of a key"),
        ("numbers/1.00", vec![("k", decimal("1.00"))], "must be 1,"),
        ("numbers/1.50", vec![("k", decimal("1.50"))], "must be 1.5,"),
        ("texts/a", vec![("k", text("A"))], "must be A,"),
        ("texts/[\"a\"]", vec![("k", text("a"))], "must be a,"),
        ("uuids/ABABABAB-ABAB-ABAB-ABAB-ABABABABABAB", vec![("k", uuid.clone())], canonical),
        ("uuids/abababababababababababababababab", vec![("k", uuid)], canonical),
        ("uuids/x", vec![], "no row"),
        ("blobs/00ff", vec![("k", bytes)], r#"must be [{"b":"00ff"}],"#),
        ("days/2026-01-31", vec![("k", Value::Date(20_484))], "must be 20484,"),
        ("anys/1", vec![("k", text("1"))], r#"must be ["1"],"#),
        ("anys/[1]", vec![("k", Value::Int64(1))], "must be 1,"),
        (r#"pairs/[1, "x"]"#, vec![("a", Value::Int64(1)), ("b", text("x"))], r#"be [1,"x"],"#),
        (r#"pairs/[1,"x"]"#, vec![("a", Value::Int64(2))], r#"must be [2,"x"],"#),
        ("pairs/[1]", vec![("a", Value::Int64(1))], "no row"),
    ];
    for (row, mut cells, words) in cases {
        cells.push(("v", text("v")));
        assert_refused(&outcomes(&ann, [write("ann", at(1), row, cells)]).await, words);
    }
    assert_eq!(Replica::by_checkpoint(&ann).await.expect("rows").live().len(), 0);
    // Where the row id is a value of its own, any will do.
    let own = write("ann", at(2), "own/[1, 2]", [("v", text("v"))]);
    assert_eq!(outcomes(&ann, [own]).await, []);
}

#[tokio::test]
async fn a_new_row_takes_the_key_cells_that_it_lacks_from_its_id() {
    let (server, ann) = open().await;
    let rows = [
        ("ints/-7", vec![("k", Value::Int64(-7))]),
        ("doubles/7", vec![("k", Value::Double(7.0))]),
        ("numbers/1.5", vec![("k", decimal("1.5"))]),
        ("texts/[7]", vec![("k", text("[7]"))]),
        ("uuids/abababab-abab-abab-abab-abababababab", vec![("k", Value::Uuid([0xab; 16]))]),
        (r#"blobs/[{"b":"00ff"}]"#, vec![("k", Value::Bytes(vec![0, 0xff].into()))]),
        (r#"anys/["7"]"#, vec![("k", text("7"))]),
        (r#"pairs/[1,"x"]"#, vec![("a", Value::Int64(1)), ("b", text("x"))]),
    ];
    let bare = |(row, _): &(&str, Vec<(&str, Value)>)| write("ann", at(1), row, [("v", text("v"))]);
    assert_eq!(outcomes(&ann, rows.iter().map(bare)).await, []);
    let bob = server.client("bob").await;
    for replica in [Replica::by_checkpoint(&bob).await, Replica::by_pull(&bob).await] {
        let replica = replica.expect("rows");
        for (row, key) in &rows {
            let (table, id) = row.split_once('/').expect("table/id");
            let found = replica.rows_of(table).find(|(row_id, _)| row_id.as_str() == id);
            let (_, found) = found.unwrap_or_else(|| panic!("{row} is missing"));
            for (column, value) in key {
                let cell = found.cell(&column.parse().expect("a name"));
                assert_eq!(cell.map(|cell| &cell.value), Some(value), "{row}");
            }
        }
    }
    // The same push again changes nothing.
    let again = outcomes(&ann, rows.iter().map(bare)).await;
    assert!(again.iter().all(|outcome| outcome.reason == "REPLAYED"), "{again:?}");
    assert_eq!(again.len(), rows.len());
}

#[tokio::test]
async fn a_row_that_is_there_needs_no_key_and_one_that_comes_back_has_it_again() {
    let (server, ann) = open().await;
    let made = write("ann", at(1), "ints/7", [("k", Value::Int64(7)), ("v", text("made"))]);
    assert_eq!(outcomes(&ann, [made.clone()]).await, []);
    assert_eq!(outcomes(&ann, [write("ann", at(2), "ints/7", [("v", text("w"))])]).await, []);
    let other = write("ann", at(3), "ints/7", [("k", Value::Int64(8))]);
    assert_refused(&outcomes(&ann, [other]).await, "must be 8,");
    // Whatever its id, a delete makes no row.
    assert_eq!(outcomes(&ann, [delete("ann", at(4), "ints/7")]).await, []);
    let odd = outcomes(&ann, [delete("ann", at(4), "ints/seven")]).await;
    assert!(odd.iter().all(|outcome| outcome.kind() != outcome::Kind::Rejected), "{odd:?}");
    // What was pushed before stays hidden; what is written later brings the row back, with its key.
    let replayed = outcomes(&ann, [made]).await;
    assert_eq!(replayed[0].kind(), outcome::Kind::Superseded, "{replayed:?}");
    assert_eq!(outcomes(&ann, [write("ann", at(6), "ints/7", [("v", text("back"))])]).await, []);
    let bob = server.client("bob").await;
    let replica = Replica::by_checkpoint(&bob).await.expect("rows");
    let (_, row) = replica.rows_of("ints").next().expect("one row");
    let cell = row.cell(&"k".parse().expect("a name")).expect("the key");
    assert_eq!((&cell.value, cell.stamp.hlc), (&Value::Int64(7), at(6)));
    // All or nothing: the refusal says which change it was.
    let bad = write("ann", at(7), "ints/9", [("k", Value::Int64(10))]);
    let good = write("ann", at(7), "ints/11", [("v", text("v"))]);
    let status = ann.push_atomic([good, bad]).await.expect_err("refused");
    assert!(status.message().contains("row_id must be 10,"), "{status:?}");
    assert_eq!(Replica::by_checkpoint(&bob).await.expect("rows").rows_of("ints").count(), 1);
}

/// Keys of every kind that a file has, written on two replicas that began with them and one that did
/// not: all make the same ids, and the gateway refuses none.
#[tokio::test]
async fn replicas_make_the_ids_that_the_gateway_wants() {
    const MADE: &str = "
        CREATE TABLE ints (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
        CREATE TABLE texts (id TEXT PRIMARY KEY, v);
        CREATE TABLE blobs (id BLOB PRIMARY KEY, v) WITHOUT ROWID;
        CREATE TABLE reals (id REAL PRIMARY KEY, v) WITHOUT ROWID;
        CREATE TABLE loose (id PRIMARY KEY, v) WITHOUT ROWID;
        CREATE TABLE pairs (a REAL, b, v, PRIMARY KEY (a, b)) WITHOUT ROWID;
        CREATE TABLE keyless (v);";
    const ROWS: &str = "
        INSERT INTO ints VALUES (1, 'a'), (-9223372036854775808, 'b');
        INSERT INTO texts VALUES ('1', 'a'), ('[1]', 'b'), ('\u{e9}', 'c'), ('A', 'd'), ('a', 'e');
        INSERT INTO blobs VALUES (x'', 'a'), (x'00ff', 'b');
        INSERT INTO reals VALUES (1, 'a'), (0.1, 'b'), (-1e300, 'c'), (5e-324, 'd'), (9e999, 'e');
        INSERT INTO loose VALUES
          (1, 'a'), ('1', 'b'), (1.5, 'c'), (x'31', 'd'), ('', 'e'), ('[1]', 'f');
        INSERT INTO pairs VALUES
          (1, '1', 'a'), (1, 1, 'b'), (0.5, x'00', 'c'), (-0.0, 'x\"y', 'd');
        INSERT INTO keyless VALUES ('a'), ('a');";
    const NAMES: [(&str, &str); 7] = [
        ("ints", "id, v"),
        ("texts", "id, v"),
        ("blobs", "id, v"),
        ("reals", "id, v"),
        ("loose", "id, v"),
        ("pairs", "a, b, v"),
        ("keyless", "v"),
    ];
    let server = serve(&Setup::new()).await;
    let tables = NAMES.map(|(name, _)| name);
    let ann = File::made_by(&format!("{MADE}{ROWS}")).await.adopt(&server, &tables).await;
    ann.sync().await;
    let bob = Site::synced(&server).await;
    // Its rows are those of the gateway; only without a key are equal rows two.
    let mut cyd = File::made_by(&format!("{MADE}{ROWS}")).await;
    run(&mut cyd.app, "DELETE FROM keyless").await;
    let cyd = cyd.adopt(&server, &tables).await;
    let mut sites = [ann, bob, cyd];
    for (nth, site) in sites.iter_mut().enumerate() {
        site.sync().await;
        let more = format!(
            "UPDATE ints SET v = v || {nth}; UPDATE texts SET v = v || {nth};
             UPDATE blobs SET v = v || {nth}; UPDATE reals SET v = v || {nth};
             UPDATE loose SET v = v || {nth}; UPDATE pairs SET v = v || {nth};
             INSERT INTO reals VALUES ({nth} + 0.25, 'n'), ({nth} + 100.0, 'n');
             INSERT INTO loose VALUES ({nth} + 0.25, 'n'), ('n{nth}', 'n'), ({nth} + 100, 'n');
             INSERT INTO pairs VALUES ({nth} + 1e-9, {nth} / 7.0, 'n');
             INSERT INTO keyless (v) VALUES ('n{nth}');
             DELETE FROM loose WHERE id = {nth} + 99;"
        );
        site.run(&more).await;
        site.sync().await;
    }
    for site in &sites {
        site.sync().await;
        let rejected = site.replica.rejected().await.expect("a list");
        assert!(rejected.is_empty(), "{rejected:?}");
        let parked = site.replica.parked().await.expect("a list");
        assert!(parked.is_empty(), "{parked:?}");
    }
    for (table, columns) in NAMES {
        let [ann, others @ ..] = &mut sites;
        let wanted = ann.rows(table, columns).await;
        assert!(2 <= wanted.len(), "{table}: {wanted:?}");
        for other in others {
            assert_eq!(other.rows(table, columns).await, wanted, "{table}");
        }
    }
}

/// Ids that the tools make are UUIDs, so that a backend's column of that type can refer to them.
#[tokio::test]
async fn an_id_that_is_made_is_a_uuid() {
    let server = serve(&Setup::new()).await;
    declare(&server).await;
    let mut site = Site::synced(&server).await;
    site.run("INSERT INTO own (v) VALUES ('a'), ('b'); INSERT INTO uuids (v) VALUES ('c')").await;
    site.run("CREATE TABLE keyless (v); INSERT INTO keyless VALUES ('d')").await;
    site.replica.adopt(&["keyless".parse().expect("a name")]).await.expect("adopted");
    site.run("INSERT INTO keyless VALUES ('e')").await;
    site.sync().await;
    let reader = server.client("reader").await;
    let replica = Replica::by_checkpoint(&reader).await.expect("rows");
    for (table, count) in [("own", 2), ("uuids", 1), ("keyless", 2)] {
        let ids: Vec<_> = replica.rows_of(table).map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids.len(), count, "{table}: {ids:?}");
        for id in ids {
            let parts: Vec<_> = id.split('-').collect();
            let widths: Vec<_> = parts.iter().map(|part| part.len()).collect();
            assert_eq!(widths, [8, 4, 4, 4, 12], "{id}");
            let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            assert!(parts.iter().all(|part| part.chars().all(is_digit)), "{id}");
            assert!(
                parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']),
                "{id}"
            );
        }
    }
}

//! Constraints of the application's tables stay in force: a row that one of them refuses is parked
//! where anybody can see it, told of, tried again on every round, and never in the way of others.

use lakesync_client::Event;

use super::site::{Site, serve, told};
use crate::harness::Setup;

const PEOPLE: &str = "
    CREATE TABLE people (id TEXT PRIMARY KEY, email TEXT UNIQUE, age INTEGER CHECK (age >= 0));";
const FAMILY: &str = "
    CREATE TABLE parent (id TEXT PRIMARY KEY, name TEXT);
    CREATE TABLE child (id TEXT PRIMARY KEY, parent TEXT NOT NULL REFERENCES parent (id), name TEXT);";

/// The row ids of the parked rows, and why each waits.
async fn parked(site: &Site) -> Vec<(String, String)> {
    let parked = site.replica.parked().await.expect("a list");
    parked.into_iter().map(|row| (row.row_id.to_string(), row.reason)).collect()
}

fn told_parked(events: &[Event]) -> Vec<&str> {
    let ids = events.iter().filter_map(|event| match event {
        Event::Parked(row) => Some(row.row_id.as_str()),
        _ => None,
    });
    ids.collect()
}

fn told_unparked(events: &[Event]) -> Vec<&str> {
    let ids = events.iter().filter_map(|event| match event {
        Event::Unparked { row_id, .. } => Some(row_id.as_str()),
        _ => None,
    });
    ids.collect()
}

#[tokio::test]
async fn a_unique_value_written_twice_is_parked_until_the_application_mends_it() {
    let server = serve(&Setup::new()).await;
    let mut ann = Site::with(&server, PEOPLE, &["people"]).await;
    let mut bob = Site::with(&server, PEOPLE, &["people"]).await;
    ann.run("INSERT INTO people VALUES ('ann', 'same@x', 1), ('fine', 'fine@x', 2)").await;
    bob.run("INSERT INTO people VALUES ('bob', 'same@x', 3)").await;
    ann.sync().await;
    let mut events = bob.replica.events();
    bob.sync().await;

    let waiting = parked(&bob).await;
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!(waiting[0].0, "ann");
    assert!(waiting[0].1.contains("people.email"), "{waiting:?}");
    assert_eq!(told_parked(&told(&mut events)), ["ann"]);
    assert_eq!(bob.status().parked, 1);
    let wanted = ["'bob'|'same@x'|3", "'fine'|'fine@x'|2"];
    assert_eq!(bob.rows("people", "id, email, age").await, wanted, "the others went through");
    ann.sync().await;
    assert_eq!(parked(&ann).await.len(), 1, "at the other side, the other row waits");

    // A round does not mend it, and neither does it report it anew.
    bob.sync().await;
    assert!(told_parked(&told(&mut events)).is_empty(), "reported twice");
    bob.run("UPDATE people SET email = 'bob@x' WHERE id = 'bob'").await;
    bob.sync().await;
    assert_eq!(told_unparked(&told(&mut events)), ["ann"]);
    ann.sync().await;
    let wanted = ["'ann'|'same@x'|1", "'bob'|'bob@x'|3", "'fine'|'fine@x'|2"];
    for site in [&mut ann, &mut bob] {
        assert_eq!(site.rows("people", "id, email, age").await, wanted);
        assert_eq!((parked(site).await, site.status().parked), (vec![], 0));
    }
}

#[tokio::test]
async fn values_that_are_exchanged_are_not_in_each_others_way() {
    let server = serve(&Setup::new()).await;
    let mut ann = Site::with(&server, PEOPLE, &["people"]).await;
    let mut bob = Site::with(&server, PEOPLE, &["people"]).await;
    ann.run("INSERT INTO people VALUES ('a', 'one', 1), ('b', 'two', 2), ('c', 'three', 3)").await;
    ann.sync().await;
    bob.sync().await;
    ann.run(
        "BEGIN; UPDATE people SET email = NULL WHERE id = 'a';
         UPDATE people SET email = 'one' WHERE id = 'b';
         UPDATE people SET email = 'two' WHERE id = 'a';
         DELETE FROM people WHERE id = 'c';
         INSERT INTO people VALUES ('d', 'three', 4); COMMIT;",
    )
    .await;
    ann.sync().await;
    bob.sync().await;
    assert_eq!(parked(&bob).await, []);
    let wanted = ["'a'|'two'|1", "'b'|'one'|2", "'d'|'three'|4"];
    assert_eq!(bob.rows("people", "id, email, age").await, wanted);
}

#[tokio::test]
async fn a_check_that_only_one_device_has_parks_what_it_refuses() {
    let server = serve(&Setup::new()).await;
    let lax = "CREATE TABLE people (id TEXT PRIMARY KEY, email TEXT, age INTEGER);";
    let mut ann = Site::with(&server, lax, &["people"]).await;
    let mut bob = Site::with(&server, PEOPLE, &["people"]).await;
    ann.run("INSERT INTO people VALUES ('bad', NULL, -1), ('good', NULL, 1)").await;
    ann.sync().await;
    bob.sync().await;
    let waiting = parked(&bob).await;
    assert!(waiting.len() == 1 && waiting[0].1.contains("CHECK"), "{waiting:?}");
    assert_eq!(bob.rows("people", "id").await, ["'good'"]);

    // A parked row takes part in merging all the same: what comes later finds it.
    ann.run("UPDATE people SET email = 'later' WHERE id = 'bad'").await;
    ann.sync().await;
    bob.sync().await;
    ann.run("UPDATE people SET age = 0 WHERE id = 'bad'").await;
    ann.sync().await;
    bob.sync().await;
    assert_eq!(bob.rows("people", "id, email, age").await, ["'bad'|'later'|0", "'good'|NULL|1"]);
    assert_eq!(parked(&bob).await, []);

    // A row that is refused after it was fine leaves the table; deleted, it waits no more.
    ann.run("UPDATE people SET age = -5 WHERE id = 'good'").await;
    ann.sync().await;
    bob.sync().await;
    assert_eq!(
        (bob.rows("people", "id").await, parked(&bob).await.len()),
        (vec!["'bad'".to_owned()], 1)
    );
    ann.run("DELETE FROM people WHERE id = 'good'").await;
    ann.sync().await;
    bob.sync().await;
    assert_eq!(parked(&bob).await, []);
}

#[tokio::test]
async fn a_child_whose_parent_was_deleted_waits_and_blocks_nobody() {
    let server = serve(&Setup::new()).await;
    let tables = ["parent", "child"];
    let mut ann = Site::with(&server, FAMILY, &tables).await;
    let mut bob = Site::with(&server, FAMILY, &tables).await;
    ann.run("INSERT INTO parent VALUES ('p', 'one'), ('q', 'two')").await;
    ann.sync().await;
    bob.sync().await;
    // Offline, one deletes the parent that the other gives a child.
    ann.run("DELETE FROM parent WHERE id = 'p'").await;
    bob.run("INSERT INTO child VALUES ('orphan', 'p', 'x'), ('fine', 'q', 'y')").await;
    bob.sync().await;
    ann.sync().await;
    bob.sync().await;
    for site in [&mut ann, &mut bob] {
        let waiting = parked(site).await;
        let all = (site.rows("parent", "id").await, site.rows("child", "id").await);
        assert!(waiting.len() == 1 && waiting[0].0 == "orphan", "{waiting:?}: {all:?}");
        assert!(waiting[0].1.contains("FOREIGN KEY"), "{waiting:?}");
        assert_eq!(site.rows("child", "id, parent, name").await, ["'fine'|'q'|'y'"]);
        assert_eq!(site.rows("pragma_foreign_key_check", "\"table\"").await, [""; 0]);
    }
    ann.run("INSERT INTO parent VALUES ('p', 'again')").await;
    ann.sync().await;
    bob.sync().await;
    for site in [&mut ann, &mut bob] {
        assert_eq!(parked(site).await, []);
        let wanted = ["'fine'|'q'|'y'", "'orphan'|'p'|'x'"];
        assert_eq!(site.rows("child", "id, parent, name").await, wanted);
    }
}

#[tokio::test]
async fn children_may_arrive_before_their_parents() {
    let server = serve(&Setup::new()).await;
    let tables = ["parent", "child"];
    let mut ann = Site::with(&server, FAMILY, &tables).await;
    let mut bob = Site::with(&server, FAMILY, &tables).await;
    // The shell's default: nobody enforces foreign keys while the rows are written.
    ann.run("PRAGMA foreign_keys = OFF; INSERT INTO child VALUES ('early', 'p', 'x')").await;
    ann.sync().await;
    bob.sync().await;
    assert_eq!(parked(&bob).await.len(), 1, "alone, it has to wait");
    ann.run("INSERT INTO parent VALUES ('p', 'late')").await;
    ann.sync().await;
    bob.sync().await;
    assert_eq!(
        (parked(&bob).await, bob.rows("child", "id").await),
        (vec![], vec!["'early'".to_owned()])
    );
}

//! Tables that use functions and collations which only their application brings along. None of them
//! ever stands in the way of the others.

use std::cmp::Ordering;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::super::sql::script;
use super::super::{Candidate, Database};
use super::model::{Device, Gateway, keyed};

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, name TEXT);";
const OTHER: &str = "CREATE TABLE other (id TEXT PRIMARY KEY NOT NULL, v TEXT);";
/// The rest of a table's declaration, put where its application would have put it.
const CHECK: &str = "PRAGMA writable_schema = ON;
    UPDATE sqlite_master SET sql = replace(sql, 'name TEXT', 'name TEXT CHECK (f1(name) <> 5)');
    PRAGMA writable_schema = RESET;";
const SORT: &str = "CREATE TRIGGER sort AFTER INSERT ON notes \
                    BEGIN UPDATE notes SET name = title_sort(NEW.name) WHERE id = NEW.id; END;";

/// Why the table `notes` can't take part.
fn why(candidates: Vec<Candidate>) -> String {
    let notes = candidates.into_iter().find(|candidate| candidate.table == "notes").unwrap();
    notes.verdict.expect_err("it can't take part")
}

#[tokio::test]
async fn what_only_the_application_can_write_takes_no_part() {
    for (made, reason) in [
        (SORT, "no such function: title_sort"),
        (CHECK, "unknown function: f1()"),
        ("CREATE TRIGGER t BEFORE DELETE ON notes BEGIN SELECT gone(); END", "function: gone"),
        ("CREATE TRIGGER t AFTER UPDATE ON notes BEGIN DELETE FROM lost; END", "main.lost"),
        (
            "CREATE TRIGGER t BEFORE INSERT ON notes WHEN NEW.name = 'no' \
             BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
            "roll back whole transactions",
        ),
    ] {
        let device = Device::new(&format!("{NOTES} {OTHER} {made}")).await;
        let found = device.db.inspect().await.unwrap();
        assert!(found.iter().any(|other| other.table == "other" && other.verdict.is_ok()));
        let why = why(found);
        assert!(why.contains(reason), "{made}: {why}");
        // A gateway that has such a table brings nothing into it, and says so.
        device.db.install_schema(&[keyed("notes", "name:text")]).await.unwrap();
        let waiting = device.db.waiting().await.unwrap();
        assert!(waiting[0].why.as_ref().is_some_and(|why| why.contains(reason)), "{waiting:?}");
        let error = device.db.adopt(&waiting[0].table).await.expect_err("not to be adopted");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn an_index_by_an_unknown_collation_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let compare = |a: &str, b: &str| -> Ordering { a.to_lowercase().cmp(&b.to_lowercase()) };
    let mut application = options.collation("unicase", compare).connect().await.unwrap();
    let index =
        "CREATE INDEX i ON notes (name COLLATE unicase); INSERT INTO notes VALUES ('1', 'N')";
    script(&mut application, format!("{NOTES} {OTHER} {index}")).await.unwrap();
    application.close().await.unwrap();
    let db = Database::open(&path).await.unwrap();
    let found = db.inspect().await.unwrap();
    assert!(found.iter().any(|other| other.table == "other" && other.verdict.is_ok()));
    let why = why(found);
    assert!(why.contains("no such collation sequence: unicase"), "{why}");
}

#[tokio::test]
async fn a_table_that_is_waiting_only_has_to_be_adopted() {
    let device = Device::new(NOTES).await;
    device.db.install_schema(&[keyed("notes", "name:text")]).await.unwrap();
    let waiting = device.db.waiting().await.unwrap();
    assert_eq!((waiting.len(), &waiting[0].why), (1, &None));
    device.db.adopt(&waiting[0].table).await.unwrap();
    assert_eq!(device.db.waiting().await.unwrap(), []);
}

#[tokio::test]
async fn rows_that_can_not_be_written_here_are_parked_and_others_come_in() {
    let mut ann = Device::adopting(&format!("{NOTES} {OTHER}")).await;
    let mut bob = Device::with(&ann.proposals().await).await;
    let mut gateway = Gateway::default();
    bob.run("INSERT INTO notes VALUES ('old', 'x')").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    // The application begins to need what only it has after the table was adopted.
    ann.run(&format!("{SORT} CREATE TRIGGER gone BEFORE DELETE ON notes BEGIN SELECT f(); END"))
        .await;
    bob.run("INSERT INTO notes VALUES ('a', 'x'); INSERT INTO other VALUES ('o', 'x')").await;
    bob.run("DELETE FROM notes WHERE id = 'old'").await;
    bob.sync(&mut gateway).await;
    ann.run("INSERT INTO other VALUES ('mine', 'x')").await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT id FROM other ORDER BY 1").await, "mine\no");
    assert_eq!(ann.ask("SELECT id FROM notes").await, "old");
    assert_eq!(ann.outbox().await, "", "what has nothing to do with it was sent");
    let parked = ann.db.parked().await.unwrap();
    let reasons: Vec<_> = parked.iter().map(|row| row.reason.as_str()).collect();
    assert_eq!(reasons, ["no such function: title_sort", "no such function: f"]);
    let found = ann.db.inspect().await.unwrap();
    let notes = found.into_iter().find(|candidate| candidate.table == "notes").unwrap();
    let warnings = notes.verdict.expect("it is synced").warnings.join("; ");
    assert!(warnings.contains("waits in _lakesync_parked"), "{warnings}");

    ann.run("DROP TRIGGER sort; DROP TRIGGER gone").await;
    ann.db.retry_parked().await.unwrap();
    assert_eq!(ann.ask("SELECT id, name FROM notes").await, "a|x");
    assert_eq!(ann.db.counts().await.unwrap().parked, 0);
}

#[tokio::test]
async fn an_orphan_that_a_trigger_keeps_stops_nobody() {
    let family = "CREATE TABLE parent (id TEXT PRIMARY KEY NOT NULL);
        CREATE TABLE child (id TEXT PRIMARY KEY NOT NULL, p TEXT REFERENCES parent (id));";
    for keeps in ["SELECT RAISE(ABORT, 'never')", "SELECT RAISE(IGNORE)", "SELECT unheard_of()"] {
        let mut ann = Device::adopting(family).await;
        let mut bob = Device::with(&ann.proposals().await).await;
        let mut gateway = Gateway::default();
        bob.run("INSERT INTO parent VALUES ('p'), ('q'); INSERT INTO child VALUES ('c', 'p')")
            .await;
        bob.sync(&mut gateway).await;
        ann.sync(&mut gateway).await;
        ann.run(&format!("CREATE TRIGGER keep BEFORE DELETE ON child BEGIN {keeps}; END")).await;
        bob.run("DELETE FROM parent WHERE id = 'p'").await;
        bob.sync(&mut gateway).await;
        ann.sync(&mut gateway).await;
        assert_eq!(ann.ask("SELECT id FROM parent").await, "q", "{keeps}");
        assert_eq!(ann.ask("SELECT id FROM child").await, "c", "{keeps}");
        // It dangles, as the application wants it to.
        assert_eq!(ann.db.counts().await.unwrap().parked, 0, "{keeps}");
    }
}

#[tokio::test]
async fn a_table_that_is_synced_is_what_the_gateway_says() {
    let mut ann = Device::adopting("CREATE TABLE w (id INT PRIMARY KEY, v INT)").await;
    ann.run("INSERT INTO w VALUES (NULL, 'text'), (printf('%0300d', 1), 2)").await;
    ann.run("ALTER TABLE w ADD COLUMN extra TEXT").await;
    let found = ann.db.inspect().await.unwrap();
    let adoptable = found.into_iter().find(|one| one.table == "w").unwrap().verdict.unwrap();
    let columns = adoptable.proposal.columns.iter();
    let columns: Vec<_> = columns.map(|(name, kind)| format!("{name}:{kind}")).collect();
    assert_eq!(columns, ["id:int64", "v:int64", "extra:string"]);
    assert_eq!(adoptable.proposal.primary_key.len(), 1, "its key is what it was");
    assert!(adoptable.adopted);
    let warnings = adoptable.warnings.join("; ");
    assert!(!warnings.contains("random ids"), "{warnings}");
    let row_id = adoptable.row_id.expect("it is synced");
    ann.run("INSERT INTO w VALUES (7, 1, NULL)").await;
    assert_eq!(ann.ask(&format!("SELECT {row_id} FROM w _t WHERE v = 1")).await, "7");
}

#[tokio::test]
async fn a_reference_that_only_the_application_can_compare_is_its_own_to_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let compare = |a: &str, b: &str| -> Ordering { a.to_lowercase().cmp(&b.to_lowercase()) };
    let mut application = options.collation("unicase", compare).connect().await.unwrap();
    let family = "CREATE TABLE parent (id TEXT PRIMARY KEY NOT NULL);
        CREATE TABLE child (id TEXT PRIMARY KEY NOT NULL, p TEXT COLLATE unicase REFERENCES parent);";
    script(&mut application, family).await.unwrap();
    let schemas = [keyed("parent", ""), keyed("child", "p:text")];
    let (db, mut bob) = (Database::open(&path).await.unwrap(), Device::with(&schemas).await);
    db.install_schema(&schemas).await.unwrap();
    for schema in &schemas {
        db.adopt(&schema.table).await.unwrap();
    }
    let mut gateway = Gateway::default();
    for sql in [
        "INSERT INTO parent VALUES ('p'); INSERT INTO child VALUES ('c', 'P')",
        "UPDATE child SET p = NULL; DELETE FROM parent",
    ] {
        bob.run(sql).await;
        bob.sync(&mut gateway).await;
        let after = db.cursor().await.unwrap().parse().unwrap_or(0);
        let (arrivals, cursor) = gateway.pull(after);
        db.apply_page(arrivals, &cursor).await.unwrap();
        assert_eq!(db.parked().await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_trigger_that_would_undo_everything_never_gets_to_it() {
    let family = format!(
        "{NOTES} {OTHER} CREATE TABLE child (id TEXT PRIMARY KEY NOT NULL, \
                          p TEXT REFERENCES other (id));"
    );
    let mut ann = Device::adopting(&family).await;
    let mut bob = Device::with(&ann.proposals().await).await;
    let mut gateway = Gateway::default();
    bob.run("INSERT INTO other VALUES ('p', 'x'); INSERT INTO child VALUES ('c', 'p')").await;
    bob.run("INSERT INTO notes VALUES ('old', 'x')").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    for (table, event) in [("notes", "INSERT"), ("notes", "UPDATE"), ("child", "DELETE")] {
        ann.run(&format!(
            "CREATE TRIGGER {table}_{event} BEFORE {event} ON {table} \
             BEGIN SELECT RAISE(ROLLBACK, 'never'); END"
        ))
        .await;
    }
    bob.run("INSERT INTO notes VALUES ('new', 'x'); UPDATE notes SET name = 'y'").await;
    bob.run("DELETE FROM other; INSERT INTO other VALUES ('q', 'x')").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask("SELECT id FROM other").await, "q", "others came in");
    assert_eq!(
        ann.ask("SELECT id, name FROM notes").await,
        "old|x",
        "and this one was not touched"
    );
    assert_eq!(ann.ask("SELECT id FROM child").await, "c");
    let parked = ann.db.parked().await.unwrap();
    assert_eq!(parked.len(), 2, "{parked:?}");
    assert!(parked[0].reason.contains("roll back whole transactions"), "{parked:?}");
    // What the application writes is sent all the same.
    ann.run("INSERT INTO child VALUES ('mine', 'q')").await;
    ann.sync(&mut gateway).await;
    assert!(gateway.show("child").contains("mine"));
    ann.run("DROP TRIGGER notes_INSERT; DROP TRIGGER notes_UPDATE").await;
    ann.db.retry_parked().await.unwrap();
    assert_eq!(ann.ask("SELECT id, name FROM notes ORDER BY 1").await, "new|y\nold|y");
}

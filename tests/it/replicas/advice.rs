//! What `lakesync sync` tells a user who has to do something: tables that are not recorded, changes
//! that were refused, an outage, a file that was never made.

use std::path::Path;

use lakesync_server::auth::Secret;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::commands::{Office, assert_done, assert_failed};
use super::site::{open, rows, run, texts};
use crate::harness::process::{self, Ended, Served, lakesync};
use crate::harness::within;

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, v INTEGER);";

/// It says these words.
#[track_caller]
fn assert_says(ended: &Ended, words: &[&str]) {
    assert_done(ended);
    for word in words {
        assert!(ended.stdout.contains(word), "no {word:?} in {ended:?}");
    }
}

/// The names of the files in a folder.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("text")
    };
    entries.map(name).collect()
}

#[tokio::test]
async fn a_table_that_is_not_recorded_is_named() {
    let office = Office::open().await;
    let (left, right) = (office.file("left.db"), office.file("right.db"));
    run(&mut open(&left).await, &format!("{NOTES} CREATE TABLE tags (name TEXT)")).await;
    assert_done(&office.sync(&left, &["--adopt"]).await);
    let mut app = open(&right).await;
    let needy = "CREATE TABLE tags (name TEXT);
        CREATE TRIGGER t AFTER INSERT ON tags BEGIN SELECT unheard_of(NEW.name); END;";
    run(&mut app, &format!("{NOTES} INSERT INTO notes VALUES ('mine', 1); {needy}")).await;
    let waits = "notes is at the gateway and here, but not adopted: add --adopt";
    let out = "tags is at the gateway and here, but left out: ";
    let plain = office.sync(&right, &[]).await;
    assert_says(&plain, &["in step", waits, out, "no such function: unheard_of"]);
    let adopted = office.sync(&right, &["--adopt"]).await;
    assert_says(&adopted, &["✓ notes", "– tags", "left out: ", "unheard_of", "sent 1 change"]);
    let plain = office.sync(&right, &[]).await;
    assert!(!plain.stdout.contains("notes is at"), "{plain:?}");
    assert_done(&office.sync(&left, &[]).await);
    assert_eq!(rows(&mut open(&left).await, "notes", "id, v").await, ["'mine'|1"]);
}

#[tokio::test]
async fn one_table_that_clashes_stops_no_other_from_being_adopted() {
    let office = Office::open().await;
    let (left, right) = (office.file("left.db"), office.file("right.db"));
    let made = "CREATE TABLE loose (a TEXT); CREATE TABLE Tags (Name TEXT PRIMARY KEY, V TEXT)";
    run(&mut open(&left).await, &format!("{NOTES} {made}")).await;
    assert_done(&office.sync(&left, &["--adopt"]).await);
    let mut app = open(&right).await;
    // A key of its own, a column named as the gateway's key, and names in another case.
    let other = "CREATE TABLE notes (k INTEGER, id TEXT, PRIMARY KEY (k, id));
        CREATE TABLE loose (a TEXT, row_id TEXT);
        CREATE TABLE tags (name TEXT PRIMARY KEY, v TEXT, w TEXT);
        CREATE TABLE Left_Over (id TEXT PRIMARY KEY); INSERT INTO left_over VALUES ('x');
        INSERT INTO tags VALUES ('red', 'v', 'w');";
    run(&mut app, other).await;
    let adopted = office.sync(&right, &["--adopt"]).await;
    let clash = "left out: it exists at the gateway with the key (id), here with (k, id)";
    assert_says(&adopted, &["✓ Left_Over", "✓ tags", clash, "– loose", "sent 2 changes"]);
    assert!(adopted.stdout.contains("column row_id is declared twice"), "{adopted:?}");
    assert_done(&office.sync(&left, &[]).await);
    let tags = rows(&mut open(&left).await, "Tags", "Name, V").await;
    assert_eq!(tags, ["'red'|'v'"]);

    // What is adopted stays so, whatever its rows have become, and takes its new columns along.
    run(&mut app, "ALTER TABLE left_over ADD COLUMN w INTEGER").await;
    run(&mut app, "INSERT INTO left_over VALUES (NULL, 2), (printf('%0300d', 1), 3), ('y', 4)")
        .await;
    run(&mut app, "CREATE TABLE later (id TEXT PRIMARY KEY)").await;
    let again = office.sync(&right, &["--adopt"]).await;
    assert_says(&again, &["✓ Left_Over", "✓ later", clash]);
    assert!(!again.stdout.contains("random ids"), "{again:?}");
    run(&mut app, "UPDATE left_over SET w = 5 WHERE id = 'x'").await;
    assert_done(&office.sync(&right, &[]).await);
    assert_done(&office.sync(&left, &[]).await);
    let seen = rows(&mut open(&left).await, "left_over", "id, w").await;
    assert!(seen.contains(&"'x'|5".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn refused_changes_are_listed_by_number_made_again_and_forgotten() {
    let office = Office::open().await;
    let file = office.file("app.db");
    let mut app = open(&file).await;
    run(&mut app, &format!("{NOTES} INSERT INTO notes VALUES ('a', 1)")).await;
    assert_done(&office.sync(&file, &["--adopt"]).await);
    run(&mut app, "INSERT INTO notes VALUES ('b', 'two'), ('c', 'three'), ('d', 'four')").await;
    let ended = office.sync(&file, &[]).await;
    assert_says(
        &ended,
        &["3 refused", "#1 notes b", "#3 notes d", "--retry ID|all", "--drop ID|all"],
    );
    assert_says(&ended, &["int64 and can't hold this string", "PutSchema has widened"]);
    assert_failed(&office.sync(&file, &["--retry", "77"]).await, 64, &["#77"]);
    assert_failed(&office.sync(&file, &["--drop", "1", "--drop", "77"]).await, 64, &["#77"]);
    let kept = "SELECT group_concat(id, ' ') FROM (SELECT id FROM _lakesync_rejected ORDER BY id)";
    assert_eq!(texts(&mut app, kept).await, ["1 2 3"], "an error changes nothing");

    assert_says(&office.sync(&file, &["--drop", "1"]).await, &["1 refused change forgotten"]);
    assert_eq!(texts(&mut app, kept).await, ["2 3"]);
    // Made again as they are, they are refused again, under new numbers.
    let again = office.sync(&file, &["--retry", "2"]).await;
    assert_says(&again, &["1 refused change made again", "#4 notes c"]);
    assert_says(&office.sync(&file, &["--retry", "all"]).await, &["2 refused changes made again"]);
    let none = office.sync(&file, &["--drop", "all"]).await;
    assert_says(&none, &["2 refused changes forgotten"]);
    assert!(!none.stdout.contains("kept in _lakesync_rejected"), "{none:?}");
    assert_eq!(rows(&mut app, "notes", "id").await, ["'a'"]);
    let wrong = process::run(lakesync(office.arguments(&file, &["--drop", "some"]))).await;
    assert_eq!(wrong.status.code(), Some(64), "{wrong:?}");
}

#[tokio::test]
async fn a_follower_tells_of_an_outage_and_of_its_end() {
    let office = Office::open().await;
    let file = office.file("app.db");
    run(&mut open(&file).await, NOTES).await;
    assert_done(&office.sync(&file, &["--adopt"]).await);
    let mut follower = lakesync(office.arguments(&file, &["--follow"])).spawn().expect("starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let mut said = async |word: &str| loop {
        let line = within(lines.next_line()).await.expect("text");
        let line = line.unwrap_or_else(|| panic!("it ended without {word:?}"));
        if line.contains(word) {
            return line;
        }
    };
    said("following").await;
    let (address, url) = (office.served.address.to_string(), office.url.clone());
    let data = office.file("data");
    office.served.kill().await;
    let line = said("out of step").await;
    assert!(line.contains(&url), "{line}");
    let again = ["serve", "--data", data.to_str().expect("text"), "--listen", &address];
    let _served = Served::spawn(lakesync(again), &data).await;
    said("in step again").await;
    within(follower.kill()).await.expect("killed");
}

#[tokio::test]
async fn what_can_not_be_synced_leaves_nothing_behind() {
    let office = Office::open().await;
    let dir = office.file("empty");
    std::fs::create_dir(&dir).expect("a folder");
    let file = dir.join("new.db");
    let path = file.to_str().expect("text");
    let nobody = ["sync", path, "--url", "http://127.0.0.1:1", "--token", &office.token];
    assert_failed(&process::run(lakesync(nobody)).await, 69, &["http://127.0.0.1:1", "refused"]);
    assert_failed(&office.sync(&file, &["--gateway", "nope"]).await, 64, &["no such gateway"]);
    let secret = Secret::load_or_create(&office.file("other")).expect("another secret");
    let grant = crate::harness::grant("tester", "sync admin");
    let now_ms = lakesync::clock::WallClock::now_ms(&lakesync::clock::SystemClock);
    let foreign = grant.sign(&secret, now_ms).expect("a token");
    let stranger = ["sync", path, "--url", &office.url, "--token", &foreign];
    let words = ["another data directory's secret", "lakesync token --data DIR"];
    assert_failed(&process::run(lakesync(stranger)).await, 64, &words);
    assert_eq!(names(&dir), [""; 0]);

    // A name that was mistyped does not bind a file that was there before.
    let mut app = open(&file).await;
    run(&mut app, NOTES).await;
    assert_failed(&office.sync(&file, &["--gateway", "nope"]).await, 64, &["no such gateway"]);
    assert_done(&office.sync(&file, &["--gateway", "main", "--adopt"]).await);

    let locked = dir.join("locked.db");
    let mut app = open(&locked).await;
    run(&mut app, NOTES).await;
    run(&mut app, "BEGIN EXCLUSIVE").await;
    let ended = office.sync(&locked, &[]).await;
    assert_failed(&ended, 74, &["is locked by another connection"]);
    assert_eq!(ended.stderr.matches("locked.db").count(), 1, "{ended:?}");
    assert!(!names(&dir).contains(&"locked.db-lakesync".to_owned()));
}

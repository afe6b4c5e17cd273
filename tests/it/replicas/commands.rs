//! The command line on a stranger's SQLite file: `lakesync sync`, `lakesync demo`, and what they say
//! when they can't.

use std::path::{Path, PathBuf};

use lakesync::clock::{SystemClock, WallClock};
use lakesync_server::auth::Secret;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::dice::Dice;
use super::site::{File, open, rows, run, shell, texts};
use crate::harness::process::{self, Ended, Served, command, lakesync};
use crate::harness::{grant, within};

const STRANGER: &str = "
    CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE books (isbn TEXT PRIMARY KEY, author INTEGER REFERENCES authors, price REAL);
    CREATE TABLE lending (book TEXT, day TEXT, who, PRIMARY KEY (book, day)) WITHOUT ROWID;
    CREATE TABLE jottings (text);
    CREATE VIEW cheap AS SELECT * FROM books WHERE price < 10;
    INSERT INTO authors VALUES (1, 'Ada'), (2, 'Bo \u{1f4da}');
    INSERT INTO books VALUES ('978-0', 1, 9.5), ('978-1', 2, NULL);
    INSERT INTO lending VALUES ('978-0', '2020-01-01', 'x'), ('978-0', '2020-02-01', 7);
    INSERT INTO jottings VALUES ('one'), ('one'), (x'00'), (NULL);";
const TABLES: [(&str, &str); 4] = [
    ("authors", "id, name"),
    ("books", "isbn, author, price"),
    ("lending", "book, day, who"),
    ("jottings", "text"),
];

/// A server as a process of its own, and what its users need to know.
pub(super) struct Office {
    pub(super) served: Served,
    pub(super) url: String,
    pub(super) token: String,
    dir: TempDir,
}

impl Office {
    pub(super) async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let served = Served::start(&data, &[]).await;
        let secret = Secret::load_or_create(&data).expect("a secret");
        let token = grant("tester", "sync admin").sign(&secret, SystemClock.now_ms());
        let url = format!("http://{}", served.address);
        Self { served, url, token: token.expect("a token"), dir }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn arguments<'a>(&'a self, file: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["sync", file.to_str().expect("text")];
        all.extend(["--url", &self.url, "--token", &self.token]);
        all.extend(more);
        all
    }

    /// Syncs a file by the command line.
    pub(super) async fn sync(&self, file: &Path, more: &[&str]) -> Ended {
        process::run(lakesync(self.arguments(file, more))).await
    }

    fn follow(&self, file: &Path) -> Child {
        let mut follower = lakesync(self.arguments(file, &["--follow"]));
        follower.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        follower.spawn().expect("a program that starts")
    }
}

#[track_caller]
pub(super) fn assert_done(ended: &Ended) {
    assert!(ended.status.success(), "{ended:?}");
}

/// It failed with this code, and one line that says these words.
#[track_caller]
pub(super) fn assert_failed(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.status.code(), Some(code), "{ended:?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in {ended:?}");
    }
}

#[tokio::test]
async fn a_strangers_file_syncs_between_two_replicas() {
    if !shell().await {
        return;
    }
    let office = Office::open().await;
    let (left, right) = (office.file("left.db"), office.file("right.db"));
    let sqlite =
        |file: &Path, sql: &str| command(Path::new("sqlite3"), [file.to_str().expect("text"), sql]);
    assert_done(&process::run(sqlite(&left, STRANGER)).await);
    let adopted = office.sync(&left, &["--adopt"]).await;
    assert_done(&adopted);
    for (table, _) in TABLES {
        assert!(adopted.stdout.contains(table), "{adopted:?}");
    }
    assert!(adopted.stdout.contains("it is a view"), "{adopted:?}");
    assert_done(&office.sync(&right, &[]).await);

    // Both edit while nobody syncs.
    let edit =
        "UPDATE books SET price = 12.25 WHERE isbn = '978-1'; DELETE FROM lending WHERE who = 7;";
    assert_done(&process::run(sqlite(&left, edit)).await);
    let edit = "UPDATE books SET author = 1 WHERE isbn = '978-1'; INSERT INTO jottings (text) VALUES ('new');";
    assert_done(&process::run(sqlite(&right, edit)).await);
    for file in [&left, &right, &left] {
        assert_done(&office.sync(file, &[]).await);
    }
    let (mut left, mut right) = (open(&left).await, open(&right).await);
    for (table, columns) in TABLES {
        let found = rows(&mut left, table, columns).await;
        assert_eq!(found, rows(&mut right, table, columns).await, "{table}");
    }
    let book =
        texts(&mut left, "SELECT author || ' ' || price FROM books WHERE isbn = '978-1'").await;
    assert_eq!(book, ["1 12.25"]);
    assert_eq!(rows(&mut left, "lending", "who").await, ["'x'"]);
    assert_eq!(rows(&mut left, "jottings", "text").await.len(), 5);
}

#[tokio::test]
async fn the_demo_runs_on_a_strangers_file_and_leaves_it_alone() {
    let file = File::made_by(STRANGER).await;
    let path = file.path.to_str().expect("text").to_owned();
    let before = std::fs::read(&path).expect("a file");
    let demo = process::run(lakesync(["demo", &path])).await;
    assert_done(&demo);
    assert!(demo.stdout.contains("both replicas hold the same rows"), "{demo:?}");
    assert!(demo.stdout.contains("cheap") && demo.stdout.contains("it is a view"), "{demo:?}");
    assert_eq!(std::fs::read(&path).expect("a file"), before, "the original was changed");

    let demo = process::run(lakesync(["demo"])).await;
    assert_done(&demo);
    assert!(demo.stdout.contains("both replicas hold the same rows"), "{demo:?}");

    let none = file.path.with_file_name("none.db");
    let demo = process::run(lakesync(["demo", none.to_str().expect("text")])).await;
    assert_failed(&demo, 74, &["none.db"]);
    assert!(!none.exists(), "a file was made where there was none");
}

#[tokio::test]
async fn what_goes_wrong_is_one_line_and_an_exit_code() {
    let office = Office::open().await;
    let file = office.file("app.db");
    run(&mut open(&file).await, STRANGER).await;
    assert_done(&office.sync(&file, &["--adopt"]).await);
    let path = file.to_str().expect("text");
    let sync = |url: &str, token: &str, more: &[&str]| {
        let all = ["sync", path, "--url", url, "--token", token];
        process::run(lakesync(all.into_iter().chain(more.iter().copied())))
    };
    let (url, token) = (office.url.as_str(), office.token.as_str());
    assert_failed(&sync(url, "nonsense", &[]).await, 64, &["not valid", "lakesync token --data"]);
    assert_failed(&sync(url, token, &["--gateway", "other"]).await, 74, &["main", "other"]);
    let nobody = "http://127.0.0.1:1";
    assert_failed(&sync(nobody, token, &[]).await, 69, &[nobody, "refused"]);
    assert_failed(&sync("ftp://x", token, &[]).await, 64, &["ftp"]);
    let text = office.file("text.db");
    std::fs::write(&text, "not a database, but a letter to a friend").expect("written");
    assert_failed(&office.sync(&text, &[]).await, 74, &["text.db"]);
    let kept = std::fs::read(&text).expect("a file");
    assert_eq!(kept, b"not a database, but a letter to a friend", "nothing was changed");

    // While one process follows the file, another is told so.
    let mut follower = lakesync(office.arguments(&file, &["--follow"])).spawn().expect("starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let follows = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.contains("following") {
                return;
            }
        }
        panic!("it ended without following");
    };
    within(follows).await;
    let second = office.sync(&file, &[]).await;
    assert_failed(&second, 74, &["another process"]);
    within(follower.kill()).await.expect("killed");
    assert_done(&office.sync(&file, &[]).await);
}

#[tokio::test]
async fn a_server_made_anew_is_named_what_it_lacks_and_given_everything_back() {
    let (old, new) = (Office::open().await, Office::open().await);
    let (file, other) = (old.file("app.db"), new.file("other.db"));
    run(&mut open(&file).await, STRANGER).await;
    assert_done(&old.sync(&file, &["--adopt"]).await);
    assert_failed(&new.sync(&file, &[]).await, 64, &["GATEWAY_NOT_FOUND", "--adopt"]);
    run(&mut open(&other).await, "CREATE TABLE other (id TEXT PRIMARY KEY)").await;
    assert_done(&new.sync(&other, &["--adopt"]).await);
    let synced = new.sync(&file, &[]).await;
    assert_done(&synced);
    for words in ["has no table books", "--adopt", "10 rows sent again"] {
        assert!(synced.stdout.contains(words), "no {words:?} in {synced:?}");
    }
    let synced = new.sync(&file, &["--adopt"]).await;
    assert_done(&synced);
    assert!(synced.stdout.contains("sent 10 changes"), "{synced:?}");
    assert!(!synced.stdout.contains("has no table"), "{synced:?}");
    assert_done(&new.sync(&other, &[]).await);
    let (mut left, mut right) = (open(&file).await, open(&other).await);
    for (table, columns) in TABLES {
        let found = rows(&mut left, table, columns).await;
        assert!(!found.is_empty(), "{table}");
        assert_eq!(found, rows(&mut right, table, columns).await, "{table}");
    }
}

#[tokio::test]
async fn a_follower_killed_at_random_loses_nothing_and_sends_nothing_twice() {
    const KILLS: u64 = 8;
    let office = Office::open().await;
    let (left, right) = (office.file("left.db"), office.file("right.db"));
    let mut app = open(&left).await;
    run(&mut app, "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT)").await;
    assert_done(&office.sync(&left, &["--adopt"]).await);
    assert_done(&office.sync(&right, &[]).await);
    let mut other = open(&right).await;
    let dice = Dice::new(1);
    let mut written = 0;
    for kill in 0..KILLS {
        let mut followers = [office.follow(&left), office.follow(&right)];
        // Up to a moment that nobody chose: before the first round, or in the middle of one.
        for _ in 0..20 + dice.below(150) {
            let writer = if dice.one_in(3) { &mut other } else { &mut app };
            run(writer, &format!("INSERT INTO log (body) VALUES ('{kill} {written}')")).await;
            written += 1;
        }
        if kill % 2 == 1 {
            // At least one row has made its way before the end comes.
            let reached = "SELECT 1 FROM log WHERE body LIKE '% 0'";
            while sqlx::query(reached).fetch_optional(&mut other).await.expect("a query").is_none()
            {
                tokio::task::yield_now().await;
            }
        }
        for follower in &mut followers {
            within(follower.kill()).await.expect("killed");
        }
    }
    for file in [&left, &right, &left] {
        assert_done(&office.sync(file, &[]).await);
    }
    let found = rows(&mut app, "log", "id, body").await;
    assert_eq!(found, rows(&mut other, "log", "id, body").await);
    let bodies = "SELECT count(DISTINCT body) || ' of ' || count(*) FROM log";
    assert_eq!(texts(&mut app, bodies).await, [format!("{written} of {written}")]);
    let log = office.served.client("reader").await.pull("").await.expect("a log");
    let changes: usize = log.tables().iter().map(|table| table.rows.len()).sum();
    assert_eq!(changes, written, "a change stands twice in the log");
}

//! `lakesync import`: what existing tables hold is at the gateway afterwards, value for value, and
//! under the row ids that replicas give the same rows. It may break off, be repeated and be refused
//! rows; nothing that a device wrote since is lost.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lakesync::clock::{SystemClock, WallClock};
use lakesync::value::Value;
use lakesync_adapters::testing::{Fault, MariaDb, PASSWORD, Proxy};
use lakesync_server::auth::Secret;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::servers::Database;
use crate::harness::changes::upsert;
use crate::harness::process::{Ended, Served, lakesync, run};
use crate::harness::{Client, Replica, grant, within};
use crate::processes::hlc_now;

mod again;
mod faults;
mod keys;
mod kinds;

/// A server, and what is needed to import into its gateway `main`.
struct Office {
    served: Served,
    url: String,
    token: String,
    dir: TempDir,
}

/// The rows of a table: columns and values by row id.
type Rows = BTreeMap<String, BTreeMap<String, Value>>;

impl Office {
    async fn open(backend: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let text = data.to_str().expect("text");
        let mut command = lakesync(["serve", "--data", text, "--listen", "127.0.0.1:0"]);
        command.envs(backend.map(|url| ("LAKESYNC_BACKEND_URL", url)));
        let served = Served::spawn(command, &data).await;
        let secret = Secret::load_or_create(&data).expect("a secret");
        let token = grant("operator", "sync admin").sign(&secret, SystemClock.now_ms());
        let url = format!("http://{}", served.address);
        Self { served, url, token: token.expect("a token"), dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command that imports `tables` of a schema into `gateway`.
    fn command(
        &self,
        from: &str,
        gateway: &str,
        tables: &[String],
        more: &[&str],
    ) -> tokio::process::Command {
        let state = self.file("state.json");
        let mut arguments =
            vec!["import", "--from", from, "--url", &self.url, "--gateway", gateway];
        arguments.extend(["--token", &self.token, "--state", state.to_str().expect("text")]);
        arguments.extend(tables.iter().flat_map(|table| ["--table", table.as_str()]));
        arguments.extend(more);
        lakesync(arguments)
    }

    async fn import(&self, database: Database, tables: &[String]) -> Ended {
        let from = database.url(database.address());
        let ended = run(self.command(&from, "main", tables, &[])).await;
        assert!(!(ended.stdout.clone() + &ended.stderr).contains(PASSWORD), "{ended:?}");
        ended
    }

    /// What a new replica is given of a table.
    async fn rows(&self, table: &str) -> Rows {
        rows(&self.served.client("reader").await, table).await
    }
}

async fn rows(client: &Client, table: &str) -> Rows {
    let replica = Replica::by_checkpoint(client).await.expect("rows");
    let cells = |row: &lakesync::row::Row| {
        let cells = row.cells().iter();
        cells.map(|cell| (cell.column.to_string(), cell.value.clone())).collect()
    };
    replica.rows_of(table).map(|(id, row)| (id.to_string(), cells(row))).collect()
}

/// A schema of its own, and what names `table` in it.
async fn made(database: Database, sql: &[&str]) -> String {
    let schema = database.fresh();
    let charset = match database {
        Database::Postgres(_) => "",
        Database::MariaDb(_) => " CHARACTER SET utf8mb4",
    };
    database.ask(&format!("CREATE SCHEMA {}{charset}", database.quoted(&schema))).await;
    for sql in sql {
        let quoted = format!("{}.", database.quoted(&schema));
        database.ask(&sql.replace("HERE.", &quoted)).await;
    }
    schema
}

#[track_caller]
fn assert_done(ended: &Ended) {
    assert!(ended.status.success(), "{ended:?}");
}

#[track_caller]
fn assert_failed(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.status.code(), Some(code), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_adopts_the_same_tables_has_the_same_row_ids() {
    const TABLES: [(&str, &str); 4] = [
        ("people", "id INTEGER PRIMARY KEY, name VARCHAR(20)"),
        ("codes", "code VARCHAR(20) PRIMARY KEY, n BIGINT"),
        ("pairs", "a INT, b VARCHAR(20), n BIGINT, PRIMARY KEY (b, a)"),
        ("seen", "at BIGINT, who INTEGER, note VARCHAR(20), PRIMARY KEY (at, who)"),
    ];
    const ROWS: [&str; 4] = [
        "INSERT INTO HERE.people VALUES (1, 'ann'), (-7, NULL), (2147483647, '')",
        "INSERT INTO HERE.codes VALUES ('a b', 1), ('é', NULL), ('1', 3)",
        "INSERT INTO HERE.pairs VALUES (1, 'x\"y', 1), (-2, '', 2), (3, 'é,]', NULL)",
        "INSERT INTO HERE.seen VALUES (9007199254740993, 1, 'big'), (0, 0, 'zero')",
    ];
    for database in Database::all().await {
        let office = Office::open(None).await;
        let schema = made(database, &[]).await;
        let file = office.file("app.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut app = options.connect().await.expect("a file");
        for ((table, columns), sql) in TABLES.iter().zip(ROWS) {
            let here = format!("{}.", database.quoted(&schema));
            database.ask(&format!("CREATE TABLE {here}{table} ({columns})")).await;
            database.ask(&sql.replace("HERE.", &here)).await;
            let create = format!("CREATE TABLE {table} ({columns}); {}", sql.replace("HERE.", ""));
            sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut app).await.expect("made");
        }
        drop(app);
        let tables: Vec<_> = TABLES.iter().map(|(table, _)| format!("{schema}.{table}")).collect();
        assert_done(&office.import(database, &tables).await);
        let mut before = Vec::new();
        for (table, _) in TABLES {
            before.push(office.rows(table).await);
        }
        let pairs: Vec<_> = before[2].keys().map(String::as_str).collect();
        assert_eq!(pairs, ["[\"\",-2]", "[\"x\\\"y\",1]", "[\"é,]\",3]"]);
        assert_eq!(before[0]["-7"]["name"], Value::Null);

        let sync = ["sync", file.to_str().expect("text"), "--url", &office.url, "--adopt"];
        let adopted = run(lakesync(sync.into_iter().chain(["--token", &office.token]))).await;
        assert_done(&adopted);
        assert!(!adopted.stdout.contains("left out"), "{adopted:?}");
        for ((table, _), before) in TABLES.iter().zip(before) {
            assert_eq!(office.rows(table).await, before, "{table}: {adopted:?}");
        }
    }
}

/// More than several pushes carry.
const MANY: usize = 12_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_may_break_off_and_be_repeated_while_devices_edit() {
    for database in Database::all().await {
        let office = Office::open(None).await;
        let numbers = match database {
            Database::Postgres(_) => format!("generate_series(1, {MANY}) g (n)"),
            Database::MariaDb(_) => format!("(SELECT seq AS n FROM HERE.seq_1_to_{MANY}) g"),
        };
        let fill = format!(
            "INSERT INTO HERE.notes SELECT n, concat('note ', n, repeat('.', 300)), 'm' FROM {numbers}"
        );
        let create =
            "CREATE TABLE HERE.notes (id INT PRIMARY KEY, body VARCHAR(400), mark VARCHAR(20))";
        let schema = made(database, &[create, &fill]).await;
        let tables = [format!("{schema}.notes")];
        let ann = office.served.client("ann").await;

        // Killed as soon as anything has arrived.
        let from = database.url(database.address());
        let mut first = office.command(&from, "main", &tables, &[]).spawn().expect("it starts");
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(1));
        within(async {
            while ann.pull("").await.map_or(0, |pulled| pulled.pages.len()) == 0 {
                ticks.tick().await;
            }
        })
        .await;
        first.kill().await.expect("killed");

        // A device that has seen some of it edits a row; another deletes one; the source goes on.
        let some = rows(&ann, "notes").await;
        assert!(some.contains_key("1") && some.contains_key("4"), "{}", some.len());
        let edit = upsert("ann", hlc_now(), "notes/1", &[("mark", "a device's")]);
        let gone = crate::harness::changes::delete("ann", hlc_now(), "notes/2");
        ann.push([edit, gone]).await.expect("pushed");
        let here = format!("{}.", database.quoted(&schema));
        for (id, mark) in [(1, "lost"), (2, "lost"), (3, "a"), (4, "z")] {
            database.ask(&format!("UPDATE {here}notes SET mark = '{mark}' WHERE id = {id}")).await;
        }
        for nth in 0..2 {
            let ended = office.import(database, &tables).await;
            assert_done(&ended);
            let held = office.rows("notes").await;
            assert_eq!(held.len(), MANY - 1, "{nth}: {ended:?}");
            for (id, expected) in [("1", "a device's"), ("3", "a"), ("4", "z"), ("12000", "m")] {
                assert_eq!(held[id]["mark"], Value::String(expected.to_owned()), "row {id}, {nth}");
            }
            assert!(ended.stdout.contains("kept as the gateway has newer edits"), "{ended:?}");
            assert!(
                nth == 0
                    || ended.stdout.contains(&format!("{} there already", MANY - 4))
                    || ended.stdout.contains(&format!("{} there already", MANY - 3)),
                "{ended:?}"
            );
        }
        let body = Value::String(format!("note 777{}", ".".repeat(300)));
        assert_eq!(office.rows("notes").await["777"]["body"], body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_refused_are_told_and_hold_nothing_up() {
    // A backend that has no NaN.
    let Some(mariadb) = MariaDb::shared().await.map(Database::MariaDb) else { return };
    let backend = mariadb.url(mariadb.address());
    for database in Database::all().await {
        let office = Office::open(Some(&backend)).await;
        let (schema, words): (_, &[&str]) = match database {
            Database::Postgres(_) => {
                let create = "CREATE TABLE HERE.readings (id TEXT PRIMARY KEY, \
                              n NUMERIC(5,2), at TIMESTAMPTZ, d FLOAT8)";
                let fill = "INSERT INTO HERE.readings VALUES ('good', 1.5, now(), 0), \
                            ('nan', 'NaN', now(), 0), ('ever', 1, 'infinity', 0), \
                            ('double', 1, now(), 'NaN'), (repeat('k', 257), 1, now(), 0), \
                            ('old', 1, '4000-01-01 BC', 0), ('fine', NULL, NULL, NULL)";
                (
                    made(database, &[create, fill]).await,
                    &[
                        "row nan, column n: NaN is no decimal",
                        "row ever, column at: infinity is no timestamp",
                        "row double, column d: SCHEMA_MISMATCH",
                        "row ?: its primary key names no row",
                    ],
                )
            }
            Database::MariaDb(_) => {
                let create = "CREATE TABLE HERE.readings (id VARCHAR(300) PRIMARY KEY, \
                              b TINYINT(1), at DATETIME(6))";
                let fill = "SET sql_mode = ''; INSERT INTO HERE.readings VALUES ('good', 1, now()), \
                            ('two', 2, NULL), ('zero', 0, '0000-00-00'), \
                            (repeat('k', 257), 1, NULL), ('', 1, NULL), ('fine', NULL, NULL)";
                (
                    made(database, &[create, fill]).await,
                    &[
                        "row two, column b: 2 is neither true nor false",
                        "row zero, column at: 0000-00-00 00:00:00.000000 is no timestamp",
                        "row ?: its primary key names no row",
                    ],
                )
            }
        };
        let from = database.url(database.address());
        let tables = [format!("{schema}.readings")];
        let gateway = format!("refusing-{}", database.kind());
        let ended = run(office.command(&from, &gateway, &tables, &[])).await;
        let refused = if matches!(database, Database::Postgres(_)) { 5 } else { 4 };
        assert_failed(&ended, 65, &[&format!("{refused} rows refused")]);
        for word in words {
            assert!(ended.stdout.contains(word), "no {word:?} in {}", ended.stdout);
        }
        let held = rows(&office.served.client("reader").await.at(&gateway), "readings").await;
        let held: Vec<_> = held.keys().map(String::as_str).collect();
        assert_eq!(held, ["fine", "good"], "{}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_imported_is_told_before_anything_is_written() {
    for database in Database::all().await {
        let office = Office::open(None).await;
        let schema = made(
            database,
            &[
                "CREATE TABLE HERE.customers (id INT PRIMARY KEY, v INT)",
                "CREATE TABLE HERE.log (line VARCHAR(9))",
                "CREATE VIEW HERE.seen AS SELECT id FROM HERE.customers",
            ],
        )
        .await;
        for (table, code, words) in [
            ("customer", 64, vec!["has no table customer", "there is customers"]),
            ("zzzzzz", 64, vec!["there are customers, log, seen"]),
            ("log", 64, vec!["no primary key", "ALTER TABLE"]),
            ("seen", 64, vec!["it is a view", "no primary key"]),
        ] {
            let tables = [format!("{schema}.customers"), format!("{schema}.{table}")];
            assert_failed(&office.import(database, &tables).await, code, &words);
        }
        let dry = run(office.command(
            &database.url(database.address()),
            "main",
            &[format!("{schema}.customers")],
            &["--dry-run"],
        ))
        .await;
        assert_done(&dry);
        assert_eq!(dry.stdout, "customers: rows are named by (id)\n  id int64\n  v int64\n");
        let client = office.served.client("reader").await;
        assert!(client.checkpoint().await.is_err(), "no gateway was made");
        assert!(!office.file("state.json").exists(), "no run began");

        // Another table of that name, whose rows are named otherwise.
        let mut operator = client.clone();
        operator.create_gateway("main").await.expect("created");
        let table = crate::harness::changes::table("customers", &[]);
        operator.put_schema(vec![table]).await.expect("installed");
        let ended = office.import(database, &[format!("{schema}.customers")]).await;
        assert_failed(&ended, 78, &["named by", "rename one"]);
    }
    let office = Office::open(None).await;
    let table = ["t".to_owned()];
    for database in Database::all().await {
        let wrong = database.url(database.address()).replace(PASSWORD, "canary");
        let ended = run(office.command(&wrong, "main", &table, &[])).await;
        assert_failed(&ended, 78, &["the database that is imported: ", "password of --from"]);
        let silent = Proxy::start(database.address()).await;
        silent.set(Fault::Swallow);
        let ended = run(office.command(&database.url(silent.address()), "main", &table, &[])).await;
        assert_failed(&ended, 69, &["no answer in 10s"]);
        silent.set(Fault::Refuse);
        let ended = run(office.command(&database.url(silent.address()), "main", &table, &[])).await;
        assert_failed(&ended, 69, &[]);
    }
    let ended = run(office.command("oracle://x:canary@y", "main", &["t".to_owned()], &[])).await;
    assert_failed(&ended, 64, &["postgres:// or mysql://"]);
    assert!(!ended.stderr.contains("canary"), "{ended:?}");
}

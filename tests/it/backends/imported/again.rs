//! An import again, after the gateway's tables have grown wider than the source's; and what is said
//! of what can't be imported.

use lakesync::clock::{SystemClock, WallClock};
use lakesync::proto::v1::{ColumnType, TableSchema};
use lakesync::value::Value;
use lakesync_adapters::testing::{Fault, MariaDb, Proxy};
use lakesync_server::auth::Secret;

use super::{Office, assert_done, assert_failed, made};
use crate::backends::servers::Database;
use crate::harness::changes::table;
use crate::harness::process::{command, lakesync, run};
use crate::harness::{grant, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_take_the_wider_type_that_the_gateway_has_by_now() {
    for database in Database::all().await {
        let office = Office::open(None).await;
        let create = "CREATE TABLE HERE.things (id VARCHAR(9) PRIMARY KEY, n INT, m INT, d DATE, s VARCHAR(9))";
        let fill = "INSERT INTO HERE.things VALUES ('a', 1, 2, '2000-01-01', 'x')";
        let schema = made(database, &[create, fill]).await;
        let tables = [format!("{schema}.things")];
        assert_done(&office.import(database, &tables).await);

        let wider = [
            ("n", ColumnType::Double),
            ("m", ColumnType::String),
            ("d", ColumnType::Timestamp),
            ("s", ColumnType::Json),
        ];
        let wider = TableSchema { key: "id".to_owned(), ..table("things", &wider) };
        let mut operator = office.served.client("operator").await;
        operator.put_schema(vec![wider]).await.expect("widened");
        let here = format!("{}.", database.quoted(&schema));
        for sql in [
            "UPDATE HERE.things SET n = 10, m = 20, d = '2000-01-02', s = 'y'",
            "INSERT INTO HERE.things VALUES ('b', 3, 4, '1970-01-02', 'z')",
        ] {
            database.ask(&sql.replace("HERE.", &here)).await;
        }
        let ended = office.import(database, &tables).await;
        assert_done(&ended);
        let rows = office.rows("things").await;
        let day = 86_400_000_000;
        for (row_id, n, m, at, s) in
            [("a", 10.0, "20", 10_958 * day, "\"y\""), ("b", 3.0, "4", day, "\"z\"")]
        {
            let row = &rows[row_id];
            assert_eq!(row["n"], Value::Double(n), "{ended:?}");
            assert_eq!(row["m"], Value::String(m.to_owned()));
            assert_eq!(row["d"], Value::Timestamp(at));
            assert_eq!(row["s"], Value::Json(s.to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_with_what_to_do() {
    for database in Database::all().await {
        let office = Office::open(None).await;
        let create = "CREATE TABLE HERE.customers (id INT PRIMARY KEY)";
        let view = "CREATE VIEW HERE.seen AS SELECT id FROM HERE.customers";
        let row = "INSERT INTO HERE.customers VALUES (1)";
        let schema = made(database, &[create, view, row]).await;
        let seen = [format!("{schema}.seen")];
        let words = ["it is a view", "import the tables that it shows"];
        assert_failed(&office.import(database, &seen).await, 64, &words);

        let tables = [format!("{schema}.customers")];
        let mode = format!("{}?sslmode=canary", database.url(database.address()));
        let ended = run(office.command(&mode, "main", &tables, &[])).await;
        assert_failed(&ended, 64, &["in the url must be one of: "]);
        assert!(!ended.stderr.contains("canary"), "{ended:?}");

        let secret = Secret::load_or_create(&office.dir.path().join("data")).expect("a secret");
        let token = grant("reader", "sync:read admin")
            .sign(&secret, SystemClock.now_ms())
            .expect("a token");
        let poor = Office { token, ..office };
        let ended = poor.import(database, &tables).await;
        assert_failed(&ended, 64, &["--scope \"sync admin\""]);
    }
}

/// Ctrl-C is neither a failure nor a success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_command_says_so() {
    for database in Database::all().await {
        let office = Office::open(None).await;
        let silent = Proxy::start(database.address()).await;
        silent.set(Fault::Swallow);
        let url = database.url(silent.address());
        let data = office.file("restored").display().to_string();
        let state = office.file("migrate.state").display().to_string();
        let elsewhere = database.url(database.address());
        let import = office.command(&url, "main", &["t".to_owned()], &[]);
        let restore =
            ["restore", "--from", &url, "--data", &data, "--gateway", "main", "--without-rules"];
        let migrate = ["migrate", "--from", &url, "--to", &elsewhere, "--state", &state];
        for mut waiting in [import, lakesync(restore), lakesync(migrate)] {
            let before = silent.fired();
            let child = waiting.spawn().expect("it starts");
            // It waits for the database now.
            within(async {
                while silent.fired() == before {
                    tokio::task::yield_now().await
                }
            })
            .await;
            let pid = child.id().expect("it runs").to_string();
            let sent = run(command(std::path::Path::new("kill"), ["-s", "INT", &pid])).await;
            assert!(sent.status.success(), "{sent:?}");
            let ended = within(child.wait_with_output()).await.expect("it ends");
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(130), "{said}");
            assert!(said.contains("interrupted; "), "{said}");
        }
    }
}

/// Documents that a backend can't hold are told by what is wrong with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_too_deep_are_told_by_their_depth() {
    let Some(mariadb) = MariaDb::shared().await.map(Database::MariaDb) else { return };
    let Some(postgres) = Database::all().await.into_iter().next() else { return };
    if matches!(postgres, Database::MariaDb(_)) {
        return;
    }
    let office = Office::open(Some(&mariadb.url(mariadb.address()))).await;
    let create = "CREATE TABLE HERE.papers (id TEXT PRIMARY KEY, j JSON)";
    let fill = "INSERT INTO HERE.papers VALUES ('deep', (repeat('[', 200) || repeat(']', 200))::json), \
                ('flat', '[]')";
    let schema = made(postgres, &[create, fill]).await;
    let from = postgres.url(postgres.address());
    let ended = run(office.command(&from, "deep", &[format!("{schema}.papers")], &[])).await;
    assert_failed(&ended, 65, &["1 row refused"]);
    assert!(ended.stdout.contains("JSON of more than 31 levels"), "{ended:?}");
}

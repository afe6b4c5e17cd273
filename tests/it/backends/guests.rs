//! What a database can't show, and what it may not tell: from a push to the log of the server.

use lakesync::proto::v1::ColumnType;
use tonic::Code;

use super::servers::Database;
use crate::harness::changes::{at, table, upsert};
use crate::harness::process::{Served, lakesync};
use crate::harness::{Client, Setup, assert_refused, within};
use crate::processes::{hlc_now, set_up};

/// A name that the database keeps for itself.
fn reserved(database: Database) -> &'static str {
    match database {
        Database::Postgres(_) => "xmin",
        Database::MariaDb(_) => "DB_ROW_ID",
    }
}

/// What `GetStats` tells of a backend, once it tells anything like `words`.
async fn troubles(client: &Client, words: &str) -> String {
    within(async {
        loop {
            let stats = client.stats().await.expect("figures");
            let told = stats.backends["db"].troubles.join("\n");
            if told.contains(words) {
                return told;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_a_backend_keeps_are_refused_when_they_are_declared() {
    for database in Database::all().await {
        let place = database.settings("db", &database.fresh(), database.address());
        let server = Setup::new().flush_to_settings(&place).start_with_tables().await;
        let mut admin = server.client("operator").await;
        let name = reserved(database);
        for tables in [
            vec![table("odd", &[(name, ColumnType::String)])],
            vec![table("notes", &[("body", ColumnType::String), (name, ColumnType::String)])],
        ] {
            let refused = admin.put_schema(tables).await;
            let status = assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
            let told = status.message().to_lowercase();
            assert!(told.contains(&name.to_lowercase()), "{told}");
            assert!(told.contains("choose another name"), "{told}");
        }
        server.stop().await.expect("stopped");
    }
    // No replica could have such a table, whatever backends there are.
    let server = Setup::new().start_with_tables().await;
    let mut admin = server.client("operator").await;
    let refused = admin.put_schema(vec![table("SQLite_x", &[("a", ColumnType::Int64)])]).await;
    let status = assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
    assert!(status.message().contains("sqlite_"), "{status:?}");
    server.stop().await.expect("stopped");
}

/// A backend that is configured later finds what it would have refused: nothing of it stops the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_its_backend_arrives() {
    for database in Database::all().await {
        let (name, schema) = (reserved(database), database.fresh());
        let before = Setup::new();
        let server = before.start_with_tables().await;
        let mut ann = server.client("ann").await;
        let names: Vec<String> = (0..320).map(|at| format!("c{at}")).collect();
        let wide: Vec<_> = names.iter().map(|name| (name.as_str(), ColumnType::String)).collect();
        let tables = vec![table("odd", &[(name, ColumnType::String)]), table("wide", &wide)];
        ann.put_schema(tables).await.expect("no backend minds");
        let cells: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let changes = [
            upsert("ann", at(1), "odd/1", &[(name, "there")]),
            upsert("ann", at(2), "wide/1", &cells),
            upsert("ann", at(3), "todos/1", &[("title", "milk")]),
        ];
        ann.push(changes).await.expect("pushed");
        server.stop().await.expect("stopped");

        let place = database.settings("db", &schema, database.address());
        let server = Setup::again(&before).flush_to_settings(&place).start().await;
        let mut ann = server.client("ann").await;
        assert_eq!(ann.flush().await.expect("nothing is in the way").position, 1);
        let of = |table: &str| format!("{}.{}", database.quoted(&schema), database.quoted(table));
        let shown = format!("SELECT _lakesync_{name} FROM {}", of("odd"));
        assert_eq!(database.ask(&shown).await, ["there"]);
        let shown = format!("SELECT title FROM {}", of("todos"));
        assert_eq!(database.ask(&shown).await, ["milk"]);
        assert_eq!(database.ask(&format!("SELECT c0 FROM {}", of("wide"))).await, ["x"]);
        let told = troubles(&ann, "columns are not shown").await;
        assert!(told.contains(&format!("stands under the name _lakesync_{name}")), "{told}");
        // What is there may stay, and grow.
        let more = [(name, ColumnType::String), ("more", ColumnType::String)];
        ann.put_schema(vec![table("odd", &more)]).await.expect("the name is no new one");
        ann.push([upsert("ann", at(4), "odd/1", &[("more", "y")])]).await.expect("pushed");
        ann.flush().await.expect("flushed");
        server.stop().await.expect("stopped");
    }
}

/// A row's text is nobody's business who reads a log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_is_told_to_the_log_the_statistics_or_whoever_flushes() {
    const CANARY: &str = "canary-7461";
    for database in Database::all().await {
        let place = tempfile::tempdir().expect("a directory");
        let (data, schema) = (place.path().join("data"), database.fresh());
        let file = place.path().join("lakesync.toml");
        let text = database.settings("db", &schema, database.address());
        std::fs::write(&file, format!("log_level = 'debug'\n{text}")).expect("written");
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--config"];
        let mut command = lakesync(arguments);
        command.arg(&file).arg("--data").arg(&data);
        let served = Served::spawn(command, &data).await;
        let ann = served.client("ann").await;
        set_up(&ann).await;
        ann.push([upsert("ann", hlc_now(), "todos/0", &[("title", "x")])]).await.expect("pushed");
        ann.flush().await.expect("flushed");
        let todos = format!("{}.{}", database.quoted(&schema), database.quoted("todos"));
        let harms = match database {
            Database::Postgres(_) => [
                format!(
                    "CREATE FUNCTION {schema}.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                     RAISE WARNING 'warned of %', NEW.title; \
                     RAISE EXCEPTION 'refused %', NEW.title; END $$; \
                     CREATE TRIGGER g BEFORE INSERT ON {todos} FOR EACH ROW EXECUTE FUNCTION {schema}.f()"
                ),
                format!(
                    "DROP TRIGGER g ON {todos}; ALTER TABLE {todos} ALTER title TYPE varchar(5)"
                ),
            ],
            Database::MariaDb(_) => [
                format!(
                    "USE {schema}; CREATE TRIGGER g BEFORE INSERT ON todos FOR EACH ROW \
                     SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = NEW.title"
                ),
                format!("USE {schema}; DROP TRIGGER g; ALTER TABLE todos MODIFY title varchar(5)"),
            ],
        };
        database.ask(&harms[0]).await;
        ann.push([upsert("ann", hlc_now(), "todos/1", &[("title", CANARY)])])
            .await
            .expect("pushed");
        let refused = within(async {
            loop {
                match ann.flush().await {
                    Err(status) => return status,
                    Ok(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await;
        assert!(refused.message().contains("a trigger refuses a row"), "{refused:?}");
        assert!(!format!("{refused:?}").contains(CANARY), "{refused:?}");
        let stats = format!("{:?}", ann.stats().await.expect("figures"));
        assert!(stats.contains("a trigger refuses a row") && !stats.contains(CANARY), "{stats}");

        database.ask(&harms[1]).await;
        within(async { while ann.flush().await.is_err() {} }).await;
        let told = troubles(&ann, "column title: 1 cells show NULL").await;
        assert!(!told.contains(CANARY), "{told}");
        let shown = format!("SELECT id FROM {todos} WHERE title IS NULL");
        assert_eq!(database.ask(&shown).await, ["1"]);
        served.signal("TERM").await;
        let ended = served.ended().await;
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains("a trigger refuses a row"), "{said}");
        assert!(!said.contains(CANARY), "{said}");
    }
}

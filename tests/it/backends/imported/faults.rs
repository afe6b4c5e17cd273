//! The gateway goes away and comes back; the source goes away for good.

use lakesync_adapters::testing::{Fault, Proxy};

use super::{Office, assert_done, assert_failed, made};
use crate::backends::servers::Database;
use crate::harness::process::run;
use crate::harness::within;

/// Rows of a kilobyte: several pushes, and more than what sockets hold back.
const MANY: usize = 16_000;

async fn notes(database: Database) -> String {
    let numbers = match database {
        Database::Postgres(_) => format!("generate_series(1, {MANY}) g (n)"),
        Database::MariaDb(_) => format!("(SELECT seq AS n FROM HERE.seq_1_to_{MANY}) g"),
    };
    let create = "CREATE TABLE HERE.notes (id INT PRIMARY KEY, body VARCHAR(1000))";
    let fill = format!("INSERT INTO HERE.notes SELECT n, repeat('.', 1000) FROM {numbers}");
    made(database, &[create, &fill]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_away_is_waited_for() {
    for database in Database::all().await {
        let mut office = Office::open(None).await;
        let proxy = Proxy::start(office.served.address).await;
        office.url = format!("http://{}", proxy.address());
        let tables = [format!("{}.notes", notes(database).await)];
        let ann = office.served.client("ann").await;
        let from = database.url(database.address());
        let import = tokio::spawn(run(office.command(&from, "main", &tables, &[])));
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(1));
        within(async {
            while ann.pull("").await.map_or(0, |pulled| pulled.pages.len()) == 0 {
                ticks.tick().await;
            }
        })
        .await;
        proxy.set(Fault::Refuse);
        proxy.cut();
        within(async {
            while proxy.fired() < 2 && !import.is_finished() {
                ticks.tick().await;
            }
        })
        .await;
        assert!(0 < proxy.fired(), "the import was over before anything went wrong");
        proxy.heal();
        let ended = within(import).await.expect("no panic");
        assert_done(&ended);
        assert_eq!(office.rows("notes").await.len(), MANY, "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_breaks_off_is_told_and_the_same_command_goes_on() {
    for database in Database::all().await {
        let office = Office::open(None).await;
        let proxy = Proxy::start(database.address()).await;
        let from = database.url(proxy.address());
        let tables = [format!("{}.notes", notes(database).await)];
        let ann = office.served.client("ann").await;
        let import = tokio::spawn(run(office.command(&from, "main", &tables, &[])));
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(1));
        within(async {
            while ann.pull("").await.map_or(0, |pulled| pulled.pages.len()) == 0 {
                ticks.tick().await;
            }
        })
        .await;
        proxy.cut();
        let ended = within(import).await.expect("no panic");
        assert_failed(&ended, 69, &["the database that is imported", "the same command goes on"]);
        let ended = office.import(database, &tables).await;
        assert_done(&ended);
        assert!(ended.stdout.contains("there already"), "{ended:?}");
        assert_eq!(office.rows("notes").await.len(), MANY, "{ended:?}");
    }
}

//! Others at work in the same database: LakeSync waits for them for a moment, and says for whom.

use std::time::{Duration, Instant};

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::schema::ColumnType;
use lakesync::value::Value;
use lakesync_adapters::mysql::{Options, Server};
use lakesync_adapters::testing::MariaDb;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use super::{adapter, options};
use crate::fixtures::{LOG, one_commit, schema, upsert};

const INT: ColumnType = ColumnType::Int64;
/// Far more than LakeSync may wait, however slow the machine, and far less than a call may take.
const LONG: Duration = Duration::from_secs(25);

async fn session(server: &MariaDb, sql: &str) -> MySqlConnection {
    let connected = MySqlConnection::connect_with(&server.options()).await;
    let mut connection = connected.expect("connect");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("sql");
    connection
}

fn assert_told(error: &AdapterError) {
    assert!(matches!(error, AdapterError::Busy(_)), "{error:?}");
    for told in ["table t", "session ", "of user ", "(127.0.0.1", " s"] {
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[tokio::test]
async fn who_waits_to_alter_a_table_lets_readers_pass() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    let reader = session(server, &format!("BEGIN; SELECT * FROM {name}.t")).await;
    let wider = schema("t", 2, &[("n", INT), ("m", INT)]);
    let start = Instant::now();
    let is_waiting = format!(
        "SELECT count(*) FROM information_schema.PROCESSLIST \
         WHERE STATE = 'Waiting for table metadata lock' AND INFO LIKE '%{name}%'"
    );
    let others = async {
        while server.mariadb(&is_waiting).await == "0" {}
        let began = Instant::now();
        server.mariadb(&format!("SELECT count(*) FROM {name}.t")).await;
        began.elapsed()
    };
    let (prepared, waited) = tokio::join!(adapter.prepare(&wider), others);
    assert_told(&prepared.expect_err("somebody reads it"));
    assert!(start.elapsed() < LONG && waited < LONG, "{:?}, {waited:?}", start.elapsed());
    drop(reader);
    adapter.prepare(&wider).await.expect("nobody reads it");
}

#[tokio::test]
async fn a_row_that_somebody_holds_is_not_waited_for_long() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    let n = |hlc, n| one_commit(hlc, vec![upsert("t", "a", hlc, &[("n", Value::Int64(n))])]);
    adapter.write(&n(1, 1)).await.expect("write");
    let holder = session(server, &format!("BEGIN; UPDATE {name}.t SET n = 0")).await;
    let start = Instant::now();
    assert_told(&adapter.write(&n(2, 2)).await.expect_err("somebody holds it"));
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    drop(holder);
    adapter.write(&n(2, 2)).await.expect("nobody holds it");
}

/// A batch that takes longer than a call may, is written all the same.
#[tokio::test]
async fn a_slow_batch_is_given_more_time() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let hasty =
        Options { call_timeout: Duration::from_secs(1), ..options(server.address().port()) };
    let adapter = Server::new(hasty).expect("a url").adapter(&name, true).expect("a schema");
    while adapter.prepare(&schema("t", 1, &[("n", INT)])).await.is_err() {}
    server
        .mariadb(&format!(
            "USE {name}; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.n = SLEEP(3)"
        ))
        .await;
    let batch = one_commit(1, vec![upsert("t", "a", 1, &[])]);
    let mut told = Vec::new();
    while let Err(error) = adapter.write(&batch).await {
        // The server works on at what nobody waits for any more, and holds what it has locked.
        let is_either = matches!(error, AdapterError::Unavailable(_) | AdapterError::Busy(_));
        assert!(is_either, "{error:?}");
        told.push(error.to_string());
        // Whoever flushes looks first how far it has come, which takes no time.
        let _ = adapter.watermark(LOG).await;
        assert!(told.len() < 30, "{told:?}");
    }
    assert!(told[0].contains("2s when it is tried again (call_timeout"), "{told:?}");
}

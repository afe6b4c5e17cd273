//! Others at work in the same database: LakeSync waits for them for a moment, and says for whom.

use std::time::{Duration, Instant};

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::schema::ColumnType;
use lakesync::value::Value;
use lakesync_adapters::postgres::{Options, Server};
use lakesync_adapters::testing::Postgres as Testing;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{adapter, options};
use crate::fixtures::{LOG, one_commit, schema, upsert};

const INT: ColumnType = ColumnType::Int64;
/// Far more than LakeSync may wait, however slow the machine, and far less than a call may take.
const LONG: Duration = Duration::from_secs(25);

async fn session(server: &Testing, sql: &str) -> PgConnection {
    let options = server.options().application_name("somebody");
    let mut connection = PgConnection::connect_with(&options).await.expect("connect");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("sql");
    connection
}

fn assert_told(error: &AdapterError) {
    assert!(matches!(error, AdapterError::Busy(_)), "{error:?}");
    for told in ["table t", "session ", "(somebody)", " s"] {
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[tokio::test]
async fn who_waits_to_alter_a_table_lets_readers_pass() {
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", INT)])).await.expect("prepare");
    let reader = session(server, &format!("BEGIN; SELECT * FROM {name}.t")).await;
    let wider = schema("t", 2, &[("n", INT), ("m", INT)]);
    let start = Instant::now();
    let is_waiting = format!(
        "SELECT count(*) FROM pg_locks WHERE relation = '{name}.t'::regclass AND NOT granted"
    );
    let others = async {
        while server.psql(&is_waiting).await == "0" {}
        let began = Instant::now();
        server.psql(&format!("SELECT count(*) FROM {name}.t")).await;
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
    let Some(server) = Testing::shared().await else { return };
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
    let Some(server) = Testing::shared().await else { return };
    let name = server.fresh();
    let hasty =
        Options { call_timeout: Duration::from_secs(1), ..options(server.address().port()) };
    let adapter = Server::new(hasty).expect("a url").adapter(&name, true).expect("a schema");
    while adapter.prepare(&schema("t", 1, &[("n", INT)])).await.is_err() {}
    server
        .psql(&format!(
            "SET search_path = {name}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql \
             AS $$ BEGIN PERFORM pg_sleep(3); RETURN NEW; END $$; \
             CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
        ))
        .await;
    let batch = one_commit(1, vec![upsert("t", "a", 1, &[])]);
    let mut told = Vec::new();
    while let Err(error) = adapter.write(&batch).await {
        assert!(matches!(error, AdapterError::Unavailable(_)), "{error:?}");
        told.push(error.to_string());
        // Whoever flushes looks first how far it has come, which takes no time.
        let _ = adapter.watermark(LOG).await;
        assert!(told.len() < 9, "{told:?}");
    }
    assert!(told[0].contains("2s when it is tried again (call_timeout"), "{told:?}");
}

//! The servers and the proxy that other tests stand on do what they say.

use std::time::Duration;

use lakesync_adapters::testing::{Fault, MariaDb, NULL, Postgres, Proxy};
use sqlx::{Connection, MySqlConnection, PgConnection};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn clients_tell_null_from_text() {
    if let Some(postgres) = Postgres::shared().await {
        let sql = "SELECT NULL, '', 'NULL' UNION ALL SELECT 'é<|', 'b', '1'";
        assert_eq!(postgres.psql(sql).await, format!("{NULL}||NULL\né<||b|1"));
        assert_ne!(postgres.fresh(), postgres.fresh());
    }
    if let Some(mariadb) = MariaDb::shared().await {
        let sql = "SELECT NULL, '', 'NULL' UNION ALL SELECT 'é<|', 'b', '1'";
        assert_eq!(mariadb.mariadb(sql).await, format!("{NULL}||NULL\né<||b|1"));
    }
}

#[tokio::test]
async fn servers_crash_come_back_and_freeze() {
    if let Some(postgres) = Postgres::start().await {
        postgres.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (7)").await;
        postgres.stop();
        assert!(PgConnection::connect_with(&postgres.options()).await.is_err());
        postgres.restart().await;
        assert_eq!(postgres.psql("SELECT a FROM t").await, "7");
        let mut connection = PgConnection::connect_with(&postgres.options()).await.expect("up");
        postgres.pause();
        assert!(timeout(A_WHILE, connection.ping()).await.is_err(), "frozen");
        postgres.resume();
        postgres.psql("SELECT 1").await;
        postgres.pause();
    }
    if let Some(mariadb) = MariaDb::start().await {
        mariadb.mariadb("CREATE TABLE mysql.t AS SELECT 7 AS a").await;
        mariadb.stop();
        assert!(MySqlConnection::connect_with(&mariadb.options()).await.is_err());
        mariadb.restart().await;
        assert_eq!(mariadb.mariadb("SELECT a FROM mysql.t").await, "7");
        let mut connection = MySqlConnection::connect_with(&mariadb.options()).await.expect("up");
        mariadb.pause();
        assert!(timeout(A_WHILE, connection.ping()).await.is_err(), "frozen");
        mariadb.resume();
        mariadb.mariadb("SELECT 1").await;
    }
}

#[tokio::test]
async fn a_proxy_breaks_as_told() {
    let Some(postgres) = Postgres::shared().await else { return };
    let proxy = Proxy::start(postgres.address()).await;
    let options = postgres.options().port(proxy.address().port());
    let table = postgres.fresh();
    postgres.psql(&format!("CREATE TABLE {table} (a int)")).await;
    let connect = || PgConnection::connect_with(&options);
    let insert = |a: u32| sqlx::AssertSqlSafe(format!("INSERT INTO {table} VALUES ({a})"));
    let held = format!("SELECT count(*) FROM {table}");

    let mut connection = connect().await.expect("through the proxy");
    for (fault, count) in [
        (Fault::CutBefore("VALUES (1)".to_owned()), "0"),
        (Fault::CutAnswer("VALUES (1)".to_owned()), "1"),
        (Fault::CutAfterBytes(10), "1"),
    ] {
        let fired = proxy.fired();
        proxy.set(fault.clone());
        let answer = sqlx::raw_sql(insert(1)).execute(&mut connection).await;
        assert!(answer.is_err(), "{fault:?}: {answer:?}");
        assert_eq!(proxy.fired(), fired + 1);
        assert_eq!(postgres.psql(&held).await, count, "{fault:?}");
        connection = connect().await.expect("cuts happen once");
    }

    proxy.set(Fault::Refuse);
    assert!(connect().await.is_err());
    connection.ping().await.expect("this one was there");
    proxy.set(Fault::Slow(A_WHILE));
    assert!(timeout(A_WHILE, connection.ping()).await.is_err(), "slow");
    let mut connection = timeout(SOON, connect()).await.expect("soon").expect("slow");
    proxy.set(Fault::Swallow);
    assert!(timeout(A_WHILE, connection.ping()).await.is_err(), "half open");
    proxy.heal();
    assert!(timeout(A_WHILE, connection.ping()).await.is_err(), "what was lost stays lost");
    let mut connection = connect().await.expect("healed");
    proxy.cut();
    assert!(connection.ping().await.is_err());
}

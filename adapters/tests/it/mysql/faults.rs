//! What breaks: the network before, in and after a commit, servers, and servers of ours that hang.

use std::time::{Duration, Instant};

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::name::Position;
use lakesync::schema::{ColumnType, Schema};
use lakesync::testing::id;
use lakesync::value::Value;
use lakesync_adapters::mysql::{MySql, Options, Server};
use lakesync_adapters::testing::{Fault, MariaDb, PASSWORD, Proxy};
use sqlx::{Connection, MySqlConnection};
use tokio::time::timeout;

use super::{adapter, options};
use crate::fixtures::{LOG, delete, one_commit, schema, table, upsert};

const SOON: Duration = Duration::from_millis(1_500);
/// As little as a connection takes by way of a slow proxy.
const HASTE: Duration = Duration::from_millis(600);

fn through(proxy: &Proxy, database: &str) -> MySql {
    let hasty = Options {
        connect_timeout: SOON,
        call_timeout: SOON,
        connections_max: 2,
        ..options(proxy.address().port())
    };
    Server::new(hasty).expect("a url").adapter(database, true).expect("a name")
}

fn batch(position: u64) -> lakesync::adapter::Batch {
    let n = Value::Int64(i64::try_from(position).expect("small"));
    let change = |id: &str| upsert("t", id, position, &[("n", n.clone())]);
    let fresh = format!("new{position}");
    one_commit(position, vec![change("a"), change(&fresh), delete("t", &fresh, position + 1)])
}

/// Each fault strikes a write, whose outcome is unknown; after it, writing again does it once.
#[tokio::test]
async fn a_write_that_broke_is_done_once_by_writing_it_again() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let proxy = Proxy::start(server.address()).await;
    let adapter = through(&proxy, &name);
    let direct = super::adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", ColumnType::Int64)])).await.expect("prepare");
    let lost = |text: &str| Fault::CutBefore(text.to_owned());
    let unanswered = |text: &str| Fault::CutAnswer(text.to_owned());
    for (position, (fault, landed)) in (1..).zip([
        (lost("START TRANSACTION"), false),
        (unanswered("START TRANSACTION"), false),
        (lost("FOR UPDATE"), false),
        (unanswered("_lakesync_rows` (table_id"), false),
        (lost("_lakesync_watermarks` (log"), false),
        (lost("\u{3}COMMIT"), false),
        (unanswered("\u{3}COMMIT"), true),
        (Fault::CutAfterBytes(500), false),
        (Fault::CutAfterBytes(1_500), false),
        (Fault::Swallow, false),
        (Fault::Slow(SOON), false),
    ]) {
        let fired = proxy.fired();
        // Statements that the server knows already are sent by number, not by their text.
        proxy.cut();
        proxy.set(fault.clone());
        let batch = batch(position);
        let start = Instant::now();
        let mut error = adapter.write(&batch).await;
        if error.is_err() && fired == proxy.fired() && !matches!(fault, Fault::Slow(_)) {
            // That was the connection that had been cut.
            error = adapter.write(&batch).await;
        }
        let error = error.expect_err("it broke");
        assert!(matches!(error, AdapterError::Unavailable(_)), "{fault:?}: {error:?}");
        assert!(!error.to_string().contains(PASSWORD), "{error}");
        assert!(start.elapsed() < 20 * SOON, "{fault:?}: {:?}", start.elapsed());
        assert!(matches!(fault, Fault::Slow(_)) || fired < proxy.fired(), "{fault:?}");
        proxy.heal();
        let watermark = direct.watermark(LOG).await.expect("watermark");
        assert_eq!(watermark, Position(position - u64::from(!landed)), "{fault:?}");
        adapter.write(&batch).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(adapter.watermark(LOG).await, Ok(Position(position)), "{fault:?}");
        let shown = server.mariadb(&format!("SELECT id, n FROM {name}.t")).await;
        assert_eq!(shown, format!("a|{position}"), "{fault:?}");
        let history = adapter.history(None, 99).await.expect("history");
        assert_eq!(history.len() as u64, 3 * position, "{fault:?}");
    }
}

/// Tables may be altered for hours, over a connection that is silent all along.
#[tokio::test]
async fn preparing_ends_when_its_connection_does_and_not_after_a_calls_time() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let proxy = Proxy::start(server.address()).await;
    // Nobody is kept waiting by the one connection, nor by what is asked of it.
    let options = Options {
        call_timeout: HASTE,
        connect_timeout: HASTE,
        connections_max: 1,
        ..options(proxy.address().port())
    };
    let adapter = Server::new(options).expect("a url").adapter(&name, true).expect("a name");
    let tables = (0..150).map(|at| table(&format!("t{at}"), 1, &[("n", ColumnType::Int64)]));
    proxy.set(Fault::Slow(Duration::from_millis(25)));
    let start = Instant::now();
    adapter.prepare(&Schema::from_stored(tables)).await.expect("it is at work");
    assert!(12 * HASTE < start.elapsed(), "no test of it: {:?}", start.elapsed());

    let wider = schema("t0", 2, &[("n", ColumnType::Double)]);
    let fired = proxy.fired();
    proxy.set(Fault::SwallowFrom("ALTER TABLE".to_owned()));
    let prepared = timeout(40 * HASTE, adapter.prepare(&wider)).await.expect("it ends");
    let error = prepared.expect_err("its connection is gone");
    assert!(matches!(error, AdapterError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("is gone"), "{error}");
    assert!(fired < proxy.fired());
    adapter.prepare(&wider).await.expect("once more");

    let widest = schema("t0", 3, &[("n", ColumnType::Json)]);
    proxy.set(Fault::Swallow);
    let prepared = timeout(40 * HASTE, adapter.prepare(&widest)).await.expect("it ends");
    let error = prepared.expect_err("nobody answers");
    assert!(matches!(error, AdapterError::Unavailable(_)), "{error:?}");
    proxy.heal();
    adapter.prepare(&widest).await.expect("once more");
}

/// Tables change one by one here. Wherever that broke off, preparing again goes on.
#[tokio::test]
async fn a_preparation_that_broke_is_completed_by_preparing_again() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let proxy = Proxy::start(server.address()).await;
    let adapter = through(&proxy, &name);
    let lost = |text: &str| Fault::CutBefore(text.to_owned());
    let unanswered = |text: &str| Fault::CutAnswer(text.to_owned());
    let kind_at = |version| match version {
        1 => ColumnType::Int64,
        2 => ColumnType::Double,
        _ => ColumnType::Json,
    };
    let wanted = |version: u32| {
        let kind = kind_at(version);
        let columns: Vec<_> = (0..version).map(|at| (format!("c{at}"), kind)).collect();
        let columns: Vec<_> = columns.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        schema("t", version, &columns)
    };
    for (version, fault) in (1..).zip([
        unanswered("CREATE TABLE `"),
        unanswered("MODIFY COLUMN"),
        unanswered("SET `_lakesync_filled_"),
        unanswered("ADD COLUMN"),
        lost("INSERT INTO"),
        lost("SET generation"),
        unanswered("\u{3}COMMIT"),
    ]) {
        let wanted = wanted(version);
        // Statements that the server knows already are sent by number, not by their text.
        proxy.cut();
        proxy.set(fault.clone());
        let fired = proxy.fired();
        for tries in 1.. {
            let done = adapter.prepare(&wanted).await;
            match done {
                Ok(()) => break,
                Err(AdapterError::Unavailable(_)) if tries < 9 => {}
                Err(error) => panic!("{fault:?}: {error:?}"),
            }
        }
        assert!(fired < proxy.fired(), "{fault:?}");
        proxy.heal();
        assert_eq!(adapter.schema().await, Ok(wanted), "{fault:?}");
        let position = u64::from(version);
        let value = match kind_at(version) {
            ColumnType::Double => Value::Double(2.5),
            ColumnType::Json => Value::Json(format!("[{version}]")),
            _ => Value::Int64(7),
        };
        let change = upsert("t", &format!("r{version}"), position, &[("c0", value)]);
        adapter.write(&one_commit(position, vec![change])).await.expect("write");
    }
    let shown = server.mariadb(&format!("SELECT c0 FROM {name}.t ORDER BY id")).await;
    assert_eq!(shown, "7\n2.5\n[3]\n[4]\n[5]\n[6]\n[7]", "rows from before are shown anew");
}

/// Whatever refuses a wider type, and for however long, people see the values that there are.
#[tokio::test]
async fn a_widening_that_fails_empties_nothing() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let hasty = Options { call_timeout: SOON, ..options(server.address().port()) };
    let adapter = Server::new(hasty).expect("a url").adapter(&name, true).expect("a name");
    let [narrow, wide] = [
        [("n", ColumnType::Int64), ("b", ColumnType::Bytes), ("s", ColumnType::String)],
        [("n", ColumnType::Double), ("b", ColumnType::String), ("s", ColumnType::Json)],
    ];
    adapter.prepare(&schema("t", 1, &narrow)).await.expect("prepare");
    let cells = [
        ("n", Value::Int64(7)),
        ("b", Value::Bytes(b"\xff"[..].into())),
        ("s", Value::String("text".to_owned())),
    ];
    adapter.write(&one_commit(1, vec![upsert("t", "a", 1, &cells)])).await.expect("write");
    server.mariadb(&format!("INSERT INTO {name}.t VALUES ('theirs', 8, 'b', 's')")).await;
    let shown = format!("SELECT id, n, HEX(b), s FROM {name}.t ORDER BY id");
    let before = server.mariadb(&shown).await;
    assert_eq!(before, "a|7|FF|text\ntheirs|8|62|s");

    let mut reader = MySqlConnection::connect_with(&server.options()).await.expect("connect");
    let sql = format!("START TRANSACTION; SELECT * FROM {name}.t");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut reader).await.expect("read");
    let start = Instant::now();
    let error = adapter.prepare(&schema("t", 2, &wide)).await.expect_err("somebody reads it");
    assert!(matches!(error, AdapterError::Busy(_)), "{error:?}");
    assert!(start.elapsed() < 4 * SOON, "locks are waited for as long as for a call");
    assert_eq!(server.mariadb(&shown).await, before);
    drop(reader);

    let long = format!("ALTER TABLE {name}.t ADD COLUMN long_b bigint AS (LENGTH(b)) STORED");
    server.mariadb(&long).await;
    adapter.prepare(&schema("t", 2, &wide)).await.expect("nothing stands in the way");
    let shown = server.mariadb(&format!("SELECT * FROM {name}.t ORDER BY id")).await;
    assert_eq!(shown, "a|7|ff|\"text\"|2\ntheirs|8|62|\"s\"|2");
}

#[tokio::test]
async fn a_server_that_is_away_is_told_by_its_cause_and_found_again() {
    let Some(server) = MariaDb::start().await else { return };
    let adapter = adapter(&server, "main", true);
    adapter.prepare(&schema("t", 1, &[("n", ColumnType::Int64)])).await.expect("prepare");
    adapter.write(&batch(1)).await.expect("write");
    server.stop();
    let error = adapter.health().await.expect_err("it is down");
    assert!(matches!(error, AdapterError::Unavailable(_)), "{error:?}");
    let error = adapter.write(&batch(2)).await.expect_err("it is down").to_string();
    assert!(error.contains("refused") && !error.contains(PASSWORD), "{error}");
    server.restart().await;
    adapter.write(&batch(2)).await.expect("it is back");
    server.restart().await;
    // A connection may have died with the server; no more than one call notices.
    let _ = adapter.health().await;
    adapter.health().await.expect("healthy");
    assert_eq!(adapter.watermark(LOG).await, Ok(Position(2)));
}

#[tokio::test]
async fn a_writer_that_hangs_stops_no_other_for_long() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let proxy = Proxy::start(server.address()).await;
    let patient = Options { call_timeout: 2 * SOON, ..options(proxy.address().port()) };
    let patient = Server::new(patient).expect("a url");
    let hanging = patient.adapter(&name, true).expect("a name");
    hanging.prepare(&schema("t", 1, &[("n", ColumnType::Int64)])).await.expect("prepare");
    let first = batch(1);
    proxy.set(Fault::Slow(SOON / 20));
    let mut write = std::pin::pin!(hanging.write(&first));
    let free = format!("SELECT one FROM {name}._lakesync_meta FOR UPDATE SKIP LOCKED");
    let is_locked = async { while server.mariadb(&free).await == "1" {} };
    tokio::select! {
        done = &mut write => panic!("it is too slow for that: {done:?}"),
        () = is_locked => proxy.set(Fault::Swallow),
    }
    // Nobody polls the writer now, and its connection stays: only the server can end this.
    let successor = adapter(server, &name, true);
    successor.write(&first).await.expect("its turn comes");
    successor.write(&batch(2)).await.expect("write");
    write.await.expect_err("nobody answers it");
    proxy.heal();
    hanging.write(&first).await.expect("known already");
    assert_eq!(hanging.watermark(LOG).await, Ok(Position(2)));
}

#[tokio::test]
async fn writers_and_preparers_at_once_harm_nothing() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapters: Vec<_> = (0..4).map(|_| adapter(server, &name, true)).collect();
    let wanted = schema("t", 1, &[("n", ColumnType::Int64)]);
    let prepared = adapters.iter().map(|adapter| adapter.prepare(&wanted));
    for done in futures_util::future::join_all(prepared).await {
        done.expect("all prepare the same");
    }
    let writes = adapters.iter().map(|adapter| async {
        for position in 1..=30 {
            adapter.write(&batch(position)).await.expect("write");
        }
    });
    futures_util::future::join_all(writes).await;
    assert_eq!(adapters[0].watermark(LOG).await, Ok(Position(30)));
    assert_eq!(adapters[0].history(None, 999).await.expect("history").len(), 90);
    assert_eq!(adapters[0].rows(&id("t"), None, 99).await.expect("rows").len(), 31);

    // One that was prepared for less learns of more from the database.
    let wider = schema("t", 2, &[("n", ColumnType::Int64), ("m", ColumnType::Int64)]);
    adapters[1].prepare(&wider).await.expect("prepare");
    let change = upsert("t", "a", 99, &[("m", Value::Int64(7))]);
    adapters[0].write(&one_commit(31, vec![change])).await.expect("it knows the column");
    assert_eq!(server.mariadb(&format!("SELECT m FROM {name}.t WHERE id = 'a'")).await, "7");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_nothing_open() {
    let Some(server) = MariaDb::shared().await else { return };
    let name = server.fresh();
    let adapter = adapter(server, &name, true);
    adapter.prepare(&schema("t", 1, &[("n", ColumnType::Int64)])).await.expect("prepare");
    let first = batch(1);
    for us in (0..60).map(|at| at * 200) {
        let write = adapter.write(&first);
        let _ = tokio::time::timeout(Duration::from_micros(us), write).await;
    }
    adapter.write(&batch(1)).await.expect("write");
    adapter.write(&batch(2)).await.expect("write");
    assert_eq!(server.mariadb(&format!("SELECT id, n FROM {name}.t")).await, "a|2");
}

//! Changes that the gateway refuses: taken back and kept with their reason, told of, retried or
//! dropped; and never in the way of the others.

use std::time::Duration;

use lakesync_client::Event;

use super::site::{Site, head, serve, told};
use crate::harness::Setup;

const MADE_BY: &str = "
    CREATE TABLE todos (id TEXT PRIMARY KEY, title TEXT, rank INTEGER);
    INSERT INTO todos VALUES ('a', 'milk', 1), ('b', 'oats', 2);";

/// Row ids, kinds and reasons of what was refused.
async fn refused(site: &Site) -> Vec<(i64, String, String, String)> {
    let rejected = site.replica.rejected().await.expect("a list");
    rejected.into_iter().map(|it| (it.id, it.row_id, it.kind, it.reason)).collect()
}

#[tokio::test]
async fn a_value_of_another_kind_is_taken_back_kept_and_may_be_retried() {
    let server = serve(&Setup::new()).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    let mut bob = Site::synced(&server).await;
    // SQLite lets a column of integers hold text; the gateway does not.
    ann.run("UPDATE todos SET rank = 'high', title = 'soy' WHERE id = 'a'").await;
    ann.run("INSERT INTO todos VALUES ('c', 'new', 'low'), ('d', 'good', 4)").await;
    let mut events = ann.replica.events();
    let round = ann.sync().await;
    assert_eq!((round.accepted, round.rejected), (1, 2), "one bad change never blocks the rest");

    let kept = refused(&ann).await;
    let reasons: Vec<_> = kept.iter().map(|it| (it.1.as_str(), it.3.as_str())).collect();
    assert_eq!(reasons, [("a", "SCHEMA_MISMATCH"), ("c", "SCHEMA_MISMATCH")]);
    let told = told(&mut events);
    let count = told.iter().filter(|event| matches!(event, Event::Rejected(_))).count();
    assert_eq!((count, ann.status().rejected, ann.status().pending), (2, 2, 0));
    let wanted = ["'a'|'milk'|1", "'b'|'oats'|2", "'d'|'good'|4"];
    assert_eq!(ann.rows("todos", "id, title, rank").await, wanted, "the gateway's state");
    bob.sync().await;
    assert_eq!(bob.rows("todos", "id, title, rank").await, wanted);
    // Any SQL reads it as well.
    let seen = ann.rows("_lakesync_rejected", "table_name, row_id, reason").await;
    assert_eq!(seen[0], "'todos'|'a'|'SCHEMA_MISMATCH'");

    // Retried as it is, it is refused again, and nothing else happens.
    assert!(ann.replica.retry_rejected(kept[0].0).await.expect("queued"));
    assert_eq!(ann.sync().await.rejected, 1);
    assert_eq!(ann.rows("todos", "id, title, rank").await, wanted);

    // Mended, it is accepted: the gateway's column takes anything from now on.
    widen(&server).await;
    let again = refused(&ann).await;
    let id = again.iter().find(|it| it.1 == "a").expect("kept again").0;
    assert!(ann.replica.retry_rejected(id).await.expect("queued"));
    assert_eq!(ann.sync().await.accepted, 1);
    let dropped = refused(&ann).await;
    assert_eq!(dropped.len(), 1, "{dropped:?}");
    assert!(ann.replica.drop_rejected(dropped[0].0).await.expect("forgotten"));
    assert!(!ann.replica.drop_rejected(dropped[0].0).await.expect("answered"), "twice");
    bob.sync().await;
    ann.sync().await;
    let wanted = ["'a'|'soy'|'high'", "'b'|'oats'|2", "'d'|'good'|4"];
    for site in [&mut ann, &mut bob] {
        assert_eq!(site.rows("todos", "id, title, rank").await, wanted);
        assert_eq!((refused(site).await, site.status().rejected), (vec![], 0));
    }
}

/// Widens the column `rank` to hold any value.
async fn widen(server: &crate::harness::Server) {
    use lakesync::proto::v1::{ColumnType, GetSchemaRequest};
    let mut admin = server.client("operator").await;
    let request = GetSchemaRequest { gateway: admin.gateway.clone() };
    let mut tables = admin.sync.get_schema(request).await.expect("tables").into_inner().tables;
    for column in tables.iter_mut().flat_map(|table| &mut table.columns) {
        if column.name == "rank" {
            column.r#type = ColumnType::Any.into();
        }
    }
    admin.put_schema(tables).await.expect("widened");
}

#[tokio::test]
async fn what_no_row_may_be_is_refused_before_it_leaves() {
    let server = serve(&Setup::new()).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    let mut bob = Site::synced(&server).await;
    let before = head(&server).await;
    ann.run("INSERT INTO todos VALUES (printf('%0300d', 1), 'long key', 1)").await;
    ann.run("INSERT INTO todos VALUES ('', 'empty key', 1)").await;
    ann.run("INSERT INTO todos VALUES ('big', printf('%.*c', 3000000, 'x'), 1)").await;
    ann.run("INSERT INTO todos VALUES ('nul', 'a' || char(0) || 'b', 1)").await;
    ann.run("INSERT INTO todos VALUES ('fine', 'x', 1)").await;
    let round = ann.sync().await;
    let kept = refused(&ann).await;
    assert_eq!((round.accepted, kept.len()), (1, 4), "{kept:?}");
    assert_eq!(head(&server).await, before + 1);
    let reason = |row: &str| kept.iter().find(|it| it.1 == row).map(|it| it.3.as_str());
    assert_eq!(reason("big"), Some("TOO_LARGE"));
    assert!(reason("nul").is_some() && reason("").is_some(), "{kept:?}");
    bob.sync().await;
    assert_eq!(bob.rows("todos", "id").await, ["'a'", "'b'", "'fine'"]);
    assert_eq!(ann.status().pending, 0, "nothing is tried for ever");
}

#[tokio::test]
async fn a_change_older_than_deletes_are_remembered_does_not_raise_its_row() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let setup = Setup::new();
    let server = serve(&setup).await;
    let mut ann = Site::with(&server, MADE_BY, &["todos"]).await;
    let mut bob = Site::synced(&server).await;
    bob.run("UPDATE todos SET title = 'from long ago' WHERE id = 'a'").await;
    ann.run("DELETE FROM todos WHERE id = 'a'").await;
    ann.sync().await;
    let away = Duration::from_millis(200 * DAY_MS);
    setup.clock.advance(200 * DAY_MS);
    let passed = format!("UPDATE _lakesync_clock SET offset_ms = offset_ms + {}", away.as_millis());
    for site in [&mut ann, &mut bob] {
        site.run(&passed).await;
    }
    // The gateway forgets deletes as it goes on writing.
    for nth in 0..3 {
        ann.run(&format!("INSERT INTO todos VALUES ('new {nth}', 'x', 1)")).await;
        ann.sync().await;
    }
    bob.run("INSERT INTO todos VALUES ('e', 'after the holidays', 5)").await;
    bob.sync().await;
    ann.sync().await;
    let wanted = ["'b'", "'e'", "'new 0'", "'new 1'", "'new 2'"];
    for site in [&mut ann, &mut bob] {
        assert_eq!(site.rows("todos", "id").await, wanted, "a row rose from the dead");
        assert_eq!(site.status().pending, 0);
    }
}

//! What is pushed, what comes back, and what the tables show in between.

use lakesync::proto::v1::Outcome;

use super::model::{Device, Gateway, keyed, schema};

async fn two(columns: &str) -> (Device, Device, Gateway) {
    let tables = [keyed("notes", columns)];
    (Device::with(&tables).await, Device::with(&tables).await, Gateway::default())
}

const ALL: &str = "SELECT * FROM notes ORDER BY 1";

#[tokio::test]
async fn an_edit_reaches_the_other_device() {
    let (mut ann, mut bob, mut gateway) = two("title:text done:bool size:double raw:bytes").await;
    ann.run("INSERT INTO notes VALUES ('x', 'milk', 0, 1.5, x'00ff'), ('y', NULL, 1, NULL, NULL)")
        .await;
    assert_eq!(ann.sync(&mut gateway).await.accepted, 2);
    assert_eq!(ann.db.counts().await.unwrap().pending, 0);
    bob.sync(&mut gateway).await;
    assert_eq!(bob.ask(ALL).await, ann.ask(ALL).await);
    assert_eq!(bob.ask(ALL).await, "x|milk|0|1.5|[00, ff]\ny|NULL|1|NULL|NULL");
    assert_eq!(bob.outbox().await, "", "what arrives is not an edit");

    bob.run("UPDATE notes SET title = 'oats' WHERE id = 'x'; DELETE FROM notes WHERE id = 'y'")
        .await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask(ALL).await, "x|oats|0|1.5|[00, ff]");
}

#[tokio::test]
async fn edits_of_different_columns_both_survive_and_the_later_of_one_column_wins() {
    let (mut ann, mut bob, mut gateway) = two("a:text b:text").await;
    ann.run("INSERT INTO notes VALUES ('x', '0', '0')").await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    ann.run("UPDATE notes SET a = 'ann', b = 'ann'").await;
    bob.run("UPDATE notes SET b = 'bob'").await;
    let settled = bob.sync(&mut gateway).await;
    assert!(settled.superseded.is_empty());
    let settled = ann.sync(&mut gateway).await;
    let lost: Vec<_> = settled.superseded.iter().flat_map(|s| &s.columns).collect();
    assert_eq!(lost.iter().map(|c| c.as_str()).collect::<Vec<_>>(), ["b"]);
    bob.sync(&mut gateway).await;
    for device in [&mut ann, &mut bob] {
        assert_eq!(device.ask(ALL).await, "x|ann|bob");
    }
}

#[tokio::test]
async fn a_download_does_not_wait_for_an_upload_and_merges_beneath_it() {
    let (mut ann, mut bob, mut gateway) = two("a:text b:text").await;
    ann.run("INSERT INTO notes VALUES ('x', '0', '0')").await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    ann.run("UPDATE notes SET a = 'early', b = 'early'").await;
    ann.sync(&mut gateway).await;
    bob.run("UPDATE notes SET b = 'mine'").await;
    bob.pull(&gateway).await;
    assert_eq!(bob.ask(ALL).await, "x|early|mine");
    assert_eq!(bob.ask("SELECT value FROM _lakesync_base").await, "early");
    bob.push(&mut gateway).await;
    assert_eq!(bob.ask("SELECT count(*) FROM _lakesync_base").await, "0");
    assert_eq!(gateway.show("notes"), "x a=early b=mine");
}

#[tokio::test]
async fn a_refused_change_is_taken_back_and_kept() {
    let (mut ann, _, mut gateway) = two("a:text b:text").await;
    ann.run("INSERT INTO notes VALUES ('x', 'good', '0'), ('y', 'good', '0')").await;
    ann.sync(&mut gateway).await;
    gateway.poison = Some("bad");
    ann.run("UPDATE notes SET a = 'bad' WHERE id = 'x'; DELETE FROM notes WHERE id = 'y'").await;
    ann.run("INSERT INTO notes VALUES ('z', 'bad', '1'); UPDATE notes SET b = '2' WHERE id = 'x'")
        .await;
    let settled = ann.sync(&mut gateway).await;
    assert_eq!((settled.accepted, settled.rejected.len()), (2, 2));
    assert_eq!(ann.ask(ALL).await, "x|good|2");
    let kept = ann.db.rejected().await.unwrap();
    assert_eq!(kept, settled.rejected);
    assert_eq!((kept[0].row_id.as_str(), kept[0].cells.as_str()), ("x", "{\"a\":\"bad\"}"));
    assert_eq!(kept[1].cells, "{\"a\":\"bad\",\"b\":\"1\"}");
    assert_eq!(kept[0].reason, "SCHEMA_MISMATCH");

    assert!(ann.db.drop_rejected(kept[0].id).await.unwrap());
    assert!(!ann.db.drop_rejected(kept[0].id).await.unwrap());
    gateway.poison = None;
    assert!(ann.db.retry_rejected(kept[1].id).await.unwrap());
    assert_eq!(ann.ask(ALL).await, "x|good|2\nz|bad|1");
    ann.sync(&mut gateway).await;
    assert_eq!(gateway.show("notes"), "x a=good b=2\nz a=bad b=1");
    assert_eq!(ann.db.counts().await.unwrap(), super::super::Counts::default());
}

#[tokio::test]
async fn a_refused_delete_brings_the_row_back() {
    let (mut ann, _, mut gateway) = two("a:text").await;
    ann.run("INSERT INTO notes VALUES ('x', 'kept')").await;
    ann.sync(&mut gateway).await;
    ann.run("DELETE FROM notes").await;
    let batch = ann.db.pending_at_most(10_000).await.unwrap().unwrap();
    let refusal = Outcome { kind: 1, reason: "OUT_OF_SCOPE".into(), ..Outcome::default() };
    let settled = ann.db.settle(batch, &[refusal]).await.unwrap();
    assert_eq!(settled.rejected[0].kind, "delete");
    assert_eq!(ann.ask(ALL).await, "x|kept");
}

#[tokio::test]
async fn a_replacement_that_is_refused_gives_way_to_what_it_replaced() {
    let (mut ann, _, mut gateway) = two("a:text b:text").await;
    ann.run("INSERT INTO notes VALUES ('x', 'good', 'good')").await;
    ann.sync(&mut gateway).await;
    gateway.poison = Some("bad");
    ann.run("REPLACE INTO notes VALUES ('x', 'bad', 'new')").await;
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask(ALL).await, "x|good|good");
}

#[tokio::test]
async fn a_push_whose_answer_was_lost_is_pushed_again_without_harm() {
    let (mut ann, mut bob, mut gateway) = two("a:text b:text").await;
    ann.run("INSERT INTO notes VALUES ('x', '1', '1'); UPDATE notes SET a = '2'").await;
    let batch = ann.db.pending_at_most(10_000).await.unwrap().unwrap();
    gateway.push(ann.db.client_id(), &batch.deltas);
    drop(batch);
    bob.sync(&mut gateway).await;
    bob.run("UPDATE notes SET b = 'bob'").await;
    bob.sync(&mut gateway).await;
    let settled = ann.sync(&mut gateway).await;
    assert!(settled.superseded.is_empty() || settled.superseded[0].columns[0].as_str() == "b");
    assert_eq!(ann.ask(ALL).await, "x|2|bob");
    assert_eq!(ann.db.counts().await.unwrap().pending, 0);
    assert_eq!(gateway.log.len(), 2);
}

#[tokio::test]
async fn pages_may_arrive_twice_and_late() {
    let (mut ann, mut bob, mut gateway) = two("a:text").await;
    ann.run("INSERT INTO notes VALUES ('x', '1'), ('y', '1')").await;
    ann.sync(&mut gateway).await;
    ann.run("UPDATE notes SET a = '2'; DELETE FROM notes WHERE id = 'y'").await;
    ann.sync(&mut gateway).await;
    let (all, cursor) = gateway.pull(0);
    for _ in 0..2 {
        bob.db.apply_page(all.clone(), &cursor).await.unwrap();
        assert_eq!(bob.ask(ALL).await, "x|2");
    }
    // The oldest page alone, again.
    let old = gateway.log[..1].to_vec();
    let (first, _) = Gateway { log: old, ..Gateway::default() }.pull(0);
    bob.db.apply_page(first, &cursor).await.unwrap();
    assert_eq!(bob.ask(ALL).await, "x|2");
}

#[tokio::test]
async fn a_row_that_leaves_the_scope_is_dropped_and_not_recorded() {
    use lakesync::wire::{Arrival, Incoming};
    let (mut ann, _, mut gateway) = two("a:text").await;
    ann.run("INSERT INTO notes VALUES ('x', '1'), ('y', '1')").await;
    ann.sync(&mut gateway).await;
    let exit = Arrival {
        table: "notes".parse().unwrap(),
        row_id: "x".parse().unwrap(),
        what: Incoming::ScopeExit,
    };
    ann.db.apply_page(vec![exit], "9").await.unwrap();
    assert_eq!(ann.ask(ALL).await, "y|1");
    assert_eq!(ann.outbox().await, "");
    assert_eq!(ann.ask("SELECT row_id FROM _lakesync_rows").await, "y");
}

#[tokio::test]
async fn integer_and_composite_keys_travel() {
    let tables = [
        schema("serial", "row_id", "id:int v:text", &["id"]),
        schema("pairs", "row_id", "a:int b:text v:any", &["a", "b"]),
    ];
    let (mut ann, mut bob) = (Device::with(&tables).await, Device::with(&tables).await);
    let mut gateway = Gateway::default();
    ann.run(
        "INSERT INTO serial (v) VALUES ('one'), ('two'); INSERT INTO serial VALUES (-7, 'low')",
    )
    .await;
    ann.run("INSERT INTO pairs VALUES (1, 'x', 0.5), (1, '\"', NULL); UPDATE pairs SET b = 'z' WHERE b = 'x'").await;
    ann.sync(&mut gateway).await;
    bob.run("INSERT INTO serial (v) VALUES ('mine')").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    for table in ["serial", "pairs"] {
        let all = format!("SELECT * FROM {table} ORDER BY 1, 2");
        assert_eq!(ann.ask(&all).await, bob.ask(&all).await);
    }
    assert_eq!(ann.ask("SELECT count(*), count(DISTINCT id) FROM serial").await, "4|4");
    assert_eq!(bob.ask("SELECT a, b, v FROM pairs ORDER BY b").await, "1|\"|NULL\n1|z|0.5");
}

#[tokio::test]
async fn a_change_that_can_not_travel_is_refused_at_home() {
    let (mut ann, _, mut gateway) = two("a:text").await;
    ann.run("INSERT INTO notes VALUES ('', 'no id'), ('ok', 'fine'), ('big', zeroblob(3000000))")
        .await;
    ann.run("INSERT INTO notes VALUES ('odd', CAST(x'ff' AS TEXT))").await;
    let settled = ann.sync(&mut gateway).await;
    let reasons: Vec<_> =
        settled.rejected.iter().map(|r| (r.row_id.as_str(), r.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [("", "INVALID_REQUEST"), ("big", "TOO_LARGE"), ("odd", "INVALID_REQUEST")]
    );
    assert_eq!(gateway.show("notes"), "ok a=fine");
    assert_eq!(ann.db.counts().await.unwrap().pending, 0);
}

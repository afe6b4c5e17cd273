//! A gateway that was restored or made anew is given back what it has lost, and nothing is removed
//! for its sake.

use lakesync::hlc::Hlc;
use lakesync::limits::OFFLINE_MAX;

use super::model::{Device, Gateway, exact, keyed, schema};

const ALL: &str = "SELECT * FROM notes ORDER BY 1";

/// Two devices and a gateway that have the same rows, and a copy of the gateway that has less.
async fn restored() -> (Device, Device, Gateway) {
    let tables = [keyed("notes", "a:text b:text"), schema("log", "row_id", "line:text", &[])];
    let (mut ann, mut bob) = (Device::with(&tables).await, Device::with(&tables).await);
    let mut gateway = Gateway::default();
    ann.run("INSERT INTO notes VALUES ('old', 'a', 'b'), ('gone', 'a', 'b')").await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    let copy = gateway.clone();
    ann.run(
        "INSERT INTO notes VALUES ('new', 'a', NULL); UPDATE notes SET b = 'ann' WHERE id = 'old'",
    )
    .await;
    ann.run("INSERT INTO log (line) VALUES ('one')").await;
    ann.sync(&mut gateway).await;
    bob.run("UPDATE notes SET a = 'bob' WHERE id = 'old'; DELETE FROM notes WHERE id = 'gone'")
        .await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    (ann, bob, copy)
}

#[tokio::test]
async fn what_the_gateway_lost_comes_back_from_any_replica() {
    let (mut ann, mut bob, mut gateway) = restored().await;
    let before = ann.ask(ALL).await;
    assert_eq!(before, "new|a|NULL\nold|bob|ann");
    bob.run("INSERT INTO notes VALUES ('unsent', 'x', NULL)").await;
    for device in [&mut ann, &mut bob] {
        let ended = device.checkpoint_of_another(&gateway).await;
        assert_eq!((ended.removed, ended.restored), (0, 4));
    }
    assert_eq!(ann.ask(ALL).await, before, "nothing is removed meanwhile");
    for _ in 0..2 {
        for device in [&mut ann, &mut bob] {
            let settled = device.sync(&mut gateway).await;
            assert!(settled.superseded.is_empty() && settled.rejected.is_empty(), "{settled:?}");
        }
    }
    let wanted = "new|a|NULL\nold|bob|ann\nunsent|x|NULL";
    assert_eq!(ann.ask(ALL).await, wanted);
    assert_eq!(bob.ask(ALL).await, wanted);
    assert_eq!(ann.ask("SELECT line FROM log").await, "one");
    let shown = "new a=a b=Null\nold a=bob b=ann\n\
                 unsent a=x b=Null";
    assert_eq!(gateway.show("notes"), shown);
    assert_eq!(ann.db.counts().await.unwrap().pending, 0);
}

#[tokio::test]
async fn newer_writes_win_over_what_is_given_back() {
    let (mut ann, mut bob, mut gateway) = restored().await;
    // Somebody new has written to the restored gateway before.
    let mut eve = Device::with(&[keyed("notes", "a:text b:text")]).await;
    eve.checkpoint(&gateway).await;
    eve.run("UPDATE notes SET b = 'eve' WHERE id = 'old'").await;
    eve.push(&mut gateway).await;
    ann.checkpoint_of_another(&gateway).await;
    assert_eq!(ann.ask(ALL).await, "new|a|NULL\nold|bob|eve");
    ann.run("UPDATE notes SET a = 'after' WHERE id = 'new'").await;
    ann.sync(&mut gateway).await;
    bob.checkpoint_of_another(&gateway).await;
    bob.sync(&mut gateway).await;
    assert_eq!(bob.ask(ALL).await, "new|after|NULL\nold|bob|eve");
}

#[tokio::test]
async fn an_unsent_edit_stays_newer_than_what_is_given_back() {
    let (_, mut bob, mut gateway) = restored().await;
    bob.run("UPDATE notes SET a = 'edit'").await;
    bob.checkpoint_of_another(&gateway).await;
    bob.push(&mut gateway).await;
    let shown = "new a=edit b=Null\nold a=edit b=ann";
    assert_eq!(gateway.show("notes"), shown);
    assert_eq!(bob.ask(ALL).await, "new|edit|NULL\nold|edit|ann");
}

#[tokio::test]
async fn that_the_log_was_replaced_is_remembered_through_a_kill() {
    let (mut ann, _, mut gateway) = restored().await;
    let before = ann.ask(ALL).await;
    ann.db.begin_checkpoint(Some(OFFLINE_MAX)).await.unwrap();
    let chunks = gateway.chunks(1);
    ann.db.apply_chunk(chunks[0].clone(), "first").await.unwrap();
    ann.reopen().await;
    assert_eq!(ann.db.begin_checkpoint(None).await.unwrap(), "first");
    ann.db.abandon_checkpoint().await.unwrap();
    assert_eq!(ann.checkpoint(&gateway).await.restored, 4, "in both parts");
    ann.sync(&mut gateway).await;
    assert_eq!(ann.ask(ALL).await, before);
    assert_eq!(gateway.rows.values().filter(|row| row.is_live()).count(), 3);
    // The next checkpoint is one of the same log, and its word counts again.
    gateway.rows.retain(|(_, id), _| id.as_str() != "new");
    let ended = ann.checkpoint(&gateway).await;
    assert_eq!((ended.removed, ended.restored), (1, 0));
}

#[tokio::test]
async fn a_refusal_to_take_something_back_leaves_the_row_alone() {
    let (mut ann, _, mut gateway) = restored().await;
    gateway.poison = Some("a");
    gateway.rows.clear();
    ann.checkpoint_of_another(&gateway).await;
    let settled = ann.push(&mut gateway).await;
    assert_eq!(settled.rejected.len(), 1, "{settled:?}");
    assert_eq!(ann.ask(ALL).await, "new|a|NULL\nold|bob|ann");
}

#[tokio::test]
async fn tables_that_the_gateway_lacks_keep_their_rows_until_it_has_them() {
    let tables = [keyed("notes", "a:text"), keyed("other", "a:text")];
    let mut ann = Device::with(&tables).await;
    let mut gateway = Gateway::default();
    ann.run("INSERT INTO notes VALUES ('n', '1'); INSERT INTO other VALUES ('o', '1')").await;
    ann.sync(&mut gateway).await;
    let migration = ann.db.install_schema(&tables[1..]).await.unwrap();
    assert_eq!(migration.undeclared, ["notes".parse().unwrap()]);
    let mut gateway = Gateway::default();
    let ended = ann.checkpoint(&gateway).await;
    assert_eq!((ended.removed, ended.restored), (1, 0), "the other one's is gone");
    assert_eq!(ann.ask("SELECT id FROM notes").await, "n");
    ann.reopen().await;
    ann.checkpoint_of_another(&gateway).await;
    ann.run("UPDATE notes SET a = '2'").await;
    ann.push(&mut gateway).await;
    assert!(gateway.log.is_empty(), "{:?}", gateway.log);
    assert_eq!(ann.db.counts().await.unwrap().pending, 2);

    let migration = ann.db.install_schema(&tables).await.unwrap();
    assert!(migration.undeclared.is_empty());
    ann.sync(&mut gateway).await;
    assert_eq!(gateway.show("notes"), "n a=2");
    assert_eq!(ann.ask(ALL).await, "n|2");
}

#[tokio::test]
async fn columns_that_were_declared_in_another_order_keep_their_values_and_stamps() {
    let mut ann = Device::with(&[keyed("notes", "a:text b:text c:text")]).await;
    let mut gateway = Gateway::default();
    ann.run("INSERT INTO notes VALUES ('n', 'a1', 'b1', 'c1')").await;
    ann.sync(&mut gateway).await;
    ann.run("UPDATE notes SET c = 'c2'").await;
    ann.sync(&mut gateway).await;
    ann.run("UPDATE notes SET b = 'b3'").await;
    let known = gateway.rows.clone();

    // Made anew with other columns in other places, one of them new and one missing.
    ann.db.install_schema(&[keyed("notes", "c:text d:text a:text")]).await.unwrap();
    let mut gateway = Gateway::default();
    ann.checkpoint_of_another(&gateway).await;
    ann.sync(&mut gateway).await;
    assert_eq!(gateway.show("notes"), "n a=a1 c=c2");
    for (name, row) in &known {
        for cell in gateway.rows[name].cells() {
            assert_eq!(row.cell(&cell.column).map(|known| known.stamp.hlc), Some(cell.stamp.hlc));
        }
    }
    assert_eq!(ann.ask("SELECT id, a, b, c, d FROM notes").await, "n|a1|b3|c2|NULL");
    // Declared at last, the column is sent with what it holds.
    ann.db.install_schema(&[keyed("notes", "c:text d:text a:text b:text")]).await.unwrap();
    ann.sync(&mut gateway).await;
    assert_eq!(gateway.show("notes"), "n a=a1 b=b3 c=c2");
}

#[tokio::test]
async fn what_is_given_back_keeps_its_stamps_unless_they_are_ahead() {
    let (mut ann, _, gateway) = restored().await;
    let stamps = "SELECT group_concat(hlc) FROM (SELECT hlc FROM _lakesync_outbox ORDER BY seq)";
    ann.checkpoint_of_another(&gateway).await;
    let given = ann.ask(stamps).await;
    ann.run("INSERT INTO notes VALUES ('edit', 'x', NULL)").await;
    let now: u64 = ann.ask("SELECT max(hlc) FROM _lakesync_outbox").await.parse().unwrap();
    let hour = 3_600_000 << 16;
    ann.db.observe_clock(exact(Hlc(now + hour))).await.unwrap();
    assert!(ann.ask(stamps).await.starts_with(&given), "a slow clock stamped edits only");
    ann.db.observe_clock(exact(Hlc(now - hour))).await.unwrap();
    let ahead = format!("SELECT count(*) FROM _lakesync_outbox WHERE hlc > {}", now - hour / 2);
    assert_eq!(ann.ask(&ahead).await, "0", "a server whose clock is behind would refuse them");
    let distinct = "SELECT count(*) - count(DISTINCT hlc) FROM _lakesync_outbox WHERE op > 3";
    assert_eq!(ann.ask(distinct).await, "0");
}

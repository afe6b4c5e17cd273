//! A checkpoint brings every row, survives a kill, drops what is gone, and touches nothing unsent.

use super::model::{Device, Gateway, keyed};

const ALL: &str = "SELECT * FROM notes ORDER BY 1";

async fn filled(rows: usize) -> (Device, Device, Gateway) {
    let tables = [keyed("notes", "a:text b:text")];
    let (mut ann, bob) = (Device::with(&tables).await, Device::with(&tables).await);
    let mut gateway = Gateway::default();
    for at in 0..rows {
        ann.run(&format!("INSERT INTO notes VALUES ('r{at:03}', 'a{at}', NULL)")).await;
    }
    ann.sync(&mut gateway).await;
    (ann, bob, gateway)
}

#[tokio::test]
async fn a_first_checkpoint_brings_everything() {
    let (mut ann, mut bob, gateway) = filled(20).await;
    bob.checkpoint(&gateway).await;
    assert_eq!(bob.ask(ALL).await, ann.ask(ALL).await);
    assert_eq!(bob.db.cursor().await.unwrap(), gateway.log.len().to_string());
}

#[tokio::test]
async fn a_killed_checkpoint_resumes_where_it_was() {
    let (mut ann, mut bob, gateway) = filled(9).await;
    assert_eq!(bob.db.begin_checkpoint(None).await.unwrap(), "");
    let chunks = gateway.chunks(3);
    bob.db.apply_chunk(chunks[0].clone(), "first").await.unwrap();
    bob.reopen().await;
    assert_eq!(bob.db.begin_checkpoint(None).await.unwrap(), "first");
    assert_eq!(bob.db.cursor().await.unwrap(), "", "it has not ended");
    for chunk in &chunks[1..] {
        bob.db.apply_chunk(chunk.clone(), "next").await.unwrap();
    }
    bob.db.end_checkpoint("1", true).await.unwrap();
    assert_eq!(bob.ask(ALL).await, ann.ask(ALL).await);
    assert_eq!(bob.db.begin_checkpoint(None).await.unwrap(), "", "the next one starts over");
    bob.db.abandon_checkpoint().await.unwrap();
}

#[tokio::test]
async fn rows_that_are_gone_go_and_unsent_changes_stay() {
    let (mut ann, mut bob, mut gateway) = filled(4).await;
    bob.sync(&mut gateway).await;
    bob.run("INSERT INTO notes VALUES ('mine', 'new', NULL); UPDATE notes SET b = 'mine' WHERE id IN ('r001', 'r002')").await;
    ann.run("DELETE FROM notes WHERE id IN ('r000', 'r001'); UPDATE notes SET a = 'ann' WHERE id = 'r002'").await;
    ann.sync(&mut gateway).await;
    bob.checkpoint(&gateway).await;
    assert_eq!(bob.ask(ALL).await, "mine|new|NULL\nr001|NULL|mine\nr002|ann|mine\nr003|a3|NULL");
    assert_eq!(bob.db.counts().await.unwrap().pending, 3);
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    assert_eq!(bob.ask(ALL).await, ann.ask(ALL).await);
}

#[tokio::test]
async fn an_incomplete_checkpoint_removes_nothing() {
    let (_, mut bob, mut gateway) = filled(3).await;
    bob.sync(&mut gateway).await;
    bob.db.begin_checkpoint(None).await.unwrap();
    bob.db.end_checkpoint("5", false).await.unwrap();
    assert_eq!(bob.ask("SELECT count(*) FROM notes").await, "3");
    assert_eq!(bob.db.cursor().await.unwrap(), "5");
}

#[tokio::test]
async fn what_is_pushed_during_a_checkpoint_is_not_taken_for_gone() {
    let (_, mut bob, mut gateway) = filled(3).await;
    let chunks = gateway.chunks(9);
    bob.db.begin_checkpoint(None).await.unwrap();
    bob.run("INSERT INTO notes VALUES ('new', 'x', NULL)").await;
    bob.push(&mut gateway).await;
    for chunk in chunks {
        bob.db.apply_chunk(chunk, "r").await.unwrap();
    }
    bob.db.end_checkpoint("1", true).await.unwrap();
    assert_eq!(bob.ask("SELECT count(*) FROM notes").await, "4");
}

#[tokio::test]
async fn a_table_that_was_dropped_comes_back_by_a_checkpoint() {
    let (mut ann, mut bob, mut gateway) = filled(3).await;
    bob.sync(&mut gateway).await;
    bob.run("DROP TABLE notes").await;
    bob.reopen().await;
    bob.db.begin_checkpoint(None).await.unwrap();
    bob.db.abandon_checkpoint().await.unwrap();
    assert_eq!(bob.db.cursor().await.unwrap(), "", "it asks for a checkpoint");
    bob.checkpoint(&gateway).await;
    assert_eq!(bob.ask(ALL).await, ann.ask(ALL).await);
}

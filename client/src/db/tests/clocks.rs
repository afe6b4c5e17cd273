//! Clocks that are wrong neither poison others nor lose edits.

use lakesync::hlc::Hlc;

use super::model::{Device, Gateway, exact, keyed};

const HOUR_MS: i64 = 3_600_000;

async fn device() -> Device {
    Device::with(&[keyed("notes", "a:text b:text")]).await
}

/// The server's time: the machine's.
async fn now(device: &mut Device) -> Hlc {
    let sql = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";
    Hlc::from_ms(device.ask(sql).await.parse().unwrap())
}

#[tokio::test]
async fn a_clock_that_runs_ahead_is_corrected_and_its_edits_are_stamped_again() {
    let mut ann = device().await;
    let mut gateway = Gateway::default();
    ann.run(&format!("UPDATE _lakesync_clock SET offset_ms = {HOUR_MS}")).await;
    ann.run("INSERT INTO notes VALUES ('x', '1', '1'); UPDATE notes SET a = '2'; UPDATE notes SET a = '3'").await;
    let server = now(&mut ann).await;
    gateway.horizon = Some(Hlc::from_ms(server.ms() + 5_000));
    let settled = ann.push(&mut gateway).await;
    assert!(!settled.drifted.is_empty() && settled.rejected.is_empty());
    assert_eq!(ann.db.counts().await.unwrap().pending, 3);
    let change = ann.db.observe_clock(exact(server)).await.unwrap();
    assert!(change.offset_ms.abs() < 60_000, "{change:?}");
    assert_eq!(change.restamped, 3);
    assert!(ann.push(&mut gateway).await.drifted.is_empty());
    assert_eq!(gateway.show("notes"), "x a=3 b=1");
    ann.run("UPDATE notes SET b = 'later'").await;
    assert!(
        ann.push(&mut gateway).await.drifted.is_empty(),
        "new edits are stamped by the corrected clock"
    );
    assert_eq!(gateway.show("notes"), "x a=3 b=later");
}

#[tokio::test]
async fn edits_made_before_the_clock_was_set_right_are_stamped_again_too() {
    let mut ann = device().await;
    ann.run(&format!("UPDATE _lakesync_clock SET offset_ms = {HOUR_MS}")).await;
    ann.run("INSERT INTO notes VALUES ('x', '1', '1')").await;
    ann.run("UPDATE _lakesync_clock SET offset_ms = 0").await;
    let server = now(&mut ann).await;
    assert_eq!(ann.db.observe_clock(exact(server)).await.unwrap().restamped, 1);
    let newest: u64 = ann.ask("SELECT max(hlc) FROM _lakesync_outbox").await.parse().unwrap();
    assert!(Hlc(newest).ms() <= server.ms());
}

#[tokio::test]
async fn a_clock_that_runs_behind_does_not_lose_its_edits() {
    let mut ann = device().await;
    ann.run(&format!("UPDATE _lakesync_clock SET offset_ms = {}", -HOUR_MS)).await;
    ann.run("INSERT INTO notes VALUES ('x', '1', '1')").await;
    let server = now(&mut ann).await;
    assert_eq!(ann.db.observe_clock(exact(server)).await.unwrap().restamped, 1);
    let stamp: u64 = ann.ask("SELECT max(hlc) FROM _lakesync_outbox").await.parse().unwrap();
    assert!(server.ms() - Hlc(stamp).ms() < 60_000);
}

#[tokio::test]
async fn a_month_offline_with_a_right_clock_is_left_as_it_is() {
    let mut ann = device().await;
    ann.run("INSERT INTO notes VALUES ('x', '1', '1')").await;
    ann.run("UPDATE _lakesync_outbox SET hlc = hlc - (30 * 24 * 3600000 << 16)").await;
    let before = ann.ask("SELECT hlc FROM _lakesync_outbox").await;
    let server = now(&mut ann).await;
    assert_eq!(ann.db.observe_clock(exact(server)).await.unwrap().restamped, 0);
    assert_eq!(ann.ask("SELECT hlc FROM _lakesync_outbox").await, before);
}

#[tokio::test]
async fn an_edit_stays_above_what_it_was_written_over() {
    let (mut ann, mut bob) = (device().await, device().await);
    let mut gateway = Gateway::default();
    bob.run("INSERT INTO notes VALUES ('x', 'bob', 'bob')").await;
    bob.sync(&mut gateway).await;
    ann.run(&format!("UPDATE _lakesync_clock SET offset_ms = {HOUR_MS}")).await;
    ann.sync(&mut gateway).await;
    ann.run("UPDATE notes SET a = 'ann'").await;
    // A server whose time is before Bob's stamp: its clock was set back.
    let server = Hlc::from_ms(now(&mut ann).await.ms() - 60_000);
    ann.db.observe_clock(exact(server)).await.unwrap();
    ann.sync(&mut gateway).await;
    assert_eq!(gateway.show("notes"), "x a=ann b=bob");
}

#[tokio::test]
async fn an_edit_of_what_arrived_is_newer_than_it() {
    let (mut ann, mut bob) = (device().await, device().await);
    let mut gateway = Gateway::default();
    bob.run("UPDATE _lakesync_clock SET offset_ms = 4000").await;
    bob.run("INSERT INTO notes VALUES ('x', 'bob', 'bob')").await;
    bob.sync(&mut gateway).await;
    ann.sync(&mut gateway).await;
    ann.run("UPDATE notes SET a = 'ann'").await;
    assert!(ann.sync(&mut gateway).await.superseded.is_empty());
    assert_eq!(gateway.show("notes"), "x a=ann b=bob");
}

/// A row that was stamped a day ahead of the server's clock, which was set right since.
async fn poisoned(ann: &mut Device, gateway: &mut Gateway) -> Hlc {
    ann.run(&format!("UPDATE _lakesync_clock SET offset_ms = {}", 24 * HOUR_MS)).await;
    ann.run("INSERT INTO notes VALUES ('x', 'x', 'x')").await;
    ann.sync(gateway).await;
    let server = now(ann).await;
    ann.db.observe_clock(exact(server)).await.unwrap();
    server
}

#[tokio::test]
async fn an_edit_of_a_row_from_the_future_follows_it_by_a_tick_and_the_clock_does_not() {
    let mut ann = device().await;
    let mut gateway = Gateway::default();
    let server = poisoned(&mut ann, &mut gateway).await;
    let known: u64 = ann.ask("SELECT written_hlc FROM _lakesync_rows").await.parse().unwrap();
    assert!(server.ms() + 5_000 < Hlc(known).ms(), "the row is of tomorrow");
    ann.run("UPDATE notes SET a = '1'; UPDATE notes SET a = '2'").await;
    ann.run("INSERT INTO notes VALUES ('y', 'y', 'y')").await;
    ann.run("UPDATE notes SET a = '3' WHERE id = 'x'; DELETE FROM notes WHERE id = 'x'").await;
    let stamps = "SELECT group_concat(hlc) FROM (SELECT hlc FROM _lakesync_outbox \
                  WHERE row_id = 'x' ORDER BY seq)";
    let wanted = (1..=4).map(|tick| (known + tick).to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(ann.ask(stamps).await, wanted);
    let other = "SELECT hlc FROM _lakesync_outbox WHERE row_id = 'y'";
    let stamp: u64 = ann.ask(other).await.parse().unwrap();
    assert!(Hlc(stamp).ms() < server.ms() + 5_000, "its own clock's");

    // Nothing of it is stamped again, and nothing of it moves the clock or another row.
    let reading = now(&mut ann).await;
    assert_eq!(ann.db.observe_clock(exact(reading)).await.unwrap().restamped, 0);
    assert_eq!(ann.ask(stamps).await, wanted);
    let clock: u64 = ann.ask("SELECT hlc FROM _lakesync_clock").await.parse().unwrap();
    assert!(Hlc(clock).ms() < server.ms() + 60_000, "the clock follows the row");
    let settled = ann.push(&mut gateway).await;
    assert_eq!(settled.superseded, []);
    assert_eq!(gateway.show("notes"), "y a=y b=y");
}

#[tokio::test]
async fn a_clock_that_is_corrected_beside_a_row_from_the_future_leaves_that_row_alone() {
    let mut ann = device().await;
    let mut gateway = Gateway::default();
    poisoned(&mut ann, &mut gateway).await;
    ann.run(&format!("UPDATE _lakesync_clock SET offset_ms = {HOUR_MS}")).await;
    ann.run("UPDATE notes SET a = '1'; INSERT INTO notes VALUES ('y', 'y', 'y')").await;
    let server = now(&mut ann).await;
    assert_eq!(ann.db.observe_clock(exact(server)).await.unwrap().restamped, 1, "the other row");
    let other = "SELECT hlc FROM _lakesync_outbox WHERE row_id = 'y'";
    let stamp: u64 = ann.ask(other).await.parse().unwrap();
    assert!(Hlc(stamp).ms() <= server.ms() + 1_000, "an hour was taken off");
    ann.push(&mut gateway).await;
    assert_eq!(gateway.show("notes"), "x a=1 b=x\ny a=y b=y");
}

#[tokio::test]
async fn a_reading_that_may_be_ahead_of_the_wall_moves_no_clock_that_may_be_right() {
    let mut ann = device().await;
    let server = now(&mut ann).await;
    let slack = std::time::Duration::from_secs(5);
    ann.db.observe_clock(exact(server)).await.unwrap();
    let before = ann.ask("SELECT offset_ms FROM _lakesync_clock").await;
    let told = super::super::Reading { hlc: Hlc::from_ms(server.ms() + 4_000), slack };
    ann.db.observe_clock(told).await.unwrap();
    assert_eq!(ann.ask("SELECT offset_ms FROM _lakesync_clock").await, before);
    ann.run("INSERT INTO notes VALUES ('x', '1', '1')").await;
    let stamp: u64 = ann.ask("SELECT hlc FROM _lakesync_outbox").await.parse().unwrap();
    assert!(told.hlc < Hlc(stamp), "but it is a floor for stamps");
}

#[tokio::test]
async fn edits_of_a_row_from_the_future_that_a_wrong_clock_has_stamped_come_to_follow_it_by_ticks()
{
    let mut ann = device().await;
    let mut gateway = Gateway::default();
    ann.run(&format!("UPDATE _lakesync_clock SET offset_ms = {}", 24 * HOUR_MS)).await;
    ann.run("INSERT INTO notes VALUES ('x', 'x', 'x')").await;
    ann.sync(&mut gateway).await;
    let known: u64 = ann.ask("SELECT written_hlc FROM _lakesync_rows").await.parse().unwrap();
    // The clock is still ahead, and a second has passed.
    ann.run("UPDATE _lakesync_clock SET offset_ms = offset_ms + 1000").await;
    ann.run("UPDATE notes SET a = '1'; UPDATE notes SET a = '2'").await;
    let server = now(&mut ann).await;
    assert_eq!(ann.db.observe_clock(exact(server)).await.unwrap().restamped, 2);
    let stamps = "SELECT group_concat(hlc) FROM (SELECT hlc FROM _lakesync_outbox ORDER BY seq)";
    assert_eq!(ann.ask(stamps).await, format!("{},{}", known + 1, known + 2));
}

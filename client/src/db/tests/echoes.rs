//! What triggers of the application do while rows arrive is nobody's edit: replicas hold the same
//! rows, whatever their triggers do to synced tables.

use super::model::{Device, Gateway};

const TABLES: &str = "
    CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, title TEXT, at TEXT, steps INTEGER);
    CREATE TABLE steps (id TEXT PRIMARY KEY NOT NULL, task TEXT, done INTEGER);
    CREATE TABLE audit (what TEXT);
    CREATE VIRTUAL TABLE found USING fts5 (title);";
const TRIGGERS: &str = "
    CREATE TRIGGER stamped AFTER UPDATE ON tasks
      BEGIN UPDATE tasks SET at = hex(randomblob(4)) WHERE id = NEW.id; END;
    CREATE TRIGGER noted AFTER INSERT ON tasks BEGIN INSERT INTO audit VALUES ('new ' || NEW.id); END;
    CREATE TRIGGER counted AFTER INSERT ON steps
      BEGIN UPDATE tasks SET steps = coalesce(steps, 0) + 1 WHERE id = NEW.task; END;
    CREATE TRIGGER cleared AFTER DELETE ON tasks
      BEGIN DELETE FROM steps WHERE task = OLD.id; INSERT INTO audit VALUES ('gone ' || OLD.id); END;
    CREATE TRIGGER forgotten AFTER UPDATE ON steps BEGIN DELETE FROM audit; END;
    CREATE TRIGGER indexed AFTER INSERT ON tasks
      BEGIN INSERT INTO found VALUES (NEW.title); END;";

/// Two devices of one application.
async fn pair() -> (Device, Device, Gateway) {
    let (ann, mut bob) =
        (Device::adopting(&format!("{TABLES}{TRIGGERS}")).await, Device::adopting(TABLES).await);
    bob.run(TRIGGERS).await;
    (ann, bob, Gateway::default())
}

async fn assert_same(ann: &mut Device, bob: &mut Device) {
    for all in [
        "SELECT * FROM tasks ORDER BY 1",
        "SELECT * FROM steps ORDER BY 1",
        "SELECT * FROM audit ORDER BY 1",
    ] {
        assert_eq!(ann.ask(all).await, bob.ask(all).await, "{all}");
    }
    for device in [ann, bob] {
        assert_eq!(device.outbox().await, "");
        let left = "SELECT (SELECT count(*) FROM _lakesync_touched) + (SELECT count(*) FROM \
                    _lakesync_touched_cells) + (SELECT count(*) FROM _lakesync_parked)";
        assert_eq!(device.ask(left).await, "0");
        let kept = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' \
                    AND name NOT LIKE '!_lakesync!_%' ESCAPE '!'";
        assert_eq!(device.ask(kept).await, "6", "triggers of the application");
    }
}

#[tokio::test]
async fn replicas_with_triggers_of_every_kind_hold_the_same_rows() {
    let (mut ann, mut bob, mut gateway) = pair().await;
    for sql in [
        "INSERT INTO tasks (id, title) VALUES ('a', 'milk'), ('b', 'oats'), ('c', 'rye')",
        "INSERT INTO steps VALUES ('1', 'a', 0), ('2', 'a', 0), ('3', 'b', 0)",
        "UPDATE tasks SET title = 'soy milk' WHERE id = 'a'",
        "DELETE FROM tasks WHERE id = 'b'",
        "UPDATE steps SET done = 1",
        "INSERT INTO audit VALUES ('by hand'); UPDATE tasks SET title = upper(title)",
    ] {
        ann.run(sql).await;
        for _ in 0..2 {
            ann.sync(&mut gateway).await;
            bob.sync(&mut gateway).await;
        }
        assert_same(&mut ann, &mut bob).await;
    }
    assert_eq!(bob.ask("SELECT count(*) FROM found").await, "3", "other tables keep the effect");
    bob.checkpoint(&gateway).await;
    assert_same(&mut ann, &mut bob).await;
}

#[tokio::test]
async fn unsent_edits_and_rows_of_nobody_survive_what_triggers_do() {
    let (mut ann, mut bob, mut gateway) = pair().await;
    ann.run("INSERT INTO tasks (id, title) VALUES ('a', 'milk')").await;
    ann.sync(&mut gateway).await;
    bob.sync(&mut gateway).await;
    bob.run("UPDATE tasks SET title = 'mine', steps = 40").await;
    bob.run("INSERT INTO audit VALUES ('mine')").await;
    let (shown, unsent) = (bob.ask("SELECT * FROM tasks").await, bob.outbox().await);
    ann.run("INSERT INTO steps VALUES ('1', 'b', 0); UPDATE steps SET task = 'a'").await;
    ann.sync(&mut gateway).await;
    bob.pull(&gateway).await;
    assert_eq!(bob.ask("SELECT * FROM tasks").await, shown);
    assert_eq!(bob.outbox().await, unsent);
    for _ in 0..2 {
        bob.sync(&mut gateway).await;
        ann.sync(&mut gateway).await;
    }
    assert_same(&mut ann, &mut bob).await;
    assert_eq!(ann.ask("SELECT title, steps FROM tasks").await, "mine|40");
}

//! Devices that edit, lose answers, see pages twice and take checkpoints whenever they like hold the
//! same rows as the gateway once they are at rest.

use proptest::prelude::*;

use super::model::{Device, Gateway, keyed, schema};

const DEVICES: usize = 3;
const TABLES: [(&str, &str); 4] =
    [("notes", "id, a, b"), ("pairs", "a, b, v"), ("serial", "id, v"), ("log", "line, n")];

#[derive(Clone, Debug)]
enum Step {
    Edit(usize, String),
    Pull(usize),
    /// A push whose answer arrives.
    Push(usize),
    /// A push that is committed, and its answer lost.
    LostPush(usize),
    /// The last pages once more.
    PullAgain(usize, usize),
    Checkpoint(usize),
    /// The process dies and starts again.
    Reopen(usize),
    /// The gateway starts or stops refusing a text.
    Poison(bool),
    Drift(usize, i64),
    /// The gateway is copied.
    Backup,
    /// The gateway is the copy again, and the devices give back what it lacks.
    Restore,
}

fn edit() -> impl Strategy<Value = String> {
    let id = prop_oneof![Just("x"), Just("y"), Just("z")];
    let value = prop_oneof![Just("'p'"), Just("'q'"), Just("'bad'"), Just("NULL"), Just("''")];
    let any = prop_oneof![Just("1"), Just("2.5"), Just("'t'"), Just("x'00'"), Just("NULL")];
    prop_oneof![
        (id.clone(), value.clone())
            .prop_map(|(id, v)| format!("INSERT OR IGNORE INTO notes VALUES ('{id}', {v}, 'new')")),
        (id.clone(), value.clone())
            .prop_map(|(id, v)| format!("REPLACE INTO notes VALUES ('{id}', 'r', {v})")),
        (id.clone(), value.clone())
            .prop_map(|(id, v)| format!("UPDATE notes SET a = {v} WHERE id = '{id}'")),
        (id.clone(), value.clone())
            .prop_map(|(id, v)| format!("UPDATE notes SET a = 'u', b = {v} WHERE id = '{id}'")),
        value.prop_map(|v| format!("UPDATE notes SET b = {v}")),
        (id.clone(), id.clone())
            .prop_map(|(a, b)| format!("UPDATE OR REPLACE notes SET id = '{b}' WHERE id = '{a}'")),
        id.prop_map(|id| format!("DELETE FROM notes WHERE id = '{id}'")),
        (0..2, any.clone()).prop_map(|(a, v)| format!("REPLACE INTO pairs VALUES ({a}, 'k', {v})")),
        any.prop_map(|v| format!("UPDATE pairs SET v = {v}")),
        (0..2).prop_map(|a| format!("UPDATE OR IGNORE pairs SET a = {a}")),
        (0..2).prop_map(|a| format!("DELETE FROM pairs WHERE a = {a}")),
        Just("INSERT INTO serial (v) VALUES ('new')".to_owned()),
        (1..4).prop_map(|id| format!("REPLACE INTO serial VALUES ({id}, 'r')")),
        Just("UPDATE serial SET v = id".to_owned()),
        Just("UPDATE OR REPLACE serial SET id = id - 1 WHERE id < 4".to_owned()),
        Just("DELETE FROM serial WHERE id > 2".to_owned()),
        (0..3).prop_map(|n| format!("INSERT INTO log (line, n) VALUES ('l', {n})")),
        (0..3).prop_map(|n| format!("UPDATE log SET line = line || 'x' WHERE n = {n}")),
        (0..3).prop_map(|n| format!("DELETE FROM log WHERE n = {n}")),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..DEVICES;
    prop_oneof![
        8 => (device.clone(), edit()).prop_map(|(at, sql)| Step::Edit(at, sql)),
        3 => device.clone().prop_map(Step::Pull),
        3 => device.clone().prop_map(Step::Push),
        1 => device.clone().prop_map(Step::LostPush),
        1 => (device.clone(), 1..4_usize).prop_map(|(at, back)| Step::PullAgain(at, back)),
        1 => device.clone().prop_map(Step::Checkpoint),
        1 => device.clone().prop_map(Step::Reopen),
        1 => any::<bool>().prop_map(Step::Poison),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
        1 => (device, prop_oneof![Just(0), Just(-50_000), Just(30_000)])
            .prop_map(|(at, offset)| Step::Drift(at, offset)),
    ]
}

/// What an application's triggers do beside its edits, where rows arrive as well.
const TRIGGERS: &str = "
    CREATE TRIGGER on_serial AFTER UPDATE ON serial
      BEGIN UPDATE log SET n = 7; DELETE FROM notes WHERE id = 'z'; END;
    CREATE TRIGGER on_new AFTER INSERT ON serial BEGIN INSERT INTO log VALUES ('echo', 1); END;
    CREATE TRIGGER on_notes AFTER UPDATE ON notes
      BEGIN UPDATE notes SET b = hex(randomblob(2)) WHERE id = NEW.id; END;
    CREATE TRIGGER on_gone AFTER DELETE ON log
      BEGIN INSERT INTO pairs VALUES (1, OLD.rowid, NULL) ON CONFLICT DO NOTHING; END;";

async fn run(steps: Vec<Step>, triggers: &str) -> Result<(), TestCaseError> {
    let tables = [
        keyed("notes", "a:text b:text"),
        schema("pairs", "row_id", "a:int b:text v:any", &["a", "b"]),
        schema("serial", "row_id", "id:int v:any", &["id"]),
        schema("log", "row_id", "line:text n:int", &[]),
    ];
    let mut devices = Vec::new();
    for _ in 1..DEVICES {
        devices.push(Device::with(&tables).await);
    }
    // The first device's application has tables of its own, one without a key.
    let own = "CREATE TABLE log (line TEXT, n INT);
               CREATE TABLE serial (id INTEGER PRIMARY KEY AUTOINCREMENT, v)";
    let first = Device::new(own).await;
    first.db.install_schema(&tables).await.unwrap();
    first.db.adopt(&"log".parse().unwrap()).await.unwrap();
    first.db.adopt(&"serial".parse().unwrap()).await.unwrap();
    devices.insert(0, first);
    devices[0].run(triggers).await;
    let mut gateway = Gateway::default();
    let mut copy = Gateway::default();
    for step in steps {
        match step {
            Step::Edit(at, sql) => devices[at].run(&sql).await,
            Step::Pull(at) => _ = devices[at].pull(&gateway).await,
            Step::Push(at) => _ = devices[at].push(&mut gateway).await,
            Step::LostPush(at) => {
                if let Some(batch) = devices[at].db.pending_at_most(10_000).await.unwrap() {
                    gateway.push(devices[at].db.client_id(), &batch.deltas);
                }
            }
            Step::PullAgain(at, back) => {
                let after: usize = devices[at].db.cursor().await.unwrap().parse().unwrap_or(0);
                let (arrivals, cursor) = gateway.pull(after.saturating_sub(back));
                devices[at].db.apply_page(arrivals, &cursor).await.unwrap();
            }
            Step::Checkpoint(at) => _ = devices[at].checkpoint(&gateway).await,
            Step::Reopen(at) => devices[at].reopen().await,
            Step::Backup => copy = gateway.clone(),
            Step::Restore => {
                gateway = copy.clone();
                gateway.poison = None;
                for device in &mut devices {
                    device.checkpoint_of_another(&gateway).await;
                }
                for device in &mut devices {
                    device.push(&mut gateway).await;
                }
            }
            Step::Poison(on) => gateway.poison = on.then_some("bad"),
            Step::Drift(at, offset) => {
                devices[at].run(&format!("UPDATE _lakesync_clock SET offset_ms = {offset}")).await;
            }
        }
    }
    for _ in 0..2 {
        for device in &mut devices {
            device.sync(&mut gateway).await;
        }
    }
    for (table, columns) in TABLES {
        let all = format!("SELECT {columns} FROM {table} ORDER BY 1, 2");
        let expected = devices[0].ask(&all).await;
        for device in &mut devices {
            prop_assert_eq!(&device.ask(&all).await, &expected, "table {}", table);
            let counts = device.db.counts().await.unwrap();
            prop_assert_eq!((counts.pending, counts.parked), (0, 0));
            prop_assert_eq!(device.ask("SELECT * FROM _lakesync_base").await, "");
        }
    }
    let shown = devices[0].ask("SELECT id || iif(a IS NULL, '', ' a=' || a) || iif(b IS NULL, '', ' b=' || b) FROM notes ORDER BY id").await;
    let held = gateway.show("notes").replace(" a=Null", "").replace(" b=Null", "");
    prop_assert_eq!(shown, held);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn devices_at_rest_hold_the_same_rows(steps in proptest::collection::vec(step(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, ""))?;
    }

    #[test]
    fn so_they_do_where_an_application_has_triggers(
        steps in proptest::collection::vec(step(), 1..50)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, TRIGGERS))?;
    }
}

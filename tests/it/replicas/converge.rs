//! Convergence of whole files: three applications write at random, offline for weeks at a time, over
//! connections that lose requests and replies. Once all is well again the three files hold the same
//! rows, and those are what the gateway's log comes to.
//!
//! `LAKESYNC_SEEDS` says how many histories are tried; each has its seed in its message.

use std::sync::Arc;

use lakesync::value::Value;

use super::dice::Dice;
use super::flaky::Flaky;
use super::site::{File, Site, config, line, run, serve};
use crate::harness::{self, Server, Setup};

const SEEDS: u64 = 8;
const STEPS: u64 = 60;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Keys are few, so that devices meet on the same rows.
const KEYS: [&str; 6] = ["a", "b", "c", "D", "é", "🦀"];
const VALUES: [&str; 12] = [
    "NULL",
    "''",
    "'milk'",
    "'🥛'",
    "0",
    "1",
    "-9223372036854775808",
    "1.0",
    "1e300",
    "-0.5",
    "x''",
    "x'00ff'",
];
const TABLES: [(&str, &str); 4] = [
    ("todos", "id, title, rank, extra"),
    ("pairs", "a, b, note"),
    ("notes", "body"),
    ("tallies", "body"),
];
const MADE_BY: &str = "
    CREATE TABLE todos (id TEXT PRIMARY KEY, title TEXT, rank INTEGER, extra);
    CREATE TABLE pairs (a INTEGER, b TEXT, note, PRIMARY KEY (a, b));
    CREATE TABLE notes (body TEXT);
    CREATE TABLE tallies (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT);";

/// A device and its bad connection.
struct Device {
    site: Site,
    flaky: Flaky,
    /// Days for which it will not try to sync.
    away_days: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn files_converge_whatever_happens_on_the_way() {
    let seeds =
        std::env::var("LAKESYNC_SEEDS").map_or(SEEDS, |text| text.parse().expect("a number"));
    for seed in 0..seeds {
        Simulation::start(seed).await.run().await;
    }
}

struct Simulation {
    seed: u64,
    dice: Dice,
    setup: Setup,
    server: Server,
    devices: Vec<Device>,
}

impl Simulation {
    async fn start(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let setup = Setup::new();
        let server = serve(&setup).await;
        let mut devices = Vec::new();
        for _ in 0..3 {
            let flaky = Flaky::new(line(&server), dice.clone());
            let first = devices.is_empty();
            let file = File::made_by(if first { MADE_BY } else { "" }).await;
            let site = file.open(config(Arc::new(flaky.clone()))).await;
            devices.push(Device { site, flaky, away_days: 0 });
        }
        let mut simulation = Self { seed, dice, setup, server, devices };
        simulation.adopt().await;
        simulation
    }

    /// The first device brings the tables; the others have them from the gateway.
    async fn adopt(&mut self) {
        let names: Vec<_> = TABLES.iter().map(|(name, _)| name.parse().expect("a name")).collect();
        for device in &mut self.devices {
            // What the dice refuse is tried again.
            for _ in 0..100 {
                if device.site.replica.adopt(&names).await.is_ok() {
                    break;
                }
                let _ = device.site.replica.sync().await;
            }
            run(&mut device.site.app, "SELECT * FROM todos, pairs, notes, tallies").await;
        }
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            let at = self.dice.below(3) as usize;
            match self.dice.below(10) {
                0 => self.pass_days(1 + self.dice.below(6)).await,
                1 => self.devices[at].away_days = self.dice.below(30),
                2..=3 if self.devices[at].away_days == 0 => {
                    // It may fail, by the dice: whatever it did stays done.
                    let _ = self.devices[at].site.replica.sync().await;
                }
                _ => self.edit(at).await,
            }
        }
        self.heal().await;
        self.compare().await;
    }

    /// Time passes everywhere.
    async fn pass_days(&mut self, days: u64) {
        self.setup.clock.advance(days * DAY_MS);
        let sql = format!("UPDATE _lakesync_clock SET offset_ms = offset_ms + {}", days * DAY_MS);
        for device in &mut self.devices {
            device.away_days = device.away_days.saturating_sub(days);
            device.site.run(&sql).await;
        }
    }

    /// A transaction of the application, which it may take back.
    async fn edit(&mut self, at: usize) {
        let mut sql = "BEGIN IMMEDIATE;".to_owned();
        for _ in 0..=self.dice.below(4) {
            sql += &self.statement();
        }
        sql += if self.dice.one_in(8) { "ROLLBACK" } else { "COMMIT" };
        self.devices[at].site.run(&sql).await;
    }

    fn statement(&self) -> String {
        let dice = &self.dice;
        let (key, value) = (dice.pick(&KEYS), dice.pick(&VALUES));
        let (number, text) = (dice.below(4), format!("'text {}'", dice.below(1_000)));
        match dice.below(16) {
            0..=1 => {
                format!("INSERT OR REPLACE INTO todos VALUES ('{key}', {text}, {number}, {value});")
            }
            2 => format!("INSERT OR IGNORE INTO todos (id, title) VALUES ('{key}', {text});"),
            3 => format!(
                "INSERT INTO todos (id, rank) VALUES ('{key}', {number}) \
                 ON CONFLICT (id) DO UPDATE SET rank = excluded.rank + 1;"
            ),
            4..=5 => format!("UPDATE todos SET title = {text} WHERE id = '{key}';"),
            6 => format!("UPDATE todos SET extra = {value};"),
            7 => format!(
                "UPDATE OR IGNORE todos SET id = '{}' WHERE id = '{key}';",
                dice.pick(&KEYS)
            ),
            8 => format!("DELETE FROM todos WHERE id = '{key}';"),
            9 => format!("INSERT OR REPLACE INTO pairs VALUES ({number}, '{key}', {value});"),
            10 => format!("UPDATE OR REPLACE pairs SET a = {number} WHERE b = '{key}';"),
            11 => format!("DELETE FROM pairs WHERE a = {number};"),
            12 => format!("INSERT INTO notes (body) VALUES ({text});"),
            13 => "DELETE FROM notes WHERE body = (SELECT min(body) FROM notes);".to_owned(),
            14 => format!("INSERT INTO tallies (body) VALUES ({text});"),
            _ => format!(
                "UPDATE tallies SET body = {text} WHERE id = (SELECT min(id) FROM tallies);"
            ),
        }
    }

    /// Everybody comes back, and syncs until there is nothing more to say.
    async fn heal(&mut self) {
        self.devices.iter().for_each(|device| device.flaky.heal());
        for _ in 0..2 {
            for device in &self.devices {
                device.site.sync().await;
            }
        }
        for device in &mut self.devices {
            let status = device.site.status();
            let left = (status.pending, status.rejected, status.parked);
            let rejected = device.site.replica.rejected().await.expect("a list");
            assert_eq!(left, (0, 0, 0), "seed {}: left over: {rejected:?}", self.seed);
        }
    }

    async fn compare(&mut self) {
        let log = harness::Replica::by_pull(&self.server.client("reader").await).await;
        let log = log.expect("a log that reaches back to its beginning");
        let mut total = 0;
        for (table, columns) in TABLES {
            let wanted = folded(&log, table, columns);
            total += wanted.len();
            for (at, device) in self.devices.iter_mut().enumerate() {
                let rows = device.site.rows(table, columns).await;
                assert_eq!(rows, wanted, "seed {}: {table} of device {at}", self.seed);
            }
        }
        assert!(0 < total, "seed {}: nothing was compared", self.seed);
    }
}

/// The rows of a table as the log has them, written as SQLite's `quote` would.
fn folded(log: &harness::Replica, table: &str, columns: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (row_id, row) in log.rows_of(table) {
        let cell = |name: &str| match row.cell(&name.parse().expect("a name")) {
            Some(cell) => quote(&cell.value),
            // The row id is the key of a table with a text key.
            None if (table, name) == ("todos", "id") => quote(&Value::String(row_id.to_string())),
            None => "NULL".to_owned(),
        };
        lines.push(columns.split(", ").map(cell).collect::<Vec<_>>().join("|"));
    }
    lines.sort();
    lines
}

fn quote(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Int64(number) => number.to_string(),
        Value::Double(number) if *number == 1e300 => "1.0e+300".to_owned(),
        Value::Double(number) => format!("{number:?}"),
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Bytes(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("X'{digits}'")
        }
        other => panic!("no SQLite value: {other:?}"),
    }
}

//! Convergence under sync rules: devices of several people edit at random over bad connections, rows
//! are given away, people join and leave teams, tokens are revoked, and the rules change. Once all is
//! well again every file holds exactly the rows that the rules open to its token.
//!
//! `LAKESYNC_SEEDS` says how many histories are tried; each has its seed in its message.

use std::sync::Arc;

use lakesync::rules::Draft;
use lakesync_client::transport::connect;
use lakesync_server::auth::Grant;
use serde_json::json;

use super::dice::Dice;
use super::flaky::Flaky;
use super::site::{File, Site, config, serve};
use crate::harness::{MAIN, Server, Setup, grant};
use crate::rules::docs::revoke;
use crate::rules::made_up::{bucket, filter, service};
use crate::rules::world::put;

const SEEDS: u64 = 8;
const STEPS: u64 = 80;
const MADE_BY: &str =
    "CREATE TABLE docs (id TEXT PRIMARY KEY NOT NULL, owner TEXT, team INTEGER, body TEXT)";
const COLUMNS: &str = "id, owner, team, body";
/// Whose the devices are; ann has two.
const PEOPLE: [&str; 4] = ["service", "ann", "bob", "ann"];
const TEAMS: u64 = 3;
/// Tokens say the second in which they were issued.
const TOKEN_SECOND_MS: u64 = 1_001;

#[tokio::test(flavor = "multi_thread")]
async fn each_file_comes_to_hold_what_the_rules_open_to_its_token() {
    let seeds =
        std::env::var("LAKESYNC_SEEDS").map_or(SEEDS, |text| text.parse().expect("a number"));
    let (mut compared, mut refused) = (0, 0);
    for seed in 0..seeds {
        let mut simulation = Simulation::start(seed).await;
        simulation.run().await;
        let (rows, rejected) = simulation.compare().await;
        compared += rows;
        refused += rejected;
    }
    assert!(0 < compared && 0 < refused, "{compared} rows, {refused} refused");
}

struct Device {
    site: Option<Site>,
    flaky: Flaky,
    team: u64,
}

struct Simulation {
    seed: u64,
    dice: Dice,
    setup: Setup,
    server: Server,
    devices: Vec<Device>,
    /// Which of the rules are in force.
    rules: u64,
    edits: u64,
}

/// Everybody's own; and their team's; or only what of their own is of their team.
fn rules(which: u64) -> Draft {
    let (own, team) = (filter("owner", &["jwt:sub"]), filter("team", &["jwt:team"]));
    let buckets = match which {
        0 => vec![bucket("own", &["docs"], vec![own])],
        1 => vec![bucket("own", &["docs"], vec![own]), bucket("team", &["docs"], vec![team])],
        _ => vec![bucket("both", &["docs"], vec![own, team])],
    };
    Draft { version: 1, buckets: [buckets, vec![service()]].concat() }
}

impl Simulation {
    async fn start(seed: u64) -> Self {
        let setup = Setup::new();
        let server = serve(&setup).await;
        let mut operator = server.client("operator").await;
        operator.create_gateway(MAIN).await.expect("created");
        let (dice, devices) = (Dice::new(seed), Vec::new());
        let mut simulation = Self { seed, dice, setup, server, devices, rules: 0, edits: 0 };
        for at in 0..PEOPLE.len() {
            let file = File::made_by(if at == 0 { MADE_BY } else { "" }).await;
            let device = simulation.open(at, file, at as u64 % TEAMS).await;
            if at == 0 {
                device.flaky.heal();
                let site = device.site.as_ref().expect("open");
                site.replica.adopt(&["docs".parse().expect("a name")]).await.expect("adopted");
                put(&operator, &rules(0)).await.expect("legal rules");
            }
            simulation.devices.push(device);
        }
        simulation
    }

    /// A device whose token says that its owner is of this team.
    async fn open(&self, at: usize, file: File, team: u64) -> Device {
        let role = if at == 0 { "service" } else { "user" };
        let claims = json!({"role": role, "team": team}).as_object().expect("an object").clone();
        let token = self.server.token(&Grant { claims, ..grant(PEOPLE[at], "sync admin") });
        let url = format!("http://{}", self.server.address);
        let line = connect(&url, Some(token.into())).expect("a good URL");
        let flaky = Flaky::new(Arc::new(line), self.dice.clone());
        let site = file.open(config(Arc::new(flaky.clone()))).await;
        Device { site: Some(site), flaky, team }
    }

    async fn run(&mut self) {
        for _ in 0..STEPS {
            let at = self.dice.below(PEOPLE.len() as u64) as usize;
            match self.dice.below(20) {
                0 => self.change_rules().await,
                1 => self.change_team(at).await,
                2 if self.dice.one_in(2) => self.revoke(at).await,
                // It may fail, by the dice: whatever it did stays done.
                2..8 => _ = self.site(at).replica.sync().await,
                _ => self.edit(at).await,
            }
        }
        for device in &self.devices {
            device.flaky.heal();
        }
        // What a move takes from one and gives to another settles by the second time.
        for _ in 0..3 {
            for at in 0..PEOPLE.len() {
                self.site(at).sync().await;
            }
        }
    }

    fn site(&mut self, at: usize) -> &mut Site {
        self.devices[at].site.as_mut().expect("open")
    }

    async fn change_rules(&mut self) {
        self.rules = self.dice.below(3);
        let operator = self.server.client("operator").await;
        put(&operator, &rules(self.rules)).await.expect("legal rules");
    }

    async fn change_team(&mut self, at: usize) {
        if at != 0 {
            let file = self.devices[at].site.take().expect("open").closed();
            let team = self.dice.below(TEAMS);
            self.devices[at] = self.open(at, file, team).await;
        }
    }

    /// Somebody's tokens count no longer; all of their devices get fresh ones, a while later.
    async fn revoke(&mut self, at: usize) {
        let operator = self.server.client("operator").await;
        revoke(&operator, PEOPLE[at]).await.expect("revoked");
        self.setup.clock.advance(TOKEN_SECOND_MS);
        for other in (0..PEOPLE.len()).filter(|other| PEOPLE[*other] == PEOPLE[at]) {
            let refused = self.site(other).replica.sync().await;
            assert!(refused.is_err(), "seed {}: device {other} goes on", self.seed);
            let file = self.devices[other].site.take().expect("open").closed();
            self.devices[other] = self.open(other, file, self.devices[other].team).await;
        }
    }

    async fn edit(&mut self, at: usize) {
        self.edits += 1;
        let (dice, edits) = (self.dice.clone(), self.edits);
        let (id, team) = (dice.below(12), dice.below(TEAMS));
        let owner = PEOPLE[1 + dice.below(2) as usize];
        // Some rows are deleted as soon as they are made.
        let kind = dice.below(7);
        let brief = kind == 6;
        let sql = match kind {
            0..2 | 6 => format!(
                "INSERT OR REPLACE INTO docs VALUES ('{id}', '{owner}', {team}, 'text {edits}')"
            ),
            2 => format!("UPDATE docs SET owner = '{owner}' WHERE id = '{id}'"),
            3 => format!("UPDATE docs SET team = {team} WHERE id = '{id}'"),
            4 => format!("UPDATE docs SET body = 'text {edits}'"),
            _ => format!("DELETE FROM docs WHERE id = '{id}'"),
        };
        let site = self.site(at);
        // A device that has not synced yet has no table.
        if site.rows("sqlite_schema", "name").await.contains(&"'docs'".to_owned()) {
            site.run(&sql).await;
            if brief {
                site.run(&format!("DELETE FROM docs WHERE id = '{id}'")).await;
            }
        }
    }

    /// How many rows were compared, and how many changes had been refused.
    async fn compare(&mut self) -> (usize, u64) {
        let all = self.site(0).rows("docs", COLUMNS).await;
        let (mut compared, mut refused) = (0, 0);
        for (at, person) in PEOPLE.iter().enumerate() {
            let (team, rules, seed) = (self.devices[at].team, self.rules, self.seed);
            let opens = |row: &&String| {
                let parts: Vec<&str> = row.split('|').collect();
                let own = parts[1] == format!("'{person}'");
                let of_team = parts[2] == team.to_string();
                at == 0
                    || match rules {
                        0 => own,
                        1 => own || of_team,
                        _ => own && of_team,
                    }
            };
            let wanted: Vec<_> = all.iter().filter(opens).cloned().collect();
            let held = self.site(at).rows("docs", COLUMNS).await;
            let status = self.site(at).status();
            assert_eq!(held, wanted, "seed {seed}: device {at} under rules {rules}");
            assert_eq!((status.pending, status.parked), (0, 0), "seed {seed}: device {at}");
            compared += held.len();
            refused += status.rejected;
        }
        (compared, refused)
    }
}

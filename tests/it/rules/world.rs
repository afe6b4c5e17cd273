//! Random rules, claims, rows, moves, deletes, changes of rules and of tokens, against the oracle.
//! After each step every reader that has synced holds exactly the oracle's rows, and every row id and
//! value it was ever sent was in its scope when sent. I4, I5, I6, I15 and I16 of the test design.
//!
//! `LAKESYNC_TEST_TRIPLES` says how many (row, token, time) triples are judged at the least, and
//! `LAKESYNC_TEST_SEED` with which world to begin.

use std::collections::BTreeMap;
use std::time::Duration;

use lakesync::delta::Delta;
use lakesync::name::{RowId, TableName};
use lakesync::proto::admin::v1::PutSyncRulesRequest;
use lakesync::proto::v1::outcome::Kind as Said;
use lakesync::proto::v1::{ColumnType, PullResponse, TableSchema};
use lakesync::row::Row;
use lakesync::rules::Draft;
use lakesync::wire;
use lakesync_server::auth::Grant;
use lakesync_server::gateway::Bug;
use lakesync_server::store::memory::MemoryStore;
use serde_json::{Map, Value as Json, json};
use tonic::Streaming;

use super::made_up::{self, PEOPLE};
use super::oracle::{Kind, Oracle, TABLES};
use super::reader::Reader;
use crate::harness::changes::{at, delete, table, write};
use crate::harness::{Client, MAIN, Server, Setup, grant, within};
use crate::replicas::dice::Dice;

const TRIPLES: u64 = 20_000;
const STEPS: u64 = 120;
/// When a follower is given up who was not told of a commit.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);
/// In how many worlds a planted bug must show.
const SEEDS_TO_FIND: u64 = 10;
const TOKENS: usize = 7;

#[tokio::test(flavor = "multi_thread")]
async fn every_token_sees_what_the_oracle_says_and_is_sent_nothing_else() {
    let number =
        |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let wanted = number("LAKESYNC_TEST_TRIPLES", TRIPLES);
    let (mut judged, mut spared, mut refused) = (0, 0, 0);
    let mut seed = number("LAKESYNC_TEST_SEED", 0);
    while judged < wanted {
        let mut world = World::start(seed, None).await;
        if let Err(fault) = world.run().await {
            panic!("seed {seed}: {fault}");
        }
        judged += world.judged;
        spared += world.tokens.iter().map(|token| token.reader.spared).sum::<usize>();
        refused += world.refused;
        seed += 1;
    }
    // A run in which none of this ever happened would prove little.
    assert!(0 < spared && 0 < refused, "{spared} spared, {refused} refused");
}

/// A test that never failed proves nothing: this one finds the bugs that others had.
#[tokio::test(flavor = "multi_thread")]
async fn every_planted_bug_is_found() {
    for bug in [
        Bug::FilterOnChange,
        Bug::ExitNotSent,
        Bug::ExitToStrangers,
        Bug::EntryInPart,
        Bug::DeleteToStrangers,
        Bug::ClaimsCached,
    ] {
        let mut found = false;
        for seed in 0..SEEDS_TO_FIND {
            found = found || World::start(seed, Some(bug)).await.run().await.is_err();
        }
        assert!(found, "{bug:?} goes unnoticed");
    }
}

/// A token, and the replica behind it.
struct Token {
    client: Client,
    claims: Map<String, Json>,
    reader: Reader,
    following: Option<Streaming<PullResponse>>,
}

type Key = (TableName, RowId);

pub(crate) struct World {
    dice: Dice,
    server: Server,
    oracle: Oracle,
    rules: Option<Draft>,
    rows: BTreeMap<Key, Row>,
    /// Rows that were deleted under the rules in force, as they were.
    graves: BTreeMap<Key, Row>,
    tokens: Vec<Token>,
    time: u64,
    pub(crate) judged: u64,
    refused: u64,
}

pub(crate) fn tables() -> Vec<TableSchema> {
    let kind = |kind: &Kind| match kind {
        Kind::Text => ColumnType::String,
        Kind::Number => ColumnType::Int64,
        Kind::Truth => ColumnType::Bool,
    };
    let columns = |columns: &[(&'static str, Kind)]| {
        columns.iter().map(|(name, of)| (*name, kind(of))).collect::<Vec<_>>()
    };
    TABLES.iter().map(|(name, of)| table(name, &columns(of))).collect()
}

/// Puts rules into force.
pub(crate) async fn put(client: &Client, rules: &Draft) -> Result<(), tonic::Status> {
    let (gateway, rules) = (client.gateway.clone(), Some(wire::encode_rules(rules)));
    let request = PutSyncRulesRequest { gateway, rules, ..PutSyncRulesRequest::default() };
    within(client.admin.clone().put_sync_rules(request)).await.map(drop)
}

impl World {
    pub(crate) async fn start(seed: u64, bug: Option<Bug>) -> Self {
        // A log so short that readers who stay away are told to begin anew.
        let setup = Setup::new().on(MemoryStore::new());
        let setup = setup.tune(|config| config.log_bytes_max = 8 << 10);
        let setup = match bug {
            Some(bug) => setup.plant(bug),
            None => setup,
        };
        let server = setup.start().await;
        let mut operator = server.client("operator").await;
        operator.create_gateway(MAIN).await.expect("created");
        operator.put_schema(tables()).await.expect("installed");
        let mut world = Self {
            dice: Dice::new(seed),
            server,
            oracle: Oracle::new().await,
            rules: None,
            rows: BTreeMap::new(),
            graves: BTreeMap::new(),
            tokens: Vec::new(),
            time: 1,
            judged: 0,
            refused: 0,
        };
        for nth in 0..TOKENS {
            let (client, claims) = world.token(nth).await;
            let (reader, following) = (Reader::default(), None);
            world.tokens.push(Token { client, claims, reader, following });
        }
        world.look().await;
        world
    }

    /// A connection with claims made up anew. The first may do everything.
    async fn token(&self, nth: usize) -> (Client, Map<String, Json>) {
        let mut claims = made_up::claims(&self.dice);
        if nth == 0 {
            claims.insert("role".to_owned(), json!("service"));
        }
        let subject = PEOPLE[nth % PEOPLE.len()];
        let grant = Grant { claims: claims.clone(), ..grant(subject, "sync") };
        let token = self.server.token(&grant);
        claims.insert("sub".to_owned(), json!(subject));
        let id = format!("replica-{nth}");
        (self.server.client_with(&id, &token).await, claims)
    }

    pub(crate) async fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            match self.dice.below(100) {
                0..60 => self.push().await?,
                60..85 => self.sync_some().await?,
                85..90 => self.change_rules().await,
                90..95 => self.change_token().await,
                _ => self.follow_some().await?,
            }
        }
        for nth in 0..TOKENS {
            self.sync(nth).await?;
        }
        Ok(())
    }

    /// Every token's scope after a commit.
    async fn look(&mut self) {
        for token in &mut self.tokens {
            for (claims, allowed) in &mut token.reader.epochs {
                let rows = self.oracle.rows(self.rules.as_ref(), claims, false).await;
                allowed.extend(&rows);
            }
        }
    }

    /// Some token pushes some changes; the oracle says which of them are refused.
    async fn push(&mut self) -> Result<(), String> {
        // The one who may do everything is the one who moves rows about.
        let nth = if self.dice.one_in(2) { 0 } else { self.dice.below(TOKENS as u64) as usize };
        let mut deltas = Vec::new();
        for _ in 0..1 + self.dice.below(4) {
            deltas.push(self.change(nth));
        }
        let (client, claims) = (self.tokens[nth].client.clone(), self.tokens[nth].claims.clone());
        let mut expected = Vec::new();
        for delta in &deltas {
            expected.push(self.admit(&claims, delta).await);
        }
        let answer = client.push(deltas.clone()).await.map_err(|status| status.to_string())?;
        let mut said = vec![true; deltas.len()];
        let starts: Vec<usize> = (0..deltas.len())
            .filter(|at| *at == 0 || deltas[*at].table != deltas[*at - 1].table)
            .collect();
        for outcome in answer.outcomes.iter().filter(|said| said.kind() == Said::Rejected) {
            assert_eq!(outcome.reason, "OUT_OF_SCOPE", "{outcome:?}");
            said[starts[outcome.table as usize] + outcome.row as usize] = false;
            self.refused += 1;
        }
        if said != expected {
            return Err(format!("{claims:?} wrote {deltas:?}: {said:?}, not {expected:?}"));
        }
        self.look().await;
        Ok(())
    }

    fn change(&mut self, nth: usize) -> Delta {
        // Now and then a change from before comes late.
        self.time += 1 + self.dice.below(3);
        let hlc = at(self.time - self.dice.below(3).min(self.time - 1));
        let (row, client) = (made_up::row(&self.dice), self.tokens[nth].client.id.clone());
        if self.dice.one_in(6) {
            return delete(&client, hlc, &row);
        }
        let canary = format!("canary-{}", self.time);
        write(&client, hlc, &row, made_up::cells(&self.dice, &row, &canary))
    }

    /// What the oracle makes of a change: whether it is let in, and the row after it.
    async fn admit(&mut self, claims: &Map<String, Json>, delta: &Delta) -> bool {
        let key = (delta.table.clone(), delta.row_id.clone());
        let before = self.rows.get(&key).cloned().unwrap_or_default();
        let mut after = before.clone();
        after.merge(delta);
        let mut alone = Row::default();
        alone.merge(delta);
        let knew = before.is_live() || self.knew(claims, &key).await;
        let (admitted, kept) = match (knew, after.is_live()) {
            // A row that is none of the pusher's to know of is as if it had never been.
            (false, false) if !alone.is_live() => (false, false),
            (false, false) => (self.may(claims, &key, &alone).await, false),
            _ => {
                let may = self.may(claims, &key, &before).await;
                (may && self.may(claims, &key, &after).await, true)
            }
        };
        if admitted && kept {
            match (before.is_live(), after.is_live()) {
                (_, true) => _ = self.graves.remove(&key),
                (true, false) => _ = self.graves.insert(key.clone(), before),
                (false, false) => {}
            }
            self.oracle.put(key.0.as_str(), key.1.as_str(), &after).await;
            self.rows.insert(key, after);
        }
        admitted
    }

    /// Whether a token may write a row that is like this.
    async fn may(&mut self, claims: &Map<String, Json>, key: &Key, row: &Row) -> bool {
        let (table, id) = (key.0.as_str(), key.1.as_str());
        self.oracle.put(table, id, row).await;
        let writable = self.oracle.rows(self.rules.as_ref(), claims, true).await;
        let now = self.rows.get(key).cloned().unwrap_or_default();
        self.oracle.put(table, id, &now).await;
        !row.is_live() || writable.contains_key(&(table.to_owned(), id.to_owned()))
    }

    /// Whether a token could write a row that is not there when it was deleted, or wherever it was.
    async fn knew(&mut self, claims: &Map<String, Json>, key: &Key) -> bool {
        let mut nowhere = Row::default();
        nowhere.merge(&write("nobody", at(1), &format!("{}/nowhere", key.0), []));
        let anywhere = (key.0.clone(), "nowhere".parse().expect("an id"));
        let grave = self.graves.get(key).cloned();
        self.may(claims, &anywhere, &nowhere).await
            || match grave {
                Some(grave) => self.may(claims, key, &grave).await,
                None => false,
            }
    }

    async fn sync_some(&mut self) -> Result<(), String> {
        let nth = self.dice.below(TOKENS as u64) as usize;
        self.sync(nth).await
    }

    /// Brings a replica to the head, and compares it with the oracle.
    async fn sync(&mut self, nth: usize) -> Result<(), String> {
        let token = &mut self.tokens[nth];
        token.following = None;
        token.reader.following = false;
        let synced = token.reader.sync(&token.client).await;
        synced.map_err(|leak| format!("{:?} was sent {leak}", token.claims))?;
        self.compare(nth).await
    }

    async fn compare(&mut self, nth: usize) -> Result<(), String> {
        let token = &self.tokens[nth];
        let expected = self.oracle.rows(self.rules.as_ref(), &token.claims, false).await;
        self.judged += self.rows.len() as u64;
        let seen = token.reader.seen();
        match seen == expected {
            true => Ok(()),
            false => Err(format!("{:?} holds {seen:#?}, not {expected:#?}", token.claims)),
        }
    }

    /// A replica that stays is told of what is pushed meanwhile, and ends where it has to.
    async fn follow_some(&mut self) -> Result<(), String> {
        let nth = self.dice.below(TOKENS as u64) as usize;
        self.sync(nth).await?;
        let token = &mut self.tokens[nth];
        let stream = token.client.follow(&token.reader.cursor).await.expect("a good cursor");
        token.following = Some(stream);
        token.reader.following = true;
        for _ in 0..3 {
            self.push().await?;
        }
        let token = &self.tokens[nth];
        let expected = self.oracle.rows(self.rules.as_ref(), &token.claims, false).await;
        let token = &mut self.tokens[nth];
        let stream = token.following.as_mut().expect("just begun");
        let arrival = async {
            while token.reader.seen() != expected {
                let taken = token.reader.take_next(stream).await;
                let taken = taken.map_err(|status| status.to_string())?;
                let leak = |leak| format!("{:?} was sent {leak} while following", token.claims);
                taken.map_err(leak)?;
            }
            Ok(())
        };
        let arrived = tokio::time::timeout(FOLLOWED_WITHIN, arrival).await;
        arrived.unwrap_or_else(|_| Err("a follower was not told".to_owned()))?;
        // What its own client pushed meanwhile was left out: a fresh pull tells of it.
        token.following = None;
        self.sync(nth).await
    }

    async fn change_rules(&mut self) {
        let rules = made_up::rules(&self.dice);
        let operator = self.server.client("operator").await;
        put(&operator, &rules).await.expect("legal rules");
        if self.rules.as_ref() == Some(&rules) {
            return; // They are in force: nothing changes, and cursors stay good.
        }
        self.graves.clear();
        self.rules = Some(rules);
        for token in &mut self.tokens {
            token.reader.epochs.clear();
            token.reader.begin_anew(&token.claims);
        }
        self.look().await;
    }

    async fn change_token(&mut self) {
        let nth = 1 + self.dice.below(TOKENS as u64 - 1) as usize;
        let (client, claims) = self.token(nth).await;
        let token = &mut self.tokens[nth];
        (token.client, token.claims) = (client, claims);
        if self.rules.is_some() {
            token.reader.begin_anew(&token.claims);
        }
        self.look().await;
    }
}

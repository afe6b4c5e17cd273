//! The backends that settings name → the adapters behind them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::Adapter;
use lakesync::clock::WallClock;
use lakesync::name::Gateway;
use lakesync_adapters::fan_out::{self, FanOut, Patience};
use lakesync_adapters::route::Route;
use lakesync_adapters::tier::{Step, Tier};
use lakesync_adapters::{mysql, postgres};
use tokio::sync::Semaphore;

use super::{Backend, Member, Policy};
use crate::config::backends::{self as config, Backends, GATEWAY, Kind, Sql};

/// How many gateways move rows of one tier at the same time. Each holds a page in memory.
const MOVERS_MAX: usize = 4;
/// How long the search for old rows pauses at the least. It pauses for nine times as long as the
/// backends worked on it, too: they have better to do.
const TIER_STEP_PAUSE: Duration = Duration::from_millis(100);
/// How long it pauses at most after the last of them; else for a tenth of the age that is old.
const TIER_ROUND_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long it pauses after a failure.
const TIER_FAILURE_PAUSE: Duration = Duration::from_secs(300);

/// A backend that settings name and that can't be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("backends.{name}: {what}")]
pub struct BadBackend {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
}

/// What opens adapters: servers, by the name of their backend, and how backends are made of them.
#[derive(Debug)]
struct Plan {
    config: Backends,
    postgres: BTreeMap<String, postgres::Server>,
    mysql: BTreeMap<String, mysql::Server>,
    /// Turns to move rows, by the tier.
    movers: BTreeMap<String, Arc<Semaphore>>,
    clock: Arc<dyn WallClock>,
}

/// The backends that gateways are flushed to. Nothing connects yet: a backend that is away does not
/// keep a server from starting.
pub fn build(config: &Backends, clock: &Arc<dyn WallClock>) -> Result<Vec<Backend>, BadBackend> {
    let plan = Arc::new(Plan::of(config, clock)?);
    plan.check_places()?;
    let backend = |name: &String| {
        let (plan, own) = (Arc::clone(&plan), name.clone());
        let backend = &config.all[name];
        let config::Backend { rows, bytes, age, check_every, .. } = *backend;
        let policy = Policy { changes: rows, bytes, age, check_every };
        Backend::of_members(name, policy, move |gateway, members| plan.open(&own, gateway, members))
    };
    Ok(config.flush_to.iter().map(backend).collect())
}

/// The adapter of a gateway at one backend, whether or not anything is flushed to it.
pub fn open(
    config: &Backends,
    name: &str,
    gateway: &Gateway,
    clock: &Arc<dyn WallClock>,
) -> Result<Arc<dyn Adapter>, BadBackend> {
    let bad = |what| BadBackend { name: name.to_owned(), what };
    if !config.all.contains_key(name) {
        let known: Vec<&str> = config.all.keys().map(String::as_str).collect();
        return Err(bad(match known.as_slice() {
            [] => "there is no such backend; --config FILE names a file that has some".to_owned(),
            known => format!("there is no such backend; there are {}", known.join(", ")),
        }));
    }
    Plan::of(config, clock)?.open(&name.to_owned(), gateway, &mut Vec::new()).map_err(bad)
}

impl Plan {
    /// No two backends are one place: they would overwrite each other's watermarks, and a row that
    /// moved from one to the other would be gone. Two names of one server can't be told apart here.
    fn check_places(&self) -> Result<(), BadBackend> {
        let gateway = Gateway::parse("a").expect("BUG: an illegal name");
        let mut places = BTreeMap::new();
        for (name, backend) in &self.config.all {
            if !matches!(backend.kind, Kind::Postgres(_) | Kind::MySql(_)) {
                continue;
            }
            let bad = |what: String| BadBackend { name: name.clone(), what };
            let place = self.open(name, &gateway, &mut Vec::new()).map_err(bad)?.to_string();
            if let Some(other) = places.insert(place, name) {
                return Err(bad(format!(
                    "it is the same place as {other}; give one of them another schema or database"
                )));
            }
        }
        Ok(())
    }

    fn of(config: &Backends, clock: &Arc<dyn WallClock>) -> Result<Self, BadBackend> {
        let (mut postgres, mut mysql) = (BTreeMap::new(), BTreeMap::new());
        let mut movers = BTreeMap::new();
        for (name, backend) in &config.all {
            let bad =
                |what: &dyn ToString| BadBackend { name: name.clone(), what: what.to_string() };
            match &backend.kind {
                Kind::Postgres(Sql { url, call_timeout, .. }) => {
                    let options = postgres::Options {
                        call_timeout: *call_timeout,
                        ..postgres::Options::new(url.0.as_str())
                    };
                    let server = postgres::Server::new(options).map_err(|error| bad(&error))?;
                    postgres.insert(name.clone(), server);
                }
                Kind::MySql(Sql { url, call_timeout, .. }) => {
                    let options = mysql::Options {
                        call_timeout: *call_timeout,
                        ..mysql::Options::new(url.0.as_str())
                    };
                    let server = mysql::Server::new(options).map_err(|error| bad(&error))?;
                    mysql.insert(name.clone(), server);
                }
                Kind::Tier { .. } => {
                    movers.insert(name.clone(), Arc::new(Semaphore::new(MOVERS_MAX)));
                }
                Kind::Route { .. } | Kind::FanOut { .. } => {}
            }
        }
        Ok(Self { config: config.clone(), postgres, mysql, movers, clock: Arc::clone(clock) })
    }

    /// The adapter of a gateway at the backend `name`, and its members of note.
    fn open(
        &self,
        name: &String,
        gateway: &Gateway,
        members: &mut Vec<Arc<dyn Member>>,
    ) -> Result<Arc<dyn Adapter>, String> {
        let opened: Arc<dyn Adapter> = match &self.config.all[name].kind {
            Kind::Postgres(sql) => {
                let schema = sql.schema.replace(GATEWAY, gateway.as_str());
                let adapter = self.postgres[name].adapter(&schema, sql.history);
                let adapter = Arc::new(adapter.map_err(|error| error.to_string())?);
                members.push(Arc::clone(&adapter) as _);
                adapter
            }
            Kind::MySql(sql) => {
                let schema = sql.schema.replace(GATEWAY, gateway.as_str());
                let adapter = self.mysql[name].adapter(&schema, sql.history);
                let adapter = Arc::new(adapter.map_err(|error| error.to_string())?);
                members.push(Arc::clone(&adapter) as _);
                adapter
            }
            Kind::Route { default, tables } => {
                // A backend that several tables go to is opened once: it has one watermark.
                let mut opened = BTreeMap::from([(default, self.open(default, gateway, members)?)]);
                for part in tables.values() {
                    if !opened.contains_key(part) {
                        opened.insert(part, self.open(part, gateway, members)?);
                    }
                }
                let of = |part: &String| Arc::clone(&opened[part]);
                let tables = tables.iter().map(|(table, part)| (table.clone(), of(part)));
                Arc::new(Route::new(of(default), tables.collect()))
            }
            Kind::FanOut { primary, followers } => {
                let primary = self.open(primary, gateway, members)?;
                let mut follower = |name: &String| {
                    Ok::<_, String>((name.clone(), self.open(name, gateway, members)?))
                };
                let followers = followers.iter().map(&mut follower).collect::<Result<_, _>>()?;
                let fan_out = Arc::new(FanOut::new(primary, followers, Patience::default()));
                members.push(Arc::clone(&fan_out) as _);
                fan_out
            }
            Kind::Tier { hot, cold, after } => {
                let hot = self.open(hot, gateway, members)?;
                let cold = self.open(cold, gateway, members)?;
                let tier = Arc::new(Tier::new(hot, cold, *after, Arc::clone(&self.clock)));
                let movers = Arc::clone(&self.movers[name]);
                members.push(Arc::new(Moves { tier: Arc::clone(&tier), movers }));
                tier
            }
        };
        Ok(opened)
    }
}

#[async_trait]
impl Member for postgres::Postgres {
    fn trouble(&self) -> Option<String> {
        joined(self, &self.troubles())
    }
}

#[async_trait]
impl Member for mysql::MySql {
    fn trouble(&self) -> Option<String> {
        joined(self, &self.troubles())
    }
}

/// The troubles of one database, which says its name.
fn joined(database: &dyn std::fmt::Display, troubles: &[String]) -> Option<String> {
    (!troubles.is_empty()).then(|| format!("{database}: {}", troubles.join("; ")))
}

#[async_trait]
impl Member for FanOut {
    fn trouble(&self) -> Option<String> {
        let trouble = |lag: fan_out::Lag| match (&lag.error, lag.refilling) {
            (Some(error), _) => Some(format!("follower {}: {error}", lag.name)),
            (None, true) => Some(format!("follower {} is being refilled", lag.name)),
            (None, false) => None,
        };
        let troubles: Vec<String> = self.lags().into_iter().filter_map(trouble).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }
}

/// A gateway's tier, whose old rows are to be moved.
struct Moves {
    tier: Arc<Tier>,
    movers: Arc<Semaphore>,
}

#[async_trait]
impl Member for Moves {
    fn trouble(&self) -> Option<String> {
        Some(format!("rows that are old can't be moved: {}", self.tier.failed()?))
    }

    async fn tend(&self) -> Option<Duration> {
        let _turn = self.movers.acquire().await.expect("BUG: nobody closes it");
        Some(match self.tier.advance().await {
            Ok(Step { is_last: false, worked }) => TIER_STEP_PAUSE.max(9 * worked),
            Ok(Step { is_last: true, .. }) => {
                (self.tier.after() / 10).clamp(TIER_STEP_PAUSE, TIER_ROUND_PAUSE_MAX)
            }
            // It is told as trouble.
            Err(_) => TIER_FAILURE_PAUSE,
        })
    }
}

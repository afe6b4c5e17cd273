//! `lakesync bench rules`: many owners' rows under sync rules.
//!
//! Pushes go in turns to a gateway with rules and to one without: of rows that have one owner, as
//! devices make them, and of rows that have one each, as a service may. A reader who owns a small part of
//! all rows is timed against one who reads everything, in turns as well: by checkpoint, and by a pull
//! of all that was pushed. At last each owner has a follower, and single commits are to reach
//! theirs while the others hear nothing.

mod follow;
mod own;

use std::path::PathBuf;
use std::sync::Arc;

use indicatif::ProgressBar;
use lakesync::clock::{SystemClock, WallClock};
use lakesync::rules::{BucketDraft, Draft, FilterDraft, Operator};
use lakesync::wire;
use lakesync_server::auth::Secret;
use serde_json::{Map, Value, json};

use super::child::Child;
use super::link::Target;
use super::pairs::{serve, target, workplace};
use super::report::{self, median};
use super::rows::{Load, OWNER, Whose, schema};
use super::turn::Turn;
use super::{between, push};
use crate::exit::Exit;

/// What can be varied.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Changes that there are to be read, and that each turn of pushes pushes a fifth of.
    #[arg(long, default_value_t = 1_000_000, value_parser = between(1_000, 5_000_000))]
    changes: usize,
    /// Whose the rows are: one owner, one bucket instance.
    #[arg(long, default_value_t = 10_000, value_parser = between(1, 100_000))]
    owners: usize,
    /// Owners who follow.
    #[arg(long, default_value_t = 10_000, value_parser = between(1, 20_000))]
    followers: usize,
    /// How many pairs of turns are counted.
    #[arg(long, default_value_t = 5, value_parser = between(1, 100))]
    pairs: usize,
    /// Where the server may keep its files for the time being.
    #[arg(long)]
    data: Option<PathBuf>,
}

const PUSHERS: usize = 64;
const BATCH: usize = 100;
const GATEWAY: &str = "bench-rules";

/// A server and those who talk to it.
struct Bench {
    child: Child,
    secret: Secret,
    /// Who may do everything.
    service: Target,
    options: Options,
}

pub(super) async fn run(options: Options) -> Result<(), Exit> {
    let directory = workplace(options.data.as_deref())?;
    let (child, secret) = serve(&directory.path().join("data"), []).await?;
    let claims = Map::from_iter([("role".to_owned(), json!("service"))]);
    let service = target(&child, &secret, "service", claims)?;
    let bench = Bench { child, secret, service, options };
    let device = bench.pushes("device", Whose::Clients(bench.owners())).await?;
    let mixed = bench.pushes("mixed", Whose::Mixed(bench.owners())).await?;
    let pushes = json!({ "device": device, "mixed": mixed });
    let own = own::measure(&bench).await?;
    let followed = follow::measure(&bench).await?;
    let report = json!({ "work": "rules", "pushes": pushes, "own": own, "followed": followed });
    report::print(&report, bench.options.json, table)
}

impl Bench {
    /// Each owner sees the rows that are theirs; `service` everything.
    fn rules(&self) -> Draft {
        let filter = FilterDraft {
            column: OWNER.to_owned(),
            operator: Operator::Eq,
            values: vec![format!("jwt:{OWNER}")],
        };
        let own =
            BucketDraft { name: "own".to_owned(), filters: vec![filter], ..BucketDraft::default() };
        let all = BucketDraft {
            name: "all".to_owned(),
            when: [("role".to_owned(), "service".to_owned())].into(),
            ..BucketDraft::default()
        };
        Draft { version: 1, buckets: vec![own, all] }
    }

    /// The server, for the token of an owner.
    fn owner(&self, owner: u64) -> Result<Target, Exit> {
        let claims = Map::from_iter([(OWNER.to_owned(), json!(owner))]);
        target(&self.child, &self.secret, &format!("owner-{owner}"), claims)
    }

    fn owners(&self) -> u64 {
        self.options.owners as u64
    }

    fn load(&self, whose: Whose, changes: usize) -> Arc<Load> {
        Arc::new(Load::owned(whose, PUSHERS, BATCH, changes, SystemClock.now_ms()))
    }

    async fn gateway(&self, name: &str, ruled: bool) -> Result<(), Exit> {
        self.service.create(name, schema(true)).await?;
        if ruled {
            self.service.put_rules(name, wire::encode_rules(&self.rules())).await?;
        }
        Ok(())
    }

    /// Turns of pushes with rules and without.
    async fn pushes(&self, kind: &str, whose: Whose) -> Result<Value, Exit> {
        let load = self.load(whose, self.options.changes.div_ceil(5));
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for pair in 0..=self.options.pairs {
            for (ruled, turns) in [(true, &mut with), (false, &mut without)] {
                let name = format!("bench-{kind}-{pair}-{}", if ruled { "ruled" } else { "plain" });
                self.gateway(&name, ruled).await?;
                self.child.rest().await;
                let before = self.child.cpu();
                let mut turn =
                    push::turn(&self.service, &load, &name, &ProgressBar::hidden()).await?;
                self.child.rest().await;
                let cpu = before.zip(self.child.cpu());
                turn.cpu = cpu.map(|(before, after)| after.saturating_sub(before));
                turns.push(turn);
            }
        }
        // The first pair warms up.
        let pairs = || without.iter().zip(&with).skip(1);
        let of =
            |turns: &[Turn], figure: fn(&Turn) -> f64| median(turns.iter().skip(1).map(figure));
        let cpu = |turn: &Turn| turn.cpu_us().unwrap_or(f64::NAN);
        Ok(json!({
            "changes": load.changes,
            "changes_per_s": of(&with, Turn::rate),
            "without_rules": of(&without, Turn::rate),
            "cost": median(pairs().map(|(without, with)| without.rate() / with.rate())),
            "cpu_us_each": of(&with, cpu),
            "cpu_us_each_without": of(&without, cpu),
        }))
    }
}

/// For people.
fn table(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let [pushes, own, followed] = ["pushes", "own", "followed"].map(|part| &report[part]);
    let reading = |what: &str| {
        let figures = &own[what];
        format!(
            "{what:<11} own rows {:>9.2} ms   all rows {:>9.1} ms   {:>6.3} % of the time\n",
            number(&figures["own_ms"]),
            number(&figures["all_ms"]),
            number(&figures["of_all"]) * 100.0,
        )
    };
    let push = |kind: &str| {
        let figures = &pushes[kind];
        format!(
            "push {kind:<6} with rules {:>8.0} changes/s   without {:>8.0}   cost x {:.2}   CPU {:.1} \
             us, {:.1}\n",
            number(&figures["changes_per_s"]),
            number(&figures["without_rules"]),
            number(&figures["cost"]),
            number(&figures["cpu_us_each"]),
            number(&figures["cpu_us_each_without"]),
        )
    };
    format!(
        "rules: {} owners, {} changes\n\n{}{}one owner has {} of {} rows, {:.3} %\n{}{}\
         follow      {} followers, {} commits: delivered p50 {:.2} ms, p99 {:.2} ms; {} pages to \
         others\n",
        report["own"]["owners"],
        report["own"]["changes"],
        push("device"),
        push("mixed"),
        own["own_rows"],
        own["all_rows"],
        number(&own["own_share"]) * 100.0,
        reading("checkpoint"),
        reading("pull"),
        followed["followers"],
        followed["commits"],
        number(&followed["p50_ms"]),
        number(&followed["p99_ms"]),
        followed["strays"],
    )
}

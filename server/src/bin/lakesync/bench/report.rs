//! What came of the pairs: a table for people, JSON for machines. The ratio of a pair is the figure;
//! rates depend on the machine and on who else uses it.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use super::pairs::Work;
use super::turn::Turn;
use crate::exit::Exit;

/// Prints what a run came to: its JSON, or what is made of it for people.
pub(super) fn print(
    report: &Value,
    json: bool,
    table: impl Fn(&Value) -> String,
) -> Result<(), Exit> {
    let text = if json { format!("{report:#}\n") } else { table(report) };
    put(&text)
}

/// Puts out all of a text.
pub(super) fn put(text: &str) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Exit::input_output)
}

/// The figures of a whole run.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) work: Work,
    pub(super) clients: usize,
    pub(super) batch: usize,
    pub(super) changes: usize,
    pub(super) row_bytes: usize,
    pub(super) cores: usize,
    pub(super) pairs: Vec<Pair>,
}

/// A turn of the real server, and the yardstick's that followed it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) server: Turn,
    pub(super) yardstick: Turn,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.server.rate() / self.yardstick.rate()
    }
}

impl Report {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.title());
        let unit = self.unit();
        let side = format!("{unit:>10} {:>8} {:>8} {:>7}", "p50 ms", "p99 ms", "CPU us");
        line(&mut text, &format!("{:>6}  {:<36}  {:<36}", "", "server", "yardstick"));
        line(&mut text, &format!("{:>6}  {side}  {side}  {:>5}", "pair", "ratio"));
        for (at, pair) in (1..).zip(&self.pairs) {
            let (server, yardstick) = (columns(&pair.server), columns(&pair.yardstick));
            line(&mut text, &format!("{at:>6}  {server}  {yardstick}  {:>5.2}", pair.ratio()));
        }
        let rate = |of: fn(&Pair) -> f64| median(self.pairs.iter().map(of));
        let (server, yardstick) = (rate(|pair| pair.server.rate()), rate(|p| p.yardstick.rate()));
        let ratio = rate(Pair::ratio);
        line(
            &mut text,
            &format!(
                "{:>6}  {server:>10.0} {:>25}  {yardstick:>10.0} {:>25}  {ratio:>5.2}",
                "median", "", ""
            ),
        );
        text
    }

    /// For machines.
    pub(super) fn json(&self) -> String {
        let pairs = self.pairs.iter().map(|pair| {
            json!({
                "ratio": pair.ratio(),
                "server": figures(&pair.server),
                "yardstick": figures(&pair.yardstick),
            })
        });
        let whole = json!({
            "work": self.name(),
            "unit": self.unit(),
            "clients": self.clients,
            "batch": self.batch,
            "changes": self.changes,
            "row_bytes": self.row_bytes,
            "cores": self.cores,
            "pairs": pairs.collect::<Vec<_>>(),
            "median": {
                "ratio": median(self.pairs.iter().map(Pair::ratio)),
                "server": median(self.pairs.iter().map(|pair| pair.server.rate())),
                "yardstick": median(self.pairs.iter().map(|pair| pair.yardstick.rate())),
            },
        });
        format!("{whole:#}\n")
    }

    fn title(&self) -> String {
        let Self { clients, batch, changes, row_bytes, cores, .. } = self;
        let of = format!("of {row_bytes} B on {cores} cores");
        match self.work {
            Work::Push => {
                format!("push: {clients} clients x batches of {batch}, {changes} changes {of}")
            }
            Work::Pull => format!("pull: {clients} readers of {changes} changes {of}"),
            Work::Checkpoint => format!("checkpoint: {clients} readers of {changes} changes {of}"),
        }
    }

    fn name(&self) -> &'static str {
        match self.work {
            Work::Push => "push",
            Work::Pull => "pull",
            Work::Checkpoint => "checkpoint",
        }
    }

    fn unit(&self) -> &'static str {
        if self.work == Work::Push { "changes/s" } else { "rows/s" }
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("BUG: a text takes what is written to it");
}

fn columns(turn: &Turn) -> String {
    let cpu = turn.cpu_us().map_or("-".to_owned(), |us| format!("{us:.2}"));
    let (p50, p99) = (turn.latencies.ms(50.0), turn.latencies.ms(99.0));
    format!("{:>10.0} {p50:>8.2} {p99:>8.2} {cpu:>7}", turn.rate())
}

fn figures(turn: &Turn) -> Value {
    json!({
        "items": turn.items,
        "seconds": turn.elapsed.as_secs_f64(),
        "rate": turn.rate(),
        "p50_ms": turn.latencies.ms(50.0),
        "p99_ms": turn.latencies.ms(99.0),
        "cpu_us_each": turn.cpu_us(),
    })
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len() / 2, sorted.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => f64::midpoint(sorted[half - 1], sorted[half]),
        (half, _) => sorted[half],
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::turn::Latencies;
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        for (values, expected) in
            [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5), (vec![7.0], 7.0)]
        {
            assert_eq!(median(values.clone().into_iter()), expected, "{values:?}");
        }
        assert!(median([].into_iter()).is_nan());
    }

    #[test]
    fn a_ratio_is_of_rates_and_its_median_stands_in_both_forms() {
        let turn = |items, seconds| {
            let mut latencies = Latencies::new();
            latencies.record(Instant::now());
            let (elapsed, cpu) = (Duration::from_secs(seconds), Some(Duration::from_secs(1)));
            Turn { items, elapsed, cpu, latencies }
        };
        let pair = |items| Pair { server: turn(items, 1), yardstick: turn(1_000, 2) };
        let report = Report {
            work: Work::Push,
            clients: 2,
            batch: 100,
            changes: 1_000,
            row_bytes: 200,
            cores: 2,
            pairs: vec![pair(100), pair(300), pair(200)],
        };
        let json: Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["median"]["ratio"], 0.4);
        assert_eq!(json["pairs"][1]["ratio"], 0.6);
        assert_eq!(json["pairs"][0]["yardstick"]["rate"], 500.0);
        assert_eq!(json["pairs"][0]["server"]["cpu_us_each"], 10_000.0);
        let last = report.table().lines().last().map(|line| line.ends_with(" 0.40"));
        assert_eq!(last, Some(true), "{}", report.table());
    }
}

//! What came of the pairs of a flush.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::database::Kind;
use super::median;

/// A turn of the server, the yardstick's that followed, and the server's with rows written again.
pub(super) struct Pair {
    pub(super) server: Side,
    pub(super) yardstick: Side,
    pub(super) mixed: Side,
}

/// One turn.
pub(super) struct Side {
    pub(super) items: usize,
    pub(super) elapsed: Duration,
    /// What our server computed, if there was one, and what the database did.
    pub(super) server: Option<Duration>,
    pub(super) database: Option<Duration>,
}

impl Side {
    fn rate(&self) -> f64 {
        self.items as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn figures(&self) -> Value {
        let each =
            |cpu: Option<Duration>| cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / self.items as f64);
        json!({
            "items": self.items,
            "seconds": self.elapsed.as_secs_f64(),
            "rate": self.rate(),
            "cpu_us_each": each(self.server),
            "database_cpu_us_each": each(self.database),
        })
    }
}

/// The figures of one backend.
pub(super) fn backend(kind: Kind, pairs: &[Pair]) -> Value {
    let ratio = |pair: &Pair| pair.server.rate() / pair.yardstick.rate();
    let mixed = |pair: &Pair| pair.mixed.rate() / pair.yardstick.rate();
    let each = pairs.iter().map(|pair| {
        json!({
            "ratio": ratio(pair),
            "mixed_ratio": mixed(pair),
            "server": pair.server.figures(),
            "yardstick": pair.yardstick.figures(),
            "mixed": pair.mixed.figures(),
        })
    });
    json!({
        "backend": kind.name(),
        "pairs": each.collect::<Vec<_>>(),
        "median": {
            "ratio": median(pairs, ratio),
            "mixed_ratio": median(pairs, mixed),
            "server": median(pairs, |pair| pair.server.rate()),
            "yardstick": median(pairs, |pair| pair.yardstick.rate()),
            "mixed": median(pairs, |pair| pair.mixed.rate()),
        },
    })
}

/// For people.
pub(super) fn table(report: &Value) -> String {
    let mut text = format!(
        "flush: {} changes of {} B, {} at a time, history {}, on {} cores\n",
        report["changes"], report["row_bytes"], report["batch"], report["history"], report["cores"],
    );
    for backend in report["backends"].as_array().into_iter().flatten() {
        let plain = if backend["backend"] == "postgres" { "COPY" } else { "INSERT" };
        let name = backend["backend"].as_str().unwrap_or_default();
        let side = format!("{:>9} {:>7} {:>7}", "rows/s", "CPU us", "its us");
        line(
            &mut text,
            &format!("\n{name:<8} {:<26} {plain:<26} {:<26}", "new rows", "1 in 10 again"),
        );
        line(
            &mut text,
            &format!("{:>6}  {side}  {side}  {side}  {:>5} {:>5}", "pair", "ratio", "again"),
        );
        for (at, pair) in (1..).zip(backend["pairs"].as_array().into_iter().flatten()) {
            let sides = ["server", "yardstick", "mixed"].map(|side| columns(&pair[side]));
            let ratios = [&pair["ratio"], &pair["mixed_ratio"]].map(|ratio| number(ratio, 5, 2));
            line(&mut text, &format!("{at:>6}  {}  {}", sides.join("  "), ratios.join(" ")));
        }
        let median = &backend["median"];
        let sides = ["server", "yardstick", "mixed"]
            .map(|side| format!("{} {:>15}", number(&median[side], 9, 0), ""));
        let ratios = [&median["ratio"], &median["mixed_ratio"]].map(|ratio| number(ratio, 5, 2));
        line(&mut text, &format!("median  {}  {}", sides.join("  "), ratios.join(" ")));
    }
    text += "\nits us: what the database computed for a change\n";
    text
}

fn columns(side: &Value) -> String {
    let [server, database] = ["cpu_us_each", "database_cpu_us_each"];
    format!(
        "{} {} {}",
        number(&side["rate"], 9, 0),
        number(&side[server], 7, 2),
        number(&side[database], 7, 2)
    )
}

fn number(value: &Value, width: usize, digits: usize) -> String {
    match value.as_f64() {
        Some(value) => format!("{value:>width$.digits$}"),
        None => format!("{:>width$}", "-"),
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("BUG: a text takes what is written to it");
}

//! What an outage came to.

use std::time::Duration;

use serde_json::{Value, json};

use super::Options;
use super::load::Pushed;
use crate::exit::Exit;

/// How the backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Well,
    Hangs,
    Gone,
    Back,
}

impl Phase {
    pub(super) const ALL: [Self; 4] = [Self::Well, Self::Hangs, Self::Gone, Self::Back];

    fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Hangs => "hangs",
            Self::Gone => "gone",
            Self::Back => "back",
        }
    }
}

/// What was seen at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) phase: Phase,
    pub(super) at: Duration,
    pub(super) server: Seen,
    /// If there is one.
    pub(super) control: Option<Seen>,
}

/// What was seen of one server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// In bytes.
    pub(super) memory: u64,
    /// Changes that the backend does not have.
    pub(super) lag: u64,
    /// Changes that were taken.
    pub(super) pushed: u64,
}

impl Sample {
    fn mib(&self) -> f64 {
        mib(self.server.memory)
    }

    fn control_mib(&self) -> Option<f64> {
        self.control.map(|seen| mib(seen.memory))
    }
}

/// All figures.
pub(super) fn whole(options: &Options, samples: &[Sample], pushed: &Pushed) -> Result<Value, Exit> {
    let phases = Phase::ALL.map(|phase| {
        let seen: Vec<&Sample> = samples.iter().filter(|sample| sample.phase == phase).collect();
        let latencies = &pushed.latencies[phase as usize];
        json!({
            "phase": phase.name(),
            "seconds": seen.last().zip(seen.first()).map(|(b, a)| (b.at - a.at).as_secs_f64()),
            "memory_mib_max": seen.iter().map(|sample| sample.mib()).reduce(f64::max),
            "control_mib_max": seen.iter().filter_map(|sample| sample.control_mib()).reduce(f64::max),
            "memory_mib_last": seen.last().map(|sample| sample.mib()),
            "lag_changes_max": seen.iter().map(|sample| sample.server.lag).max(),
            "push_p50_ms": latencies.ms(50.0),
            "push_p99_ms": latencies.ms(99.0),
        })
    });
    let highest = |of: &[Phase]| {
        let of = samples.iter().filter(|sample| of.contains(&sample.phase));
        of.map(Sample::mib).fold(0.0, f64::max)
    };
    let (base, away) = (highest(&[Phase::Well]), highest(&[Phase::Hangs, Phase::Gone]));
    // A control's highest so far: overlays are given to the tables at other times than here.
    let over_control = |of: &[Phase]| {
        let last = samples.iter().rposition(|sample| of.contains(&sample.phase))?;
        let control = samples[..=last].iter().filter_map(Sample::control_mib);
        Some(highest(of) - control.reduce(f64::max)?)
    };
    let well: Vec<_> = samples.iter().filter(|sample| sample.phase == Phase::Well).collect();
    let last = well.last().map_or(0.0, |sample| sample.mib());
    let drain = Drain::of(samples).ok_or_else(|| Exit::unavailable("nothing was seen"))?;
    Ok(json!({
        "work": "outage",
        "seconds": options.seconds,
        "rate": options.rate,
        "clients": options.clients,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "pushes": pushed.pushes,
        "refused": pushed.refused,
        "refusal": pushed.why,
        "memory_mib": {
            "base": base,
            "when_it_began": last,
            "away_max": away,
            "growth": away - base,
            "growth_since_it_began": away - last,
            "growth_when_back": highest(&[Phase::Back]) - base,
            "over_control": over_control(&[Phase::Hangs, Phase::Gone]),
            "over_control_when_back": over_control(&[Phase::Back]),
        },
        "drain": {
            "changes": drain.changes,
            "changes_per_s": drain.rate,
            "arrivals_per_s": drain.arrivals,
            "times_arrivals": (0.0 < drain.arrivals).then(|| drain.rate / drain.arrivals),
            "begins_after_s": drain.begins,
            "caught_up_after_s": drain.ends,
        },
        "phases": phases,
        "memory_mib_by_second": samples.iter().map(Sample::mib).collect::<Vec<_>>(),
        "control_mib_by_second":
            samples.iter().filter_map(Sample::control_mib).collect::<Vec<_>>(),
        "control_lag_changes_max":
            samples.iter().filter_map(|sample| Some(sample.control?.lag)).max(),
    }))
}

/// How the backend caught up.
struct Drain {
    /// Changes that it lacked at most.
    changes: u64,
    /// Changes a second that it took, from when it took the first ones.
    rate: f64,
    /// Changes a second that were pushed meanwhile.
    arrivals: f64,
    /// Seconds from when it answered.
    begins: f64,
    ends: f64,
}

impl Drain {
    fn of(samples: &[Sample]) -> Option<Self> {
        let back: Vec<_> = samples.iter().filter(|sample| sample.phase == Phase::Back).collect();
        let (first, last) = (back.first()?, back.last()?);
        let flushed = |sample: &Sample| sample.server.pushed.saturating_sub(sample.server.lag);
        let before = samples.iter().filter(|sample| sample.phase == Phase::Gone);
        let before = before.map(flushed).max().unwrap_or_default();
        // The last look that saw nothing of it: it has begun since.
        let idle = |sample: &&&Sample| flushed(sample) <= before;
        let begin = back.iter().take_while(idle).last().unwrap_or(first);
        let seconds = (last.at - begin.at).as_secs_f64().max(f64::MIN_POSITIVE);
        Some(Self {
            changes: back.iter().map(|sample| sample.server.lag).max()?,
            rate: flushed(last).saturating_sub(flushed(begin)) as f64 / seconds,
            arrivals: (last.server.pushed - begin.server.pushed) as f64 / seconds,
            begins: (begin.at - first.at).as_secs_f64(),
            ends: (last.at - first.at).as_secs_f64(),
        })
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// For people.
pub(super) fn table(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let mut text = format!(
        "outage: {} s, {} changes/s of {} clients, on {} cores\n\n{:>9} {:>8} {:>10} {:>8} {:>12} \
         {:>9} {:>9}\n",
        report["seconds"],
        report["rate"],
        report["clients"],
        report["cores"],
        "backend",
        "seconds",
        "memory MiB",
        "control",
        "lag changes",
        "push p50",
        "p99 ms"
    );
    for phase in report["phases"].as_array().into_iter().flatten() {
        text += &format!(
            "{:>9} {:>8.0} {:>10.1} {:>8} {:>12} {:>9.2} {:>9.2}\n",
            phase["phase"].as_str().unwrap_or_default(),
            number(&phase["seconds"]),
            number(&phase["memory_mib_max"]),
            phase["control_mib_max"].as_f64().map_or("-".to_owned(), |mib| format!("{mib:.1}")),
            phase["lag_changes_max"],
            number(&phase["push_p50_ms"]),
            number(&phase["push_p99_ms"]),
        );
    }
    let (memory, drain) = (&report["memory_mib"], &report["drain"]);
    text += &format!(
        "\n{} pushes, {} refused\nmemory: {:+.1} MiB over the highest before, {:+.1} MiB since it \
         began; {:+.1} MiB when it was back\ndrain: {:.0} changes/s while {:.0}/s arrived, x {:.1}; it \
         began after {:.1} s and had caught up after {:.1} s\n",
        report["pushes"],
        report["refused"],
        number(&memory["growth"]),
        number(&memory["growth_since_it_began"]),
        number(&memory["growth_when_back"]),
        number(&drain["changes_per_s"]),
        number(&drain["arrivals_per_s"]),
        number(&drain["times_arrivals"]),
        number(&drain["begins_after_s"]),
        number(&drain["caught_up_after_s"]),
    );
    if let Some(over) = memory["over_control"].as_f64() {
        text += &format!(
            "control: {over:+.1} MiB over the highest of a server whose backend is well and lacked {} \
             changes at most; {:+.1} MiB when it was back\n",
            report["control_lag_changes_max"],
            number(&memory["over_control_when_back"]),
        );
    }
    text
}

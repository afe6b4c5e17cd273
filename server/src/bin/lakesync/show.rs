//! What commands show people: lines on standard output, bars on a terminal's standard error.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use lakesync_client::{
    Candidate, Event, Phase, Replica, Round, Status, SyncError, Traffic, Waiting,
};

use crate::exit::Exit;

/// How often a bar moves while nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Prints a line.
pub(crate) fn line(text: impl Display) -> Result<(), Exit> {
    writeln!(std::io::stdout(), "{text}").map_err(Exit::input_output)
}

/// A time as RFC 3339 writes it, in UTC.
pub(crate) fn time(time: &prost_types::Timestamp) -> String {
    time.to_string()
}

/// A bar that says what is being done.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(TICK);
    bar
}

/// Prints which tables take part and which do not, each with its reason.
pub(crate) fn candidates(candidates: &[Candidate]) -> Result<(), Exit> {
    // SQLite's own tables are nobody's business.
    let candidates: Vec<_> =
        candidates.iter().filter(|candidate| !candidate.table.starts_with("sqlite_")).collect();
    let width =
        candidates.iter().map(|candidate| candidate.table.chars().count()).max().unwrap_or(0);
    for Candidate { table, verdict } in candidates {
        match verdict {
            Ok(adoptable) => {
                line(format_args!("  ✓ {table:width$}  {}", count(adoptable.rows, "row")))?;
                for column in &adoptable.left_out {
                    line(format_args!("    {:width$}  without {column}", ""))?;
                }
                for warning in &adoptable.warnings {
                    line(format_args!("    {:width$}  ! {warning}", ""))?;
                }
            }
            Err(reason) => line(format_args!("  – {table:width$}  left out: {reason}"))?,
        }
    }
    Ok(())
}

/// Runs a round behind a bar, and tells what it did.
pub(crate) async fn round(
    replica: &Replica,
    label: &str,
) -> Result<(Round, Vec<Event>), SyncError> {
    let bar = bar().with_message(label.to_owned());
    let before = replica.status().borrow().traffic;
    let mut events = replica.events();
    let mut status = replica.status();
    let mut seen = Vec::new();
    let round = replica.sync();
    tokio::pin!(round);
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut round => break outcome,
            Some(event) = futures_util::StreamExt::next(&mut events) => note(&bar, event, &mut seen),
            Ok(()) = status.changed() => describe(&bar, label, &status.borrow_and_update()),
        }
    };
    bar.finish_and_clear();
    // What was told while the round ended.
    while let Some(Some(event)) =
        futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut events))
    {
        note(&bar, event, &mut seen);
    }
    let (outcome, traffic) = (outcome?, replica.status().borrow().traffic);
    let sent = summary(&outcome, before, traffic);
    // Lines go out in any case; a bar is for terminals only.
    if line(format_args!("  {label}: {sent}")).is_err() {
        tracing::debug!("nobody reads standard output");
    }
    Ok((outcome, seen))
}

/// The most events a round's caller is told of: a summary counts them all.
const EVENTS_MAX: usize = 100;

fn note(bar: &ProgressBar, event: Event, seen: &mut Vec<Event>) {
    match event {
        Event::CheckpointProgress { done, total } => {
            bar.set_length(total);
            bar.set_position(done);
            let style = ProgressStyle::with_template("  {msg} [{bar:30}] {pos}/{len} rows");
            bar.set_style(style.expect("BUG: a template that does not parse"));
        }
        Event::Superseded(_) | Event::Rejected(_) | Event::Parked(_) if seen.len() < EVENTS_MAX => {
            seen.push(event);
        }
        _ => {}
    }
}

fn describe(bar: &ProgressBar, label: &str, status: &Status) {
    let doing = match status.phase {
        Phase::Idle | Phase::Waiting => "waiting",
        Phase::Connecting => "connecting",
        Phase::Checkpoint => "receiving every row",
        Phase::Pulling => "receiving what is new",
        Phase::Pushing => "sending",
        Phase::Following => "in step",
    };
    let Traffic { up_rows, down_rows, .. } = status.traffic;
    let pending = status.pending;
    bar.set_message(format!(
        "{label}: {doing}, {pending} to send, {up_rows} sent, {down_rows} received"
    ));
}

fn summary(round: &Round, before: Traffic, after: Traffic) -> String {
    let up = HumanBytes(after.up_bytes - before.up_bytes);
    let down = HumanBytes(after.down_bytes - before.down_bytes);
    let sent = after.up_rows - before.up_rows;
    let how = if round.checkpoint { ", by checkpoint" } else { "" };
    let (sent, pulled) = (count(sent, "change"), round.pulled);
    let mut text = format!("sent {sent} ({up}), received {pulled} ({down}{how})");
    for (number, what) in [
        (round.superseded, "lost to newer writes"),
        (round.rejected, "refused"),
        (round.removed, "rows removed here that this token no longer sees at the gateway"),
        (round.restored, "rows sent again that the gateway had lost"),
    ] {
        if 0 < number {
            text += &format!(", {number} {what}");
        }
    }
    text
}

/// A number of things, in English.
pub(crate) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// Says which tables look synced and are not: nothing that is written to them is recorded.
pub(crate) async fn waiting(replica: &Replica) -> Result<(), Exit> {
    for Waiting { table, why } in replica.waiting().await.map_err(Exit::input_output)? {
        match why {
            None => line(format_args!(
                "  {table} is at the gateway and here, but not adopted: add --adopt"
            ))?,
            Some(why) => {
                line(format_args!("  {table} is at the gateway and here, but left out: {why}"))?
            }
        }
    }
    Ok(())
}

/// Says what of a round needs a person's eye.
pub(crate) async fn leftovers(replica: &Replica) -> Result<(), Exit> {
    for table in replica.undeclared().await.map_err(Exit::input_output)? {
        line(format_args!(
            "the gateway has no table {table}: its rows stay here and its changes wait; --adopt \
             declares it"
        ))?;
    }
    let rejected = replica.rejected().await.map_err(Exit::input_output)?;
    if !rejected.is_empty() {
        line(format_args!(
            "refused, and kept in _lakesync_rejected: {} (`lakesync sync FILE --retry ID|all` makes \
             them again, `--drop ID|all` forgets them)",
            count(rejected.len() as u64, "change")
        ))?;
        for refused in rejected.iter().take(EVENTS_MAX) {
            let (id, table, row) = (refused.id, &refused.table, &refused.row_id);
            // A row id may be what was wrong, and as long as anything.
            line(format_args!(
                "  #{id} {table} {row:.60}: {}: {}",
                refused.reason, refused.message
            ))?;
        }
    }
    let parked = replica.parked().await.map_err(Exit::input_output)?;
    if !parked.is_empty() {
        line(format_args!(
            "waiting for the file's own rules, in _lakesync_parked: {}",
            count(parked.len() as u64, "row")
        ))?;
        for row in parked.iter().take(EVENTS_MAX) {
            line(format_args!("  {} {}: {}", row.table, row.row_id, row.reason))?;
        }
    }
    Ok(())
}

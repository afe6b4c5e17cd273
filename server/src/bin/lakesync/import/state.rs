//! What an import must remember, in a small file: the time of each table's first run, and how many
//! runs there were.
//!
//! Every run stamps what it writes within the millisecond before the first: later runs win over
//! earlier ones, and whatever a device wrote since the first wins over all of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use lakesync::hlc::Hlc;
use serde::{Deserialize, Serialize};

/// The file, read and written as a whole.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Content {
    gateway: String,
    tables: BTreeMap<String, Runs>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Runs {
    /// The millisecond of all stamps.
    stamp_ms: u64,
    /// How many runs began.
    runs: u16,
}

/// The stamps of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamps {
    /// The first run's: what it has written already is not written again.
    pub(super) first: Hlc,
    /// This run's, if it is another: for what the first lost with.
    pub(super) again: Option<Hlc>,
}

impl State {
    /// What the file at `path` says; nothing if there is none.
    pub(super) fn load(path: PathBuf, gateway: &str) -> Result<Self, String> {
        let said = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
        let content = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                said(&format_args!("no state of an import: {error}; use another file"))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Content { gateway: gateway.to_owned(), tables: BTreeMap::new() }
            }
            Err(error) => return Err(said(&error)),
        };
        if content.gateway != gateway {
            let other = &content.gateway;
            return Err(said(&format_args!(
                "it is of an import into gateway {other}; use another --state"
            )));
        }
        Ok(Self { path, content })
    }

    /// Begins a run of `table` at a server whose clock reads `now`. Takes effect with
    /// [`save`](Self::save).
    pub(super) fn begin(&mut self, table: &str, now: Hlc) -> Result<Stamps, String> {
        // Whatever the server's clock reads from now on is greater, and what devices write after
        // they have seen any of the import is greater than that.
        let new = Runs { stamp_ms: now.ms().saturating_sub(1), runs: 0 };
        let known = self.content.tables.entry(table.to_lowercase()).or_insert(new);
        let run = known.runs;
        known.runs =
            run.checked_add(1).ok_or("it was imported 65,535 times; use another --state")?;
        let first = Hlc::from_ms(known.stamp_ms);
        Ok(Stamps { first, again: (0 < run).then(|| Hlc(first.0 + u64::from(run))) })
    }

    /// Writes the file, whole or not at all, and syncs it.
    pub(super) fn save(&self) -> Result<(), String> {
        let said = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let text = serde_json::to_string_pretty(&self.content);
        let text = text.map_err(|error| said(error.into()))? + "\n";
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(said)?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(said)?;
        file.persist(&self.path).map_err(|error| said(error.error))?;
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_runs_win_over_earlier_ones_and_never_over_what_came_since() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("state.json");
        let now = Hlc::from_ms(5_000);
        let mut last = Hlc(0);
        for run in 0..3_u64 {
            let mut state = State::load(file.clone(), "main").expect("a state");
            let stamps = state.begin("Todos", Hlc::from_ms(5_000 + run * 1_000)).expect("a run");
            state.save().expect("saved");
            assert_eq!(stamps.first, Hlc::from_ms(4_999));
            assert_eq!(stamps.again.is_none(), run == 0);
            let own = stamps.again.unwrap_or(stamps.first);
            assert!(last < own && own < now, "run {run}: {own:?}");
            last = own;
        }
        let other = State::load(file.clone(), "other").expect_err("another gateway's");
        assert!(other.contains("gateway main"), "{other}");
        std::fs::write(&file, "{}").expect("written");
        assert!(State::load(file, "main").is_err());
    }
}

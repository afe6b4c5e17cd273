//! The state file of a migration: between what, and how far it has come. Never a credential.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lakesync_adapters::migrate::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;

/// What a file holds, as JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    gateway: String,
    from: String,
    to: String,
    at: String,
}

/// The state file of one migration.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    gateway: String,
    from: String,
    to: String,
}

impl State {
    /// The file at `path`, of the migration of a gateway between two backends by their names.
    pub(super) fn new(path: PathBuf, gateway: &str, [from, to]: [String; 2]) -> Self {
        Self { path, gateway: gateway.to_owned(), from, to }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How far the migration has come, if it was begun. Another one's file is refused.
    pub(super) fn load(&self) -> Result<Option<Checkpoint>, Exit> {
        let shown = self.path.display();
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Exit::input_output(format!("{shown}: {error}"))),
        };
        let foreign = |what: &dyn std::fmt::Display| {
            Exit::usage(format!(
                "{shown} is not the state of a migration: {what}; name another file with --state"
            ))
        };
        let form: Form = serde_json::from_str(&text).map_err(|error| foreign(&error))?;
        let at = form.at.parse().map_err(|error| foreign(&error))?;
        if (&form.gateway, &form.from, &form.to) != (&self.gateway, &self.from, &self.to) {
            let Form { gateway, from, to, .. } = form;
            return Err(Exit::usage(format!(
                "{shown} is the state of another migration: of gateway {gateway} from {from} to \
                 {to}; finish that one, or name another file with --state"
            )));
        }
        Ok(Some(at))
    }

    /// Keeps how far it has come: all of the new state or all of the old, whatever happens.
    pub(super) fn keep(&self, at: &Checkpoint) -> io::Result<()> {
        let Self { gateway, from, to, .. } = self;
        let [gateway, from, to] = [gateway, from, to].map(Clone::clone);
        let form = Form { gateway, from, to, at: at.to_string() };
        let mut text = serde_json::to_string_pretty(&form).expect("BUG: texts are JSON");
        text.push('\n');
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let holder = self.path.parent().filter(|holder| !holder.as_os_str().is_empty());
        File::open(holder.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Removes it: the migration is done.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(path: &Path, gateway: &str, to: &str) -> State {
        State::new(path.to_owned(), gateway, ["here".to_owned(), to.to_owned()])
    }

    #[test]
    fn what_was_kept_is_loaded_and_another_migrations_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.state");
        let mine = state(&path, "main", "there");
        assert_eq!(mine.load().expect("none yet"), None);
        for text in ["1 - begun", "1 - copied"] {
            let at: Checkpoint = text.parse().expect("a checkpoint");
            mine.keep(&at).expect("kept");
            assert_eq!(mine.load().expect("whole"), Some(at));
        }
        for other in [state(&path, "other", "there"), state(&path, "main", "elsewhere")] {
            other.load().expect_err("another migration");
        }
        fs::write(&path, "years of work").expect("written");
        mine.load().expect_err("no state");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing is left");
    }
}

//! Where a gateway's rows are, as commands are told it: a URL, or the name of a backend in a file of
//! settings.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::clock::{SystemClock, WallClock};
use lakesync::name::Gateway;
use lakesync_server::config::Texts;
use lakesync_server::config::backends::Backends;
use lakesync_server::flush::backends;

use crate::exit::Exit;

/// One place. Nothing of it is printed but by the adapter's own name, which has no credentials.
pub(crate) struct Place<'a> {
    /// The flag that gave it.
    pub(crate) flag: &'static str,
    /// A URL, or a name.
    pub(crate) text: &'a str,
    /// The schema that was asked for, which goes with a URL.
    pub(crate) schema: Option<&'a str>,
    /// The file that has the name.
    pub(crate) config: Option<&'a Path>,
}

impl Place<'_> {
    /// The name of the backend, if it is one of the settings.
    pub(crate) fn name(&self) -> Option<&str> {
        (!self.text.contains("://")).then_some(self.text)
    }

    /// The adapter of a gateway there. It connects to nobody yet.
    pub(crate) fn open(&self, gateway: &Gateway) -> Result<Arc<dyn Adapter>, Exit> {
        let Self { flag, .. } = *self;
        let wrong = |what: &dyn Display| Exit::usage(format!("--{flag}: {what}"));
        let clock: Arc<dyn WallClock> = Arc::new(SystemClock);
        if let Some(name) = self.name() {
            if self.schema.is_some() {
                return Err(wrong(&format!(
                    "the settings of backend {name} say which schema; --{flag}-schema goes with a URL"
                )));
            }
            let opened = backends::open(&self.settings()?, name, gateway, &clock);
            return opened.map_err(|error| wrong(&error));
        }
        let schema = self.schema.unwrap_or(gateway.as_str());
        let config = Backends::of_url(flag, self.text, schema).map_err(|what| wrong(&what))?;
        backends::open(&config, flag, gateway, &clock).map_err(|error| wrong(&error.what))
    }

    /// The backends that a server with this file would have.
    fn settings(&self) -> Result<Backends, Exit> {
        let mut texts = Texts::defaults();
        if let Some(path) = self.config {
            texts = texts.file(path).map_err(Exit::config)?;
        }
        let texts = texts.environment(std::env::vars_os()).map_err(Exit::config)?;
        Ok(texts.parse().map_err(Exit::config)?.backends)
    }
}

/// How a command ends whose backend failed: whether to come again, or to change something first.
pub(crate) fn failed(error: &AdapterError, message: impl Display) -> Exit {
    match error {
        AdapterError::Unavailable(_) | AdapterError::Busy(_) | AdapterError::Gap { .. } => {
            Exit::unavailable(message)
        }
        AdapterError::Corrupt(_) => Exit::input_output(message),
        AdapterError::UnknownTable(_)
        | AdapterError::UnknownColumn { .. }
        | AdapterError::Unfit { .. }
        | AdapterError::Mismatch(_) => Exit::usage(message),
    }
}

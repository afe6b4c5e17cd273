//! How a command ends when it does not end well: one line, and an exit code as in BSD's sysexits.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// The end of a command that failed.
#[derive(Debug)]
pub(crate) struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    /// Something the caller passed can't be used (EX_USAGE).
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { code: 64, message: message.to_string() }
    }

    /// Some of what was to be read is wrong (EX_DATAERR).
    pub(crate) fn data(message: impl Display) -> Self {
        Self { code: 65, message: message.to_string() }
    }

    /// Something that is needed is not there, or taken: an address, a server (EX_UNAVAILABLE).
    pub(crate) fn unavailable(message: impl Display) -> Self {
        Self { code: 69, message: message.to_string() }
    }

    /// A promise was broken: a bug of ours (EX_SOFTWARE).
    pub(crate) fn software(message: impl Display) -> Self {
        Self { code: 70, message: message.to_string() }
    }

    /// A disk or a data directory said no (EX_IOERR).
    pub(crate) fn input_output(message: impl Display) -> Self {
        Self { code: 74, message: message.to_string() }
    }

    /// A setting is wrong (EX_CONFIG).
    pub(crate) fn config(message: impl Display) -> Self {
        Self { code: 78, message: message.to_string() }
    }

    /// Somebody stopped it, by Ctrl-C or SIGTERM (128 and SIGINT's number, as shells have it).
    pub(crate) fn interrupted(message: impl Display) -> Self {
        Self { code: 130, message: format!("interrupted; {message}") }
    }

    /// The same, with more to say.
    pub(crate) fn with(self, more: &str) -> Self {
        Self { message: self.message + more, ..self }
    }

    /// Says what went wrong, and gives the code.
    pub(crate) fn report(self) -> ExitCode {
        // Nobody may be listening; the code says it too.
        let _ = writeln!(std::io::stderr(), "lakesync: {}", self.message);
        ExitCode::from(self.code)
    }
}

/// Help and version are answers; anything else is a usage error.
pub(crate) fn of_arguments(error: &clap::Error) -> ExitCode {
    // As above: the code says it too.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS }
}

//! A process of ours: this very program with other arguments. It ends when its handle does.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::exit::Exit;

/// How long a process may take to say where it listens.
const READY_MAX: Duration = Duration::from_secs(60);
/// What it says then.
pub(super) const READY: &str = "listening on ";
/// How often a process is looked at until it rests, how many times at most, and how much of that
/// time it may compute and still be said to rest.
const REST_EVERY: Duration = Duration::from_millis(100);
const REST_LOOKS_MAX: u32 = 200;
const REST_CPU_MAX: Duration = Duration::from_millis(5);

/// A running process that serves gRPC.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    address: SocketAddr,
    /// Held, so that the process never writes into the void.
    _output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this program with `arguments`, and waits until it listens.
    pub(super) async fn start(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        let mut command = Command::new(std::env::current_exe().map_err(Exit::input_output)?);
        // What the caller has set for a server of theirs must not change what is measured.
        let settings = std::env::vars_os().map(|(name, _)| name);
        for name in settings.filter(|name| name.to_string_lossy().starts_with("LAKESYNC_")) {
            command.env_remove(name);
        }
        command.env("LAKESYNC_LOG_LEVEL", "warn");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running(Some(command.spawn().map_err(Exit::input_output)?));
        let output = process.0.as_mut().and_then(|process| process.stdout.take());
        let output = BufReader::new(output.expect("BUG: the output was asked for"));
        let ready = tokio::task::spawn_blocking(move || address(output));
        let ready = timeout(READY_MAX, ready).await;
        let ready = ready.map_err(|_| Exit::unavailable("a server did not get ready in time"))?;
        let (address, output) = ready.expect("BUG: reading a line panicked")?;
        let process = process.0.take().expect("BUG: the process was taken twice");
        Ok(Self { process, address, _output: output })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How much it has computed so far, where the system tells.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).ok()?;
        let mut sum = Duration::ZERO;
        for task in tasks {
            // A thread that ended meanwhile tells nothing.
            let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else {
                continue;
            };
            sum += Duration::from_nanos(text.split(' ').next()?.parse().ok()?);
        }
        Some(sum)
    }

    /// How much memory it holds, in bytes, where the system tells.
    pub(super) fn memory(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib << 10)
    }

    /// Waits until it has finished what it does behind the scenes, so that this is not measured as
    /// part of the other's turn. Bounded: it may never rest.
    pub(super) async fn rest(&self) {
        let mut before = self.cpu();
        for _ in 0..REST_LOOKS_MAX {
            sleep(REST_EVERY).await;
            let now = self.cpu();
            let worked = now.unwrap_or_default().saturating_sub(before.unwrap_or_default());
            if worked <= REST_CPU_MAX {
                return;
            }
            before = now;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// A process that is not ready yet; ends too if it never will be.
struct Running(Option<std::process::Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            end(process);
        }
    }
}

fn end(process: &mut std::process::Child) {
    // It may have ended by itself; either way nothing is left of it.
    let _ = process.kill();
    let _ = process.wait();
}

/// Reads the address off the line that says it.
fn address(
    mut output: BufReader<ChildStdout>,
) -> Result<(SocketAddr, BufReader<ChildStdout>), Exit> {
    let mut line = String::new();
    while output.read_line(&mut line).map_err(Exit::input_output)? != 0 {
        if let Some(text) = line.trim().strip_prefix(READY) {
            let address = text.parse().map_err(|error| {
                Exit::unavailable(format!("a server listens on {text:?}: {error}"))
            })?;
            return Ok((address, output));
        }
        line.clear();
    }
    Err(Exit::unavailable("a server ended before it listened"))
}

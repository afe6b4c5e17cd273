//! The processes of a database server: one, or one and its children.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::Kind;
use crate::exit::Exit;

/// How long a server may take to end by itself.
const END_MAX: Duration = Duration::from_secs(10);
const END_EVERY: Duration = Duration::from_millis(10);
/// Linux counts processes' time in these, everywhere.
const TICK: Duration = Duration::from_millis(10);

/// Whom a server runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    /// The user whom Debian's packages made for such servers, if we are root.
    pub(super) fn of_servers(kind: Kind) -> Result<Option<Self>, Exit> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let number = |flag| {
            let output = Command::new("id").args([flag, kind.name()]).output();
            let text = String::from_utf8(output.map_err(Exit::unavailable)?.stdout);
            let number = text.ok().and_then(|text| text.trim().parse().ok());
            let none = || format!("there is no user {}, and no server runs as root", kind.name());
            number.ok_or_else(|| Exit::unavailable(none()))
        };
        Ok(Some(Self { uid: number("-u")?, gid: number("-g")? }))
    }
}

/// A server's process.
pub(super) struct Process {
    child: std::process::Child,
    /// What ends it at once.
    order: Signal,
}

impl Process {
    pub(super) fn spawn(kind: Kind, mut command: Command) -> Result<Self, Exit> {
        let order = match kind {
            // It ends without finishing anything, and still lets go of the system's memory.
            Kind::Postgres => Signal::QUIT,
            Kind::MySql => Signal::KILL,
        };
        let child = command.spawn().map_err(Exit::input_output)?;
        Ok(Self { child, order })
    }

    /// Whether it has not ended.
    pub(super) fn is_there(&self) -> bool {
        fs::read_link(format!("/proc/{}/exe", self.child.id())).is_ok()
    }

    /// Stops it and its children where they are.
    pub(super) fn freeze(&self) {
        // The parent first: it makes no more children.
        self.family().for_each(|process| signal(process, Signal::STOP));
    }

    /// Ends it and its children at once, as a crash does.
    pub(super) fn end(&mut self) {
        let family: Vec<u32> = self.family().collect();
        signal(self.child.id(), self.order);
        family.iter().for_each(|process| signal(*process, Signal::CONT));
        let end = Instant::now() + END_MAX;
        while !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
            if end < Instant::now() {
                family.iter().for_each(|process| signal(*process, Signal::KILL));
                let _ = self.child.wait();
                return;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "a drop can't await, and a child tells nobody"
            )]
            std::thread::sleep(END_EVERY);
        }
    }

    /// How much it and its children, those that ended too, have computed.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let ticks: u32 = self.family().filter_map(ticks).sum();
        (0 < ticks).then(|| TICK * ticks)
    }

    fn family(&self) -> impl Iterator<Item = u32> + use<> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        let children: Vec<u32> =
            children.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        std::iter::once(id).chain(children)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn signal(process: u32, signal: Signal) {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw);
    // It may have ended by itself, which is as well.
    let _ = id.map(|id| kill_process(id, signal));
}

/// The time of a process and of its children that ended, from behind its name in parentheses.
fn ticks(process: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let times = fields.split(' ').skip(11).take(4);
    Some(times.filter_map(|word| word.parse::<u32>().ok()).sum())
}

//! The real binary as processes of its own, built from what is being tested.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;

use lakesync::clock::{SystemClock, WallClock};
use lakesync_server::auth::Secret;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::{Client, grant, within};

/// What a server says once it is ready.
const READY: &str = "listening on ";

/// A server process that said it is ready. Dropping it kills it.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
    data: PathBuf,
    stdout: BufReader<ChildStdout>,
    stderr: JoinHandle<String>,
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The binary. Cargo builds it if it is not what the sources say: an old one would prove nothing.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("our own path");
        let profile_dir = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
        let mut build = std::process::Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "-p", "lakesync-server", "--bin", "lakesync"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        build.arg("--target-dir").arg(profile_dir.parent().expect("target"));
        if profile_dir.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo").success(), "the binary does not build");
        profile_dir.join("lakesync")
    })
}

/// The binary with these arguments, and nothing of our own environment but where programs are.
pub(crate) fn lakesync<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    command(binary(), arguments)
}

/// Any program, as [`lakesync`].
pub(crate) fn command<'a>(program: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().kill_on_drop(true);
    for name in ["PATH", "HOME", "TMPDIR"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a program to its end.
pub(crate) async fn run(mut command: Command) -> Ended {
    let output = within(command.output()).await.expect("a program that starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Served {
    /// Serves a data directory on a free port, and waits until it is ready.
    pub(crate) async fn start(data: &Path, more: &[&str]) -> Self {
        let data_text = data.to_str().expect("text");
        let arguments = ["serve", "--data", data_text, "--listen", "127.0.0.1:0"];
        Self::spawn(lakesync(arguments.into_iter().chain(more.iter().copied())), data).await
    }

    /// As [`start`](Self::start), for a command that comes to the same.
    pub(crate) async fn spawn(mut command: Command, data: &Path) -> Self {
        let mut child = command.spawn().expect("a program that starts");
        let stderr = tokio::spawn(read_all(child.stderr.take().expect("a pipe")));
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        within(stdout.read_line(&mut line)).await.expect("text");
        let Some(address) = line.trim_end().strip_prefix(READY) else {
            let said = within(stderr).await.expect("no panic");
            panic!("not ready; it said {line:?} and {said}");
        };
        let address = address.parse().expect("an address");
        Self { child, address, data: data.to_owned(), stdout, stderr }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The next line on its standard output.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        within(self.stdout.read_line(&mut line)).await.expect("text");
        line
    }

    /// A connection with all rights.
    pub(crate) async fn client(&self, id: &str) -> Client {
        let secret = Secret::load_or_create(&self.data).expect("a secret");
        let token = grant(id, "sync admin").sign(&secret, SystemClock.now_ms()).expect("a token");
        Client::connect(self.address, id, &token).await
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        let sent = run(command(Path::new("sh"), ["-c", "kill -s $0 $1", name, &pid])).await;
        assert!(sent.status.success(), "{sent:?}");
    }

    /// Kills it as an operator would who has lost patience: nothing of it runs any more.
    pub(crate) async fn kill(mut self) {
        within(self.child.kill()).await.expect("killed");
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let mut stdout = String::new();
        within(self.stdout.read_to_string(&mut stdout)).await.expect("text");
        let stderr = within(self.stderr).await.expect("no panic");
        let status = within(self.child.wait()).await.expect("a status");
        Ended { status, stdout, stderr }
    }
}

async fn read_all(mut pipe: ChildStderr) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).await.expect("text");
    text
}

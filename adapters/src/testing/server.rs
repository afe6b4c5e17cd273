//! A database server as a process: started, crashed, paused, and never left behind.
//!
//! A shell stands between the test process and the server. It holds the other end of a pipe, so it
//! learns of the death of the test process whatever the cause, and ends the server and its directory.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SUPERVISE: &str = include_str!("supervise.sh");

/// How long a server may take to answer: machines are shared, and disks are slow.
const READY_MAX: Duration = Duration::from_secs(60);
const READY_EVERY: Duration = Duration::from_millis(50);

/// A server with a directory and a port of its own.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) dir: PathBuf,
    pub(super) port: u16,
    /// Whom the directory belongs to and the server runs as, if we are root.
    user: Option<&'static str>,
    fresh: AtomicU32,
    // Held for one order and its answer, never across an await.
    shell: Mutex<Shell>,
}

#[derive(Debug)]
struct Shell {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// An empty directory, `user`'s if we are root, and a port that is free.
    pub(super) fn new(user: &'static str) -> Self {
        let dir = tempfile::Builder::new().prefix("lakesync-").tempdir().expect("a directory");
        let dir = dir.keep();
        // Bound and let go of: nobody else is given it for a while.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shell = Mutex::new(Shell::new(&dir));
        let is_root = run(Command::new("id").arg("-u")).trim() == "0";
        let user = is_root.then_some(user);
        let server = Self { dir, port, user, fresh: AtomicU32::new(0), shell };
        server.hand_over(&server.dir);
        server
    }

    /// Runs `program` in the directory, to its end.
    pub(super) fn create(&self, program: &Path, arguments: &[String]) {
        self.write_command("create", program, arguments);
        if !self.order("create") {
            self.fail("the server could not be created");
        }
    }

    /// Runs `program` as the server, which may not answer yet.
    pub(super) fn start(&self, program: &Path, arguments: &[String]) {
        self.write_command("start", program, arguments);
        self.order("start");
    }

    /// Writes a file into the directory, for the server to read.
    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, text).expect("a file");
        self.hand_over(&path);
        path
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A name that no test has had.
    pub(super) fn fresh(&self) -> String {
        format!("fresh_{}", self.fresh.fetch_add(1, Ordering::Relaxed))
    }

    /// Has it start, stop, pause or resume. Returns whether it went well, and what is not to be
    /// stopped runs.
    pub(super) fn order(&self, order: &str) -> bool {
        let mut shell = self.shell.lock().expect("BUG: an order panicked halfway");
        let orders = shell.orders.as_mut().expect("BUG: orders end with the server");
        writeln!(orders, "{order}").expect("the shell lives");
        let mut answer = String::new();
        shell.answers.read_line(&mut answer).expect("the shell answers");
        answer.trim_end() == order
    }

    /// A command that is not root: servers refuse to be.
    fn write_command(&self, name: &str, program: &Path, arguments: &[String]) {
        let mut lines = Vec::new();
        if let Some(user) = self.user {
            lines.push("setpriv".to_owned());
            lines.extend([format!("--reuid={user}"), format!("--regid={user}")]);
            lines.extend(["--clear-groups".to_owned(), "--".to_owned()]);
        }
        lines.push(program.display().to_string());
        lines.extend_from_slice(arguments);
        self.write(name, &(lines.join("\n") + "\n"));
    }

    fn hand_over(&self, path: &Path) {
        if let Some(user) = self.user {
            run(Command::new("chown").arg(user).arg(path));
        }
    }

    fn fail(&self, why: &str) -> ! {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        panic!("{why}\n{log}")
    }

    /// Waits until `probe`, which asks the server for its directory, says that it is this one: any
    /// other server may have our port.
    pub(super) async fn ready(&self, probe: impl AsyncFn() -> Result<String, String>) {
        let ready = async {
            loop {
                let said = probe().await;
                let dir = self.dir.to_string_lossy();
                if said.as_ref().is_ok_and(|data| data.starts_with(&*dir)) {
                    return Ok(());
                }
                // Resuming what runs does nothing but tell that it runs.
                if !self.order("resume") {
                    return Err(format!("the server ended: {said:?}"));
                }
                tokio::time::sleep(READY_EVERY).await;
            }
        };
        let answer = tokio::time::timeout(READY_MAX, ready).await;
        if let Err(why) = answer.unwrap_or_else(|_| Err("the server does not answer".to_owned())) {
            self.fail(&why);
        }
    }
}

impl Shell {
    fn new(dir: &Path) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", SUPERVISE, "supervise.sh"])
            .arg(dir)
            .current_dir(dir)
            // What interrupts the tests does not interrupt the one who cleans up after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("BUG: stdout is piped"));
        Self { child, orders, answers }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Ok(shell) = self.shell.get_mut() else { return };
        shell.orders = None;
        let _ = shell.child.wait();
    }
}

/// What `command` prints.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{why}", output.status);
    text
}

/// What `client` prints, or why it failed.
pub(super) async fn ask(client: Command) -> Result<String, String> {
    let mut client = tokio::process::Command::from(client);
    let output = client.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

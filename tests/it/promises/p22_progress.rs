//! P-22: progress is counted in bytes. No call or stream that moves is ended for taking long.
//!
//! Time is a tenth here, and a tenth the limits of silence: a line of 8 KiB/s with a delay of 2 s
//! carries 80 KiB/s after 0.2 s, and a silence of 4.5 s ends a call. Each transfer takes twice as
//! long as that on the slowest line. `LAKESYNC_SLOW_LINE=real` takes true lines, limits and sizes,
//! which needs minutes to hours; each test then says what it measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lakesync::name::{Gateway, Position};
use lakesync::schema::{Proposal, TableSchema};
use lakesync::status::Problem;
use lakesync_client::Transport;
use lakesync_client::transport::{
    Checkpoint, CheckpointStream, Patience, Pull, PullStream, Push, Pushed, Remote, ServerInfo,
    connect_with,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;

use crate::harness::changes::{at, upsert};
use crate::harness::slow::{SlowLine, Speed};
use crate::harness::{Server, Setup, within};
use crate::replicas::site::{File, Site, config, serve, texts, token};

const ROW_BYTES: usize = 10_000;

/// How much faster than in truth time passes.
#[derive(Clone, Copy)]
struct Scale(u32);

impl Scale {
    fn of_the_environment() -> Self {
        match std::env::var("LAKESYNC_SLOW_LINE").as_deref() {
            Ok("real") => Self(1),
            Ok(other) => panic!("LAKESYNC_SLOW_LINE is real or not set, and not {other:?}"),
            Err(_) => Self(10),
        }
    }

    fn is_real(self) -> bool {
        self.0 == 1
    }

    /// How many rows make a transfer of so many bytes.
    fn rows(self, bytes: usize) -> usize {
        let bytes = if self.is_real() { bytes } else { 720 << 10 };
        bytes / ROW_BYTES
    }

    fn speed(self, kib_per_s: usize) -> Speed {
        let bytes_per_s = (kib_per_s << 10) * self.0 as usize;
        Speed { bytes_per_s, delay: Duration::from_secs(2) / self.0 }
    }

    fn patience(self) -> Patience {
        let Patience { connect, ping_every, lifeless, silent } = Patience::default();
        Patience {
            connect,
            ping_every: ping_every / self.0,
            lifeless: lifeless / self.0,
            silent: silent / self.0,
        }
    }

    /// What `work` comes to, and the seconds it took.
    async fn timed<F: Future>(self, what: &str, work: F) -> (F::Output, f64) {
        let most = Duration::from_secs(if self.is_real() { 5 * 60 * 60 } else { 120 });
        let began = Instant::now();
        let output = tokio::time::timeout(most, work).await;
        let output = output.unwrap_or_else(|_| panic!("{what} took more than {most:?}"));
        (output, began.elapsed().as_secs_f64())
    }
}

/// A transport whose server promises heartbeats as often as the scale makes them.
#[derive(Debug)]
struct Hurried {
    inner: Remote,
    times: u32,
}

#[async_trait]
impl Transport for Hurried {
    async fn server_info(&self) -> Result<ServerInfo, Problem> {
        let info = self.inner.server_info().await?;
        Ok(ServerInfo { heartbeat: info.heartbeat / self.times, ..info })
    }

    async fn schema(&self, gateway: &Gateway) -> Result<Vec<TableSchema>, Problem> {
        self.inner.schema(gateway).await
    }

    async fn push(&self, push: Push<'_>) -> Result<Pushed, Problem> {
        self.inner.push(push).await
    }

    async fn pull(&self, pull: Pull<'_>) -> Result<PullStream, Problem> {
        self.inner.pull(pull).await
    }

    async fn checkpoint(&self, checkpoint: Checkpoint<'_>) -> Result<CheckpointStream, Problem> {
        self.inner.checkpoint(checkpoint).await
    }

    fn bytes_moved(&self) -> u64 {
        self.inner.bytes_moved()
    }

    async fn create_gateway(&self, gateway: &Gateway) -> Result<(), Problem> {
        self.inner.create_gateway(gateway).await
    }

    async fn put_schema(
        &self,
        gateway: &Gateway,
        tables: &[Proposal],
    ) -> Result<Vec<TableSchema>, Problem> {
        self.inner.put_schema(gateway, tables).await
    }
}

/// A replica at the other end of a slow line.
fn over(slow: &SlowLine, server: &Server, scale: Scale) -> Arc<dyn Transport> {
    let url = format!("http://{}", slow.address);
    let remote = connect_with(&url, Some(token(server).into()), scale.patience());
    Arc::new(Hurried { inner: remote.expect("a good URL"), times: scale.0 })
}

/// Writes so many rows that nothing can make smaller, in one statement.
async fn write(site: &mut Site, prefix: &str, rows: usize) {
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
         INSERT INTO blobs SELECT '{prefix}' || i, randomblob({ROW_BYTES}) FROM n"
    );
    site.run(&sql).await;
}

/// What a device holds.
async fn held(site: &mut Site) -> Vec<String> {
    let sql = "SELECT id || ' ' || length(body) || ' ' || hex(substr(body, 1, 8)) FROM blobs \
               ORDER BY id";
    texts(&mut site.app, sql).await
}

/// A replica that follows.
struct Following {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Following {
    async fn start(site: &Site) -> Self {
        let replica = site.replica.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            replica.follow(async { stopped.await.unwrap_or(()) }).await;
        });
        let mut status = site.replica.status();
        status.wait_for(|status| status.following).await.expect("the replica is open");
        Self { stop, task }
    }

    /// Waits until the device has seen everything up to `position`, over one stream.
    async fn reaches(self, position: Position, site: &Site) {
        let mut status = site.replica.status();
        let arrived = status.wait_for(|status| position <= status.position || !status.following);
        let status = arrived.await.expect("the replica is open").clone();
        assert!(status.following, "the stream broke: {:?}", status.last_error);
        self.stop.send(()).expect("still following");
        self.task.await.expect("no panic");
    }
}

async fn carries_everything(kib_per_s: usize) {
    let scale = Scale::of_the_environment();
    let server = serve(&Setup::new()).await;
    let slow = SlowLine::to(server.address, scale.speed(kib_per_s)).await;
    let (rows, more) = (scale.rows(20_000_000), scale.rows(3_400_000));

    let made = File::made_by("CREATE TABLE blobs (id TEXT PRIMARY KEY, body BLOB)").await;
    let mut ann = made.open(config(over(&slow, &server, scale))).await;
    ann.replica.adopt(&["blobs".parse().expect("a name")]).await.expect("adopted");
    write(&mut ann, "a", rows).await;
    let (pushed, push_s) = scale.timed("a push", ann.replica.sync()).await;
    assert_eq!(pushed.expect("a round over a slow line").accepted, rows);

    let mut bob = File::made_by("").await.open(config(over(&slow, &server, scale))).await;
    let (first, first_s) = scale.timed("first contact", bob.replica.sync()).await;
    assert!(first.expect("a round over a slow line").checkpoint);
    assert_eq!(held(&mut bob).await, held(&mut ann).await);

    let mut carol = Site::synced(&server).await;
    let following = scale.timed("a follower", Following::start(&bob)).await.0;
    write(&mut carol, "c", more).await;
    let round = carol.sync().await;
    assert_eq!(round.accepted, more);
    let arrives = following.reaches(round.position, &bob);
    let ((), commit_s) = scale.timed("a large commit", arrives).await;
    assert_eq!(held(&mut bob).await, held(&mut carol).await);
    say(kib_per_s, scale, [push_s, first_s, commit_s], slow.carried());
}

#[tokio::test(flavor = "multi_thread")]
async fn p22_text_takes_less_than_half_of_its_bytes_both_ways() {
    let scale = Scale::of_the_environment();
    let server = serve(&Setup::new()).await;
    let fast = Speed { bytes_per_s: 1 << 30, delay: Duration::ZERO };
    let (up, down) =
        (SlowLine::to(server.address, fast).await, SlowLine::to(server.address, fast).await);
    let made = "CREATE TABLE todos (id TEXT PRIMARY KEY, title TEXT, rank INTEGER, done INTEGER);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO todos SELECT lower(hex(randomblob(16))), 'Buy ' || i % 17 || ' pounds of '
            || CASE abs(random()) % 3 WHEN 0 THEN 'oats' WHEN 1 THEN 'rice' ELSE 'flour' END
            || ' before the shop closes', abs(random()) % 100000, i % 2 FROM n";
    let mut ann = File::made_by(made).await.open(config(over(&up, &server, scale))).await;
    ann.replica.adopt(&["todos".parse().expect("a name")]).await.expect("adopted");
    ann.sync().await;
    let mut bob = File::made_by("").await.open(config(over(&down, &server, scale))).await;
    bob.sync().await;
    let columns = "id, title, rank, done";
    assert_eq!(bob.rows("todos", columns).await, ann.rows("todos", columns).await);

    let (sent, received) = (up.carried().0, down.carried().1);
    let (wrote, read) = (ann.status().traffic.up_bytes, bob.status().traffic.down_bytes);
    assert!(sent * 2 < wrote, "{wrote} bytes of pushes took {sent}");
    assert!(received * 2 < read, "{read} bytes of chunks took {received}");

    // And a client that never heard of it: as ever.
    let plain = server.client("plain").await.checkpoint().await.expect("read");
    let rows = plain.tables().iter().map(|table| table.rows.len()).sum::<usize>();
    assert_eq!(rows, 5_000);
    say_saved(wrote, sent, read, received);
}

#[expect(clippy::print_stderr, reason = "what was measured")]
fn say_saved(wrote: u64, sent: u64, read: u64, received: u64) {
    eprintln!("{wrote} bytes of pushes took {sent}, {read} bytes of chunks {received}");
}

#[tokio::test]
async fn p22_either_encoding_is_taken_and_given() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let title = "milk and oats, ".repeat(1_000);
    for (at_, encoding) in [(1, CompressionEncoding::Gzip), (2, CompressionEncoding::Zstd)] {
        let mut sync = ann.sync.clone().send_compressed(encoding).accept_compressed(encoding);
        let delta = upsert("ann", at(at_), "todos/a", &[("title", &title)]);
        let answer = within(sync.push(ann.push_request([delta]))).await.expect("taken");
        assert_eq!(answer.metadata().get("grpc-encoding").expect("compressed"), named(encoding));
        assert_eq!(answer.into_inner().position, at_);
    }
}

fn named(encoding: CompressionEncoding) -> &'static str {
    match encoding {
        CompressionEncoding::Gzip => "gzip",
        _ => "zstd",
    }
}

#[expect(clippy::print_stderr, reason = "what was measured")]
fn say(kib_per_s: usize, scale: Scale, seconds: [f64; 3], carried: (u64, u64)) {
    let [push, first, commit] = seconds;
    let real = if scale.is_real() { "" } else { ", time and sizes scaled" };
    eprintln!(
        "{kib_per_s} KiB/s{real}: push {push:.1} s, first contact {first:.1} s, \
         commit {commit:.1} s, bytes up and down {carried:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p22_a_line_of_64_kib_a_second_carries_everything() {
    carries_everything(64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p22_a_line_of_16_kib_a_second_carries_everything() {
    carries_everything(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p22_a_line_of_8_kib_a_second_carries_everything() {
    carries_everything(8).await;
}

//! The tests every transport must pass, with any gateway behind it. Enabled by the `testing`
//! feature.
//!
//! Each check makes a gateway of its own and states one clause of the [`Transport`] contract.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::StreamExt;
use lakesync::delta::{Cell, Delta, Op};
use lakesync::error::{ErrorKind, Reason};
use lakesync::hlc::Hlc;
use lakesync::limits::{PROTOCOL_MAX, PROTOCOL_MIN};
use lakesync::name::{ClientId, Gateway, Position};
use lakesync::proto::v1::outcome;
use lakesync::schema::{ColumnType, Proposal};
use lakesync::stamp::Stamp;
use lakesync::value::Value;
use lakesync::wire::{Arrival, Incoming};

use super::{Checkpoint, CheckpointEvent, Pull, PullEvent, Push, Pushed, Token, Transport};

/// A running server, and a way to reach it.
pub trait Server: fmt::Debug + Send + Sync {
    /// A transport that authenticates with `token`.
    fn reach(&self, token: Token) -> Arc<dyn Transport>;

    /// A token with every right on every gateway.
    fn token(&self) -> String;
}

/// The server's hour, and that both sides speak one protocol.
pub async fn server_is_known(server: &dyn Server) {
    let info = open(server).server_info().await.expect("server info");
    let (oldest, newest) = info.protocol;
    assert!(oldest <= PROTOCOL_MAX && PROTOCOL_MIN <= newest, "{info:?}");
    assert!(0 < info.push_rows_max && !info.heartbeat.is_zero(), "{info:?}");
}

/// A gateway may be created twice, and has the schema it was given.
pub async fn admin_calls_may_be_repeated(server: &dyn Server) {
    let transport = open(server);
    let gateway = create(&*transport).await;
    transport.create_gateway(&gateway).await.expect("again");
    let schema = transport.schema(&gateway).await.expect("schema");
    assert_eq!(schema.len(), 1);
    assert_eq!(schema[0].columns[0].name.as_str(), "title");
}

/// Pushing the same changes again makes no commit and says so.
pub async fn push_may_be_repeated(server: &dyn Server) {
    let transport = open(server);
    let gateway = create(&*transport).await;
    let hlc = now(&*transport).await;
    let first = push(&*transport, &gateway, "ann", &["milk"], hlc).await;
    assert!(first.position.is_some() && first.outcomes.is_empty(), "{first:?}");
    let second = push(&*transport, &gateway, "ann", &["milk"], hlc).await;
    assert_eq!(second.position, None);
    assert_eq!(second.outcomes[0].kind(), outcome::Kind::Superseded);
}

/// A refused change is told apart from those that were taken.
pub async fn outcomes_name_their_change(server: &dyn Server) {
    let transport = open(server);
    let gateway = create(&*transport).await;
    let mut deltas = writes("ann", &["milk", "oats"], now(&*transport).await);
    deltas[1].op = Op::Upsert(vec![Cell { column: name("title"), value: Value::Int64(1) }]);
    let client = id("ann");
    let push = Push { gateway: &gateway, client: &client, deltas: &deltas };
    let pushed = transport.push(push).await.expect("one is good");
    assert!(pushed.position.is_some());
    let outcome = &pushed.outcomes[0];
    assert_eq!((outcome.table, outcome.row, pushed.outcomes.len()), (0, 1, 1));
    assert_eq!(outcome.reason, Reason::SchemaMismatch.as_str());
}

/// A pull brings the commits in order, then says that it has caught up, and ends.
pub async fn pull_brings_commits_in_order(server: &dyn Server) {
    let transport = open(server);
    let gateway = create(&*transport).await;
    let cursor = head(&*transport, &gateway).await;
    let hlc = now(&*transport).await;
    let mut last = Position::START;
    for (at, title) in ["milk", "oats", "rice"].into_iter().enumerate() {
        let pushed = push(&*transport, &gateway, "ann", &[title], Hlc(hlc.0 + at as u64)).await;
        last = pushed.position.expect("a commit");
    }
    let client = id("bob");
    let pull = Pull {
        gateway: &gateway,
        client: &client,
        cursor: &cursor,
        follow: false,
        skip: &[],
        bytes_max: 0,
        compress: true,
    };
    let mut events = transport.pull(pull).await.expect("pull");
    let mut titles = Vec::new();
    loop {
        match events.next().await.expect("an event").expect("no error") {
            PullEvent::Page(page) => titles.extend(page.arrivals.iter().map(title)),
            PullEvent::CaughtUp { position, .. } => {
                assert_eq!(position, last);
                break;
            }
            PullEvent::Heartbeat { .. } => {}
        }
    }
    assert_eq!(titles, ["milk", "oats", "rice"]);
    assert!(events.next().await.is_none(), "the stream ends at the head");
}

/// A pull that follows brings later commits, but not those of its own client.
pub async fn follow_brings_what_happens(server: &dyn Server) {
    let transport = open(server);
    let gateway = create(&*transport).await;
    let cursor = head(&*transport, &gateway).await;
    let client = id("bob");
    let pull = Pull {
        gateway: &gateway,
        client: &client,
        cursor: &cursor,
        follow: true,
        skip: &[],
        bytes_max: 0,
        compress: true,
    };
    let mut events = transport.pull(pull).await.expect("pull");
    while !matches!(events.next().await, Some(Ok(PullEvent::CaughtUp { .. }))) {}
    let hlc = now(&*transport).await;
    push(&*transport, &gateway, "bob", &["own"], hlc).await;
    push(&*transport, &gateway, "ann", &["milk"], hlc).await;
    loop {
        if let PullEvent::Page(page) = events.next().await.expect("an event").expect("no error") {
            assert_eq!(page.arrivals.iter().map(title).collect::<Vec<_>>(), ["milk"]);
            return;
        }
    }
}

/// A checkpoint brings every row, resumes after any chunk, and ends with a cursor to pull from.
pub async fn checkpoint_brings_every_row(server: &dyn Server) {
    let transport = open(server);
    let gateway = create(&*transport).await;
    let hlc = now(&*transport).await;
    push(&*transport, &gateway, "ann", &["milk", "oats"], hlc).await;
    let (mut rows, resume, cursor) = checkpoint(&*transport, &gateway, "").await;
    rows.sort();
    assert_eq!(rows, ["milk", "oats"]);
    let (rest, _, again) = checkpoint(&*transport, &gateway, &resume).await;
    assert!(rest.is_empty(), "nothing follows the last chunk: {rest:?}");
    assert_eq!(again, cursor, "a resumed checkpoint keeps its first position");
    assert_eq!(head_from(&*transport, &gateway, &cursor).await, 0, "nothing was missed");
}

/// What does not exist, and what is no cursor, is refused with a reason.
pub async fn refusals_carry_their_reason(server: &dyn Server) {
    let transport = open(server);
    let nowhere: Gateway = name("nowhere");
    let problem = transport.schema(&nowhere).await.expect_err("no such gateway");
    assert_eq!(problem.reason, Some(Reason::GatewayNotFound), "{problem:?}");
    let gateway = create(&*transport).await;
    let client = id("bob");
    let pull = Pull {
        gateway: &gateway,
        client: &client,
        cursor: "garbage",
        follow: false,
        skip: &[],
        bytes_max: 0,
        compress: true,
    };
    let problem = match transport.pull(pull).await {
        Err(problem) => problem,
        Ok(mut events) => events.next().await.expect("an answer").expect_err("no cursor"),
    };
    assert!(matches!(problem.kind, ErrorKind::Expired | ErrorKind::Invalid), "{problem:?}");
}

/// A refused token is renewed once, and the call made again; one that is refused twice is told.
pub async fn tokens_are_renewed_once(server: &dyn Server) {
    let asked = Arc::new(AtomicU32::new(0));
    let (count, good) = (Arc::clone(&asked), server.token());
    let token = Token::from_fn(move || {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        let text = if first { "stale".to_owned() } else { good.clone() };
        async move { Ok(text) }
    });
    create(&*server.reach(token)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2, "asked for once more, then kept");
    let problem = server.reach("stale".into()).schema(&name("nowhere")).await;
    assert_eq!(problem.expect_err("refused").kind, ErrorKind::Unauthenticated);
}

/// Declares one test per check. `$open` is an async function that starts a server.
#[macro_export]
macro_rules! transport_conformance {
    ($open:path) => {
        $crate::transport_conformance!(
            $open,
            server_is_known,
            admin_calls_may_be_repeated,
            push_may_be_repeated,
            outcomes_name_their_change,
            pull_brings_commits_in_order,
            follow_brings_what_happens,
            checkpoint_brings_every_row,
            refusals_carry_their_reason,
            tokens_are_renewed_once
        );
    };
    ($open:path, $($check:ident),+) => {$(
        #[tokio::test]
        async fn $check() {
            let server = $open().await;
            $crate::transport::conformance::$check(&server).await;
        }
    )+};
}

fn open(server: &dyn Server) -> Arc<dyn Transport> {
    server.reach(server.token().into())
}

fn name<T: std::str::FromStr<Err: fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

fn id(text: &str) -> ClientId {
    name(text)
}

async fn create(transport: &dyn Transport) -> Gateway {
    let gateway = name("conformance");
    transport.create_gateway(&gateway).await.expect("create");
    let todos = Proposal {
        table: name("todos"),
        key: name("id"),
        columns: vec![(name("title"), ColumnType::String)],
        primary_key: Vec::new(),
    };
    transport.put_schema(&gateway, &[todos]).await.expect("schema");
    gateway
}

async fn now(transport: &dyn Transport) -> Hlc {
    transport.server_info().await.expect("server info").server_hlc
}

/// One row per title.
fn writes(client: &str, titles: &[&str], hlc: Hlc) -> Vec<Delta> {
    let write = |title: &&str| Delta {
        table: name("todos"),
        row_id: name(title),
        stamp: Stamp { hlc, client: id(client) },
        op: Op::Upsert(vec![Cell {
            column: name("title"),
            value: Value::String((*title).to_owned()),
        }]),
    };
    titles.iter().map(write).collect()
}

async fn push(
    transport: &dyn Transport,
    gateway: &Gateway,
    client: &str,
    titles: &[&str],
    hlc: Hlc,
) -> Pushed {
    let (deltas, client) = (writes(client, titles, hlc), id(client));
    let push = Push { gateway, client: &client, deltas: &deltas };
    transport.push(push).await.expect("push")
}

fn title(arrival: &Arrival) -> String {
    match &arrival.what {
        Incoming::Join(row) => match row.cell(&name("title")).map(|cell| &cell.value) {
            Some(Value::String(text)) => text.clone(),
            other => panic!("no title: {other:?}"),
        },
        other => panic!("{other:?} was sent"),
    }
}

/// The cursor at the head of the log.
async fn head(transport: &dyn Transport, gateway: &Gateway) -> String {
    checkpoint(transport, gateway, "").await.2
}

/// The titles, the last resume token and the cursor of a checkpoint.
async fn checkpoint(
    transport: &dyn Transport,
    gateway: &Gateway,
    resume: &str,
) -> (Vec<String>, String, String) {
    let checkpoint = Checkpoint { gateway, resume, since: "", bytes_max: 0 };
    let mut events = transport.checkpoint(checkpoint).await.expect("checkpoint");
    let (mut titles, mut last) = (Vec::new(), resume.to_owned());
    loop {
        match events.next().await.expect("an event").expect("no error") {
            CheckpointEvent::Chunk(chunk) => {
                titles.extend(chunk.arrivals.iter().map(title));
                last = chunk.resume;
            }
            CheckpointEvent::End { cursor, complete, .. } => {
                assert!(complete);
                return (titles, last, cursor);
            }
        }
    }
}

/// How many changes follow a cursor.
async fn head_from(transport: &dyn Transport, gateway: &Gateway, cursor: &str) -> usize {
    let client = id("eve");
    let pull = Pull {
        gateway,
        client: &client,
        cursor,
        follow: false,
        skip: &[],
        bytes_max: 0,
        compress: true,
    };
    let events = transport.pull(pull).await.expect("pull");
    let sizes = events.map(|event| match event.expect("no error") {
        PullEvent::Page(page) => page.arrivals.len(),
        _ => 0,
    });
    sizes.collect::<Vec<_>>().await.into_iter().sum()
}

//! What a predecessor of the same idea got wrong, each fault as a test that it would fail.

use lakesync::delta::Delta;
use lakesync::proto::admin::v1::PutSchemaRequest;
use lakesync::proto::v1::outcome::Kind;
use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{ColumnType, PullRequest};
use lakesync::rules::Draft;
use lakesync_server::auth::Grant;
use lakesync_server::store::memory::MemoryStore;
use serde_json::json;
use tonic::Code;

use crate::harness::backend::Backend;
use crate::harness::changes::{at, at_ms, delete, table, tables, upsert};
use crate::harness::counting::Counting;
use crate::harness::state::State;
use crate::harness::{Client, MAIN, Replica, Setup, assert_refused, grant, until, within};
use crate::rules::made_up::{bucket, filter, service};
use crate::rules::world;

#[tokio::test]
async fn a_cursor_is_a_position_and_late_changes_are_delivered() {
    let server = Setup::new().start_with_tables().await;
    let (ann, late) = (server.client("ann").await, server.client("late").await);
    ann.push([upsert("ann", at_ms(4_000), "todos/new", &[("title", "x")])])
        .await
        .expect("answered");
    let mut reader = Replica::by_pull(&ann).await.expect("pulled");
    late.push([upsert("late", at_ms(-9_000_000), "todos/old", &[("title", "y")])]).await.unwrap();
    reader.pull(&ann).await.expect("pulled");
    assert_eq!(reader.text("todos/old", "title").as_deref(), Some("y"));
}

#[tokio::test]
async fn a_push_does_not_move_the_cursor_of_who_pushes() {
    let server = Setup::new().start_with_tables().await;
    let (ann, bob) = (server.client("ann").await, server.client("bob").await);
    let mut reader = Replica::by_pull(&ann).await.expect("pulled");
    bob.push([upsert("bob", at(1), "todos/bob", &[("title", "x")])]).await.expect("answered");
    let own = ann.push([upsert("ann", at(2), "todos/ann", &[("title", "y")])]).await.unwrap();
    // As a replica pulls that holds its own change already.
    let request = PullRequest {
        client_id: "ann".to_owned(),
        cursor: reader.cursor.clone(),
        skip_positions: vec![own.position],
        ..PullRequest::default()
    };
    let pulled = ann.pull_with(request).await.expect("pulled");
    reader.apply(pulled.tables());
    assert_eq!(reader.text("todos/bob", "title").as_deref(), Some("x"));
    assert_eq!(reader.text("todos/ann", "title"), None, "it was asked to be left out");
}

#[tokio::test]
async fn a_full_page_does_not_jump_to_the_head() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(400_000);
    let big = |nth: u64| upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)]);
    for nth in 0..10 {
        ann.push([big(nth)]).await.expect("answered");
    }
    let pages = ann.pull("").await.expect("pulled").pages;
    assert!(2 < pages.len(), "{} pages only", pages.len());
    for (nth, page) in pages.iter().enumerate() {
        let rest = ann.pull(&page.cursor).await.expect("pulled");
        let sent: usize = rest.tables().iter().map(|table| table.rows.len()).sum();
        assert_eq!(sent as u64, 10 - page.position, "after page {nth}");
    }
}

#[tokio::test]
async fn flushing_drains_neither_the_log_nor_the_rows_nor_what_is_known() {
    let setup = Setup::new().flush_to("backend", Backend::default());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let delta = || upsert("ann", at(1), "todos/a", &[("title", "x")]);
    ann.push([delta()]).await.expect("answered");
    let before = State::of(&ann).await;
    assert_eq!(ann.flush().await.expect("flushed").position, 1);
    let again = ann.push([delta()]).await.expect("answered");
    assert_eq!((again.position, again.outcomes[0].reason.as_str()), (0, "REPLAYED"));
    assert_eq!(State::of(&ann).await, before);
}

#[tokio::test]
async fn every_column_has_a_clock_so_that_no_order_of_arrival_counts() {
    let history = [
        upsert("ann", at(1), "todos/a", &[("title", "1"), ("extra", "1")]),
        upsert("bob", at(2), "todos/a", &[("title", "2")]),
        upsert("ann", at(3), "todos/a", &[("extra", "3")]),
        delete("bob", at(4), "todos/a"),
        upsert("ann", at(5), "todos/a", &[("title", "5")]),
    ];
    let wanted = Replica::of(&history).live();
    let server = Setup::new().start().await;
    for (nth, order) in lakesync::testing::permutations(&history).into_iter().enumerate() {
        // Every seventh order is enough to see each change come before each other.
        if nth % 7 != 0 {
            continue;
        }
        let gateway = format!("order-{nth}");
        let mut operator = server.client("operator").await.at(&gateway);
        operator.create_gateway(&gateway).await.expect("created");
        operator.put_schema(tables()).await.expect("installed");
        for delta in &order {
            let client = Client { id: delta.stamp.client.to_string(), ..operator.clone() };
            let token = server.client(&client.id).await.at(&gateway);
            token.push([delta.clone()]).await.expect("answered");
        }
        let read = Replica::by_checkpoint(&operator).await.expect("read");
        assert_eq!(read.live(), wanted, "{order:?}");
    }
}

#[tokio::test]
async fn what_concerns_a_reader_is_judged_by_the_row_and_not_by_the_change() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let steps: [&[Delta]; 4] = [
        &[upsert("ann", at(1), "todos/a", &[("title", "x"), ("extra", "y")])],
        &[upsert("ann", at(2), "notes/a", &[("body", "not for us")])],
        &[upsert("ann", at(3), "todos/a", &[("extra", "only one column")])],
        &[delete("ann", at(4), "todos/a")],
    ];
    let wanted = [Some("y"), Some("y"), Some("only one column"), None];
    let (mut reader, mut cursor) = (Replica::default(), String::new());
    for (step, wanted) in steps.into_iter().zip(wanted) {
        ann.push(step.to_vec()).await.expect("answered");
        let tables = vec!["todos".to_owned()];
        let request = PullRequest { cursor: cursor.clone(), tables, ..PullRequest::default() };
        let pulled = ann.pull_with(request).await.expect("pulled");
        reader.apply(pulled.tables());
        pulled.caught_up.expect("the head").cursor.clone_into(&mut cursor);
        assert_eq!(reader.text("todos/a", "extra").as_deref(), wanted, "{step:?}");
        assert_eq!(reader.text("notes/a", "body"), None);
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_not_only_in_memory() {
    let store = MemoryStore::new();
    let setup = Setup::new().on(store.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await.expect("answered");
    let server = setup.on(store.crash()).start().await;
    let read = Replica::by_checkpoint(&server.client("bob").await).await.expect("read");
    assert_eq!(read.text("todos/a", "title").as_deref(), Some("x"));
}

#[tokio::test]
async fn one_bad_change_does_not_refuse_its_batch() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let answer = ann
        .push([
            upsert("ann", at(1), "todos/a", &[("title", "x")]),
            upsert("ann", at(2), "todos/b", &[("nope", "x")]),
            upsert("ann", at(3), "todos/c", &[("title", "x")]),
        ])
        .await
        .expect("answered");
    assert_eq!((answer.position, answer.outcomes.len()), (1, 1));
    assert_eq!((answer.outcomes[0].row, answer.outcomes[0].kind()), (1, Kind::Rejected));
    assert_eq!(Replica::by_pull(&ann).await.expect("pulled").live().len(), 2);
}

#[tokio::test]
async fn no_part_of_a_batch_is_applied_before_an_error() {
    let store = MemoryStore::new();
    let setup = Setup::new().on(store.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let batch = || {
        [
            upsert("ann", at(1), "todos/a", &[("title", "x")]),
            upsert("ann", at(2), "notes/a", &[("body", "x")]),
        ]
    };
    let before = State::of(&ann).await;
    let bad = upsert("ann", at(3), "notes/b", &[("nope", "x")]);
    let refused = ann.push_atomic(batch().into_iter().chain([bad])).await;
    assert_refused(refused, Code::InvalidArgument, "SCHEMA_MISMATCH");
    assert_eq!(State::of(&ann).await, before, "before a refused change");
    store.set_full(true);
    assert_refused(ann.push(batch()).await, Code::ResourceExhausted, "DISK_FULL");
    assert_eq!(State::of(&ann).await, before, "before a full disk");
    store.set_full(false);
    store.hold();
    let (pusher, deltas) = (ann.clone(), batch());
    let push = tokio::spawn(async move { pusher.push(deltas).await });
    until(|| 0 < store.pending()).await;
    let server = setup.on(store.crash()).start().await;
    push.await.expect("no panic").expect_err("answered");
    assert_eq!(State::of(&server.client("ann").await).await, before, "before a power cut");
}

#[tokio::test]
async fn errors_of_the_catalogue_are_told_and_nothing_is_installed() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let mut ann = server.client("ann").await;
    let before = State::of(&ann).await;
    let new = || vec![table("new", &[("a", ColumnType::String)])];
    store.set_full(true);
    assert_refused(ann.put_schema(new()).await, Code::ResourceExhausted, "DISK_FULL");
    assert_refused(ann.create_gateway("new").await, Code::ResourceExhausted, "DISK_FULL");
    assert_eq!(State::of(&ann).await, before);
    let delta = || upsert("ann", at(1), "new/a", &[("a", "x")]);
    store.set_full(false);
    let unknown = ann.push([delta()]).await.expect("answered");
    assert_eq!(unknown.outcomes[0].reason, "SCHEMA_MISMATCH", "a table that was refused is used");
    let narrowed = vec![table("todos", &[("title", ColumnType::Int64)])];
    let request = PutSchemaRequest { gateway: MAIN.into(), tables: narrowed, dry_run: true };
    let dry = within(ann.admin.clone().put_schema(request)).await;
    assert_refused(dry, Code::InvalidArgument, "INVALID_REQUEST");
    assert_eq!(State::of(&ann).await, before);
    ann.put_schema(new()).await.expect("installed");
    assert_eq!(ann.push([delta()]).await.expect("answered").position, 1);
}

#[tokio::test]
async fn keys_that_look_alike_are_different_rows() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let mut ann = server.client("ann").await;
    let empty = |name: &str| table(name, &[("title", ColumnType::String)]);
    ann.put_schema(vec![empty("todo"), empty("s"), empty("a"), empty("a_b")]).await.expect("put");
    let long = "x".repeat(256);
    let ids = [
        "a",
        "A",
        " a",
        "a ",
        "a\n",
        "a\t",
        "\u{1}",
        "\u{1}a",
        "a\u{1}",
        "1",
        "01",
        "1.0",
        "-1",
        "é",
        "e\u{301}",
        "a/b",
        "a\\b",
        "..",
        "%61",
        "\"a\"",
        "'",
        "s\u{1}a",
        "\u{feff}a",
        &long,
        &long[1..],
        "\u{10ffff}",
        "null",
        "[\"a\"]",
    ];
    let mut deltas = Vec::new();
    for name in ["todos", "todo", "s", "a", "a_b"] {
        for id in ids {
            let mut delta = upsert("ann", at(deltas.len() as u64), "todos/x", &[("title", id)]);
            delta.table = name.parse().expect("a table");
            delta.row_id = id.parse().expect("a row id");
            deltas.push(delta);
        }
    }
    ann.push(deltas.clone()).await.expect("answered");
    let wanted = Replica::of(&deltas).live();
    assert_eq!(wanted.len(), 5 * ids.len());
    server.stop().await.expect("drained");
    let server = setup.start().await;
    let ann = server.client("ann").await;
    assert_eq!(Replica::by_checkpoint(&ann).await.expect("read").live(), wanted);
    assert_eq!(Replica::by_pull(&ann).await.expect("pulled").live(), wanted);
}

#[tokio::test]
async fn a_checkpoint_joins_what_is_there() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let upstream = [
        upsert("ann", at(2), "todos/a", &[("title", "new"), ("extra", "old")]),
        upsert("ann", at(1), "todos/b", &[("title", "x")]),
    ];
    ann.push(upstream.clone()).await.expect("answered");
    // What the replica wrote before it came: newer and older than what is upstream.
    let own = [
        upsert("me", at(1), "todos/a", &[("title", "mine, older")]),
        upsert("me", at(3), "todos/a", &[("extra", "mine, newer")]),
    ];
    let mut replica = Replica::of(&own);
    let checkpoint = ann.checkpoint().await.expect("read");
    replica.apply(checkpoint.tables());
    replica.apply(checkpoint.tables());
    assert_eq!(replica.live(), Replica::of(upstream.iter().chain(&own)).live());
}

#[tokio::test]
async fn a_push_costs_the_same_however_much_is_stored() {
    let store = Counting::default();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    let mut followed = ann.follow("").await.expect("followed");
    let mut reached = 0;
    let mut nth = 0;
    let mut costs = Vec::new();
    for rows_before in [0_u64, 100, 4_000] {
        let from = nth;
        let fill = (from..from + rows_before)
            .map(|nth| upsert("ann", at(nth), &format!("todos/{nth:06}"), &[("title", "filling")]));
        ann.push(fill).await.expect("answered");
        nth += rows_before;
        for _ in 0..2 {
            let before = store.seen();
            let row = format!("todos/{nth:06}");
            let answer = ann.push([upsert("ann", at(nth), &row, &[("title", "x")])]).await.unwrap();
            // A follower gets it as well, and from memory.
            while reached < answer.position {
                let answer = within(followed.message()).await.expect("open").expect("an answer");
                if let Some(Event::Page(page)) = answer.event {
                    reached = page.position;
                }
            }
            costs.push(store.seen() - before);
            nth += 1;
        }
    }
    // The first push also learns whose the client id is.
    assert!(costs[2..].iter().all(|cost| *cost == costs[1]), "{costs:#?}");
}

#[tokio::test]
async fn large_rows_after_small_ones_are_read_a_few_at_a_time() {
    let store = Counting::default();
    let setup = Setup::new().on(store.clone());
    let server = setup.start().await;
    let mut operator = server.client("operator").await;
    operator.create_gateway(MAIN).await.expect("created");
    operator.put_schema(world::tables()).await.expect("installed");
    let mine = bucket("mine", &["docs"], vec![filter("owner", &["jwt:sub"])]);
    let rules = Draft { version: 1, buckets: vec![mine, service()] };
    world::put(&operator, &rules).await.expect("legal rules");
    let claims = json!({"role": "service"}).as_object().expect("an object").clone();
    let token = server.token(&Grant { claims, ..grant("service", "sync") });
    let service = server.client_with("service", &token).await;
    let doc = |nth: u64, id: String, cells: &[(&str, &str)]| {
        upsert("service", at(nth), &format!("docs/{id}"), cells)
    };
    let mut reader = Replica::by_checkpoint(&server.client("ann").await).await.expect("read");
    // In the order of their keys: what the small ones took must say nothing of the others.
    let small = (0..1_500).map(|nth| doc(nth, format!("a{nth}"), &[("owner", "ann")]));
    service.push(small).await.expect("answered");
    let large = "x".repeat(1_000_000);
    for nth in 0..24 {
        let cells = [("owner", "bob"), ("body", &large)];
        service.push([doc(2_000 + nth, format!("b{nth}"), &cells)]).await.expect("answered");
    }
    let given = (0..24).map(|nth| doc(3_000 + nth, format!("b{nth}"), &[("owner", "ann")]));
    service.push(given).await.expect("answered");
    // A server that has just begun holds no commits in memory: it looks up what they name.
    let server = setup.on(store.crash()).start().await;
    let ann = server.client("ann").await;
    store.take_largest_bytes();
    reader.pull(&ann).await.expect("pulled");
    assert_eq!(reader.live().len(), 1_524);
    let largest = store.take_largest_bytes();
    assert!(largest < 3 << 20, "{largest} bytes in one answer to a pull");
    let read = Replica::by_checkpoint(&ann).await.expect("read");
    assert_eq!(read.live(), reader.live());
    let largest = store.take_largest_bytes();
    assert!(largest < 3 << 20, "{largest} bytes in one answer to a checkpoint");
}

//! Sync rules and revocations, at moments that only a store and a clock of one's own can make.

use bytes::Bytes;
use lakesync::rules::{BucketDraft, FilterDraft, Operator};
use serde_json::json;

use super::*;
use crate::gateway::ruling::Ruling;
use crate::store::{GatewayId, Group};

/// Rows are whose claim `done` they hold in that column, whatever the table.
pub(super) fn draft() -> Draft {
    let (column, values) = ("done".to_owned(), vec!["jwt:done".to_owned()]);
    let filters = vec![FilterDraft { column, operator: Operator::Eq, values }];
    let bucket = BucketDraft { name: "own".to_owned(), filters, ..BucketDraft::default() };
    Draft { version: 1, buckets: vec![bucket] }
}

/// Lets the other tasks do what they can.
pub(super) async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn put_meta(bench: &Bench, id: GatewayId, meta: Vec<(Bytes, Option<Bytes>)>) {
    let put = bench.store.commit(id, Group { meta, ..Group::default() }).await;
    put.expect("healthy").durable().await.expect("durable");
}

#[tokio::test]
async fn a_subject_is_revoked_again_where_there_is_no_room_for_another() {
    let bench = Bench::new(Settings::default()).await;
    let id = bench.main().await.record().id;
    bench.gateways.close_idle().await;
    let listed = |nth: usize| (keys::revoked(&format!("s{nth}")), Some(vec![0; 8].into()));
    let meta = (0..revoked::SUBJECTS_MAX).map(listed).collect();
    put_meta(&bench, id, meta).await;
    let main = bench.main().await;
    let another = main.revoke("another").await;
    assert!(matches!(another, Err(RulesChangeError::Store(StoreError::Full(_)))), "{another:?}");
    let known = Caller { issued_ms: Some(WALL_MS), ..Caller::of("s7") };
    let pull = async || main.pull(&known, PullOptions::default(), bench.stopped()).await;
    pull().await.expect("issued after it was revoked");
    main.revoke("s7").await.expect("it adds nothing");
    let refused = pull().await.expect_err("issued before it was revoked again");
    assert!(matches!(refused, ReadError::Revoked(_)), "{refused}");
}

#[tokio::test]
async fn what_waits_for_a_reader_keeps_its_gateway_open_and_is_not_sent_after_a_revocation() {
    let bench = Bench::new(Settings::default()).await;
    bench.push("ann", &[change("a", "ann@1 title=milk")]).await.expect("pushed");
    let mut answers = bench.pull(PullOptions::default()).await.expect("begun");
    // The reader's task is done; what it sent waits.
    settled().await;
    bench.gateways.close_idle().await;
    answers.next().await.expect("a page").expect("nobody closed it");
    bench.clock.advance(10);
    bench.main().await.revoke("ann").await.expect("revoked");
    let second = answers.next().await.expect("a word");
    assert!(matches!(second, Err(ReadError::Revoked(_))), "{second:?}");
    drop(answers);
    bench.gateways.close_idle().await;
    assert_eq!(bench.gateways.usage().open, 0);
}

#[tokio::test]
async fn what_waits_when_its_gateway_is_closed_is_not_sent() {
    let bench = Bench::new(Settings::default()).await;
    // It has caught up, and says so: the reader's task is done, and its last answer waits.
    let mut answers = bench.pull(PullOptions::default()).await.expect("begun");
    settled().await;
    bench.gateways.close().await;
    let first = answers.next().await.expect("a word");
    assert!(matches!(first, Err(ReadError::Store(StoreError::Closed))), "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn rules_that_wait_for_room_on_the_disk_come_into_force_once_there_is_some() {
    let bench = Bench::new(Settings::default()).await;
    let (id, schema) = (bench.main().await.record().id, bench.main().await.schema());
    bench.gateways.close_idle().await;
    let begun = Ruling::default().begin(&draft(), &schema).expect("legal rules");
    put_meta(&bench, id, vec![(keys::RULES.into(), Some(begun.encode()))]).await;
    bench.store.set_full(true);
    let main = bench.main().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(main.rules(), None);
    // Nobody pushes, and nobody asks.
    bench.store.set_full(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(main.rules(), Some(draft()));
}

#[tokio::test(start_paused = true)]
async fn a_follower_to_whom_a_new_table_opens_more_begins_anew() {
    let bench = Bench::new(Settings::default()).await;
    let main = bench.main().await;
    main.put_rules(draft()).await.expect("legal rules");
    let claims = json!({"done": "5"}).as_object().expect("an object").clone();
    let ann = Caller { claims: Arc::new(claims), ..caller() };
    let mut rows =
        main.checkpoint(&ann, CheckpointOptions::default(), bench.stopped()).await.expect("begun");
    let end = rows.next().await.expect("an end").expect("no failure").event;
    let Some(checkpoint_response::Event::End(end)) = end else { panic!("rows: {end:?}") };
    let follow = PullOptions { cursor: end.cursor, follow: true, ..PullOptions::default() };
    let mut answers = main.pull(&ann, follow, bench.stopped()).await.expect("a good cursor");
    answers.next().await.expect("it has caught up").expect("no failure");
    // A text of the token means a number there: another instance.
    let counted = Proposal {
        table: "counted".parse().expect("legal"),
        key: "id".parse().expect("legal"),
        columns: vec![("done".parse().expect("legal"), ColumnType::Int64)],
        primary_key: Vec::new(),
    };
    main.put_schema(vec![counted], false).await.expect("installed");
    let next = answers.next().await.expect("a word");
    assert!(matches!(next, Err(ReadError::Cursor(CursorError::Expired(_)))), "{next:?}");
}

//! P-8: what waits for a slow reader is judged when it is sent.

use futures_util::StreamExt;
use serde_json::{Value as Json, json};

use super::rules::{draft, settled};
use super::*;

const SECRET: &str = "secret";

fn with_claims(subject: &str, done: Json) -> Caller {
    let claims = json!({ "done": done }).as_object().expect("an object").clone();
    Caller { claims: Arc::new(claims), ..Caller::of(subject) }
}

/// Sees the rows where `done` is 5.
fn reader() -> Caller {
    with_claims("ann", json!("5"))
}

/// A bench with these rules, and two tables.
async fn bench() -> Bench {
    let bench = Bench::new(Settings::default()).await;
    let column = |name: &str| (ColumnName::parse(name).expect("legal"), ColumnType::String);
    let notes = Proposal {
        table: "notes".parse().expect("legal"),
        key: "id".parse().expect("legal"),
        columns: vec![column("title"), column("done")],
        primary_key: Vec::new(),
    };
    let main = bench.main().await;
    main.put_schema(vec![notes], false).await.expect("installed");
    main.put_rules(draft()).await.expect("legal rules");
    bench
}

async fn push(bench: &Bench, deltas: Vec<Delta>) {
    let offers = (0..).zip(deltas).map(|(row, delta)| Offer { table: 0, row, delta: Ok(delta) });
    let writer = with_claims("bob", json!(["5", "6"]));
    let client = "bob".parse().expect("legal");
    let ack = bench.main().await.push(&writer, client, offers.collect(), false, 100).await;
    let ack = ack.expect("durable");
    assert!(ack.outcomes.iter().all(|outcome| outcome.reason.is_empty()), "{ack:?}");
}

/// Takes the secret row out of the reader's scope.
async fn move_out(bench: &Bench) {
    push(bench, vec![change("x", "bob@9 done=6")]).await;
}

/// All that is left of a stream, as text.
async fn rest<T: std::fmt::Debug>(answers: &mut Answers<T>) -> String {
    let mut all = String::new();
    while let Some(answer) = answers.next().await {
        all += &format!("{:?}", answer.expect("no failure"));
    }
    all
}

#[tokio::test]
async fn a_row_that_leaves_between_two_pages_is_not_sent() {
    for (taken, whole_rows) in [(0, false), (1, false), (0, true), (1, true)] {
        for followed in [true, false] {
            let bench = bench().await;
            let main = bench.main().await;
            let options = CheckpointOptions::default();
            let mut rows =
                main.checkpoint(&reader(), options, bench.stopped()).await.expect("good");
            let end = rows.next().await.expect("an end").expect("no failure").event;
            let Some(checkpoint_response::Event::End(end)) = end else { panic!("rows: {end:?}") };
            // With a follower the newest commits are in memory.
            let options = PullOptions { cursor: end.cursor, ..PullOptions::default() };
            let follow = PullOptions { follow: true, ..options.clone() };
            let follower = main.pull(&reader(), follow, bench.stopped()).await.expect("good");
            let _follower = followed.then_some(follower);
            let long = format!("bob@1 done=5 title={}", "y".repeat(5_000));
            push(&bench, vec![change("first", &long)]).await;
            push(&bench, vec![change("x", &format!("bob@1 done=5 title={SECRET}"))]).await;
            let options = PullOptions { bytes_max: 1, whole_rows, ..options };
            let mut answers = main.pull(&reader(), options, bench.stopped()).await.expect("good");
            for _ in 0..taken {
                answers.next().await.expect("a page").expect("no failure");
            }
            settled().await;
            move_out(&bench).await;
            let rest = rest(&mut answers).await;
            assert!(rest.contains("CaughtUp"), "{rest}");
            let case = format!("{taken} taken, {whole_rows}, {followed}");
            assert!(!rest.contains(SECRET), "{case}: {rest}");
        }
    }
}

#[tokio::test]
async fn a_row_that_leaves_between_two_chunks_is_not_sent() {
    for taken in [0, 1] {
        let bench = bench().await;
        // Both are read together, and sent as one chunk for each table.
        let note = Delta {
            table: "notes".parse().expect("legal"),
            ..change("n", "bob@1 done=5 title=note")
        };
        let secret = change("x", &format!("bob@1 done=5 title={SECRET}"));
        push(&bench, vec![note, secret]).await;
        let main = bench.main().await;
        let options = CheckpointOptions::default();
        let mut answers = main.checkpoint(&reader(), options, bench.stopped()).await.expect("good");
        for _ in 0..taken {
            answers.next().await.expect("a chunk").expect("no failure");
        }
        settled().await;
        move_out(&bench).await;
        let rest = rest(&mut answers).await;
        assert!(rest.contains("complete: true") && rest.contains("rows: 1"), "{rest}");
        assert!(!rest.contains(SECRET), "{taken} taken: {rest}");
    }
}

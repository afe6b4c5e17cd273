//! Gateways that were restored or made anew: replicas give back what they hold, and say so.

use lakesync_client::Event;

use crate::fake::{Call, Fake, Fault};
use crate::site::{Site, first, gateway, title};

/// A replica that has synced three rows of its own, and one of somebody else's.
async fn filled(fake: &Fake) -> Site {
    fake.write("other", "theirs", &title("milk"));
    let mut site = Site::synced(fake).await;
    site.run("INSERT INTO todos (id, title) VALUES ('a', '1'), ('b', '2'), ('c', '3')").await;
    site.replica.sync().await.expect("a round");
    site
}

const ALL: [&str; 4] = ["a=1", "b=2", "c=3", "theirs=milk"];

#[tokio::test]
async fn a_replaced_log_is_given_back_what_it_lacks() {
    let fake = gateway();
    let mut ann = filled(&fake).await;
    let mut bob = Site::synced(&fake).await;
    fake.restore_empty();
    ann.run("INSERT INTO todos (id, title) VALUES ('unsent', 'x')").await;
    let mut events = ann.events();
    let round = ann.replica.sync().await.expect("a round");
    assert_eq!((round.checkpoint, round.removed, round.restored), (true, 0, 4));
    assert_eq!((round.superseded, round.rejected), (0, 0));
    let ended = first(&mut events, |event| match event {
        Event::CheckpointEnded { removed, restored } => Some((removed, restored)),
        _ => None,
    });
    assert_eq!(ended.await, (0, 4));
    let round = bob.replica.sync().await.expect("a round");
    assert_eq!((round.superseded, round.rejected), (0, 0), "ann was faster, which is no news");
    let all = [&ALL[..], &["unsent=x"]].concat();
    assert_eq!(bob.todos().await, all);
    ann.replica.sync().await.expect("a round");
    assert_eq!(ann.todos().await, all);
    assert_eq!(fake.world().rows.len(), 5);
    assert!(!ann.replica.sync().await.expect("a round").checkpoint, "once is enough");
}

#[tokio::test]
async fn two_replicas_at_once_give_back_the_same() {
    let fake = gateway();
    let mut ann = filled(&fake).await;
    let mut bob = Site::synced(&fake).await;
    fake.restore_empty();
    // Both have taken their checkpoints before either can push.
    for site in [&ann, &bob] {
        fake.fail(Call::Push, Fault::Refuse(lakesync::error::Reason::Overloaded));
        site.replica.sync().await.expect_err("the push was to fail");
    }
    for site in [&ann, &bob, &ann] {
        let round = site.replica.sync().await.expect("a round");
        assert_eq!((round.superseded, round.rejected), (0, 0));
        assert_eq!(site.status().pending, 0);
    }
    assert_eq!(ann.todos().await, ALL);
    assert_eq!(bob.todos().await, ALL);
}

#[tokio::test]
async fn a_checkpoint_of_a_replaced_log_that_was_broken_off_still_gives_back() {
    let fake = gateway();
    let ann = filled(&fake).await;
    fake.restore();
    fake.world().rows.retain(|(_, id), _| id.as_str() != "b");
    fake.fail(Call::Checkpoint, Fault::BreakAfter(1));
    ann.replica.sync().await.expect_err("the checkpoint was to break");
    let mut ann = ann.restart(&fake).await;
    assert_eq!(ann.todos().await, ALL, "nothing is removed meanwhile");
    let round = ann.replica.sync().await.expect("a round");
    assert_eq!((round.removed, round.restored), (0, 1));
    assert_eq!(ann.todos().await, ALL);
    assert_eq!(fake.world().rows.len(), 4);
}

#[tokio::test]
async fn a_trimmed_log_s_word_counts() {
    let fake = gateway();
    let mut ann = filled(&fake).await;
    fake.trim();
    fake.world().rows.retain(|(_, id), _| id.as_str() != "b");
    let round = ann.replica.sync().await.expect("a round");
    assert_eq!((round.checkpoint, round.removed, round.restored), (true, 1, 0));
    assert_eq!(ann.todos().await, ["a=1", "c=3", "theirs=milk"]);
}

#[tokio::test]
async fn a_gateway_without_the_table_loses_nothing_and_is_told_of_it_by_adopting() {
    let fake = gateway();
    let mut ann = filled(&fake).await;
    fake.restore_empty();
    fake.world().schema = Some(Default::default());
    let round = ann.replica.sync().await.expect("a round");
    assert_eq!((round.removed, round.rejected), (0, 0));
    assert_eq!(ann.todos().await, ALL);
    let todos: lakesync::name::TableName = "todos".parse().expect("a name");
    assert_eq!(ann.replica.undeclared().await.expect("a look").first(), Some(&todos));
    assert_eq!(ann.status().pending, 4, "they wait");

    let mut ann = ann.restart(&fake).await;
    ann.replica.adopt(&[todos]).await.expect("adopts");
    assert_eq!(ann.replica.sync().await.expect("a round").accepted, 4);
    assert!(ann.replica.undeclared().await.expect("a look").is_empty());
    assert_eq!(ann.todos().await, ALL);
    let mut bob = Site::synced(&fake).await;
    assert_eq!(bob.todos().await, ALL);
}

#[tokio::test]
async fn a_replica_that_needs_a_checkpoint_anyway_notices_that_the_log_was_replaced() {
    let fake = gateway();
    let mut ann = filled(&fake).await;
    fake.declare(&[lakesync::schema::Proposal {
        table: "notes".parse().expect("a name"),
        ..crate::site::todos()
    }]);
    ann.replica.sync().await.expect("a round");
    // A table that was dropped and made again asks for a checkpoint.
    ann.run("DROP TABLE notes").await;
    fake.restore_empty();
    let round = ann.replica.sync().await.expect("a round");
    assert_eq!((round.checkpoint, round.removed, round.restored), (true, 0, 4));
    assert_eq!(ann.todos().await, ALL);
}

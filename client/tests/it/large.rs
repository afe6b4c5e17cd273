//! What is large: commits that a replica does not hold whole, pushes that the line does not carry,
//! and very many changes that wait.

use lakesync::error::{ErrorKind, Reason};

use crate::fake::{Call, Fault};
use crate::site::{Site, gateway, title};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_commit_too_large_to_be_held_comes_by_a_checkpoint_that_is_resumed() {
    let fake = gateway();
    fake.write("other", "before", &title("x"));
    let mut site = Site::synced(&fake).await;
    site.run("INSERT INTO todos VALUES ('mine', 'x', 1)").await;
    let large = "x".repeat(MIB);
    for id in 10..28 {
        fake.write("other", &id.to_string(), &title(&large));
    }
    {
        // All of them are one commit to the reader, as what a change of its scope lets in.
        let mut world = fake.world();
        (world.rows_per_page, world.commits_per_page) = (Some(1), 100);
    }
    let checkpoints = fake.count(Call::Checkpoint);
    fake.fail(Call::Checkpoint, Fault::BreakAfter(3));
    let error = site.replica.sync().await.expect_err("the checkpoint breaks");
    assert_eq!(error.problem().map(|problem| problem.kind), Some(ErrorKind::Unavailable));
    let pulls = fake.count(Call::Pull);
    let round = site.replica.sync().await.expect("a round");
    assert!(round.checkpoint && round.pulled < 18, "{round:?}");
    assert_eq!(fake.count(Call::Checkpoint), checkpoints + 2);
    assert_eq!(fake.count(Call::Pull), pulls + 2, "the commit is not pulled again");
    assert_eq!((site.todos().await.len(), site.status().pending), (20, 0));
    assert!(!site.replica.sync().await.expect("a round").checkpoint, "once is enough");
}

#[tokio::test]
async fn pushes_that_stall_on_their_way_become_smaller() {
    let fake = gateway();
    let mut site = Site::synced(&fake).await;
    for id in 0..5 {
        let sql = "INSERT INTO todos (id, title) VALUES";
        site.run(&format!("{sql} ('{id}', '{}')", "x".repeat(20 << 10))).await;
        fake.fail(Call::Push, Fault::Refuse(Reason::RequestStalled));
        site.replica.sync().await.expect_err("the push stalls");
    }
    site.replica.sync().await.expect("a round");
    assert!(1 < fake.head() && site.status().pending == 0, "{} commits", fake.head());
}

#[tokio::test]
async fn very_many_changes_whose_stamps_stay_ahead_hold_no_other_back() {
    let fake = gateway();
    let mut site = Site::synced(&fake).await;
    fake.world().drifting = (10_000..=20_001).map(|id| id.to_string()).collect();
    let many =
        "WITH RECURSIVE n (i) AS (SELECT 10000 UNION ALL SELECT i + 1 FROM n WHERE i < 20001)";
    site.run(&format!("INSERT INTO todos (id) {many} SELECT i FROM n")).await;
    site.run("INSERT INTO todos VALUES ('z', 'x', 1)").await;
    let round = site.replica.sync().await.expect("the others are sent");
    assert_eq!((round.accepted, round.drifted, round.rejected), (1, 10_002, 0));
    assert_eq!((fake.head(), site.status().pending), (1, 10_002));
}

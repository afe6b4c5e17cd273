//! Rounds: what each side has afterwards, when all goes well and when it does not.

use lakesync::error::{ErrorKind, Reason};
use lakesync_client::{Event, SyncError};

use crate::fake::{Call, Fault};
use crate::site::{Site, first, gateway, title, todos};

#[tokio::test]
async fn first_contact_brings_every_row() {
    let fake = gateway();
    for id in ["a", "b", "c"] {
        fake.write("other", id, &title("milk"));
    }
    fake.delete("other", "b");
    let mut site = Site::new(&fake).await;
    let mut events = site.events();
    let round = site.replica.sync().await.expect("a round");
    assert!(round.checkpoint);
    assert_eq!(round.position.0, 4);
    assert_eq!(site.todos().await, ["a=milk", "c=milk"]);
    let progress = first(&mut events, |event| match event {
        Event::CheckpointProgress { done, total } => Some((done, total)),
        _ => None,
    });
    assert_eq!(progress.await, (2, 2));
    assert!(!site.replica.sync().await.expect("a round").checkpoint, "only once");
}

#[tokio::test]
async fn edits_of_both_sides_meet() {
    let fake = gateway();
    let (mut ann, mut bob) = (Site::synced(&fake).await, Site::synced(&fake).await);
    ann.run("INSERT INTO todos VALUES ('a', 'milk', 1), ('b', 'oats', 2)").await;
    let round = ann.replica.sync().await.expect("a round");
    assert_eq!((round.accepted, round.position.0), (2, 1));
    let again = ann.replica.sync().await.expect("a round");
    assert_eq!((round.pulled, again.pulled), (0, 0), "own commits are left out");
    bob.replica.sync().await.expect("a round");
    assert_eq!(bob.todos().await, ["a=milk", "b=oats"]);

    // Offline, both edit the same row, in different columns; one deletes the other row.
    ann.run("UPDATE todos SET title = 'soy milk' WHERE id = 'a'").await;
    bob.run("UPDATE todos SET rank = 9 WHERE id = 'a'").await;
    bob.run("DELETE FROM todos WHERE id = 'b'").await;
    for site in [&ann, &bob, &ann] {
        site.replica.sync().await.expect("a round");
    }
    for site in [&mut ann, &mut bob] {
        assert_eq!(site.todos().await, ["a=soy milk"]);
        let rank: i64 = sqlx::query_scalar("SELECT rank FROM todos")
            .fetch_one(&mut site.app)
            .await
            .expect("a row");
        assert_eq!(rank, 9);
        assert_eq!(site.status().pending, 0);
    }
}

#[tokio::test]
async fn a_lost_reply_costs_nothing() {
    let fake = gateway();
    let mut site = Site::synced(&fake).await;
    site.run("INSERT INTO todos VALUES ('a', 'milk', 1)").await;
    fake.fail(Call::Push, Fault::LoseReply);
    let error = site.replica.sync().await.expect_err("the reply is lost");
    assert_eq!(error.problem().map(|problem| problem.kind), Some(ErrorKind::Unavailable));
    assert!(site.status().last_error.is_some());
    let round = site.replica.sync().await.expect("a round");
    assert_eq!((round.accepted, round.superseded, round.rejected), (1, 0, 0));
    assert_eq!((fake.head(), site.status().pending), (1, 0));
    assert_eq!(site.status().last_error, None);
    assert_eq!(site.todos().await, ["a=milk"]);
}

#[tokio::test]
async fn broken_streams_are_resumed() {
    let fake = gateway();
    for id in ["a", "b", "c", "d", "e"] {
        fake.write("other", id, &title("milk"));
    }
    let site = Site::new(&fake).await;
    fake.fail(Call::Checkpoint, Fault::BreakAfter(2));
    site.replica.sync().await.expect_err("the checkpoint breaks");
    let mut site = site.restart(&fake).await;
    let round = site.replica.sync().await.expect("a round");
    assert_eq!(round.pulled, 1, "four of five rows had arrived");

    for id in ["f", "g", "h"] {
        fake.write("other", id, &title("milk"));
    }
    fake.fail(Call::Pull, Fault::BreakAfter(1));
    site.replica.sync().await.expect_err("the pull breaks");
    let round = site.replica.sync().await.expect("a round");
    assert_eq!(round.pulled, 1, "two of three commits had arrived");
    assert_eq!(site.todos().await.len(), 8);
}

#[tokio::test]
async fn a_commit_in_several_pages_is_shown_whole() {
    let fake = gateway();
    let (mut ann, mut bob) = (Site::synced(&fake).await, Site::synced(&fake).await);
    bob.run("INSERT INTO todos VALUES ('a', 'milk', 1), ('b', 'oats', 2), ('c', 'rice', 3)").await;
    bob.replica.sync().await.expect("a round");
    assert_eq!(fake.head(), 1);
    {
        let mut world = fake.world();
        (world.rows_per_page, world.commits_per_page) = (Some(1), 1);
    }
    fake.fail(Call::Pull, Fault::BreakAfter(2));
    ann.replica.sync().await.expect_err("the pull breaks in the middle of a commit");
    assert!(ann.todos().await.is_empty(), "{:?}", ann.todos().await);
    let round = ann.replica.sync().await.expect("a round");
    assert_eq!((round.pulled, round.position.0), (3, 1));
    assert_eq!(ann.todos().await, ["a=milk", "b=oats", "c=rice"]);
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let fake = gateway();
    fake.world().heartbeat = std::time::Duration::from_millis(5);
    let site = Site::synced(&fake).await;
    fake.fail(Call::Pull, Fault::SilentAfter(0));
    let error = site.replica.sync().await.expect_err("silence");
    assert!(error.to_string().contains("silent"), "{error}");
}

#[tokio::test]
async fn an_expired_cursor_leads_to_a_checkpoint_that_keeps_unsent_changes() {
    let fake = gateway();
    fake.write("other", "a", &title("milk"));
    fake.write("other", "b", &title("oats"));
    let mut site = Site::synced(&fake).await;
    site.run("INSERT INTO todos VALUES ('c', 'mine', 3)").await;
    site.run("UPDATE todos SET rank = 7 WHERE id = 'a'").await;
    {
        // While we were away b was deleted, and the log forgot it.
        let mut world = fake.world();
        world.rows.retain(|(_, row_id), _| row_id.as_str() != "b");
        world.life += 1;
        world.replaced = false;
    }
    let round = site.replica.sync().await.expect("a round");
    assert!(round.checkpoint);
    assert_eq!(site.todos().await, ["a=milk", "c=mine"]);
    assert_eq!((round.accepted, site.status().pending), (2, 0));
    assert_eq!(fake.world().rows.len(), 2);
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_resumed_starts_over() {
    let fake = gateway();
    for id in ["a", "b", "c"] {
        fake.write("other", id, &title("milk"));
    }
    let mut site = Site::new(&fake).await;
    fake.fail(Call::Checkpoint, Fault::BreakAfter(1));
    site.replica.sync().await.expect_err("the checkpoint breaks");
    fake.world().life += 1;
    site.replica.sync().await.expect("a round");
    assert_eq!(site.todos().await, ["a=milk", "b=milk", "c=milk"]);
}

#[tokio::test]
async fn a_push_that_is_too_large_is_halved() {
    let fake = gateway();
    let mut site = Site::synced(&fake).await;
    fake.world().push_rows_max = 2; // After the replica has read the limit.
    for id in 0..7 {
        site.run(&format!("INSERT INTO todos VALUES ('{id}', 'milk', 1)")).await;
    }
    let round = site.replica.sync().await.expect("a round");
    assert_eq!((round.accepted, site.status().pending), (7, 0));
    assert!(4 <= fake.head(), "{} commits", fake.head());
}

#[tokio::test]
async fn a_change_too_large_by_itself_is_refused_alone() {
    let fake = gateway();
    let mut site = Site::synced(&fake).await;
    site.run("INSERT INTO todos VALUES ('a', 'milk', 1)").await;
    fake.fail(Call::Push, Fault::Refuse(Reason::TooLarge));
    let round = site.replica.sync().await.expect("a round");
    assert_eq!(round.rejected, 1);
    let rejected = site.replica.rejected().await.expect("a list");
    assert_eq!(rejected[0].reason, "TOO_LARGE");
    assert!(site.todos().await.is_empty(), "taken back");
}

#[tokio::test]
async fn a_refused_change_is_taken_back_told_and_may_be_retried() {
    let fake = gateway();
    let mut site = Site::synced(&fake).await;
    fake.world().forbidden = vec!["x".into()];
    site.run("INSERT INTO todos VALUES ('x', 'no', 1), ('y', 'yes', 2), ('z', 'yes', 3)").await;
    let mut events = site.events();
    let round = site.replica.sync().await.expect("one bad change never blocks the rest");
    assert_eq!((round.accepted, round.rejected), (2, 1));
    assert_eq!(site.todos().await, ["y=yes", "z=yes"]);
    let rejected = first(&mut events, |event| match event {
        Event::Rejected(rejected) => Some(rejected),
        _ => None,
    });
    let rejected = rejected.await;
    assert_eq!((rejected.row_id.as_str(), rejected.reason.as_str()), ("x", "OUT_OF_SCOPE"));
    assert_eq!(site.status().rejected, 1);

    fake.world().forbidden.clear();
    let id = site.replica.rejected().await.expect("a list")[0].id;
    assert!(site.replica.retry_rejected(id).await.expect("queued"));
    assert_eq!((site.status().rejected, site.status().pending), (0, 1));
    assert_eq!(site.replica.sync().await.expect("a round").accepted, 1);
    assert_eq!(site.todos().await, ["x=no", "y=yes", "z=yes"]);
    assert!(!site.replica.drop_rejected(id).await.expect("answers"), "it is gone");
}

#[tokio::test]
async fn a_write_that_lost_is_reported_and_the_newer_one_shown() {
    let fake = gateway();
    fake.write("other", "a", &title("milk"));
    let mut site = Site::synced(&fake).await;
    site.run("UPDATE todos SET title = 'mine' WHERE id = 'a'").await;
    fake.write("other", "a", &title("newer"));
    let mut events = site.events();
    let round = site.replica.sync().await.expect("a round");
    assert_eq!((round.accepted, round.superseded), (0, 1));
    assert_eq!(site.todos().await, ["a=newer"]);
    let superseded = first(&mut events, |event| match event {
        Event::Superseded(superseded) => Some(superseded),
        _ => None,
    });
    let superseded = superseded.await;
    assert_eq!((superseded.row_id.as_str(), superseded.columns[0].as_str()), ("a", "title"));
}

#[tokio::test]
async fn a_schema_that_grows_is_taken_over() {
    let fake = gateway();
    let mut site = Site::synced(&fake).await;
    let mut grown = todos();
    grown.columns.push(("note".parse().expect("a name"), grown.columns[0].1));
    fake.declare(&[grown]);
    let mut cells = title("milk").to_vec();
    cells.push(lakesync::delta::Cell {
        column: "note".parse().expect("a name"),
        ..cells[0].clone()
    });
    fake.write("other", "a", &cells);
    site.replica.sync().await.expect("a round");
    let note: String = sqlx::query_scalar("SELECT note FROM todos")
        .fetch_one(&mut site.app)
        .await
        .expect("the column is there");
    assert_eq!(note, "milk");
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_before_anything_is_sent() {
    for offset_ms in [-3_600_000, 3_600_000] {
        let fake = gateway();
        let mut site = Site::synced(&fake).await;
        site.run("INSERT INTO todos VALUES ('a', 'first', 1)").await;
        site.run("UPDATE todos SET title = 'second' WHERE id = 'a'").await;
        let elsewhere = gateway();
        elsewhere.world().offset_ms = offset_ms;
        let mut site = site.restart(&elsewhere).await;
        let round = site.replica.sync().await.expect("a round");
        assert_eq!(round.rejected, 0, "{offset_ms}");
        assert_eq!(site.status().pending, 0, "{offset_ms}");
        assert_eq!(site.todos().await, ["a=second"], "{offset_ms}");
    }
}

#[tokio::test]
async fn a_change_whose_stamp_stays_ahead_holds_no_other_back() {
    let fake = gateway();
    let mut site = Site::synced(&fake).await;
    fake.world().push_rows_max = 2;
    fake.world().drifting = ["b".to_owned(), "d".to_owned()].into();
    for id in ["a", "b", "c", "d", "e"] {
        site.run(&format!("INSERT INTO todos VALUES ('{id}', 'x', 1)")).await;
    }
    let round = site.replica.sync().await.expect("the others are sent");
    assert_eq!((round.accepted, round.drifted, round.rejected), (3, 2, 0));
    assert_eq!((site.status().pending, fake.world().rows.len()), (2, 3));
    fake.world().drifting.clear();
    let round = site.replica.sync().await.expect("a round");
    assert_eq!((round.accepted, round.drifted, site.status().pending), (2, 0, 0));
}

#[tokio::test]
async fn a_transaction_is_one_commit() {
    let fake = gateway();
    let site = Site::synced(&fake).await;
    let mut transaction = site.replica.transaction().await.expect("begins");
    for id in ["a", "b", "c"] {
        sqlx::query("INSERT INTO todos (id, title) VALUES (?, 'milk')")
            .bind(id)
            .execute(transaction.connection())
            .await
            .expect("inserts");
    }
    transaction.commit().await.expect("commits");
    site.replica.sync().await.expect("a round");
    assert_eq!(fake.head(), 1);
}

#[tokio::test]
async fn a_gateway_of_another_protocol_is_told() {
    let fake = gateway();
    let site = Site::new(&fake).await;
    fake.world().protocol = (7, 9);
    let error = site.replica.sync().await.expect_err("no common protocol");
    assert!(matches!(error, SyncError::Protocol { server_min: 7, server_max: 9 }), "{error}");
}

#[tokio::test]
async fn a_table_of_the_application_is_adopted_with_its_rows() {
    let fake = crate::fake::Fake::default();
    let mut ann = Site::new(&fake).await;
    ann.run("CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, body TEXT)").await;
    ann.run("INSERT INTO notes VALUES ('n1', 'old')").await;
    let table = "notes".parse().expect("a name");
    ann.replica.adopt(&[table]).await.expect("adopts");
    ann.run("INSERT INTO notes VALUES ('n2', 'new')").await;
    assert_eq!(ann.replica.sync().await.expect("a round").accepted, 2);

    let mut bob = Site::synced(&fake).await;
    let bodies: Vec<String> = sqlx::query_scalar("SELECT body FROM notes ORDER BY id")
        .fetch_all(&mut bob.app)
        .await
        .expect("the table is there");
    assert_eq!(bodies, ["old", "new"]);
    let missing = bob.replica.adopt(&["nothing".parse().expect("a name")]).await;
    assert!(missing.expect_err("no such table").to_string().contains("nothing"));
}

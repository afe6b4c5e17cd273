//! A server whose clock was a day ahead and is right again: the rows that were written meanwhile hold
//! no others back, can be edited, and all replicas come to hold the same.

use tokio::sync::oneshot;

use super::site::{File, Site, config, line, serve};
use crate::harness::{NOW_MS, Server, Setup, within};

const MADE_BY: &str = "CREATE TABLE todos (id TEXT PRIMARY KEY, title TEXT);";
const COLUMNS: &str = "id, title";
const DAY_MS: u64 = 86_400_000;

/// The same file with another server.
async fn moved_to(server: &Server, site: Site) -> Site {
    site.closed().open(config(line(server))).await
}

/// Waits until the application sees these rows.
async fn shows(site: &mut Site, wanted: &[&str]) {
    let mut status = site.replica.status();
    let seen = async {
        loop {
            status.borrow_and_update();
            if site.rows("todos", COLUMNS).await == wanted {
                return;
            }
            status.changed().await.expect("the replica is open");
        }
    };
    within(seen).await;
}

/// Three replicas that have synced rows while the server's clock was a day ahead.
async fn three_of_tomorrow(setup: &Setup) -> (Server, [Site; 3]) {
    let server = serve(setup).await;
    // Their tokens are of today: those of tomorrow are refused once the clock is right.
    let lines = [line(&server), line(&server), line(&server)];
    setup.clock.advance(DAY_MS);
    let [ann, bob, eve] = lines.map(config);
    let mut ann = File::made_by(MADE_BY).await.open(ann).await;
    ann.replica.adopt(&["todos".parse().expect("a name")]).await.expect("it can be synced");
    ann.run("INSERT INTO todos VALUES ('edited', 'x'), ('gone', 'x'), ('kept', 'x')").await;
    ann.sync().await;
    let (bob, eve) =
        (File::made_by("").await.open(bob).await, File::made_by("").await.open(eve).await);
    for site in [&bob, &eve] {
        site.sync().await;
    }
    (server, [ann, bob, eve])
}

#[tokio::test]
async fn after_a_restart_with_a_right_clock_everything_is_sent_and_converges() {
    let setup = Setup::new();
    let (server, [ann, mut bob, eve]) = three_of_tomorrow(&setup).await;
    bob.run("INSERT INTO todos VALUES ('unsent', 'of tomorrow')").await;
    bob.run("UPDATE todos SET title = 'bob' WHERE id = 'kept'").await;
    server.stop().await.expect("drained");

    setup.clock.set(NOW_MS);
    let server = setup.start().await;
    let (mut ann, mut bob) = (moved_to(&server, ann).await, moved_to(&server, bob).await);
    let mut eve = moved_to(&server, eve).await;
    ann.run("INSERT INTO todos VALUES ('new', 'ann'), ('short', 'ann')").await;
    ann.run("UPDATE todos SET title = 'first' WHERE id = 'edited'").await;
    ann.run("UPDATE todos SET title = 'second' WHERE id = 'edited'").await;
    eve.run("DELETE FROM todos WHERE id = 'gone'").await;
    for site in [&ann, &bob, &eve] {
        let round = site.sync().await;
        assert_eq!((round.drifted, round.superseded, round.rejected), (0, 0, 0), "{round:?}");
        assert_eq!(site.status().pending, 0);
    }
    bob.sync().await;
    bob.run("UPDATE todos SET title = 'third' WHERE id = 'edited'").await;
    bob.run("DELETE FROM todos WHERE id = 'short'").await;
    bob.run("INSERT INTO todos VALUES ('gone', 'again')").await;
    for site in [&bob, &ann, &eve, &bob] {
        let round = site.sync().await;
        assert_eq!((round.drifted, round.superseded, round.rejected), (0, 0, 0), "{round:?}");
    }
    let wanted = [
        "'edited'|'third'",
        "'gone'|'again'",
        "'kept'|'bob'",
        "'new'|'ann'",
        "'unsent'|'of tomorrow'",
    ];
    for site in [&mut ann, &mut bob, &mut eve] {
        assert_eq!(site.rows("todos", COLUMNS).await, wanted);
    }
}

#[tokio::test]
async fn followers_go_on_when_the_servers_clock_is_set_back_under_them() {
    let setup = Setup::new();
    let (server, [mut ann, mut bob, mut eve]) = three_of_tomorrow(&setup).await;
    let mut followers = Vec::new();
    for site in [&ann, &bob, &eve] {
        let (replica, (stop, stopped)) = (site.replica.clone(), oneshot::channel::<()>());
        let ended = async { stopped.await.unwrap_or(()) };
        followers.push((stop, tokio::spawn(async move { replica.follow(ended).await })));
        let mut status = site.replica.status();
        within(status.wait_for(|status| status.following)).await.expect("it follows");
    }
    setup.clock.set(NOW_MS);
    ann.run("INSERT INTO todos VALUES ('new', 'ann')").await;
    bob.run("UPDATE todos SET title = 'bob' WHERE id = 'edited'").await;
    eve.run("DELETE FROM todos WHERE id = 'gone'").await;
    let wanted = ["'edited'|'bob'", "'kept'|'x'", "'new'|'ann'"];
    for site in [&mut ann, &mut bob, &mut eve] {
        shows(site, &wanted).await;
    }
    for (stop, task) in followers {
        stop.send(()).expect("still following");
        within(task).await.expect("no panic");
    }
    server.stop().await.expect("drained");
}

//! A backend as a new user gets one: a URL in the environment, and rows to be queried.

use lakesync_adapters::testing::{Fault, Proxy};
use tonic::Code;

use super::servers::Database;
use crate::harness::changes::{at, upsert};
use crate::harness::process::{Served, lakesync, run};
use crate::harness::{Setup, assert_refused, within};
use crate::processes::{hlc_now, set_up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_is_all_it_takes() {
    for database in Database::all().await {
        let place = tempfile::tempdir().expect("a directory");
        let data = place.path().join("data");
        let data_text = data.to_str().expect("text");
        let mut command = lakesync(["serve", "--data", data_text, "--listen", "127.0.0.1:0"]);
        command.env("LAKESYNC_BACKEND_URL", database.url(database.address()));
        let served = Served::spawn(command, &data).await;
        let client = served.client("ann").await;
        set_up(&client).await;
        let milk = upsert("ann", hlc_now(), "todos/1", &[("title", "milk")]);
        client.push([milk]).await.expect("pushed");
        assert_eq!(client.flush().await.expect("flushed").position, 1);
        let table = format!("{}.{}", database.quoted("main"), database.quoted("todos"));
        assert_eq!(
            database.ask(&format!("SELECT id, title, done FROM {table}")).await,
            ["1|milk|∅"]
        );
        served.signal("TERM").await;
        let ended = served.ended().await;
        assert!(ended.status.success(), "{ended:?}");
        let said = ended.stdout + &ended.stderr;
        assert!(!said.contains(lakesync_adapters::testing::PASSWORD), "{said}");
        database
            .ask(&format!("DROP SCHEMA {} CASCADE", database.quoted("main")).replace(
                " CASCADE",
                match database {
                    Database::Postgres(_) => " CASCADE",
                    Database::MariaDb(_) => "",
                },
            ))
            .await;
    }
}

#[tokio::test]
async fn a_backend_that_is_configured_wrongly_is_told_before_anything_starts() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("lakesync.toml");
    for (text, says) in [
        ("[backends.a]\nkind = 'oracle'\n", "backends.a: kind = \"oracle\""),
        ("[backends.a]\nkind = 'postgres'\nurl = 'nonsense'\n", "backends.a: the url"),
        ("flush_to = ['b']\n", "flush_to: there is no backend b"),
        (
            "[backends.a]\nkind = 'postgres'\nurl = 'postgres://x@h/d'\n[backends.b]\n\
             kind = 'postgres'\nurl = 'postgres://y:z@h:5432/d'\n",
            "backends.b: it is the same place as a",
        ),
        ("backend_url = 'ftp://x'\n", "postgres:// or mysql://"),
    ] {
        std::fs::write(&file, text).expect("written");
        let data = place.path().join("data");
        let arguments = [
            "serve",
            "--config",
            file.to_str().expect("text"),
            "--data",
            data.to_str().expect("text"),
        ];
        let ended = run(lakesync(arguments)).await;
        assert_eq!(ended.status.code(), Some(78), "{text}: {ended:?}");
        assert!(ended.stderr.contains(says), "{text}: {}", ended.stderr);
        assert!(!data.exists(), "nothing was made");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_could_never_be_flushed_is_not_created() {
    for database in Database::all().await {
        let (schema, illegal) = match database {
            Database::Postgres(_) => ("app_{gateway}", "g".repeat(63)),
            Database::MariaDb(_) => ("{gateway}", "mysql".to_owned()),
        };
        let place = database.settings("a", schema, database.address());
        let server = Setup::new().flush_to_settings(&place).start().await;
        let mut admin = server.client("operator").await;
        let created = admin.create_gateway(&illegal).await;
        let status = assert_refused(created, Code::InvalidArgument, "INVALID_REQUEST");
        assert!(status.message().contains("backend a: "), "{status:?}");
        admin.create_gateway("fitting").await.expect("created");
        server.stop().await.expect("stopped");
    }
}

/// Who has mistyped a password reads so when the server starts, and not after the first row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_can_t_be_used_is_told_at_the_start() {
    for database in Database::all().await {
        let place = tempfile::tempdir().expect("a directory");
        let data = place.path().join("data");
        let data_text = data.to_str().expect("text");
        let mut command = lakesync(["serve", "--data", data_text, "--listen", "127.0.0.1:0"]);
        let url = database.url(database.address());
        let url = url.replace(lakesync_adapters::testing::PASSWORD, "canary");
        command.env("LAKESYNC_BACKEND_URL", url);
        let served = Served::spawn(command, &data).await;
        served.signal("TERM").await;
        let ended = served.ended().await;
        assert!(ended.status.success(), "it serves all the same: {ended:?}");
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains("put the user and the password of the url right"), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
}

/// Old rows move by themselves, but none that may be somebody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_moves_no_rows_of_another_gateway() {
    for database in Database::all().await {
        let (hot, cold) = (database.fresh(), database.fresh());
        let place = |name: &str, schema| database.settings(name, schema, database.address());
        let places = place("hot", &hot) + &place("cold", &cold);
        let tier_after = |after: &str| {
            format!(
                "flush_to = ['both']\n{places}[backends.both]\nkind = 'tier'\nhot = 'hot'\n\
                 cold = 'cold'\nafter = '{after}'\nflush_age = '0s'\n"
            )
        };
        let all_is_old = tier_after("0s");
        let milk = upsert("ann", at(1), "todos/1", &[("title", "milk")]);
        let count = async |schema: &str| {
            let table = format!("{}.{}", database.quoted(schema), database.quoted("todos"));
            database.ask(&format!("SELECT count(*) FROM {table}")).await
        };
        let owner = Setup::new().flush_to_settings(&tier_after("24h"));
        let server = owner.start_with_tables().await;
        let ann = server.client("ann").await;
        ann.push([milk.clone()]).await.expect("pushed");
        ann.flush().await.expect("flushed");
        drop(ann);
        server.stop().await.expect("stopped");

        let stranger = Setup::new().flush_to_settings(&all_is_old);
        let server = stranger.start_with_tables().await;
        let bob = server.client("bob").await;
        bob.push([milk]).await.expect("pushed");
        for _ in 0..5 {
            let status =
                assert_refused(bob.flush().await, Code::Unavailable, "BACKEND_UNAVAILABLE");
            assert!(status.message().contains("another gateway"), "{status:?}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(count(&hot).await, ["1"]);
        drop(bob);
        server.stop().await.expect("stopped");

        let server = Setup::again(&owner).flush_to_settings(&all_is_old).start().await;
        let ann = server.client("ann").await;
        ann.flush().await.expect("flushed");
        within(async { while count(&hot).await != ["0"] {} }).await;
        assert_eq!(count(&cold).await, ["1"]);
        drop(ann);
        server.stop().await.expect("stopped");
    }
}

/// A follower that is away holds nothing up, and is told of until it has come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_in_trouble_is_told_of() {
    for database in Database::all().await {
        let primary = database.settings("primary", &database.fresh(), database.address());
        let proxy = Proxy::start(database.address()).await;
        proxy.set(Fault::Refuse);
        let gone = database.settings("gone", &database.fresh(), proxy.address());
        let both = "[backends.both]\nkind = 'fan_out'\nprimary = 'primary'\n\
                    followers = ['gone']\nflush_age = '0s'\n";
        let setup = Setup::new().flush_to_settings(&format!("{primary}{gone}{both}"));
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        let troubles = within(async {
            for nth in 0.. {
                let row = format!("todos/{nth}");
                ann.push([upsert("ann", at(nth), &row, &[("title", "x")])]).await.expect("pushed");
                ann.flush().await.expect("the primary has it");
                let stats = ann.stats().await.expect("figures");
                let troubles = stats.backends["both"].troubles.join("\n");
                if !troubles.is_empty() {
                    return troubles;
                }
            }
            unreachable!("it goes on until there is trouble")
        });
        let troubles = troubles.await;
        assert!(troubles.contains("follower gone: "), "{troubles}");
        proxy.heal();
        within(async {
            for nth in 1_000.. {
                let row = format!("todos/{nth}");
                ann.push([upsert("ann", at(nth), &row, &[("title", "x")])]).await.expect("pushed");
                ann.flush().await.expect("flushed");
                let stats = ann.stats().await.expect("figures");
                if stats.backends["both"].troubles.is_empty() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        server.stop().await.expect("stopped");
    }
}

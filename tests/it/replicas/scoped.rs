//! Replicas under sync rules: each file holds its token's rows, whatever moves, and what may not be
//! written is kept aside with the reason.

use std::sync::Arc;
use std::time::Duration;

use lakesync::rules::Draft;
use lakesync_client::transport::connect;
use lakesync_server::auth::Grant;
use serde_json::{Value as Json, json};

use super::dice::Dice;
use super::flaky::Flaky;
use super::site::{File, Site, config, serve};
use crate::harness::{MAIN, Server, Setup, grant, within};
use crate::rules::made_up::{bucket, filter, service};
use crate::rules::world::put;

const MADE_BY: &str = "CREATE TABLE docs (id TEXT PRIMARY KEY NOT NULL, owner TEXT, body TEXT)";
const COLUMNS: &str = "id, owner, body";

/// Documents are their owner's; `service` may do everything.
fn rules() -> Draft {
    let mine = bucket("mine", &["docs"], vec![filter("owner", &["jwt:sub"])]);
    Draft { version: 1, buckets: vec![mine, service()] }
}

/// A replica of `file` whose token has these claims.
async fn open(server: &Server, file: File, subject: &str, claims: Json) -> Site {
    let claims = claims.as_object().expect("an object").clone();
    let token = server.token(&Grant { claims, ..grant(subject, "sync admin") });
    let url = format!("http://{}", server.address);
    let line = connect(&url, Some(token.into())).expect("a good URL");
    file.open(config(Arc::new(line))).await
}

/// A server under the rules, the device of one who may do everything, and ann's.
async fn start(setup: &Setup) -> (Server, Site, Site) {
    let server = serve(setup).await;
    let mut operator = server.client("operator").await;
    operator.create_gateway(MAIN).await.expect("created");
    let file = File::made_by(MADE_BY).await;
    let service = open(&server, file, "service", json!({"role": "service"})).await;
    service.replica.adopt(&["docs".parse().expect("a name")]).await.expect("adopted");
    service.sync().await;
    put(&operator, &rules()).await.expect("legal rules");
    let mut ann = open(&server, File::made_by("").await, "ann", json!({})).await;
    ann.sync().await;
    assert_eq!(ann.rows("docs", COLUMNS).await, Vec::<String>::new());
    (server, service, ann)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_holds_its_tokens_rows_and_what_may_not_be_written_is_kept_aside() {
    let (_server, mut service, mut ann) = start(&Setup::new()).await;
    service.run("INSERT INTO docs VALUES ('a', 'ann', 'x'), ('b', 'bob', 'x')").await;
    service.sync().await;
    ann.sync().await;
    assert_eq!(ann.rows("docs", COLUMNS).await, ["'a'|'ann'|'x'"]);

    // A row leaves while ann has an unsent change of it: neither is lost in silence.
    ann.run("UPDATE docs SET body = 'unsent' WHERE id = 'a'").await;
    service.run("UPDATE docs SET owner = 'bob', body = 'secret' WHERE id = 'a'").await;
    service.run("UPDATE docs SET owner = 'ann' WHERE id = 'b'").await;
    service.sync().await;
    let round = ann.sync().await;
    assert_eq!(round.rejected, 1, "{round:?}");
    assert_eq!(ann.rows("docs", COLUMNS).await, ["'b'|'ann'|'x'"], "it arrives whole");
    let kept = ann.rows("_lakesync_rejected", "row_id, reason, cells").await;
    assert_eq!(kept, [r#"'a'|'OUT_OF_SCOPE'|'{"body":"unsent"}'"#]);

    // What she may not write comes back as the gateway has it.
    ann.run("INSERT INTO docs VALUES ('c', 'bob', 'a gift'), ('d', 'ann', 'mine')").await;
    ann.run("UPDATE docs SET owner = 'bob' WHERE id = 'b'").await;
    let round = ann.sync().await;
    assert_eq!((round.accepted, round.rejected), (1, 2), "{round:?}");
    assert_eq!(ann.rows("docs", COLUMNS).await, ["'b'|'ann'|'x'", "'d'|'ann'|'mine'"]);
    assert_eq!(ann.status().pending, 0);
    service.sync().await;
    let all = ["'a'|'bob'|'secret'", "'b'|'ann'|'x'", "'d'|'ann'|'mine'"];
    assert_eq!(service.rows("docs", COLUMNS).await, all);
    service.run("DELETE FROM docs WHERE id = 'd'").await;
    service.sync().await;
    ann.sync().await;
    assert_eq!(ann.rows("docs", COLUMNS).await, ["'b'|'ann'|'x'"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rules_and_claims_take_and_bring_rows_and_keep_unsent_changes() {
    let (server, mut service, mut ann) = start(&Setup::new()).await;
    service
        .run("INSERT INTO docs VALUES ('a', 'ann', 'x'), ('b', 'bob', 'x'), ('c', 'cyd', 'x')")
        .await;
    service.sync().await;
    ann.sync().await;
    ann.run("INSERT INTO docs VALUES ('unsent', 'ann', 'y')").await;

    let mut wider = rules();
    wider.buckets[0].filters = vec![filter("owner", &["jwt:sub", "bob"])];
    let operator = server.client("operator").await;
    put(&operator, &wider).await.expect("legal rules");
    let round = ann.sync().await;
    assert!(round.checkpoint && round.accepted == 1, "{round:?}");
    let both = ["'a'|'ann'|'x'", "'b'|'bob'|'x'", "'unsent'|'ann'|'y'"];
    assert_eq!(ann.rows("docs", COLUMNS).await, both);

    put(&operator, &rules()).await.expect("legal rules");
    ann.run("UPDATE docs SET body = 'too late' WHERE id = 'b'").await;
    let round = ann.sync().await;
    assert_eq!(round.rejected, 1, "{round:?}");
    assert_eq!(ann.rows("docs", COLUMNS).await, ["'a'|'ann'|'x'", "'unsent'|'ann'|'y'"]);

    // The same file, under a token that opens everything, and under its own again.
    let mut ann = open(&server, ann.closed(), "ann", json!({"role": "service"})).await;
    ann.sync().await;
    assert_eq!(ann.rows("docs", COLUMNS).await.len(), 4);
    let mut ann = open(&server, ann.closed(), "ann", json!({})).await;
    ann.sync().await;
    assert_eq!(ann.rows("docs", COLUMNS).await, ["'a'|'ann'|'x'", "'unsent'|'ann'|'y'"]);
    service.sync().await;
    assert_eq!(service.rows("docs", COLUMNS).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_told_of_moves_and_goes_on_under_other_rules() {
    let (server, mut service, mut ann) = start(&Setup::new()).await;
    let replica = ann.replica.clone();
    let following = tokio::spawn(async move { replica.follow(std::future::pending()).await });
    let arrives = async |ann: &mut Site, wanted: &[&str]| {
        within(async {
            let mut ticks = tokio::time::interval(Duration::from_millis(2));
            while ann.rows("docs", COLUMNS).await != wanted {
                ticks.tick().await;
            }
        })
        .await;
    };
    service.run("INSERT INTO docs VALUES ('a', 'ann', 'x'), ('b', 'bob', 'x')").await;
    service.sync().await;
    arrives(&mut ann, &["'a'|'ann'|'x'"]).await;
    service.run("UPDATE docs SET owner = iif(owner = 'ann', 'bob', 'ann')").await;
    service.sync().await;
    arrives(&mut ann, &["'b'|'ann'|'x'"]).await;
    let mut wider = rules();
    wider.buckets[0].filters = vec![filter("owner", &["jwt:sub", "bob"])];
    put(&server.client("operator").await, &wider).await.expect("legal rules");
    arrives(&mut ann, &["'a'|'bob'|'x'", "'b'|'ann'|'x'"]).await;
    following.abort();
}

/// Ann's second device.
async fn another(server: &Server) -> Site {
    let site = open(server, File::made_by("").await, "ann", json!({})).await;
    site.sync().await;
    site
}

/// Later than anything before, by any clock: what a device takes for the time is as exact as the way
/// to the server is short.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_made_and_deleted_offline_is_so_for_an_older_one_of_its_id() {
    let (server, _service, mut phone) = start(&Setup::new()).await;
    let mut laptop = another(&server).await;
    laptop.run("INSERT INTO docs VALUES ('settings', 'ann', 'laptop')").await;
    a_while().await;
    phone.run("INSERT INTO docs VALUES ('settings', 'ann', 'phone')").await;
    phone.run("DELETE FROM docs WHERE id = 'settings'").await;
    phone.sync().await;
    laptop.sync().await;
    phone.sync().await;
    for device in [&mut phone, &mut laptop] {
        assert_eq!(device.rows("docs", COLUMNS).await, Vec::<String>::new());
        assert_eq!(device.rows("_lakesync_rejected", "reason").await, Vec::<String>::new());
    }
    a_while().await;
    laptop.run("INSERT INTO docs VALUES ('settings', 'ann', 'again')").await;
    laptop.sync().await;
    phone.sync().await;
    assert_eq!(phone.rows("docs", COLUMNS).await, ["'settings'|'ann'|'again'"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_left_before_its_push_was_repeated_is_gone() {
    let (server, _service, ann) = start(&Setup::new()).await;
    let operator = server.client("operator").await;
    let token = server.token(&Grant { ..grant("ann", "sync admin") });
    let line = connect(&format!("http://{}", server.address), Some(token.into()));
    let flaky = Flaky::new(Arc::new(line.expect("a good URL")), Dice::new(1));
    flaky.heal();
    let mut ann = ann.closed().open(config(Arc::new(flaky.clone()))).await;
    ann.sync().await;
    ann.run("INSERT INTO docs VALUES ('x', 'ann', 'text')").await;
    flaky.lose_reply();
    ann.replica.sync().await.expect_err("the answer is lost");
    let mut nobodys = rules();
    nobodys.buckets.remove(0);
    put(&operator, &nobodys).await.expect("legal rules");
    ann.sync().await;
    assert_eq!(ann.rows("docs", COLUMNS).await, Vec::<String>::new());
    assert_eq!(ann.rows("_lakesync_rejected", "reason").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_given_away_is_given_back_whole_to_a_restored_gateway() {
    let (setup, copy) = (Setup::new(), Setup::new());
    let (server, service, ann) = start(&setup).await;
    server.stop().await.expect("drained");
    let store = crate::harness::open(&setup.data(), 0).await;
    store.backup(&copy.data()).await.expect("copied");
    store.close().await.expect("closed");

    let server = serve(&setup).await;
    let role = json!({"role": "service"});
    let mut service = open(&server, service.closed(), "service", role).await;
    let mut ann = open(&server, ann.closed(), "ann", json!({})).await;
    service.run("INSERT INTO docs VALUES ('x', 'bob', 'text')").await;
    service.sync().await;
    service.run("UPDATE docs SET owner = 'ann' WHERE id = 'x'").await;
    service.run("INSERT INTO docs VALUES ('gone', 'ann', 'text')").await;
    service.sync().await;
    ann.sync().await;
    ann.run("DELETE FROM docs WHERE id = 'gone'").await;
    ann.sync().await;
    server.stop().await.expect("drained");

    // Of what she gives back the older half is nobody's, until the younger has made it hers; and the
    // delete of a row that was never there is no news to anybody.
    let server = serve(&copy).await;
    let mut ann = open(&server, ann.closed(), "ann", json!({})).await;
    ann.sync().await;
    assert_eq!(ann.rows("docs", COLUMNS).await, ["'x'|'ann'|'text'"]);
    assert_eq!(ann.rows("_lakesync_rejected", "reason").await, Vec::<String>::new());
    let mut laptop = another(&server).await;
    assert_eq!(laptop.rows("docs", COLUMNS).await, ["'x'|'ann'|'text'"]);
}

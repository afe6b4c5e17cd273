//! The commands of operators: what they print for people, what they print as JSON, what they ask
//! before, and how they end.

use std::path::Path;

use lakesync::clock::{SystemClock, WallClock};
use lakesync_server::auth::{Grant, Secret};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{hlc_now, set_up};
use crate::harness::changes::upsert;
use crate::harness::process::{Ended, Served, lakesync, run};
use crate::harness::{Client, grant};

/// A server with the gateway `main` and two rows in it, and who administers it.
struct Office {
    _dir: TempDir,
    served: Served,
    operator: Client,
    url: String,
    token: String,
}

impl Office {
    async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let served = Served::start(dir.path(), &[]).await;
        let token = sign(dir.path(), &grant("ann", "sync admin"));
        let operator = Client::connect(served.address, "ann", &token).await;
        set_up(&operator).await;
        let rows = ["a", "b"]
            .map(|id| upsert("ann", hlc_now(), &format!("todos/{id}"), &[("title", "x")]));
        operator.push(rows).await.expect("answered");
        let url = format!("http://{}", served.address);
        Self { _dir: dir, served, operator, url, token }
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_as(&self.token, arguments).await
    }

    async fn run_as(&self, token: &str, arguments: &[&str]) -> Ended {
        let place = ["--url", &self.url, "--token", token];
        run(lakesync(arguments.iter().copied().chain(place))).await
    }

    /// What a command prints as JSON.
    async fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[arguments, &["--json"]].concat()).await;
        assert!(ended.status.success(), "{ended:?}");
        serde_json::from_str(&ended.stdout).expect("one JSON document")
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self._dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    }
}

fn sign(data: &Path, grant: &Grant) -> String {
    let secret = Secret::load_or_create(data).expect("a secret");
    grant.sign(&secret, SystemClock.now_ms()).expect("a token")
}

/// It failed with this code and one line that says these words.
#[track_caller]
fn assert_failed(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.status.code(), Some(code), "{ended:?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in {ended:?}");
    }
}

/// It succeeded and printed all of these words.
#[track_caller]
fn assert_says(ended: &Ended, words: &[&str]) {
    assert!(ended.status.success(), "{ended:?}");
    for word in words {
        assert!(ended.stdout.contains(word), "no {word:?} in {ended:?}");
    }
}

#[tokio::test]
async fn status_says_what_a_gateway_holds() {
    let office = Office::open().await;
    let status = office.json(&["status"]).await;
    let figures =
        ["gateway", "head", "tail", "rows", "followers", "backends"].map(|name| &status[name]);
    assert_eq!(figures, [&json!("main"), &json!(1), &json!(0), &json!(2), &json!(0), &json!({})]);
    assert_says(
        &office.run(&["status"]).await,
        &["gateway main", "2 rows, 0 followers", "no backend"],
    );
    let other = office.run(&["status", "--gateway", "other"]).await;
    assert_failed(&other, 64, &["GATEWAY_NOT_FOUND", "lakesync gateways"]);
    let wrong = office.run_as("nonsense", &["status"]).await;
    assert_failed(&wrong, 64, &["TOKEN_INVALID", "lakesync token --data"]);
    let scope = sign(office._dir.path(), &grant("bob", "sync"));
    assert_failed(
        &office.run_as(&scope, &["status"]).await,
        64,
        &["SCOPE_MISSING", "--scope admin"],
    );
    let nobody = ["status", "--url", "http://127.0.0.1:1", "--token", "x"];
    assert_failed(&run(lakesync(nobody)).await, 69, &["http://127.0.0.1:1"]);
    let without = ["status", "--url", "http://127.0.0.1:1"];
    assert_failed(&run(lakesync(without)).await, 64, &["LAKESYNC_TOKEN"]);
}

#[tokio::test]
async fn gateways_are_listed_made_and_deleted() {
    let office = Office::open().await;
    assert_says(&office.run(&["gateways", "--create", "other"]).await, &["other  made 20"]);
    let again = office.run(&["gateways", "--create", "other"]).await;
    assert_failed(&again, 64, &["GATEWAY_EXISTS"]);
    let names = |all: &Value| {
        let all = all["gateways"].as_array().expect("a list").iter();
        all.map(|one| one["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&office.json(&["gateways"]).await), ["main", "other"]);
    let unasked = office.run(&["gateways", "--delete", "other"]).await;
    assert_failed(&unasked, 64, &["nothing was changed", "--yes"]);
    assert_eq!(names(&office.json(&["gateways"]).await), ["main", "other"]);
    assert_says(&office.run(&["gateways", "--delete", "other", "--yes"]).await, &["other deleted"]);
    assert_eq!(names(&office.json(&["gateways"]).await), ["main"]);
}

#[tokio::test]
async fn a_schema_is_put_as_it_is_printed() {
    let office = Office::open().await;
    let printed = office.json(&["schema"]).await;
    assert_says(&office.run(&["schema"]).await, &["todos  (version 1", "title", "string"]);
    let same = office.file("same.json", &printed.to_string());
    assert_eq!(office.json(&["schema", "--put", &same]).await, printed);
    let wider = r#"{"tables": [{"table": "costs", "columns": [{"name": "cost", "type": "decimal",
        "precision": 10, "scale": 2}]}]}"#;
    let wider = office.file("wider.json", wider);
    let rehearsed = office.run(&["schema", "--put", &wider, "--dry-run"]).await;
    assert_says(&rehearsed, &["costs", "decimal(10, 2)"]);
    assert_eq!(office.json(&["schema"]).await, printed, "a rehearsal changes nothing");
    assert_says(&office.run(&["schema", "--put", &wider]).await, &["costs"]);
    assert_says(&office.run(&["schema"]).await, &["costs", "todos"]);
    let wrong =
        r#"{"tables": [{"table": "costs", "columns": [{"name": "cost", "type": "bool"}]}]}"#;
    let wrong = office.file("wrong.json", wrong);
    assert_failed(&office.run(&["schema", "--put", &wrong]).await, 78, &["cost"]);
    let none = office.run(&["schema", "--put", "/no/such/file"]).await;
    assert_failed(&none, 74, &["/no/such/file"]);
}

#[tokio::test]
async fn without_backends_there_is_nowhere_to_flush_to() {
    let office = Office::open().await;
    assert_failed(&office.run(&["flush"]).await, 69, &["NO_BACKEND"]);
}

#[tokio::test]
async fn a_revoked_subjects_tokens_are_refused() {
    let office = Office::open().await;
    let bob = sign(office._dir.path(), &grant("bob", "sync admin"));
    assert_says(&office.run_as(&bob, &["status"]).await, &["gateway main"]);
    assert_eq!(office.json(&["revoke", "bob"]).await, json!({"gateway": "main", "revoked": "bob"}));
    assert_failed(&office.run_as(&bob, &["status"]).await, 64, &["TOKEN_INVALID"]);
}

const MINE: &str =
    "buckets:\n  - { name: mine, filters: [{ column: title, op: eq, value: 'jwt:sub' }] }\n";
const OPERATORS: &str = "  - { name: all, when: { sub: ann } }\n";

#[tokio::test]
async fn rules_that_take_rows_away_are_asked_about_and_can_be_taken_back() {
    let office = Office::open().await;
    assert_says(&office.run(&["rules", "get"]).await, &["no rules", "every row"]);
    assert_eq!(office.json(&["rules", "get"]).await, Value::Null);

    let mine = office.file("mine.yaml", MINE);
    let unasked = office.run(&["rules", "put", &mine]).await;
    assert_failed(&unasked, 64, &["nothing was changed", "--yes"]);
    for words in
        ["your own token would lose 2 of the 2 rows", "a token without claims would lose 2"]
    {
        assert!(unasked.stdout.contains(words), "no {words:?} in {unasked:?}");
    }
    assert_eq!(office.json(&["rules", "get"]).await, Value::Null, "nothing was changed");

    let safe = office.file("safe.yaml", &format!("{MINE}{OPERATORS}"));
    let put = office.run(&["rules", "put", &safe, "--yes"]).await;
    assert_says(&put, &["a token without claims would lose 2", "2 buckets in force"]);
    assert!(!put.stdout.contains("your own token"), "it loses nothing: {put:?}");
    // Nothing is lost by putting them again, so nobody is asked.
    assert_says(&office.run(&["rules", "put", &safe]).await, &["2 buckets in force"]);

    let printed = office.run(&["rules", "get"]).await;
    let again = office.file("again.json", &printed.stdout);
    assert_says(&office.run(&["rules", "put", &again]).await, &["2 buckets in force"]);

    let bob = sign(office._dir.path(), &grant("bob", "sync"));
    let bob = Client::connect(office.served.address, "bob", &bob).await;
    assert_eq!(bob.checkpoint().await.expect("rows").tables().len(), 0, "nothing is bob's");
    assert_failed(&office.run(&["rules", "delete"]).await, 64, &["nothing was changed"]);
    assert_says(&office.run(&["rules", "delete", "--yes"]).await, &["no rules any more"]);
    assert_eq!(office.json(&["rules", "get"]).await, Value::Null);
    let rows: usize =
        bob.checkpoint().await.expect("rows").tables().iter().map(|table| table.rows.len()).sum();
    assert_eq!(rows, 2, "without rules everybody sees everything");
    assert_eq!(office.operator.checkpoint().await.expect("rows").tables().len(), 1);
}

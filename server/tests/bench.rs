//! `lakesync bench` as a user runs it: the figures are the machine's affair, the work is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lakesync_adapters::testing::skip;
use serde_json::Value;

/// Runs a small bench and checks that both servers did all of the work, and that nothing is left.
fn check(work: &str, items: u64, more: &[&str]) {
    let place = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_lakesync"))
        .args(["bench", work, "--json", "--changes", "300", "--batch", "20", "--pairs", "2"])
        .arg("--data")
        .arg(place.path())
        .args(more)
        .output()
        .expect("started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{work}: {errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["work"], work);
    let pairs = report["pairs"].as_array().expect("pairs");
    assert_eq!(pairs.len(), 2);
    for side in pairs.iter().flat_map(|pair| [&pair["server"], &pair["yardstick"]]) {
        assert_eq!(side["items"], items, "{work}: {report:#}");
        assert!(side["rate"].as_f64().is_some_and(|rate| 0.0 < rate), "{report:#}");
    }
    assert!(report["median"]["ratio"].as_f64().is_some_and(|ratio| 0.0 < ratio), "{report:#}");
    let left = fs::read_dir(place.path()).expect("readable").count();
    assert_eq!(left, 0, "{work} leaves files behind");
}

#[test]
fn pushes_of_many_clients() {
    check("push", 300, &["--clients", "7"]);
}

#[test]
fn pulls_of_every_change() {
    check("pull", 600, &["--clients", "2"]);
}

#[test]
fn a_checkpoint_of_every_row() {
    // The others of the 300 changes write a row again.
    check("checkpoint", 276, &[]);
}

#[test]
fn what_cannot_be_is_refused() {
    for wrong in [["--clients", "0"], ["--batch", "10001"], ["--pairs", "0"], ["--changes", "-1"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_lakesync"))
            .args(["bench", "push"])
            .args(wrong)
            .output()
            .expect("started");
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
    }
}

/// What a bench of the server by itself reports; and that nothing is left of it.
fn report(arguments: &[&str]) -> Value {
    let place = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_lakesync"))
        .arg("bench")
        .args(arguments)
        .args(["--json", "--pairs", "1", "--data"])
        .arg(place.path())
        .output()
        .expect("started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(fs::read_dir(place.path()).expect("readable").count(), 0);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn sync_rules_with_an_owner_for_each_row() {
    let report = report(&["rules", "--changes", "3000", "--owners", "50", "--followers", "50"]);
    let share = report["own"]["own_share"].as_f64().expect("a share");
    assert!(0.0 < share && share < 0.1, "{report:#}");
    assert_eq!(report["followed"]["strays"], 0, "{report:#}");
    for kind in ["device", "mixed"] {
        let cost = report["pushes"][kind]["cost"].as_f64();
        assert!(cost.is_some_and(|cost| 0.0 < cost), "{report:#}");
    }
}

#[test]
fn a_noisy_tenant_beside_a_quiet_one() {
    let report = report(&["tenants", "--noisy", "4", "--rows-max", "500", "--seconds", "1"]);
    for figure in ["noisy_refused_per_s", "noisy_changes_per_s"] {
        assert!(report[figure].as_f64().is_some_and(|figure| 0.0 < figure), "{report:#}");
    }
    assert!(report["ratio"]["p50"].as_f64().is_some_and(|ratio| 0.0 < ratio), "{report:#}");
}

/// Runs a bench that needs a database; none if its programs are not there and may be missing.
fn with_database(arguments: &[&str]) -> Option<Value> {
    let place = tempfile::tempdir().expect("a directory");
    // Database servers are not root, even if we are.
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(place.path(), all).expect("permissions");
    let output = Command::new(env!("CARGO_BIN_EXE_lakesync"))
        .arg("bench")
        .args(arguments)
        .args(["--json", "--data"])
        .arg(place.path())
        .output()
        .expect("started");
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(69) && errors.contains("is missing, which comes with") {
        skip(&errors);
        return None;
    }
    assert!(output.status.success(), "{errors}");
    assert_eq!(fs::read_dir(place.path()).expect("readable").count(), 0, "something is left");
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn check_flush(backend: &str) {
    for history in ["true", "false"] {
        let arguments = ["flush", "--changes", "700", "--pairs", "1", "--batch", "150"];
        let more = ["--backend", backend, "--history", history];
        let Some(report) = with_database(&[&arguments[..], &more].concat()) else {
            return;
        };
        let median = &report["backends"][0]["median"];
        for figure in ["ratio", "mixed_ratio", "server", "yardstick", "mixed"] {
            assert!(median[figure].as_f64().is_some_and(|figure| 0.0 < figure), "{report:#}");
        }
    }
}

#[test]
fn a_flush_to_postgres() {
    check_flush("postgres");
}

#[test]
fn a_flush_to_mariadb() {
    check_flush("mysql");
}

#[test]
fn an_outage_that_nobody_who_pushes_notices() {
    let arguments = "outage --control --seconds 4 --settle 1 --rate 400 --clients 3";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let Some(report) = with_database(&arguments) else { return };
    assert_eq!(report["refused"], 0, "{report:#}");
    assert!(report["pushes"].as_u64().is_some_and(|pushes| 0 < pushes), "{report:#}");
    let lag = report["drain"]["changes"].as_u64();
    assert!(lag.is_some_and(|lag| 400 < lag), "nothing was held up: {report:#}");
    let seen = |series: &str| report[series].as_array().map_or(0, Vec::len);
    assert_eq!(seen("control_mib_by_second"), seen("memory_mib_by_second"), "{report:#}");
    assert!(report["memory_mib"]["over_control"].is_f64(), "{report:#}");
}

//! Which setting wins, and what an error says.

use super::*;

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn the_defaults_are_good() {
    let config = Texts::defaults().parse().expect("good");
    assert_eq!(config.offline_max, lakesync::limits::OFFLINE_MAX);
    assert_eq!(config.clock_drift_max, lakesync::limits::CLOCK_DRIFT_MAX);
    assert_eq!(config.ops_listen, None);
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("lakesync.toml");
    std::fs::write(&file, "listen = '127.0.0.1:1'\nstall_max = '1s'\ndev = true\n")
        .expect("written");
    let texts = Texts::defaults()
        .file(&file)
        .and_then(|texts| {
            texts.environment(variables(&[
                ("LAKESYNC_LISTEN", "127.0.0.1:2"),
                ("LAKESYNC_STALL_MAX", "2s"),
                ("LAKESYNC_IMPORT_FROM", "postgres://x"),
                ("LAKESYNC_TEST_REQUIRED", "1"),
                ("PATH", "/bin"),
            ]))
        })
        .and_then(|texts| texts.flags([("listen", Some("127.0.0.1:3".to_owned())), ("data", None)]))
        .expect("good");
    let config = texts.parse().expect("good");
    assert_eq!((config.listen.port(), config.stall_max), (3, Duration::from_secs(2)));
    assert!(config.dev);
    let lines: Vec<_> = texts.lines().collect();
    assert_eq!(lines.len(), KEYS.len());
    assert!(lines.contains(&"listen = \"127.0.0.1:3\" (flag --listen)".to_owned()), "{lines:?}");
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    let dir = tempfile::tempdir().expect("a directory");
    for (text, says) in [
        ("listen = 'nowhere'", "listen = \"nowhere\""),
        ("dev = 'perhaps'", "true or false"),
        ("offline_max = '90'", "ms, s, m, h or d"),
        ("offline_max = '99999999999d'", "hundred years"),
        ("offline_max = '99999999999999999ms'", "hundred years"),
        ("offline_max = '59m'", "1h at least"),
        ("clock_drift_max = '25h'", "1d at most"),
        ("clock_drift_max = '0s'", "1ms at least"),
        ("log_size_max = '1023KiB'", "1MiB at least"),
        ("queue_size_max = '7MiB'", "8MiB at least"),
        ("queue_size_max = '2TiB'", "1TiB at most"),
        ("readers_size_max = '7MiB'", "8MiB at least"),
        ("disk_reserve = '2000TiB'", "1024TiB at most"),
        ("stall_max = '999ms'", "1s at least"),
        ("drain_max = '61m'", "1h at most"),
        ("log_size_max = '4GB'", "KiB"),
        ("log_size_max = -1", "whole number"),
        ("log_format = 'xml'", "text or json"),
        ("log_level = 'inof'", "\"inof\" is no level"),
        ("log_level = ''", "is no level"),
        ("log_level = 'info,'", "is no level"),
        ("log_level = 'info,h2=loud'", "\"loud\" is no level"),
        ("log_level = 'info,h 2=debug'", "\"h 2\" is no module"),
        ("log_level = 'info,=debug'", "\"\" is no module"),
        ("log_level = 'info,h2=debug,h2=info'", "\"h2\" is given twice"),
        ("log_level = 'info,debug'", "\"debug\" is a second level"),
        ("log_level = 'lakesync_server=debug'", "info,lakesync_server=debug"),
        ("lissen = 'x'", "there is no setting lissen"),
        ("dev = [1]", "dev must be"),
        ("data = ''", "a path is needed"),
        ("\n\ndev = = 1", "line 3"),
    ] {
        let file = dir.path().join("lakesync.toml");
        std::fs::write(&file, text).expect("written");
        let parsed = Texts::defaults().file(&file).and_then(|texts| texts.parse());
        let error = parsed.expect_err(text).to_string();
        assert!(error.contains("lakesync.toml") && error.contains(says), "{text:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let unknown = Texts::defaults().environment(variables(&[("LAKESYNC_LISSEN", "x")]));
    assert!(unknown.expect_err("unknown").to_string().contains("LAKESYNC_LISSEN"));
    let missing = Texts::defaults().file(&dir.path().join("none.toml")).expect_err("missing");
    assert!(missing.to_string().contains("none.toml"));
}

#[cfg(unix)]
#[test]
fn a_variable_of_ours_that_is_no_text_is_an_error() {
    use std::os::unix::ffi::OsStringExt;

    let mangled = || OsString::from_vec(vec![b'/', 0xff]);
    let set = |name: &str| Texts::defaults().environment([(name.into(), mangled())]);
    let error = set("LAKESYNC_DATA").expect_err("no text").to_string();
    assert_eq!(error, "environment variable LAKESYNC_DATA: it is not UTF-8");
    for (name, value) in [("PATH".into(), mangled()), (mangled(), "x".into())] {
        assert!(Texts::defaults().environment([(name, value)]).is_ok(), "none of ours");
    }
}

#[test]
fn levels_for_single_modules_are_taken() {
    for text in ["off", "INFO", "warn,lakesync_server=debug", "h2=trace, info , sqlx::query=off"] {
        let texts = Texts::defaults().flags([("log_level", Some(text.to_owned()))]).expect("known");
        assert_eq!(texts.parse().expect("good").log_level, text.replace(' ', ""));
    }
}

#[test]
fn every_bound_is_a_legal_setting() {
    for bounds in [CLOCK_DRIFT, OFFLINE, STALL, DRAIN] {
        assert!(bounds.duration(bounds.min).is_ok() && bounds.duration(bounds.max).is_ok());
    }
    for bounds in [LOG_SIZE, QUEUE_SIZE, DISK_RESERVE] {
        assert!(bounds.size(bounds.min).is_ok() && bounds.size(bounds.max).is_ok());
    }
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let page = include_str!("../../../docs/OPERATIONS.md");
    for Key { name, default, .. } in KEYS {
        let shown = if default.is_empty() { "| |".to_owned() } else { format!("| `{default}` |") };
        assert!(
            page.contains(&format!("| `{name}` {shown}")),
            "docs/OPERATIONS.md lacks {name} {shown}"
        );
    }
}

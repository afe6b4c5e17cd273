//! What is locked keeps `deny.toml`'s bans: crates that never come in, and crates that come once.

use std::fs;
use std::path::Path;

#[test]
fn locked_crates_keep_the_bans() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("a file of the repository");
    let bans = bans(&read("deny.toml"));
    assert!(bans.contains(&Ban { name: "rsa".to_owned(), once: false }), "{bans:?}");
    assert!(bans.contains(&Ban { name: "tonic".to_owned(), once: true }), "{bans:?}");
    let lock = read("Cargo.lock");
    assert!(lock.contains("name = \"tonic\""), "the lock file is read");
    assert_eq!(broken(&bans, &lock), [""; 0]);
}

#[test]
fn a_banned_and_a_doubled_crate_are_found() {
    let bans = bans(
        "[bans]\ndeny = [\n    { crate = \"rsa\", reason = \"r\" },\n    \
         { crate = \"tonic\", deny-multiple-versions = true },\n]\nskip = [\n    \
         { crate = \"syn@2\" },\n]\n",
    );
    let lock = |names: &[&str]| -> String {
        names
            .iter()
            .map(|name| format!("[[package]]\nname = \"{name}\"\nversion = \"1\"\n"))
            .collect()
    };
    for (names, faults) in [
        (&["tonic", "syn", "syn"][..], &[][..]),
        (&["rsa"], &["rsa is banned"]),
        (&["tonic", "tonic"], &["tonic is there 2 times"]),
        (&["rsa-pss", "tonic-types", "tonic"], &[]),
    ] {
        assert_eq!(broken(&bans, &lock(names)), faults, "{names:?}");
    }
}

/// A crate that never comes in, or that comes in one version.
#[derive(Debug, PartialEq)]
struct Ban {
    name: String,
    once: bool,
}

/// The entries of `bans.deny`, one a line.
fn bans(policy: &str) -> Vec<Ban> {
    let listed =
        policy.lines().skip_while(|line| *line != "deny = [").take_while(|line| *line != "]");
    let ban = |line: &str| {
        let name = line.trim_start().strip_prefix("{ crate = \"")?.split('"').next()?;
        Some(Ban { name: name.to_owned(), once: line.contains("deny-multiple-versions = true") })
    };
    listed.filter_map(ban).collect()
}

fn broken(bans: &[Ban], lock: &str) -> Vec<String> {
    let fault = |ban: &Ban| {
        let entry = format!("name = \"{}\"", ban.name);
        let count = lock.lines().filter(|line| **line == entry).count();
        match ban.once {
            false if 0 < count => Some(format!("{} is banned", ban.name)),
            true if 1 < count => Some(format!("{} is there {count} times", ban.name)),
            _ => None,
        }
    };
    bans.iter().filter_map(fault).collect()
}

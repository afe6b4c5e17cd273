//! Between crates, use is as drawn: by the manifests and by what the sources name.

use super::{File, check, head, hold, is_word};

/// Who may use whom. The server's client is for its binary, as are the crates below.
const EDGES: [(&str, &[&str]); 4] = [
    ("adapters", &[]),
    ("compactor", &["adapters"]),
    ("client", &[]),
    ("server", &["adapters", "compactor", "client"]),
];
const BINARY: &str = "server/src/bin/";
const BINARY_ONLY: [&str; 4] = ["clap", "indicatif", "sqlx", "tempfile"];

#[test]
fn crates_use_each_other_as_drawn() {
    hold(crate_edges);
    let edge = |dir: &str, code: &str, faults: &[&str]| check(crate_edges, dir, code, faults);
    edge("src/row.rs", "use lakesync_client::Replica;\n", &["the core names `client`"]);
    edge("src/row.rs", "// As lakesync_server does.\n", &["the core names `server`"]);
    edge("src/row.rs", "const OUTBOX: &str = \"_lakesync_outbox\";\n", &[]);
    edge("client/src/a.rs", "lakesync_server::run();\n", &["`client` must not use `server`"]);
    edge(
        "adapters/tests/it/main.rs",
        "use lakesync_server as s;\n",
        &["`adapters` must not use `server`"],
    );
    edge("server/src/a.rs", "use lakesync_adapters::Memory;\n", &[]);
    edge(
        "server/src/a.rs",
        "use lakesync_client::Replica;\n",
        &["only the binary may use `client`"],
    );
    edge("server/src/bin/lakesync/a.rs", "use {lakesync_client::Replica, clap::Parser};\n", &[]);
    edge("server/src/a.rs", "#[derive(clap::Parser)]\n", &["only the binary may use `clap`"]);
    edge("server/src/a.rs", "use sqlx;\n", &["only the binary may use `sqlx`"]);
    edge("server/src/a.rs", "let filter = \"sqlx=warn\";\n", &[]);
    edge("server/src/a/tests.rs", "let dir = tempfile::tempdir();\n", &[]);
    edge("tests/it/main.rs", "use lakesync_server::App;\nuse lakesync_client::Replica;\n", &[]);
}

fn crate_edges(file: &File) -> Vec<String> {
    let members = EDGES.map(|(member, _)| member);
    let own = file.path.split('/').next().unwrap_or_default();
    if !file.is_rust() {
        return Vec::new();
    }
    if own == "src" {
        let named = |member: &str| file.text.contains(&format!("lakesync_{member}"));
        return members
            .iter()
            .filter(|member| named(member))
            .map(|m| format!("the core names `{m}`"))
            .collect();
    }
    let Some((_, allowed)) = EDGES.iter().find(|(member, _)| *member == own) else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    let (product, tests) = file.product_and_tests();
    for member in members.into_iter().filter(|member| *member != own) {
        let name = format!("lakesync_{member}");
        if !names_crate(&product, &name) && !names_crate(&tests, &name) {
            continue;
        }
        if !allowed.contains(&member) {
            faults.push(format!("`{own}` must not use `{member}`"));
        } else if (own, member) == ("server", "client") && !file.path.starts_with(BINARY) {
            faults.push("only the binary may use `client`".to_owned());
        }
    }
    if own == "server" && !file.path.starts_with(BINARY) {
        let used = BINARY_ONLY.iter().filter(|name| names_crate(&product, name));
        faults.extend(used.map(|name| format!("only the binary may use `{name}`")));
    }
    faults
}

/// Whether `code` has a path that begins with `name`, or imports it whole.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        whole && (after.starts_with("::") || before.ends_with("use "))
    })
}

#[test]
fn manifests_draw_the_same_edges() {
    hold(manifest);
    let lines = |section: &str, line: &str| format!("[{section}]\n{line}\n");
    let edge = |path: &str, section: &str, line: &str, faults: &[&str]| {
        check(manifest, path, &lines(section, line), faults);
    };
    edge("client/Cargo.toml", "dependencies", "lakesync.workspace = true", &[]);
    let up = ["`client` must not depend on `server`"];
    edge("client/Cargo.toml", "dependencies", "lakesync-server.workspace = true", &up);
    edge(
        "client/Cargo.toml",
        "dev-dependencies",
        "lakesync-server = { path = \"../server\" }",
        &up,
    );
    edge("client/Cargo.toml", "dependencies.lakesync-server", "workspace = true", &up);
    let itself = "lakesync-client = { path = \".\", features = [\"testing\"] }";
    edge("client/Cargo.toml", "dev-dependencies", itself, &[]);
    let twice = ["`client` must not depend on `client`"];
    edge("client/Cargo.toml", "dependencies", itself, &twice);
    edge("server/Cargo.toml", "dependencies", "lakesync-client.workspace = true", &[]);
    let core = ["the core must not depend on `client`"];
    edge("Cargo.toml", "dependencies", "lakesync-client.workspace = true", &core);
    edge("Cargo.toml", "build-dependencies", "lakesync-client = { path = \"client\" }", &core);
    edge("Cargo.toml", "dev-dependencies", "lakesync-client = { path = \"client\" }", &[]);
    let by_path = ["tests name `client` by path alone, so that publishing drops it"];
    edge("Cargo.toml", "dev-dependencies", "lakesync-client.workspace = true", &by_path);
    edge("Cargo.toml", "workspace.dependencies", "lakesync-client = { path = \"client\" }", &[]);
}

fn manifest(file: &File) -> Vec<String> {
    let Some(dir) = file.path.strip_suffix("Cargo.toml") else { return Vec::new() };
    let own = dir.trim_end_matches('/');
    let allowed = EDGES.iter().find(|(member, _)| *member == own).map_or(&[][..], |(_, to)| to);
    let (mut faults, mut section) = (Vec::new(), "");
    for line in file.text.lines() {
        let named = match line.strip_prefix('[') {
            Some(title) => {
                section = title.trim_end_matches(']');
                section.rsplit_once(".lakesync-").map(|(_, member)| member)
            }
            None => line.strip_prefix("lakesync-"),
        };
        let Some(member) = named.map(head) else { continue };
        let tests = section.starts_with("dev-dependencies");
        if section.starts_with("workspace") || allowed.contains(&member) {
            continue;
        }
        // A crate's own tests may ask for a feature of it, such as a suite it publishes.
        if tests && member == own && line.contains("path = \".\"") {
            continue;
        }
        match (own.is_empty(), tests) {
            (true, true) if line.contains("path = ") && !line.contains("version") => {}
            (true, true) => faults
                .push(format!("tests name `{member}` by path alone, so that publishing drops it")),
            (true, false) => faults.push(format!("the core must not depend on `{member}`")),
            (false, _) => faults.push(format!("`{own}` must not depend on `{member}`")),
        }
    }
    faults
}

//! Inside the root crate and inside the server, imports point downward: what stands low knows nothing
//! of what uses it.

use super::{File, check, files, head, hold, is_word};

/// The modules of the root crate in reading order: each may use those before it.
const LAYERS: [&str; 18] = [
    "error", "limits", "calendar", "clock", "name", "value", "hlc", "stamp", "schema", "row_id",
    "delta", "row", "merge", "rules", "adapter", "proto", "wire", "status",
];

/// The modules of the server, likewise. Its binary stands above them all.
const SERVER_LAYERS: [&str; 8] =
    ["config", "telemetry", "auth", "store", "gateway", "flush", "service", "app"];

/// A crate whose imports point downward: where its modules lie, and in which order they may use each
/// other.
type House = (&'static str, &'static [&'static str]);

const HOUSES: [House; 2] = [("src/", &LAYERS), ("server/src/", &SERVER_LAYERS)];

/// Files and modules that belong to no layer: doors, binaries, and fixtures.
const OUTSIDE: [&str; 3] = ["lib", "bin", "testing"];

#[test]
fn imports_of_the_server_point_downward() {
    let up = ["`gateway` must not use `service`"];
    check(downward, "server/src/gateway/reader.rs", "use crate::service::Services;\n", &up);
    let up = ["`config` must not use `gateway`", "`config` must not use `auth`"];
    let text = "use crate::gateway::Settings;\nuse crate::{auth::Policy};\n";
    check(downward, "server/src/config.rs", text, &up);
    check(downward, "server/src/app/ops.rs", "use crate::gateway::Gateways;\n", &[]);
    check(downward, "server/src/gateway.rs", "use crate::store::Store;\n", &[]);
    check(downward, "server/src/bin/lakesync/main.rs", "use crate::exit::Exit;\n", &[]);
    let deep = "server/src/store/embedded/directory/identity.rs";
    check(downward, deep, "use super::super::OpenError;\n", &[]);
    let roundabout = ["paths to other modules begin with `crate::`"];
    check(downward, deep, "use super::super::super::super::gateway::Gateway;\n", &roundabout);
}

#[test]
fn imports_of_the_core_point_downward() {
    hold(downward);
    let up = ["`delta` must not use `row`"];
    check(downward, "src/delta/id.rs", "use crate::row::Row;\n", &up);
    check(downward, "src/delta.rs", "use crate::{name::RowId, row::{Row, Op}};\n", &up);
    check(downward, "src/delta.rs", "fn a() -> crate::row::Row {}\n", &up);
    check(downward, "src/row.rs", "use crate::delta::Delta;\nuse crate::row::Row;\n", &[]);
    check(downward, "src/row.rs", "//! See [`Row`](crate::wire::Row).\n", &[]);
    check(
        downward,
        "src/merge.rs",
        "use crate::status::kind;\n",
        &["`merge` must not use `status`"],
    );
    check(downward, "src/wire/row.rs", "use crate::proto::v1;\n", &[]);
    check(downward, "src/wire.rs", "use crate::status::kind;\n", &["`wire` must not use `status`"]);
    check(downward, "src/row.rs", "use crate::*;\n", &["`*` has no layer"]);
    check(downward, "src/new.rs", "//! A room.\n", &["`new` has no layer"]);
    let roundabout = ["paths to other modules begin with `crate::`"];
    check(downward, "src/delta.rs", "use super::row::Row;\n", &roundabout);
    check(downward, "src/delta/id.rs", "use super::super::row::Row;\n", &roundabout);
    check(downward, "src/delta/id.rs", "use super::Delta;\n", &[]);
    let tests = "#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::testing;\n}\n";
    check(downward, "src/delta.rs", tests, &[]);
    check(downward, "src/delta.rs", "use crate::testing;\n", &["`testing` is for tests"]);
    check(downward, "src/adapter/conformance.rs", "use crate::testing;\n", &[]);
    check(downward, "src/adapter/conformance/rows.rs", "use crate::testing;\n", &[]);
    check(downward, "server/src/app.rs", "use crate::gateway::Gateway;\n", &[]);
}

fn downward(file: &File) -> Vec<String> {
    let Some((layers, inner)) = bound(file) else { return Vec::new() };
    let layer = |module: &str| layers.iter().position(|known| *known == module);
    let own = head(inner);
    let Some(own_layer) = layer(own) else { return vec![format!("`{own}` has no layer")] };
    let mut faults = Vec::new();
    let (product, tests) = file.product_and_tests();
    let suite = file.path.contains("/conformance");
    for (code, may_use_testing) in [(product.as_str(), suite), (tests.as_str(), true)] {
        for used in crate_paths(code) {
            match layer(used) {
                _ if used == "testing" && may_use_testing => {}
                _ if used == "testing" => faults.push("`testing` is for tests".to_owned()),
                None => faults.push(format!("`{used}` has no layer")),
                Some(other) if own_layer < other => {
                    faults.push(format!("`{own}` must not use `{used}`"));
                }
                Some(_) => {}
            }
        }
    }
    let outward = "super::".repeat(1 + inner.matches('/').count());
    if product.contains(&outward) {
        faults.push("paths to other modules begin with `crate::`".to_owned());
    }
    faults
}

/// The layers that bind a file, and its path among them; nothing if none do.
fn bound(file: &File) -> Option<(&'static [&'static str], &str)> {
    let (prefix, layers) = HOUSES.iter().find(|(prefix, _)| file.path.starts_with(prefix))?;
    let inner = file.path.strip_prefix(prefix)?.strip_suffix(".rs")?;
    (!OUTSIDE.contains(&head(inner))).then_some((*layers, inner))
}

/// The first names of all paths in `code` that begin with `crate::`, groups opened.
fn crate_paths(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let rest = &code[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(heads_of_group(group)),
            None if rest.trim_start_matches(is_word).starts_with('!') => {} // An exported macro.
            None => names.push(head(rest)),
        }
    }
    names
}

/// The first names of the members of a `{…}` group, whose opening brace was taken.
fn heads_of_group(group: &str) -> Vec<&str> {
    let (mut heads, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, sign) in group.char_indices() {
        let ends = depth == 0 && matches!(sign, ',' | '}');
        if ends && !group[start..at].trim().is_empty() {
            heads.push(head(group[start..at].trim_start()));
        }
        match sign {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = at + 1,
            _ => {}
        }
    }
    heads
}

#[test]
fn crates_list_their_modules_in_reading_order() {
    for (prefix, layers) in HOUSES {
        let path = format!("{prefix}lib.rs");
        let door = files().into_iter().find(|file| file.path == path).expect("a crate's door");
        let listed = door.text.lines().filter_map(|line| line.strip_prefix("pub mod "));
        let listed: Vec<_> = listed.map(head).filter(|module| *module != "testing").collect();
        let planned = layers.iter().copied().filter(|module| listed.contains(module));
        assert_eq!(listed, planned.collect::<Vec<_>>(), "{path}");
    }
}

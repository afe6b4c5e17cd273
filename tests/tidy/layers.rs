//! Inside the root crate, imports point downward: what stands low knows nothing of what uses it.

use super::{File, check, files, head, hold, is_word};

/// The modules of the root crate in reading order: each may use those before it.
const LAYERS: [&str; 16] = [
    "error", "limits", "clock", "name", "value", "hlc", "stamp", "schema", "delta", "row", "merge",
    "rules", "adapter", "proto", "wire", "status",
];

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
    let Some(own) = core_module(file) else { return Vec::new() };
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
    let outward = if file.path.matches('/').count() == 1 { "super::" } else { "super::super::" };
    if product.contains(outward) {
        faults.push("paths to other modules begin with `crate::`".to_owned());
    }
    faults
}

/// The module of the root crate that this file belongs to, if the layers bind it.
fn core_module(file: &File) -> Option<&str> {
    let inner = file.path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let module = inner.split('/').next()?;
    (module != "lib" && module != "testing").then_some(module)
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

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|known| *known == module)
}

#[test]
fn the_core_lists_its_modules_in_reading_order() {
    let door = files().into_iter().find(|file| file.path == "src/lib.rs").expect("the core's door");
    let listed = door.text.lines().filter_map(|line| line.strip_prefix("pub mod "));
    let listed: Vec<_> = listed.map(head).filter(|module| *module != "testing").collect();
    let planned: Vec<_> = LAYERS.into_iter().filter(|module| listed.contains(module)).collect();
    assert_eq!(listed, planned);
}

//! What people read never shows Rust's own form of a value: `RowId("42")` or `InvalidToken` say
//! something to us only.

use super::{File, check, hold};

#[test]
fn no_error_shows_a_value_in_rusts_form() {
    hold(plain);
    let path = "src/a.rs";
    let of = |format: &str| format!("//! A room.\n#[error(\"{format}\")]\nstruct A;\n");
    check(plain, path, &of("no row {row_id}"), &[]);
    check(plain, path, &of("no row {}\", .0.escape_debug()"), &[]);
    for bad in ["no row {row_id:?}", "no row {:?}\", .0", "no row {0:#?}"] {
        check(plain, path, &of(bad), &["line 2: an error shows a value in Rust's form"]);
    }
    let long = of("no row {}: \\\n     {after:?}");
    check(plain, path, &long, &["line 2: an error shows a value in Rust's form"]);
    check(plain, path, "//! A room.\nfn f() { panic!(\"{a:?}\") }\n", &[]);
}

/// Texts in `#[error(…)]` that are made of `Debug`.
fn plain(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    if !file.is_rust() {
        return faults;
    }
    // In halves, so that this file is no finding.
    let opening = concat!("#[", "error(");
    for (at, _) in file.text.match_indices(opening) {
        let rest = &file.text[at..];
        let attribute = &rest[..rest.find(")]").unwrap_or(rest.len())];
        if attribute.contains(":?}") || attribute.contains(":#?}") {
            let line = 1 + file.text[..at].matches('\n').count();
            faults.push(format!("line {line}: an error shows a value in Rust's form"));
        }
    }
    faults
}

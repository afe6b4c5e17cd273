//! Which backends a file makes, and what it is told instead.

use super::*;

fn parsed(text: &str, flush_to: &[&str], url: Option<&str>) -> Result<Backends, String> {
    let flush_to: Vec<String> = flush_to.iter().map(|name| (*name).to_owned()).collect();
    parse(&toml::from_str(text).expect("TOML"), &flush_to, url)
}

const PG: &str = "kind = 'postgres'\nurl = 'postgres://me:secret@here/db'\n";

#[test]
fn backends_are_made_of_each_other() {
    let text = format!(
        "[hot]\n{PG}schema = 'app_{{gateway}}'\nhistory = false\ncall_timeout = '10m'\nflush_age = '0s'\n[cold]\n{PG}\
         [copy]\nkind = 'mysql'\nurl = 'mysql://here'\n[aged]\nkind = 'tier'\nhot = 'hot'\n\
         cold = 'cold'\nafter = '90d'\n[both]\nkind = 'fan_out'\nprimary = 'aged'\n\
         followers = ['copy']\nflush_rows = 5\nflush_size = '1MiB'\ncheck_every = '5s'\n"
    );
    let backends = parsed(&text, &[], None).expect("good");
    assert_eq!(backends.flush_to, ["both"], "what is no part of another");
    let both = &backends.all["both"];
    assert_eq!((both.rows, both.bytes, both.age), (5, 1 << 20, Duration::from_secs(1)));
    assert_eq!(both.check_every, Duration::from_secs(5));
    assert_eq!(backends.all["copy"].check_every, Duration::from_secs(60));
    let Kind::Postgres(hot) = &backends.all["hot"].kind else { panic!("{backends:?}") };
    assert_eq!((hot.schema.as_str(), hot.history), ("app_{gateway}", false));
    assert_eq!(hot.call_timeout, Duration::from_secs(600));
    let Kind::MySql(copy) = &backends.all["copy"].kind else { panic!("{backends:?}") };
    assert_eq!(copy.call_timeout, Duration::from_secs(60), "unless it is set");
    assert_eq!(hot.url.0, "postgres://me:secret@here/db");
    assert!(!format!("{backends:?}").contains("secret"));
}

#[test]
fn a_url_is_enough() {
    for (url, is_postgres) in [("postgres://here/db", true), ("mysql://here/db", false)] {
        let backends = parsed("", &[], Some(url)).expect("good");
        assert_eq!(backends.flush_to, [DEFAULT]);
        assert_eq!(matches!(backends.all[DEFAULT].kind, Kind::Postgres(_)), is_postgres);
    }
    assert_eq!(parsed("", &[], None), Ok(Backends::default()));
    assert!(parsed("", &[], Some("sqlite://here")).is_err());
}

#[test]
fn one_backend_takes_many_tables() {
    let text = format!(
        "[a]\n{PG}[b]\n{PG}[r]\nkind = 'route'\ndefault = 'a'\ntables = {{ x = 'b', y = 'b', z = 'a' }}\n"
    );
    assert_eq!(parsed(&text, &["r"], None).expect("good").flush_to, ["r"]);
}

#[test]
fn what_is_wrong_is_named() {
    let fan = |primary: &str, followers: &str| {
        format!("[f]\nkind = 'fan_out'\nprimary = '{primary}'\nfollowers = [{followers}]\n")
    };
    for (text, flush_to, says) in [
        ("[a]\nurl = 'x'\n".to_owned(), vec![], "backends.a: kind is needed"),
        ("[a]\nkind = 'oracle'\n".to_owned(), vec![], "kind = \"oracle\""),
        ("[a]\nkind = 'postgres'\n".to_owned(), vec![], "either url or url_file"),
        (format!("[a]\n{PG}url_file = 'x'\n"), vec![], "either url or url_file"),
        (
            format!("[a]\n{PG}shema = 'x'\n"),
            vec![],
            "no setting shema of the kind postgres; there are url",
        ),
        (format!("[a]\n{PG}call_timeout = '1s'\n"), vec![], "call_timeout: it must be 5s at least"),
        (format!("[a]\n{PG}schema = 'a\"b'\n"), vec![], "schema = "),
        (format!("[a]\n{PG}flush_age = '2d'\n"), vec![], "flush_age: it must be 1d at most"),
        (
            format!("[a]\n{PG}check_every = '0s'\n"),
            vec![],
            "check_every: it must be 100ms at least",
        ),
        (format!("[a]\n{PG}flush_rows = 0\n"), vec![], "flush_rows"),
        (format!("[a]\n{PG}history = 'maybe'\n"), vec![], "history: true or false"),
        (format!("['a b']\n{PG}"), vec![], "a name is"),
        ("a = 1\n".to_owned(), vec![], "a table is needed"),
        (format!("[a]\n{PG}"), vec!["b"], "flush_to: there is no backend b"),
        (format!("[a]\n{PG}"), vec!["a", "a"], "named twice"),
        (format!("[a]\n{PG}{}", fan("a", "'b'")), vec![], "backends.f: there is no backend b"),
        (format!("[a]\n{PG}{}", fan("a", "'a'")), vec![], "two of its parts"),
        (format!("[a]\n{PG}{}", fan("a", "")), vec![], "followers is needed"),
        (format!("[a]\n{PG}{}", fan("a", "'f'")), vec!["f"], "backends.f: f is used by flush_to"),
        (
            format!("[a]\n{PG}[b]\n{PG}{}", fan("a", "'b'")),
            vec!["f", "b"],
            "b is used by flush_to already",
        ),
        (
            format!(
                "[x]\n{PG}{}[g]\nkind = 'tier'\nhot = 'f'\ncold = 'b'\nafter = '1d'\n[a]\n{PG}[b]\n{PG}",
                fan("a", "'g'")
            ),
            vec!["x"],
            "in a circle",
        ),
    ] {
        let error = parsed(&text, &flush_to, None).expect_err(&text);
        assert!(error.contains(says), "{text}: {error}");
    }
}

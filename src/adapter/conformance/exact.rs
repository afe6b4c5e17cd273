//! Exact states: rows are set and not merged, and calls that were given up end before a fence does.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::{Backend, all, batch, opened, shown, upsert, watermark, write};
use crate::adapter::AdapterError;
use crate::delta::{Delta, Op};
use crate::name::{Position, RowId};
use crate::testing::{delta, fold};
use crate::value::Value;

/// Rows are exactly what was given, even where that is less than what was there; and what is
/// written later merges with them.
pub async fn overwritten_rows_are_what_was_given(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let id = |text: &str| -> RowId { text.parse().expect("a legal id") };
    let row = |texts: &[&str]| fold(&texts.iter().map(|text| delta(text)).collect::<Vec<_>>());
    let first = ["a", "b", "c", "d", "e"].map(|at| {
        let cells = [("title", "old"), ("done", "no")];
        let cells = cells.map(|(column, text)| (column, Value::String(text.to_owned())));
        upsert("todos", at, 5, &cells)
    });
    write(&*adapter, &batch(1, first.to_vec())).await;
    let before = all(&*adapter, "todos", 9).await;
    let history = adapter.history(None, 99).await.expect("history");
    let todos = "todos".parse().expect("a legal name");
    let given = [
        (id("a"), Some(row(&["ann@3 title=less"]))),
        (id("b"), Some(row(&["ann@3 title=x", "bob@9 delete"]))),
        (id("c"), None),
        (id("d"), Some(row(&["ann@5 title=old done=no", "ann@6 title=more"]))),
        (id("f"), Some(row(&["ann@3 title=new"]))),
        (id("g"), None),
    ];
    for _ in 0..2 {
        adapter.overwrite(&todos, &given).await.expect("overwrite");
        let found = all(&*adapter, "todos", 2).await;
        let mut wanted: Vec<_> =
            given.iter().filter_map(|(id, row)| Some((id.clone(), row.clone()?))).collect();
        wanted.push(before[4].clone());
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(found, wanted);
    }
    assert_eq!(watermark(&*adapter).await, Position(1));
    assert_eq!(adapter.history(None, 99).await.expect("history"), history);
    let again = |at: &str, hlc, text: &str| {
        upsert("todos", at, hlc, &[("title", Value::String(text.to_owned()))])
    };
    let later = vec![again("a", 4, "later"), again("b", 8, "hidden"), again("c", 1, "anew")];
    write(&*adapter, &batch(2, later)).await;
    let shown = shown(&*adapter).await;
    assert_eq!(shown[..3], ["title=later", "gone", "title=anew"], "they merge as ever");

    let stranger = "strangers".parse().expect("a legal name");
    let unknown = adapter.overwrite(&stranger, &given).await;
    assert_eq!(unknown, Err(AdapterError::UnknownTable(stranger)));
    let wide = [(id("a"), Some(row(&["ann@9 colour=red"])))];
    let unknown = adapter.overwrite(&todos, &wide).await;
    assert!(matches!(unknown, Err(AdapterError::UnknownColumn { .. })), "{unknown:?}");
}

/// Which rows people see, and which of them they don't see as they should be.
pub async fn what_people_see_is_told(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let todos = "todos".parse().expect("a legal name");
    let title = |id: &str, hlc, text: &str| {
        upsert("todos", id, hlc, &[("title", Value::String(text.to_owned()))])
    };
    let ids = ["a", "B", "é", "Z", "z", "_", "a "];
    let deleted = ["a", "Z"].map(|id| Delta { op: Op::Delete, ..upsert("todos", id, 2, &[]) });
    let written = ids.map(|id| title(id, 1, "milk")).into_iter().chain(deleted).collect();
    write(&*adapter, &batch(1, written)).await;
    let mut seen: Vec<RowId> = Vec::new();
    loop {
        let page = adapter.shown(&todos, seen.last(), 2).await.expect("shown");
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let seen: Vec<_> = seen.iter().map(RowId::as_str).collect();
    assert_eq!(seen, ["B", "_", "a ", "z", "é"], "in the order of bytes");

    let mut rows = all(&*adapter, "todos", 9).await;
    assert_eq!(adapter.misshown(&todos, &rows).await, Ok(Vec::new()));
    let other = |text: &str| fold(&[delta(text)]);
    for (id, row) in &mut rows {
        match id.as_str() {
            "B" => *row = other("ann@1 title=oats"),
            "a " => *row = other("ann@1 title=milk done=yes"),
            "z" => *row = other("ann@1 done=milk"),
            // Nobody sees stamps.
            "_" => *row = other("bob@9 title=milk"),
            _ => {}
        }
    }
    rows.push(("missing".parse().expect("a legal id"), other("ann@1 title=milk")));
    let mut wrong = adapter.misshown(&todos, &rows).await.expect("misshown");
    wrong.sort();
    let wrong: Vec<_> = wrong.iter().map(RowId::as_str).collect();
    assert_eq!(wrong, ["B", "a ", "missing", "z"]);
    let stranger = "strangers".parse().expect("a legal name");
    let unknown = adapter.shown(&stranger, None, 9).await;
    assert_eq!(unknown, Err(AdapterError::UnknownTable(stranger)));
}

/// A write that its caller gave up, at whatever moment, has landed by then or never will.
pub async fn after_a_fence_nothing_ahead_of_it_happens(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    adapter.fence().await.expect("a fence of nothing");
    let mut next = 1;
    for polls in 0..24 {
        let row = |at: u64| {
            let title = Value::String(format!("{polls}"));
            upsert("todos", &format!("r{at:03}"), polls + 1, &[("title", title)])
        };
        let written = batch(next, (0..200).map(row).collect());
        let answer = given_up(adapter.write(&written), polls).await;
        adapter.fence().await.expect("fence");
        let reached = watermark(&*adapter).await;
        let rows = all(&*adapter, "todos", 500).await;
        if let Some(answer) = answer {
            answer.expect("write");
            assert_eq!(reached, Position(next));
        }
        // A writer that comes now has its turn after every writer before it.
        adapter.join(&"todos".parse().expect("a legal name"), &[]).await.expect("join");
        assert_eq!(watermark(&*adapter).await, reached, "given up after {polls} polls");
        assert_eq!(all(&*adapter, "todos", 500).await, rows, "given up after {polls} polls");
        next = reached.0 + 1;
    }
}

/// What `call` answers, unless it is given up after so many polls.
async fn given_up<T>(call: impl Future<Output = T>, polls: u64) -> Option<T> {
    let (mut call, mut left) = (pin!(call), polls);
    poll_fn(|context| match left.checked_sub(1) {
        None => Poll::Ready(None),
        Some(rest) => {
            left = rest;
            call.as_mut().poll(context).map(Some)
        }
    })
    .await
}

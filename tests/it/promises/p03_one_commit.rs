//! P-3: one push is one commit with one position, which readers see whole or not at all.

use std::collections::BTreeMap;

use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{Page, PullRequest};
use tokio::task::JoinSet;

use crate::harness::changes::{at, upsert};
use crate::harness::{Client, Setup, within};

const PUSHERS: u64 = 8;
const PUSHES: u64 = 12;
const CHANGES: u64 = 7;

/// Many clients push at once; says which push was told which position.
async fn push_all(clients: Vec<Client>) -> BTreeMap<u64, String> {
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(async move {
            let mut told = Vec::new();
            for nth in 0..PUSHES {
                let tag = format!("{}-{nth}", client.id);
                let row = |change| format!("todos/{tag}-{change}");
                let change = |change| {
                    upsert(&client.id, at(nth * CHANGES + change), &row(change), &[("title", &tag)])
                };
                let answer = client.push((0..CHANGES).map(change)).await.expect("answered");
                told.push((answer.position, tag));
            }
            told
        });
    }
    let told: Vec<_> = within(tasks.join_all()).await.into_iter().flatten().collect();
    let positions: BTreeMap<_, _> = told.iter().cloned().collect();
    assert_eq!(positions.len(), told.len(), "two pushes were told one position");
    positions
}

/// How many changes of each push a page holds.
fn tags(page: &Page) -> BTreeMap<String, u64> {
    let mut tags = BTreeMap::new();
    for row in page.tables.iter().flat_map(|table| &table.rows) {
        let (tag, _) = row.row_id.rsplit_once('-').expect("tag-change");
        *tags.entry(tag.to_owned()).or_default() += 1;
    }
    tags
}

/// The log commit by commit, as a reader sees it that asks for one row at a time.
async fn commits(client: &Client) -> BTreeMap<u64, String> {
    let (mut commits, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let request = PullRequest { cursor: cursor.clone(), max_rows: 1, ..Default::default() };
        let pulled = client.pull_with(request).await.expect("pulled");
        let [page] = pulled.pages.as_slice() else { break commits };
        let tags: Vec<_> = tags(page).into_iter().collect();
        let [(tag, changes)] = tags.as_slice() else { panic!("pushes were mixed: {tags:?}") };
        assert_eq!(*changes, CHANGES, "{tag} at {} is not whole", page.position);
        assert!(commits.insert(page.position, tag.clone()).is_none(), "a position came twice");
        page.cursor.clone_into(&mut cursor);
    }
}

#[tokio::test]
async fn p03_concurrent_pushes_get_a_position_each_and_are_seen_whole() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let reader = server.client("reader").await;
    let mut followed = reader.follow("").await.expect("followed");
    let follower = tokio::spawn(async move {
        let (mut seen, mut last) = (BTreeMap::new(), 0);
        while (seen.len() as u64) < PUSHERS * PUSHES {
            let answer = within(followed.message()).await.expect("open").expect("an answer");
            let Some(Event::Page(page)) = answer.event else { continue };
            assert!(last < page.position, "{} after {last}", page.position);
            last = page.position;
            seen.extend(tags(&page));
            assert!(seen.values().all(|changes| *changes == CHANGES), "torn: {seen:?}");
        }
        last
    });
    let mut clients = Vec::new();
    for nth in 0..PUSHERS {
        clients.push(server.client(&format!("c{nth}")).await);
    }
    let told = push_all(clients).await;
    assert_eq!(follower.await.expect("no panic"), PUSHERS * PUSHES);
    assert!(told.keys().copied().eq(1..=PUSHERS * PUSHES), "a gap: {told:?}");
    assert_eq!(commits(&reader).await, told, "readers see other positions than pushers were told");

    server.stop().await.expect("drained");
    let server = setup.start().await;
    let reader = server.client("reader").await;
    assert_eq!(commits(&reader).await, told, "positions are others after a restart");
    let next = reader.push([upsert("reader", at(1), "todos/z", &[("title", "z")])]).await;
    assert_eq!(next.expect("answered").position, PUSHERS * PUSHES + 1);
}

#[tokio::test]
async fn p03_a_commit_that_takes_several_pages_is_seen_whole_with_the_last() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    // Two commits of about 3 MB each: pages are smaller, and no page holds something of both.
    let text = "x".repeat(100_000);
    for commit in ["p", "q"] {
        let row =
            |n: u64| upsert("ann", at(n), &format!("todos/{commit}-{n}"), &[("title", &text)]);
        ann.push((0..30).map(row)).await.expect("answered");
    }
    let pages = ann.pull("").await.expect("pulled").pages;
    assert!(4 < pages.len(), "{} pages", pages.len());
    let (mut held, mut open) = (Vec::new(), BTreeMap::new());
    for page in &pages {
        for (tag, changes) in tags(page) {
            *open.entry(tag).or_insert(0) += changes;
        }
        if !page.continues {
            held.push(std::mem::take(&mut open));
        }
    }
    let whole = |tag: &str| BTreeMap::from([(tag.to_owned(), 30)]);
    assert_eq!((held, open), (vec![whole("p"), whole("q")], BTreeMap::new()));
}

#[tokio::test]
async fn p03_changes_of_several_tables_are_one_commit() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let answer = ann
        .push([
            upsert("ann", at(1), "todos/a", &[("title", "x")]),
            upsert("ann", at(2), "notes/a", &[("body", "y")]),
            upsert("ann", at(3), "todos/b", &[("title", "z")]),
        ])
        .await;
    assert_eq!(answer.expect("answered").position, 1);
    let request = PullRequest { max_rows: 1, ..Default::default() };
    let pulled = ann.pull_with(request).await.expect("pulled");
    let [page] = pulled.pages.as_slice() else { panic!("{pulled:?}") };
    let tables: Vec<_> = page.tables.iter().map(|table| table.table.as_str()).collect();
    assert_eq!(tables, ["todos", "notes", "todos"]);
}

//! P-3 where a commit takes several pages: each but the last says that it goes on, and the cursor moves
//! with the last. Pages are as large as their reader asks.

use std::collections::BTreeMap;

use lakesync::proto::v1::{CheckpointRequest, Page, PullRequest};
use prost::Message;
use serde_json::json;

use crate::harness::changes::{at, upsert};
use crate::harness::client::{Checkpointed, Pulled};
use crate::harness::{Client, Setup, within};
use crate::rules::docs::{begun, doc, start, with_claims};

const ROWS: u64 = 60;
const TEXT_BYTES: usize = 20 << 10;
/// More than a row takes beside its text, and a page beside its rows.
const SLACK_BYTES: usize = 4 << 10;

async fn pull(client: &Client, cursor: &str, max_bytes: u32, max_rows: u32) -> Pulled {
    let cursor = cursor.to_owned();
    let request = PullRequest { cursor, max_bytes, max_rows, ..PullRequest::default() };
    client.pull_with(request).await.expect("pulled")
}

/// How often each row was sent.
fn rows(pages: &[Page]) -> BTreeMap<String, usize> {
    let mut rows = BTreeMap::new();
    let tables = pages.iter().flat_map(|page| &page.tables);
    tables.flat_map(|table| &table.rows).for_each(|row| {
        *rows.entry(row.row_id.clone()).or_default() += 1;
    });
    rows
}

/// Pages that hold one large commit, which follows the one where `before` stands.
async fn check(client: &Client, pages: &[Page], page_bytes: usize, before: &Pulled) {
    let (last, others) = pages.split_last().expect("pages");
    assert!(1 < others.len() && !last.continues, "{} pages", pages.len());
    for page in pages {
        assert!(page.encoded_len() <= page_bytes + SLACK_BYTES, "{} bytes", page.encoded_len());
        assert_eq!(page.position, last.position);
    }
    assert!(others.iter().all(|page| page.continues));
    let all = rows(pages);
    assert_eq!((all.len() as u64, all.values().max()), (ROWS, Some(&1)), "each row once");
    // Whoever has not seen the last page goes on before the commit.
    let again = client.pull(&others[0].cursor).await.expect("a good cursor");
    assert_eq!(rows(&again.pages), all);
    assert_eq!(again.caught_up.as_ref().map(|at| at.position), Some(last.position));
    let nothing = client.pull(&last.cursor).await.expect("a good cursor");
    assert!(nothing.pages.is_empty());
    assert!(before.pages.iter().all(|page| !page.continues));
}

async fn push_small_then_large(client: &Client) -> u64 {
    let text = "x".repeat(TEXT_BYTES);
    let row = |nth: u64| format!("todos/{nth}");
    client.push([upsert("ann", at(1), "todos/small", &[("title", "x")])]).await.expect("answered");
    let all = (0..ROWS).map(|nth| upsert("ann", at(10 + nth), &row(nth), &[("title", &text)]));
    client.push(all).await.expect("answered").position
}

#[tokio::test]
async fn p03_a_large_commit_comes_in_pages_and_the_cursor_moves_with_the_last() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let position = push_small_then_large(&ann).await;
    let first = pull(&ann, "", 0, 1).await;
    assert_eq!(rows(&first.pages).len(), 1);
    let cursor = first.cursor("").to_owned();
    for (asked, page_bytes) in [(0, 256 << 10), (64 << 10, 64 << 10), (u32::MAX, 1 << 20)] {
        let pulled = pull(&ann, &cursor, asked, 0).await;
        let pages = &pulled.pages;
        if asked == u32::MAX {
            assert_eq!(rows(pages).len() as u64, ROWS);
            assert!(pages.iter().any(|page| 900 << 10 < page.encoded_len()), "1 MiB is the most");
            continue;
        }
        check(&ann, pages, page_bytes, &first).await;
        assert!(pages.iter().all(|page| page.position == position));
    }
    // However few rows are asked for, a commit is never cut short.
    let pulled = pull(&ann, &cursor, 1, 1).await;
    check(&ann, &pulled.pages, TEXT_BYTES, &first).await;
}

#[tokio::test]
async fn p03_a_large_commit_comes_whole_where_there_is_no_memory_to_keep_its_rest() {
    // Pages are as small as they get, and nothing is read ahead or kept.
    let setup = Setup::new().tune(|config| config.readers_bytes_max = 0);
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    push_small_then_large(&ann).await;
    let first = pull(&ann, "", 0, 1).await;
    let pulled = pull(&ann, first.cursor(""), 0, 0).await;
    check(&ann, &pulled.pages, TEXT_BYTES, &first).await;
}

#[tokio::test]
async fn p03_a_large_commit_within_a_scope_comes_in_pages_as_well() {
    for readers_bytes_max in [0, 256 << 20] {
        let setup = Setup::new().tune(move |config| config.readers_bytes_max = readers_bytes_max);
        let (server, service) = start(&setup).await;
        let ann = with_claims(&server, "ann", json!({"teams": [1]})).await;
        let cursor = begun(&ann).await;
        let text = "x".repeat(TEXT_BYTES);
        service.push([doc("service", 1, "small", &[("owner", "ann")])]).await.expect("answered");
        // By one bucket or the other, and by both: each row once.
        let cells = |nth: u64| match nth % 3 {
            0 => vec![("owner", "ann"), ("body", text.as_str())],
            1 => vec![("owner", "bob"), ("team", "1"), ("body", text.as_str())],
            _ => vec![("owner", "ann"), ("team", "1"), ("body", text.as_str())],
        };
        let all = (0..ROWS).map(|nth| doc("service", 10 + nth, &nth.to_string(), &cells(nth)));
        service.push(all).await.expect("answered");
        let first = pull(&ann, &cursor, 0, 1).await;
        let pulled = pull(&ann, first.cursor(&cursor), 64 << 10, 0).await;
        check(&ann, &pulled.pages, 64 << 10, &first).await;
    }
}

#[tokio::test]
async fn p03_chunks_of_a_checkpoint_are_as_small_as_asked() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    push_small_then_large(&ann).await;
    for (max_bytes, chunk_bytes) in [(0, 256 << 10), (64 << 10, 64 << 10), (1, TEXT_BYTES)] {
        let gateway = ann.gateway.clone();
        let request = CheckpointRequest { gateway, max_bytes, ..CheckpointRequest::default() };
        let answer = within(ann.sync.clone().checkpoint(request)).await.expect("begun");
        let (mut stream, mut all) = (answer.into_inner(), Checkpointed::default());
        while let Some(answer) = within(stream.message()).await.expect("no failure") {
            all.take(answer);
        }
        let most = all.chunks.iter().map(Message::encoded_len).max().expect("chunks");
        assert!(most <= chunk_bytes + chunk_bytes / 2 + SLACK_BYTES, "{most} bytes");
        let rows: usize = all.tables().iter().map(|table| table.rows.len()).sum();
        assert_eq!((rows as u64, all.end.expect("an end").rows), (ROWS + 1, ROWS + 1));
    }
}

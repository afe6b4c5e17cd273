//! Readers of whole rows: how many rows come together.

use futures_util::StreamExt;

use super::*;

/// How many rows each group of pages has that go on in the next.
async fn groups(bench: &Bench) -> Vec<usize> {
    let options = PullOptions { whole_rows: true, ..PullOptions::default() };
    let mut answers = bench.pull(options).await.expect("good");
    let (mut groups, mut rows) = (Vec::new(), 0);
    while let Some(answer) = answers.next().await {
        let Some(Event::Page(page)) = answer.expect("no failure").event else { continue };
        rows += page.tables.iter().map(|table| table.rows.len()).sum::<usize>();
        if !page.continues {
            groups.push(std::mem::take(&mut rows));
        }
    }
    assert_eq!(rows, 0, "nothing is left open");
    groups
}

#[tokio::test]
async fn small_commits_come_in_groups_of_few_rows_and_a_large_one_whole() {
    let bench = Bench::new(Settings::default()).await;
    let push = async |commit: usize, rows: usize| {
        let row = |nth| change(&format!("{commit}-{nth}"), "ann@1 title=x");
        let rows: Vec<_> = (0..rows).map(row).collect();
        bench.push("ann", &rows).await.expect("durable");
    };
    for commit in 0..20 {
        push(commit, 10).await;
    }
    push(20, 100).await;
    for commit in 21..91 {
        push(commit, 1).await;
    }
    let groups = groups(&bench).await;
    assert_eq!(groups.iter().sum::<usize>(), 370);
    assert!(groups.iter().all(|rows| *rows <= 64 || *rows == 100), "{groups:?}");
    assert!(groups.contains(&100), "{groups:?}");
    assert!(groups.len() < 12, "{groups:?}");
}

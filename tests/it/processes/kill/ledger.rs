//! What everybody was told, over all lives of the server, and whether it still holds.

use std::collections::BTreeMap;

use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::value::Kind;
use lakesync::proto::v1::{PullRequest, TableChanges};

use super::pusher::{Acknowledged, Pusher};
use crate::harness::{Client, Replica, within};

/// What was told.
#[derive(Default)]
pub(super) struct Ledger {
    /// What pushers were told: which push is at which position.
    acknowledged: BTreeMap<u64, String>,
    /// Pushes that were told to have been committed before.
    repeated: Vec<String>,
    /// What followers saw: by which position each push was there.
    shown: BTreeMap<String, u64>,
    /// The greatest position that anybody was told.
    greatest: u64,
    /// The log as it was read, commit by commit, and from where to read on.
    log: BTreeMap<u64, String>,
    pub(super) cursor: String,
}

impl Ledger {
    pub(super) fn acknowledge(&mut self, Acknowledged { position, tag }: Acknowledged) {
        if position == 0 {
            self.repeated.push(tag);
            return;
        }
        self.greatest = self.greatest.max(position);
        let before = self.acknowledged.insert(position, tag.clone());
        assert_eq!(before, None, "{tag} was told the position {position} of another push");
    }

    pub(super) fn show(&mut self, seen: Vec<(String, u64)>) {
        for (tag, position) in seen {
            self.greatest = self.greatest.max(position);
            let by = self.shown.entry(tag).or_insert(position);
            *by = position.min(*by);
        }
    }

    /// Reads on from where the reader stood, whatever happened to the server since, and compares.
    pub(super) async fn check(&mut self, reader: &Client) {
        let read_before = self.log.keys().next_back().copied().unwrap_or_default();
        loop {
            let cursor = self.cursor.clone();
            let request = PullRequest { cursor, max_rows: 1, ..PullRequest::default() };
            let pulled = reader.pull_with(request).await.expect("the cursor is still good");
            // A commit comes in several pages if it is large.
            let Some(page) = pulled.pages.last() else { break };
            assert!(pulled.pages.iter().all(|one| one.position == page.position), "one commit");
            let tags = tags(&pulled.tables());
            let [tag] = tags.as_slice() else { panic!("at {}: {tags:?}", page.position) };
            assert!(read_before < page.position, "{tag} is behind the reader's back");
            let before = self.log.insert(page.position, tag.clone());
            assert_eq!(before, None, "{} holds {tag} as well", page.position);
            self.cursor.clone_from(&page.cursor);
        }
        let head = self.log.keys().next_back().copied().unwrap_or_default();
        assert!(self.greatest <= head, "{} was told, and the log ends at {head}", self.greatest);
        self.greatest = head;
        for (position, tag) in &self.acknowledged {
            assert_eq!(self.log.get(position), Some(tag), "acknowledged at {position}");
        }
        let places: BTreeMap<_, _> = self.log.iter().map(|(at, tag)| (tag, at)).collect();
        assert_eq!(places.len(), self.log.len(), "a push was committed twice");
        for tag in &self.repeated {
            assert!(places.contains_key(tag), "{tag} was told to be there");
        }
        for (tag, by) in &self.shown {
            let at = places.get(tag).unwrap_or_else(|| panic!("{tag} was shown, and is gone"));
            assert!(*at <= by, "{tag} was shown by {by}, and is at {at}");
        }
    }

    /// All pushes were answered by now, so the rows are what they make, and nothing else.
    pub(super) async fn check_rows(&self, reader: &Client, pushers: &[Pusher]) {
        let all: Vec<_> = pushers.iter().flat_map(Pusher::standing).collect();
        let wanted = Replica::of(&all).live();
        assert_eq!(Replica::by_checkpoint(reader).await.expect("read").live(), wanted);
        assert_eq!(Replica::by_pull(reader).await.expect("pulled").live(), wanted);
        let answered: u64 = pushers.iter().map(|pusher| pusher.answered).sum();
        assert_eq!(self.log.len() as u64, answered, "pushes that nobody made");
    }
}

/// Follows from `cursor` until the server is gone; says by which position which push was seen.
pub(super) async fn follow(client: Client, cursor: String) -> Vec<(String, u64)> {
    let (mut seen, mut commit) = (Vec::new(), Vec::new());
    let Ok(mut stream) = client.follow(&cursor).await else { return seen };
    while let Ok(Some(answer)) = within(stream.message()).await {
        if let Some(Event::Page(page)) = answer.event {
            commit.extend(page.tables);
            if !page.continues {
                let whole = tags(&std::mem::take(&mut commit));
                seen.extend(whole.into_iter().map(|tag| (tag, page.position)));
            }
        }
    }
    seen
}

/// The pushes that make up these tables. Each is there whole.
fn tags(tables: &[TableChanges]) -> Vec<String> {
    let mut counts = BTreeMap::<String, usize>::new();
    for tag in tables.iter().flat_map(texts) {
        *counts.entry(tag).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 4), "torn: {counts:?}");
    counts.into_keys().collect()
}

/// The tag in each cell of a table's changes. More may follow it.
fn texts(table: &TableChanges) -> impl Iterator<Item = String> {
    let cells = table.rows.iter().flat_map(|row| &row.cells);
    cells.map(|cell| match cell.value.as_ref().and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.split(' ').next().unwrap_or_default().to_owned(),
        other => panic!("no text: {other:?}"),
    })
}

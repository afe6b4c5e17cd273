//! Puts the pages of a commit together. A gateway may send a large commit in several pages; a
//! replica applies it in one transaction, so that readers of its file see all of it or nothing.

use std::collections::BTreeMap;

use lakesync::error::{ErrorKind, Reason};
use lakesync::status::Problem;

use super::decode::{Received, not_understood};
use super::{Page, PullEvent};

/// The pages of one commit may take this much together. A commit is at most one push of 4 MiB
/// and the key cells that it lacked; every page repeats the names of the columns. Only one that lets in
/// rows, under sync rules, may be larger: as large as those rows.
const COMMIT_BYTES_MAX: u64 = 16 << 20;

/// The first pages of a commit that goes on.
#[derive(Debug, Default)]
pub(super) struct Assembly(Option<Page>);

impl Assembly {
    /// Takes the next message. Answers the event that it makes, together with the pages before it.
    pub(super) fn take(&mut self, received: Received) -> Result<Option<PullEvent>, Problem> {
        match received {
            Received::Part(page) => {
                let page = self.join(page)?;
                self.0 = Some(page);
                Ok(None)
            }
            Received::Event(PullEvent::Page(page)) => Ok(Some(PullEvent::Page(self.join(page)?))),
            // Its cursor names the commit before the one that is under way, as theirs do.
            Received::Event(PullEvent::Heartbeat { .. }) if self.0.is_some() => Ok(None),
            Received::Event(PullEvent::CaughtUp { .. }) if self.0.is_some() => {
                Err(not_understood("a commit whose last page is missing"))
            }
            Received::Event(event) => Ok(Some(event)),
        }
    }

    /// The pages so far, and `page`.
    fn join(&mut self, page: Page) -> Result<Page, Problem> {
        let Some(mut whole) = self.0.take() else { return Ok(page) };
        let Page { arrivals, shapes, cursor, position, bytes } = page;
        whole.bytes += bytes;
        if COMMIT_BYTES_MAX < whole.bytes {
            return Err(too_large());
        }
        whole.arrivals.extend(arrivals);
        // Small pages of a wide table repeat one shape.
        whole.shapes.extend(shapes);
        whole.shapes.dedup();
        (whole.cursor, whole.position) = (cursor, position);
        Ok(whole)
    }
}

/// Nothing of the commit is handed on: a checkpoint brings its rows.
fn too_large() -> Problem {
    Problem {
        kind: ErrorKind::Expired,
        reason: Some(Reason::TooLarge),
        message: format!(
            "the next commit is of more than {COMMIT_BYTES_MAX} bytes: a checkpoint has to bring it"
        ),
        retry_after: None,
        facts: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use lakesync::hlc::Hlc;
    use lakesync::name::{Position, RowId};
    use lakesync::row::Row;
    use lakesync::wire::{Arrival, Incoming};

    use super::*;

    fn page(row: &str, cursor: &str, position: u64, bytes: u64) -> Page {
        let arrival = Arrival {
            table: "todos".parse().expect("legal"),
            row_id: RowId::parse(row).expect("legal"),
            what: Incoming::Join(Row::default()),
        };
        let (cursor, position) = (cursor.to_owned(), Position(position));
        Page { arrivals: vec![arrival], shapes: Vec::new(), cursor, position, bytes }
    }

    fn caught_up() -> Received {
        let (cursor, position) = ("c2".to_owned(), Position(2));
        Received::Event(PullEvent::CaughtUp { cursor, position, server_hlc: Hlc::default() })
    }

    #[test]
    fn the_pages_of_a_commit_are_one_event_with_the_last_ones_cursor() {
        let mut assembly = Assembly::default();
        let beat = PullEvent::Heartbeat { cursor: "c1".to_owned(), server_hlc: Hlc::default() };
        for received in [
            Received::Part(page("1", "c1", 2, 10)),
            Received::Event(beat.clone()),
            Received::Part(page("2", "c1", 2, 10)),
        ] {
            assert_eq!(assembly.take(received), Ok(None));
        }
        let last = Received::Event(PullEvent::Page(page("3", "c2", 2, 10)));
        let whole = assembly.take(last).expect("understood");
        let Some(PullEvent::Page(whole)) = whole else { panic!("no page: {whole:?}") };
        let rows: Vec<_> = whole.arrivals.iter().map(|arrival| arrival.row_id.as_str()).collect();
        assert_eq!((rows, whole.cursor.as_str(), whole.bytes), (vec!["1", "2", "3"], "c2", 30));
        // What follows stands by itself again.
        let next = PullEvent::Page(page("4", "c3", 3, 10));
        assert_eq!(assembly.take(Received::Event(next.clone())), Ok(Some(next)));
        assert_eq!(assembly.take(Received::Event(beat.clone())), Ok(Some(beat)));
    }

    #[test]
    fn a_commit_without_its_end_is_refused_and_one_without_a_bound_left_to_a_checkpoint() {
        let mut assembly = Assembly::default();
        assembly.take(Received::Part(page("1", "c1", 2, 10))).expect("a part");
        assert!(assembly.take(caught_up()).is_err());
        let mut assembly = Assembly::default();
        let half = COMMIT_BYTES_MAX / 2;
        for part in [page("1", "c1", 2, half), page("2", "c1", 2, half)] {
            assert_eq!(assembly.take(Received::Part(part)), Ok(None));
        }
        let beyond = assembly.take(Received::Part(page("3", "c1", 2, 1))).expect_err("too large");
        assert_eq!((beyond.kind, beyond.reason), (ErrorKind::Expired, Some(Reason::TooLarge)));
    }
}

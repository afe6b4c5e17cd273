//! The fake's pulls and checkpoints.

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, iter, pending};
use lakesync::error::Reason;
use lakesync::name::{RowId, TableName};
use lakesync::proto::v1::{
    CaughtUp, CheckpointChunk, CheckpointEnd, CheckpointRequest, CheckpointResponse, Heartbeat,
    Page, PullRequest, PullResponse, TableChanges, checkpoint_response, pull_response,
};
use lakesync::row::Row;
use lakesync::wire::encode_rows;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Fake, Fault, World, refuse, refuse_of_another_log};

type Events<T> = BoxStream<'static, Result<T, Status>>;

impl Fake {
    pub(super) fn pull_events(
        &self,
        request: PullRequest,
        fault: Option<Fault>,
    ) -> Result<Events<PullResponse>, Status> {
        let at = self.world().read_cursor(&request.cursor)?;
        let started = self.world().head();
        let (events, receiver) = mpsc::channel(4);
        let reader = Reader { fake: self.clone(), request, at, started, events };
        tokio::spawn(reader.run());
        Ok(faulty(ReceiverStream::new(receiver).boxed(), fault))
    }

    pub(super) fn checkpoint_events(
        &self,
        request: CheckpointRequest,
        fault: Option<Fault>,
    ) -> Result<Events<CheckpointResponse>, Status> {
        let world = self.world();
        let cursor = world.cursor(world.head());
        let (cursor, done) = match request.resume.split_once('+') {
            None if request.resume.is_empty() => (cursor, 0),
            Some((cursor, done)) => {
                world.read_cursor(cursor)?;
                (cursor.to_owned(), done.parse().map_err(|_| malformed())?)
            }
            None => return Err(malformed()),
        };
        let live: Vec<_> = world.rows.iter().filter(|(_, row)| row.is_live()).collect();
        let mut events = Vec::new();
        let mut sent = done;
        for rows in live.get(done..).unwrap_or_default().chunks(world.rows_per_chunk) {
            sent += rows.len();
            let chunk = CheckpointChunk {
                rows: Some(encode_chunk(rows)),
                resume: format!("{cursor}+{sent}"),
                rows_done: sent as u64,
                rows_total: live.len() as u64,
            };
            events.push(checkpoint_response::Event::Chunk(chunk));
        }
        let end = CheckpointEnd { cursor, rows: live.len() as u64, complete: true };
        events.push(checkpoint_response::Event::End(end));
        let events = events.into_iter().map(|event| CheckpointResponse { event: Some(event) });
        let events: Vec<_> = events.map(Ok).collect();
        Ok(faulty(iter(events).boxed(), fault))
    }
}

/// All rows of these tests are of one table.
fn encode_chunk(rows: &[(&(TableName, RowId), &Row)]) -> TableChanges {
    let table = &rows[0].0.0;
    encode_rows(table, 0, rows.iter().map(|((_, row_id), row)| (row_id, *row)))
}

fn faulty<T: Send + 'static>(events: Events<T>, fault: Option<Fault>) -> Events<T> {
    match fault {
        Some(Fault::BreakAfter(count)) => {
            let lost = Status::unavailable("the connection was lost");
            events.take(count).chain(iter([Err(lost)])).boxed()
        }
        Some(Fault::ExpireAfter(count)) => {
            let expired = refuse(Reason::TokenExpired, "the token has run out");
            events.take(count).chain(iter([Err(expired)])).boxed()
        }
        Some(Fault::SilentAfter(count)) => events.take(count).chain(pending()).boxed(),
        _ => events,
    }
}

fn malformed() -> Status {
    refuse(Reason::InvalidRequest, "malformed")
}

impl World {
    fn cursor(&self, position: u64) -> String {
        format!("{}:{position}", self.life)
    }

    fn read_cursor(&self, text: &str) -> Result<u64, Status> {
        self.schema()?;
        let (life, position) = text.split_once(':').ok_or_else(malformed)?;
        if life != self.life.to_string() {
            return Err(match self.replaced {
                true => refuse_of_another_log(),
                false => refuse(Reason::CursorExpired, "the log was trimmed"),
            });
        }
        position.parse().map_err(|_| malformed())
    }
}

struct Reader {
    fake: Fake,
    request: PullRequest,
    at: u64,
    started: u64,
    events: mpsc::Sender<Result<PullResponse, Status>>,
}

impl Reader {
    /// Ends when the client has gone.
    async fn run(mut self) -> Option<()> {
        let mut head = self.fake.0.head.subscribe();
        loop {
            let durable = *head.borrow_and_update();
            while self.at < durable {
                for page in self.pages(durable) {
                    self.send(pull_response::Event::Page(page)).await?;
                }
            }
            let (cursor, server_hlc) = self.here();
            let position = self.at;
            let caught_up = CaughtUp { cursor, position, server_hlc };
            self.send(pull_response::Event::CaughtUp(caught_up)).await?;
            if !self.request.follow {
                return Some(());
            }
            let heartbeat = self.fake.world().heartbeat;
            while tokio::time::timeout(heartbeat, head.changed()).await.is_err() {
                let (cursor, server_hlc) = self.here();
                let beat = Heartbeat { cursor, server_hlc, token_expires: None };
                self.send(pull_response::Event::Heartbeat(beat)).await?;
            }
        }
    }

    fn here(&self) -> (String, u64) {
        let mut world = self.fake.world();
        (world.cursor(self.at), world.now().0)
    }

    /// The next commits: one page, or several of which all but the last one continue.
    fn pages(&mut self, durable: u64) -> Vec<Page> {
        let world = self.fake.world();
        let upto = durable.min(self.at + world.commits_per_page as u64);
        let mut tables = Vec::new();
        for position in self.at + 1..=upto {
            let commit = &world.commits[position as usize - 1];
            let own = self.started < position && commit.client.as_str() == self.request.client_id;
            if !own && !self.request.skip_positions.contains(&position) {
                tables.extend(commit.tables.clone());
            }
        }
        let (before, cursor) = (world.cursor(self.at), world.cursor(upto));
        self.at = upto;
        if tables.is_empty() {
            return Vec::new();
        }
        let page = |tables| Page { tables, cursor, position: upto, continues: false };
        let Some(most) = world.rows_per_page else { return vec![page(tables)] };
        let mut pages = Vec::new();
        for table in &tables {
            for rows in table.rows.chunks(most) {
                let tables = vec![TableChanges { rows: rows.to_vec(), ..table.clone() }];
                let cursor = before.clone();
                pages.push(Page { tables, cursor, position: upto, continues: true });
            }
        }
        let last = pages.pop().map(|last| page(last.tables));
        pages.extend(last);
        pages
    }

    async fn send(&self, event: pull_response::Event) -> Option<()> {
        self.events.send(Ok(PullResponse { event: Some(event) })).await.ok()
    }
}

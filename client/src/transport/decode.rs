//! What a gateway answers, checked: a message that this version can't understand is refused whole.

use std::collections::BTreeMap;
use std::time::Duration;

use lakesync::error::{ErrorKind, Reason};
use lakesync::hlc::Hlc;
use lakesync::limits::{CLOCK_DRIFT_MAX, HEARTBEAT, MESSAGE_BYTES_MAX, OFFLINE_MAX, PUSH_ROWS_MAX};
use lakesync::name::{ColumnName, Position, TableName};
use lakesync::proto::v1::{self as proto, checkpoint_response, outcome, pull_response};
use lakesync::status::Problem;
use lakesync::wire::{Arrival, decode_changes};
use prost::Message;

use super::{CheckpointEvent, Chunk, Page, PullEvent, Pushed, ServerInfo, Shape};

/// One message of a pull.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    /// An event that stands by itself.
    Event(PullEvent),
    /// A page whose last commit goes on in the next one.
    Part(Page),
}

pub(super) fn server_info(info: proto::GetServerInfoResponse) -> ServerInfo {
    let limits = info.limits.unwrap_or_default();
    ServerInfo {
        version: info.server_version,
        protocol: (info.min_protocol, info.max_protocol),
        push_rows_max: bound(limits.max_push_rows, PUSH_ROWS_MAX),
        message_bytes_max: bound(limits.max_message_bytes, MESSAGE_BYTES_MAX),
        heartbeat: period(limits.heartbeat, HEARTBEAT),
        offline_max: period(limits.max_offline, OFFLINE_MAX),
        clock_drift_max: period(limits.max_clock_drift, CLOCK_DRIFT_MAX),
        server_hlc: Hlc(info.server_hlc),
    }
}

/// A limit that the server does not state is the protocol's.
fn bound(stated: u32, otherwise: usize) -> usize {
    if stated == 0 { otherwise } else { stated as usize }
}

/// See [`bound`].
fn period<D>(stated: Option<D>, otherwise: Duration) -> Duration
where
    Duration: TryFrom<D>,
{
    let stated = stated.and_then(|stated| Duration::try_from(stated).ok());
    stated.filter(|stated| !stated.is_zero()).unwrap_or(otherwise)
}

/// `groups` says how many changes each `TableChanges` of the request held.
pub(super) fn pushed(
    response: proto::PushResponse,
    groups: &[usize],
    bytes: u64,
) -> Result<Pushed, Problem> {
    for outcome in &response.outcomes {
        check_outcome(outcome, groups)?;
    }
    Ok(Pushed {
        position: (response.position != 0).then_some(Position(response.position)),
        outcomes: response.outcomes,
        server_hlc: Hlc(response.server_hlc),
        bytes,
    })
}

fn check_outcome(outcome: &proto::Outcome, groups: &[usize]) -> Result<(), Problem> {
    let (table, row) = (outcome.table as usize, outcome.row as usize);
    if groups.get(table).is_none_or(|rows| *rows <= row) {
        return Err(not_understood(format!("an outcome for tables[{table}].rows[{row}]")));
    }
    match outcome::Kind::try_from(outcome.kind) {
        Ok(outcome::Kind::Unspecified) | Err(_) => {
            Err(not_understood(format!("an outcome of kind {}", outcome.kind)))
        }
        Ok(_) => Ok(()),
    }
}

pub(super) fn pull_event(response: proto::PullResponse) -> Result<Received, Problem> {
    let bytes = response.encoded_len() as u64;
    let event = match response.event {
        Some(pull_response::Event::Page(page)) => {
            let (arrivals, shapes) = changes(page.tables)?;
            let (cursor, position) = (page.cursor, Position(page.position));
            let decoded = Page { arrivals, shapes, cursor, position, bytes };
            if page.continues {
                return Ok(Received::Part(decoded));
            }
            PullEvent::Page(decoded)
        }
        Some(pull_response::Event::CaughtUp(at)) => PullEvent::CaughtUp {
            cursor: at.cursor,
            position: Position(at.position),
            server_hlc: Hlc(at.server_hlc),
        },
        Some(pull_response::Event::Heartbeat(beat)) => {
            PullEvent::Heartbeat { cursor: beat.cursor, server_hlc: Hlc(beat.server_hlc) }
        }
        None => return Err(not_understood("an event of a pull")),
    };
    Ok(Received::Event(event))
}

pub(super) fn checkpoint_event(
    response: proto::CheckpointResponse,
) -> Result<CheckpointEvent, Problem> {
    let bytes = response.encoded_len() as u64;
    match response.event {
        Some(checkpoint_response::Event::Chunk(chunk)) => {
            let (arrivals, shapes) = changes(chunk.rows.into_iter().collect())?;
            let (resume, done, total) = (chunk.resume, chunk.rows_done, chunk.rows_total);
            Ok(CheckpointEvent::Chunk(Chunk { arrivals, shapes, resume, done, total, bytes }))
        }
        Some(checkpoint_response::Event::End(end)) => {
            Ok(CheckpointEvent::End { cursor: end.cursor, rows: end.rows, complete: end.complete })
        }
        None => Err(not_understood("an event of a checkpoint")),
    }
}

fn changes(tables: Vec<proto::TableChanges>) -> Result<(Vec<Arrival>, Vec<Shape>), Problem> {
    let shapes = tables.iter().map(shape).collect::<Result<_, _>>()?;
    Ok((decode_changes(tables).map_err(not_understood)?, shapes))
}

fn shape(changes: &proto::TableChanges) -> Result<Shape, Problem> {
    let columns = changes.columns.iter().map(|text| ColumnName::parse(text));
    Ok(Shape {
        table: TableName::parse(&changes.table).map_err(not_understood)?,
        version: changes.schema_version,
        columns: columns.collect::<Result<_, _>>().map_err(not_understood)?,
    })
}

/// Storing a part of what can't be understood would lose the rest for good.
pub(super) fn not_understood(what: impl ToString) -> Problem {
    Problem {
        kind: ErrorKind::Precondition,
        reason: Some(Reason::ProtocolUnsupported),
        message: format!(
            "the server sent what this version does not understand, and must be upgraded for: {}",
            what.to_string()
        ),
        retry_after: None,
        facts: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(table: u32, row: u32, kind: outcome::Kind) -> proto::Outcome {
        proto::Outcome { table, row, kind: kind.into(), ..Default::default() }
    }

    #[test]
    fn an_outcome_names_a_change_of_the_push_and_a_known_kind() {
        let groups = [2, 1, 3];
        let rejected = outcome::Kind::Rejected;
        for (table, row, kind, understood) in [
            (0, 1, rejected, true),
            (2, 2, rejected, true),
            (0, 2, rejected, false),
            (1, 1, rejected, false),
            (3, 0, rejected, false),
            (0, 0, outcome::Kind::Unspecified, false),
        ] {
            let checked = check_outcome(&outcome(table, row, kind), &groups);
            assert_eq!(checked.is_ok(), understood, "{kind:?} of tables[{table}].rows[{row}]");
        }
    }

    #[test]
    fn what_a_newer_server_says_is_refused_whole() {
        assert!(pull_event(proto::PullResponse { event: None }).is_err());
        assert!(checkpoint_event(proto::CheckpointResponse { event: None }).is_err());
        let value = proto::Value { kind: None };
        let cell = proto::Cell { column: 0, value: Some(value), stamp: None };
        let row = proto::RowChange {
            row_id: "1".into(),
            kind: proto::ChangeKind::Upsert.into(),
            stamp: Some(proto::Stamp { hlc: 1, client: 0 }),
            cells: vec![cell],
            ..Default::default()
        };
        let table = proto::TableChanges {
            table: "t".into(),
            columns: vec!["c".into()],
            clients: vec!["ann".into()],
            rows: vec![row],
            ..Default::default()
        };
        let page = proto::Page { tables: vec![table], ..Default::default() };
        let event = Some(pull_response::Event::Page(page));
        let problem = pull_event(proto::PullResponse { event }).expect_err("a value of no kind");
        assert_eq!(problem.reason, Some(Reason::ProtocolUnsupported));
    }

    #[test]
    fn limits_that_are_not_stated_are_the_protocols() {
        let info = server_info(proto::GetServerInfoResponse::default());
        assert_eq!((info.push_rows_max, info.heartbeat), (PUSH_ROWS_MAX, HEARTBEAT));
        assert_eq!(info.offline_max, OFFLINE_MAX);
    }
}

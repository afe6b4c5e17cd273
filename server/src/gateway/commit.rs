//! A commit as the log keeps it: what one push changed, ready to be sent.
//!
//! Stored form, version 1: the version byte, the commit's clock reading (big-endian), then a
//! `lakesync.v1.Page` whose tables hold the cells that took effect.

use bytes::Bytes;
use lakesync::delta::Delta;
use lakesync::hlc::Hlc;
use lakesync::name::{ClientId, Position};
use lakesync::proto::v1::{Page, TableChanges};
use lakesync::wire;
use prost::Message;

use crate::store::StoreError;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + size_of::<u64>();

/// A durable commit on its way to readers.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    /// Its place in the log.
    pub(super) position: Position,
    /// Its stored form.
    pub(super) bytes: Bytes,
}

/// The stored form of what `client` changed at `hlc`.
pub(super) fn encode(client: &ClientId, hlc: Hlc, effective: &[Delta]) -> Bytes {
    let mut bytes = Vec::new();
    bytes.push(VERSION);
    bytes.extend(hlc.0.to_be_bytes());
    wire::put_commit(client, effective, &mut bytes);
    bytes.into()
}

/// The changes of a stored commit.
pub(super) fn decode(bytes: &Bytes) -> Result<Vec<TableChanges>, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("a commit: {what}"));
    if bytes.len() < HEADER_BYTES || bytes[0] != VERSION {
        return Err(corrupt("unknown version"));
    }
    let page = Page::decode(bytes.slice(HEADER_BYTES..));
    Ok(page.map_err(|error| corrupt(&error.to_string()))?.tables)
}

/// Whether `client` pushed this commit. A commit is one client's, so any table tells.
pub(super) fn is_by(tables: &[TableChanges], client: &ClientId) -> bool {
    let first = tables.first().and_then(|table| table.clients.first());
    first.is_some_and(|text| text == client.as_str())
}

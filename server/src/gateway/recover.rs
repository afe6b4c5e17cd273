//! What a gateway knows of itself when it opens: its schema, its counters and its clock.

use bytes::Bytes;
use lakesync::hlc::Hlc;
use lakesync::name::Position;
use lakesync::proto::v1::GetSchemaResponse;
use lakesync::schema::Schema;
use lakesync::wire;
use prost::Message;

use super::commit::{self, Chain};
use super::keys;
use crate::store::{GatewayId, Store, StoreError};

/// Figures that are stored with every commit, so that they are exact after any crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Rows that exist.
    pub(super) rows: u64,
    /// Bytes of commits ever appended.
    pub(super) appended_bytes: u64,
    /// Bytes of commits trimmed since.
    pub(super) trimmed_bytes: u64,
    /// The newest reading of the clock.
    pub(super) hlc: u64,
    /// Deletes before this were forgotten. It never goes back, whatever the wall clock does.
    pub(super) swept: u64,
    /// Through which position the log is to be trimmed, done or not yet.
    pub(super) trim_through: u64,
    /// Changes of commits ever appended.
    pub(super) changes: u64,
    /// The chain at the newest commit.
    pub(super) chain: Chain,
    /// The newest stamp ever admitted. It is ahead of the wall clock if that was set back.
    pub(super) newest: u64,
}

impl Counters {
    /// The size of the log.
    pub(super) fn log_bytes(&self) -> u64 {
        self.appended_bytes.saturating_sub(self.trimmed_bytes)
    }

    /// Notes a reading of the clock, and the furthest stamp of a push that was admitted then.
    pub(super) fn note(&mut self, hlc: Hlc, furthest: Hlc) {
        self.hlc = hlc.0;
        self.newest = self.newest.max(furthest.0);
    }

    /// The counters in their stored form: nine big-endian integers.
    pub(super) fn encode(&self) -> Bytes {
        let Self { rows, appended_bytes, trimmed_bytes, hlc, swept, .. } = *self;
        let Self { trim_through, changes, chain: Chain(chain), newest, .. } = *self;
        let fields =
            [rows, appended_bytes, trimmed_bytes, hlc, swept, trim_through, changes, chain, newest];
        fields.map(u64::to_be_bytes).concat().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let (fields, rest) = bytes.as_chunks::<{ size_of::<u64>() }>();
        let ([rows, appended, trimmed, hlc, swept, trim_through, changes, chain, newest], []) =
            (fields, rest)
        else {
            return Err(StoreError::Corrupt(format!("counters of {} bytes", bytes.len())));
        };
        Ok(Self {
            rows: u64::from_be_bytes(*rows),
            appended_bytes: u64::from_be_bytes(*appended),
            trimmed_bytes: u64::from_be_bytes(*trimmed),
            hlc: u64::from_be_bytes(*hlc),
            swept: u64::from_be_bytes(*swept),
            trim_through: u64::from_be_bytes(*trim_through),
            changes: u64::from_be_bytes(*changes),
            chain: Chain(u64::from_be_bytes(*chain)),
            newest: u64::from_be_bytes(*newest),
        })
    }
}

/// Reads the counters, which a fresh gateway does not have yet.
pub(super) async fn counters(store: &dyn Store, id: GatewayId) -> Result<Counters, StoreError> {
    match store.meta(id, keys::COUNTERS).await? {
        Some(bytes) => Counters::decode(&bytes),
        None => Ok(Counters::default()),
    }
}

/// Refuses a log whose newest commit is not the one that the counters tell of: one of the two is of
/// another age.
pub(super) async fn check_log(
    store: &dyn Store,
    id: GatewayId,
    counters: &Counters,
) -> Result<Position, StoreError> {
    let (head, trimmed) = (store.head(id).await?, store.trimmed(id).await?);
    let chain = if trimmed < head {
        let newest = store.log(id, Position(head.0 - 1), 0).await?.into_iter().next();
        newest.filter(|entry| entry.position == head).map(|entry| Chain::at(&entry.commit))
    } else {
        Some(counters.chain)
    };
    match chain == Some(counters.chain) {
        true => Ok(head),
        false => Err(StoreError::Corrupt(format!(
            "commit {head} of gateway {} is not the one that its figures tell of",
            id.0
        ))),
    }
}

/// The chain at a position that the store still has the next commit of; nothing if it was trimmed.
pub(super) async fn chain(
    store: &dyn Store,
    id: GatewayId,
    at: Position,
) -> Result<Option<Chain>, StoreError> {
    let next = store.log(id, at, 0).await?.into_iter().next();
    let next = next.filter(|entry| entry.position == at.next());
    next.map(|entry| commit::before(&entry.commit)).transpose()
}

/// Reads the schema, which a fresh gateway does not have yet.
pub(super) async fn schema(store: &dyn Store, id: GatewayId) -> Result<Schema, StoreError> {
    let Some(bytes) = store.meta(id, keys::SCHEMA).await? else { return Ok(Schema::default()) };
    let corrupt =
        |error: &dyn ToString| StoreError::Corrupt(format!("schema: {}", error.to_string()));
    let stored = GetSchemaResponse::decode(bytes).map_err(|error| corrupt(&error))?;
    let tables = wire::decode_schema(&stored.tables).map_err(|error| corrupt(&error))?;
    Ok(Schema::from_stored(tables))
}

/// The schema in its stored form.
pub(super) fn encode_schema(schema: &Schema) -> Bytes {
    let tables = schema.tables().map(|table| wire::encode_schema(table)).collect();
    GetSchemaResponse { tables }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_round_trip() {
        let counters = Counters {
            rows: 1,
            appended_bytes: 2,
            trimmed_bytes: 3,
            hlc: u64::MAX,
            swept: 5,
            trim_through: 6,
            changes: 7,
            chain: Chain(8),
            newest: 9,
        };
        assert_eq!(Counters::decode(&counters.encode()).expect("whole"), counters);
        assert!(Counters::decode(&counters.encode()[1..]).is_err());
        assert!(Counters::decode(&[0; 64]).is_err());
        assert!(Counters::decode(&[0; 80]).is_err());
    }
}

//! The seal of cursors and resume tokens: base64url of a version byte, the log's id, the other
//! fields, an HMAC-SHA-256 of all that under the log's secret, cut to 16 bytes, and a CRC-32 of
//! everything.
//!
//! The CRC tells mangling from what another log gave out, whose secret we don't have.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use lakesync::limits::CURSOR_BYTES_MAX;
use lakesync::name::LogId;
use sha2::Sha256;

use super::CursorError;
use crate::store::{GatewayRecord, LogSecret};

const CRC_BYTES: usize = 4;
const TAG_BYTES: usize = 16;

/// What seals for one life of one log.
#[derive(Clone, Debug)]
pub(in super::super) struct Seal {
    log_id: LogId,
    secret: LogSecret,
}

impl Seal {
    pub(in super::super) fn of(record: &GatewayRecord) -> Self {
        Self { log_id: record.log_id, secret: record.secret.clone() }
    }

    /// Seals bytes that begin with a version and the log's id.
    pub(super) fn close(&self, mut bytes: Vec<u8>) -> String {
        let digest = self.digest(&bytes).finalize().into_bytes();
        bytes.extend(&digest[..TAG_BYTES]);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The version, which is one of `versions`, and what follows it. What another log gave out opens
    /// as well: it is good for nothing but to say so.
    pub(super) fn open(
        &self,
        field: &'static str,
        text: &str,
        versions: [u8; 2],
    ) -> Result<(u8, Vec<u8>), CursorError> {
        let malformed = CursorError::Malformed(field);
        let bytes = unmangled(text).ok_or(malformed.clone())?;
        let Some((bytes, tag)) = bytes.split_last_chunk::<TAG_BYTES>() else {
            return Err(malformed);
        };
        let (version, rest) = bytes.split_first().ok_or(malformed.clone())?;
        let ours = rest.starts_with(&self.log_id.0);
        if !versions.contains(version)
            || ours && self.digest(bytes).verify_truncated_left(tag).is_err()
        {
            return Err(malformed);
        }
        Ok((*version, rest.to_vec()))
    }

    fn digest(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let hmac = Hmac::<Sha256>::new_from_slice(&self.secret.0);
        hmac.expect("BUG: a key of any length will do").chain_update(bytes)
    }
}

/// The bytes of a text as it was given out, or one that somebody took the trouble to make up.
fn unmangled(text: &str) -> Option<Vec<u8>> {
    if CURSOR_BYTES_MAX < text.len() {
        return None;
    }
    let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (sealed, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
    let whole = crc32fast::hash(sealed) == u32::from_be_bytes(*crc);
    bytes.truncate(bytes.len() - CRC_BYTES);
    whole.then_some(bytes)
}

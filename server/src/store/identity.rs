//! Who a log is. One life of a store has an incarnation; a log's id and its secret follow from it and
//! from the gateway's number, so that a restored copy gives every log others at the cost of one write.

use lakesync::name::{Gateway, LogId};
use sha2::{Digest, Sha256};

use super::{GatewayId, GatewayRecord, LogSecret};

/// Sixteen random bytes, drawn when a store is created and again when it was restored from a copy.
pub(super) type Incarnation = [u8; 16];

/// What is to be known of a gateway in this life of its store.
pub(super) fn record(
    incarnation: &Incarnation,
    id: GatewayId,
    name: Gateway,
    created_ms: u64,
) -> GatewayRecord {
    let (log_id, secret) = (log_id(incarnation, id), log_secret(incarnation, id));
    GatewayRecord { name, id, log_id, secret, created_ms }
}

/// The id of a gateway's log in this life of its store.
fn log_id(incarnation: &Incarnation, gateway: GatewayId) -> LogId {
    let mut hash = Sha256::new();
    hash.update(incarnation);
    hash.update(gateway.0.to_be_bytes());
    let digest = hash.finalize();
    LogId(std::array::from_fn(|at| digest[at]))
}

/// The secret of a gateway's log in this life of its store. The id tells nothing of it: both are
/// digests, of different texts, of an incarnation that nobody is shown.
fn log_secret(incarnation: &Incarnation, gateway: GatewayId) -> LogSecret {
    let mut hash = Sha256::new();
    hash.update(b"secret of the log");
    hash.update(incarnation);
    hash.update(gateway.0.to_be_bytes());
    LogSecret(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_life_or_another_gateway_is_another_log() {
        let first = log_id(&[7; 16], GatewayId(1));
        assert_eq!(first, log_id(&[7; 16], GatewayId(1)));
        assert_ne!(first, log_id(&[7; 16], GatewayId(2)));
        assert_ne!(first, log_id(&[8; 16], GatewayId(1)));
        let secret = log_secret(&[7; 16], GatewayId(1));
        assert_eq!(secret, log_secret(&[7; 16], GatewayId(1)));
        assert_ne!(secret, log_secret(&[7; 16], GatewayId(2)));
        assert_ne!(secret, log_secret(&[8; 16], GatewayId(1)));
        assert_ne!(secret.0[..16], first.0);
        assert_eq!(format!("{secret:?}"), "LogSecret(..)");
    }
}

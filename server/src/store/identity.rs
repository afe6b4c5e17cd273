//! Who a log is. One life of a store has an incarnation; a log's id follows from it and from the
//! gateway's number, so that a restored copy gives every log another id at the cost of one write.

use lakesync::name::LogId;
use sha2::{Digest, Sha256};

use super::GatewayId;

/// Sixteen random bytes, drawn when a store is created and again when it was restored from a copy.
pub(super) type Incarnation = [u8; 16];

/// The id of a gateway's log in this life of its store.
pub(super) fn log_id(incarnation: &Incarnation, gateway: GatewayId) -> LogId {
    let mut hash = Sha256::new();
    hash.update(incarnation);
    hash.update(gateway.0.to_be_bytes());
    let digest = hash.finalize();
    LogId(std::array::from_fn(|at| digest[at]))
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
    }
}

//! The identity of a change: SHA-256 over its canonical bytes.
//!
//! The bytes are `lakesync.delta.v1\0`, then client id, clock, table and row id, the operation and
//! the cells sorted by their column's bytes. Text stands behind a 32-bit length, integers are
//! big-endian.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{Cell, Delta, Op};
use crate::value::prefixed;

/// SHA-256 over the canonical bytes of a [`Delta`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeltaId(pub [u8; 32]);

impl fmt::Debug for DeltaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeltaId({self})")
    }
}

impl fmt::Display for DeltaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

const DOMAIN: &[u8] = b"lakesync.delta.v1\0";
const UPSERT: u8 = 1;
const DELETE: u8 = 2;

impl Delta {
    /// This change's identity.
    pub fn id(&self) -> DeltaId {
        let mut bytes = DOMAIN.to_vec();
        prefixed(self.stamp.client.as_str().as_bytes(), &mut bytes);
        bytes.extend(self.stamp.hlc.0.to_be_bytes());
        prefixed(self.table.as_str().as_bytes(), &mut bytes);
        prefixed(self.row_id.as_str().as_bytes(), &mut bytes);
        let (op, cells) = match &self.op {
            Op::Upsert(cells) => (UPSERT, cells.as_slice()),
            Op::Delete => (DELETE, [].as_slice()),
        };
        bytes.push(op);
        bytes.extend(u32::try_from(cells.len()).expect("BUG: columns are bounded").to_be_bytes());
        let mut sorted: Vec<&Cell> = cells.iter().collect();
        sorted.sort_unstable_by(|a, b| a.column.cmp(&b.column));
        for cell in sorted {
            prefixed(cell.column.as_str().as_bytes(), &mut bytes);
            cell.value.encode(&mut bytes);
        }
        DeltaId(Sha256::digest(&bytes).into())
    }
}

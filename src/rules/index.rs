//! A row → the bucket instances it is in. The index of a gateway holds what this says.

use sha2::{Digest, Sha256};

use super::{Condition, Part, Source, SyncRules};
use crate::name::{RowId, TableName};
use crate::row::Row;
use crate::schema::ColumnType;

/// A bucket and one combination of the values that its filters compare with claims.
///
/// Of the values only a digest is kept, so that an instance has a fixed size and no text of a row
/// stands in a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    bucket: u16,
    values: [u8; Self::DIGEST_BYTES],
}

impl Instance {
    /// Bytes of its stored form.
    pub const BYTES: usize = size_of::<u16>() + Self::DIGEST_BYTES;
    /// The digest of no values.
    const NO_VALUES: [u8; Self::DIGEST_BYTES] = [
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24,
    ];
    /// Half of SHA-256. Who finds two values of one digest, by some 2^64 trials, can show his own
    /// rows to those who may see the other value.
    const DIGEST_BYTES: usize = 16;

    /// The instance of `bucket` for these values, in the order of its conditions. The type stands
    /// beside each value: `5` of a text is another value than `5` of an integer.
    pub(super) fn of<'a>(bucket: u16, values: impl Iterator<Item = (ColumnType, &'a str)>) -> Self {
        let mut digest = None;
        values.for_each(|(kind, text)| Self::add(&mut digest, kind, text));
        Self::finish(bucket, digest)
    }

    fn add(digest: &mut Option<Sha256>, kind: ColumnType, text: &str) {
        let digest = digest.get_or_insert_with(Sha256::new);
        digest.update([tag(kind)]);
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }

    fn finish(bucket: u16, digest: Option<Sha256>) -> Self {
        let Some(digest) = digest else { return Self { bucket, values: Self::NO_VALUES } };
        let digest = digest.finalize();
        let (values, _) = digest.split_first_chunk().expect("BUG: a digest has 32 bytes");
        Self { bucket, values: *values }
    }

    /// The number of its bucket in the rules.
    pub(super) fn bucket(&self) -> u16 {
        self.bucket
    }

    /// Its stored form, which sorts by bucket.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (bucket, values) = bytes.split_at_mut(size_of::<u16>());
        bucket.copy_from_slice(&self.bucket.to_be_bytes());
        values.copy_from_slice(&self.values);
        bytes
    }

    /// The instance of this stored form.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (bucket, values) = bytes.split_first_chunk().expect("BUG: longer than a number");
        let values = values.try_into().expect("BUG: a number and a digest");
        Self { bucket: u16::from_be_bytes(*bucket), values }
    }
}

/// A number for each type, which never changes: digests are stored.
fn tag(kind: ColumnType) -> u8 {
    match kind {
        ColumnType::Bool => 1,
        ColumnType::Int64 => 2,
        ColumnType::Double => 3,
        ColumnType::String => 4,
        ColumnType::Bytes => 5,
        ColumnType::Json => 6,
        ColumnType::Decimal { .. } => 7,
        ColumnType::Timestamp => 8,
        ColumnType::Date => 9,
        ColumnType::Uuid => 10,
        ColumnType::Any => 11,
    }
}

impl SyncRules {
    /// The instances of buckets that hold whole tables.
    pub fn whole_instances(&self) -> impl Iterator<Item = Instance> {
        let whole = (0_u16..).zip(&self.buckets).filter(|(_, bucket)| bucket.whole);
        whole.map(|(number, _)| Instance::of(number, std::iter::empty()))
    }

    /// The instances that a row is in, one per bucket at most, in the order of the buckets. A row
    /// that does not exist is in none.
    pub fn instances(&self, table: &TableName, row_id: &RowId, row: &Row) -> Vec<Instance> {
        if !row.is_live() {
            return Vec::new();
        }
        let parts = self.parts.get(table).into_iter().flatten();
        parts.filter_map(|part| part.instance(row_id, row)).collect()
    }
}

impl Part {
    /// The instance that holds the row, if it passes.
    fn instance(&self, row_id: &RowId, row: &Row) -> Option<Instance> {
        let mut digest = None;
        for condition in &self.conditions {
            let text = condition.value(row_id, row)?;
            if condition.is_dimension() {
                Instance::add(&mut digest, condition.kind, &text);
            } else if !condition.lists(&text) {
                return None;
            }
        }
        Some(Instance::finish(self.bucket, digest))
    }
}

impl Condition {
    /// Whether it compares with claims, and so has an instance per value.
    pub(super) fn is_dimension(&self) -> bool {
        !self.claims.is_empty()
    }

    /// The row's comparable text, if it has any.
    pub(super) fn value<'a>(
        &self,
        row_id: &'a RowId,
        row: &'a Row,
    ) -> Option<std::borrow::Cow<'a, str>> {
        match &self.source {
            Source::RowId(_) => Some(row_id.as_str().into()),
            Source::Column(column) => row.cell(column)?.value.text(),
        }
    }

    /// Whether a literal says `text`.
    pub(super) fn lists(&self, text: &str) -> bool {
        self.literals.binary_search_by(|literal| literal.as_str().cmp(text)).is_ok()
    }
}

//! Integer keys that two offline devices must not both hand out.
//!
//! SQLite gives a table's next key as one more than the largest it has seen, so a key that arrived
//! from elsewhere moves every device to the same place. Where the table is AUTOINCREMENT, each
//! replica therefore takes its own part of each block of keys: key = block × 2^36 + slot × 2^12 + n,
//! with a random slot of 24 bits. After foreign keys have arrived, the sequence is moved back into
//! the replica's own slot, of this block or the next.

use super::error::DbError;
use super::key::Key;
use super::layout;
use super::session::Work;
use super::sql::{Statement, integer, quoted};
use super::table::Table;

const BLOCK_BITS: u32 = 36;
const SLOT_BITS: u32 = 12;
/// Slots in a block.
const SLOTS: i64 = 1 << (BLOCK_BITS - SLOT_BITS);

/// A random slot; never the first, which small keys of other origin fill.
pub(super) fn random_slot() -> i64 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("BUG: the system has no randomness");
    1 + i64::from(u32::from_le_bytes(bytes)) % (SLOTS - 1)
}

/// Moves the table's sequence into this replica's slot, unless it is there.
pub(super) async fn keep(work: &mut Work<'_>, table: &Table) -> Result<(), DbError> {
    let Key::Integer(column) = &table.key else { return Ok(()) };
    if !table.shape.autoincrement {
        return Ok(());
    }
    let connection = work.connection();
    let slot = layout::get(connection, "slot").await?.and_then(|slot| slot.parse().ok());
    let Some(slot) = slot else { return Ok(()) };
    let sql = format!(
        "SELECT max(coalesce((SELECT max({}) FROM {}), 0), \
         coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = ?), 0))",
        quoted(column),
        table.sql()
    );
    let name = table.shape.name.as_str();
    let row = Statement::new(sql).bind(name).row(connection).await?;
    let top = row.map_or(Ok(0), |row| integer(&row, 0))?;
    let Some(target) = target(top, slot) else { return Ok(()) };
    let update = Statement::new("UPDATE sqlite_sequence SET seq = ? WHERE name = ?");
    if update.bind(target).bind(name).run(connection).await? == 0 {
        let insert = Statement::new("INSERT INTO sqlite_sequence (seq, name) VALUES (?, ?)");
        insert.bind(target).bind(name).run(connection).await?;
    }
    Ok(())
}

/// Where the sequence of a table whose largest key is `top` must be put; `None` if it may stay.
fn target(top: i64, slot: i64) -> Option<i64> {
    let block = top.max(0) >> BLOCK_BITS;
    let start = |block: i64| (block << BLOCK_BITS) + (slot << SLOT_BITS);
    let own = start(block);
    if top < own {
        return Some(own);
    }
    // The last key of the slot is left over, so that the next one is still inside.
    if top < own + (1 << SLOT_BITS) - 1 {
        return None;
    }
    let last = i64::MAX >> BLOCK_BITS;
    (block < last).then(|| start(block + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_stays_in_its_slot_and_above_every_key() {
        const BLOCK: i64 = 1 << BLOCK_BITS;
        let own = 5 << SLOT_BITS;
        for (top, expected) in [
            (0, Some(own)),
            (57, Some(own)),
            (own, None),
            (own + 4094, None),
            (own + 4095, Some(BLOCK + own)),
            (own + 5000, Some(BLOCK + own)),
            (BLOCK - 1, Some(BLOCK + own)),
            (BLOCK + 9, Some(BLOCK + own)),
            (-5, Some(own)),
            (i64::MAX, None),
        ] {
            assert_eq!(target(top, 5), expected, "largest key {top}");
            assert!(expected.is_none_or(|target| target >= top));
        }
    }

    #[test]
    fn slots_are_inside_a_block() {
        assert!((0..100).all(|_| (1..SLOTS).contains(&random_slot())));
    }
}

//! Every bound that both ends agree on. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

/// The protocol this version speaks, oldest and newest.
pub const PROTOCOL_MIN: u32 = 1;
/// See [`PROTOCOL_MIN`].
pub const PROTOCOL_MAX: u32 = 1;

/// The largest message either side accepts: gRPC's own default, so that any client can read it.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The largest request of a method that needs few words: most methods, and all that need no token.
pub const SMALL_REQUEST_BYTES_MAX: usize = 4 << 10;
/// What a gateway adds to one push at most: key cells that new rows lack and that their ids tell. Each
/// change of a full push may take one cell of the longest name and id.
pub const KEY_CELLS_BYTES_MAX: usize = PUSH_ROWS_MAX * (24 + NAME_BYTES_MAX + ROW_ID_BYTES_MAX);
/// Changes in one push. One push is one commit, so this also bounds a commit.
pub const PUSH_ROWS_MAX: usize = 10_000;
/// What one message may take in memory once it is read. A push full of nulls takes less; only changes
/// that say nothing, of which a message may hold millions, take more.
pub const MESSAGE_MEMORY_BYTES_MAX: usize = 64 << 20;
/// One row or change in its stored form.
pub const ROW_BYTES_MAX: usize = 2 << 20;
/// Where a page or a checkpoint chunk is closed, unless the reader asks for less or more. A single
/// row may exceed it.
pub const PAGE_BYTES: usize = 256 << 10;
/// The least and the most that a reader may ask for in place of [`PAGE_BYTES`].
pub const PAGE_BYTES_MIN: usize = 4 << 10;
/// See [`PAGE_BYTES_MIN`].
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// How much is read from a store or a backend at a time where rows are copied.
pub const COPY_BYTES_TARGET: usize = 1 << 20;

/// Bytes of a table, column or gateway name.
pub const NAME_BYTES_MAX: usize = 63;
/// Bytes of a row id.
pub const ROW_ID_BYTES_MAX: usize = 256;
/// Bytes of a client id.
pub const CLIENT_ID_BYTES_MAX: usize = 128;
/// Tables of one gateway.
pub const TABLES_MAX: usize = 1_000;
/// Columns of one table. SQLite and Postgres stop near 2,000 and 1,600.
pub const COLUMNS_MAX: usize = 1_000;
/// Bytes of all tables of one gateway as a message carries them: one message carries them all.
pub const SCHEMA_BYTES_MAX: usize = 7 << 19;
/// Digits of a decimal, as in Postgres, MySQL, Iceberg and Arrow's 128-bit decimals.
pub const DECIMAL_PRECISION_MAX: u32 = 38;
/// Tables a pull or checkpoint may be narrowed to, and positions it may ask to leave out.
pub const PULL_TABLES_MAX: usize = TABLES_MAX;
/// See [`PULL_TABLES_MAX`].
pub const SKIP_POSITIONS_MAX: usize = 10_000;
/// Buckets of one gateway's sync rules.
pub const BUCKETS_MAX: usize = 100;
/// Bytes of a bucket's name.
pub const BUCKET_NAME_BYTES_MAX: usize = 128;
/// Filters of one bucket.
pub const FILTERS_MAX: usize = 16;
/// Values that one filter compares with.
pub const FILTER_VALUES_MAX: usize = 1_000;
/// Claims that a bucket may ask for before it opens.
pub const WHEN_MAX: usize = 16;
/// Bucket instances that one token may open: each is a place to look when it reads.
pub const INSTANCES_MAX: usize = 1_000;

/// Bytes of a cursor or resume token.
pub const CURSOR_BYTES_MAX: usize = 2 << 10;

/// How far ahead of the server's clock a stamp may be, unless configured otherwise.
pub const CLOCK_DRIFT_MAX: Duration = Duration::from_secs(5);
/// The longest silence on a followed pull.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a replica may stay away and still push everything it wrote, unless configured otherwise.
pub const OFFLINE_MAX: Duration = Duration::from_secs(90 * 24 * 60 * 60);
